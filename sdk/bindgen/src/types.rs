//! Converts WIT types to Rust types.

use std::collections::{HashMap, HashSet};

use heck::ToLowerCamelCase;
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use wit_parser::{Docs, InterfaceId, Resolve, Type, TypeDefKind, TypeId, TypeOwner};

use crate::names::{camel, screaming, snake};

/// The path to serde and to everything else that generated code uses.
pub(crate) fn stub() -> TokenStream {
    quote!(::wharf_client::stub)
}

/// Writes types as they appear in the module of one interface.
pub(crate) struct Writer<'r> {
    pub(crate) resolve: &'r Resolve,
    /// The interface that the module belongs to.
    pub(crate) interface: InterfaceId,
    /// The modules of all interfaces.
    pub(crate) modules: &'r HashMap<InterfaceId, Ident>,
    /// Types that methods return as their error.
    pub(crate) errors: &'r HashSet<TypeId>,
}

/// Which traits a type can implement.
#[derive(Clone, Copy)]
struct Traits {
    /// It has no floating-point numbers, so it can have `Eq`, `Ord` and `Hash`.
    total: bool,
    /// It has nothing on the heap, so it can have `Copy`.
    copy: bool,
}

impl Writer<'_> {
    /// The definition of a named type; `None` for one that cannot be transported.
    pub(crate) fn definition(&self, id: TypeId) -> Option<TokenStream> {
        let def = &self.resolve.types[id];
        let name = camel(def.name.as_deref()?);
        if !is_transportable(self.resolve, &Type::Id(id)) {
            return None;
        }
        let docs = doc(&def.docs);
        let definition = match &def.kind {
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter().map(|field| {
                    let (docs, ident, ty) =
                        (doc(&field.docs), snake(&field.name), self.ty(&field.ty));
                    let json = field.name.to_lower_camel_case();
                    quote!(#docs #[serde(rename = #json)] pub #ident: #ty)
                });
                quote!(pub struct #name { #(#fields),* })
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter().map(|case| {
                    let (docs, ident, json) = (doc(&case.docs), camel(&case.name), &case.name);
                    let payload = case.ty.as_ref().map(|ty| self.ty(ty)).map(|ty| quote!((#ty)));
                    quote!(#docs #[serde(rename = #json)] #ident #payload)
                });
                quote!(pub enum #name { #(#cases),* })
            }
            TypeDefKind::Enum(cases) => {
                let cases = cases.cases.iter().map(|case| {
                    let (docs, ident, json) = (doc(&case.docs), camel(&case.name), &case.name);
                    quote!(#docs #[serde(rename = #json)] #ident)
                });
                quote!(pub enum #name { #(#cases),* })
            }
            TypeDefKind::Flags(flags) => return Some(self.flags(&name, &docs, flags)),
            // A name for another type.
            _ => {
                let ty = self.kind(id);
                return Some(quote!(#docs pub type #name = #ty;));
            }
        };
        let derives = self.derives(id);
        let error = self.errors.contains(&id).then(|| error(&name));
        let serde = quote!(::wharf_client::stub::serde).to_string().replace(' ', "");
        Some(quote! {
            #docs
            #derives
            #[serde(crate = #serde)]
            #definition
            #error
        })
    }

    fn derives(&self, id: TypeId) -> TokenStream {
        let traits = traits(self.resolve, &Type::Id(id));
        let total = traits.total.then(|| {
            quote!(::core::cmp::Eq, ::core::cmp::PartialOrd, ::core::cmp::Ord, ::core::hash::Hash,)
        });
        let copy = traits.copy.then(|| quote!(::core::marker::Copy,));
        let stub = stub();
        quote! {
            #[derive(
                ::core::fmt::Debug, ::core::clone::Clone, ::core::cmp::PartialEq, #total #copy
                #stub::serde::Serialize, #stub::serde::Deserialize
            )]
        }
    }

    fn flags(&self, name: &Ident, docs: &TokenStream, flags: &wit_parser::Flags) -> TokenStream {
        let count = flags.flags.len();
        let (word, bits) = match count {
            0..=8 => (quote!(u8), 8),
            9..=16 => (quote!(u16), 16),
            _ => (quote!(u32), 32),
        };
        let words = count.div_ceil(bits);
        let constants = flags.flags.iter().enumerate().map(|(n, flag)| {
            let (docs, ident) = (doc(&flag.docs), screaming(&flag.name));
            let (word, bit) = (n / bits, n % bits);
            quote! {
                #docs
                pub const #ident: Self = {
                    let mut words = [0; #words];
                    words[#word] = 1 << #bit;
                    Self { words }
                };
            }
        });
        let names = flags.flags.iter().map(|flag| screaming(&flag.name));
        let stub = stub();
        let expected = format!("flags of {name}, and no others");
        quote! {
            #docs
            #[derive(
                ::core::fmt::Debug, ::core::clone::Clone, ::core::marker::Copy,
                ::core::default::Default, ::core::cmp::PartialEq, ::core::cmp::Eq,
                ::core::cmp::PartialOrd, ::core::cmp::Ord, ::core::hash::Hash
            )]
            pub struct #name { words: [#word; #words] }

            impl #name {
                #(#constants)*

                /// No flag.
                #[must_use]
                pub const fn empty() -> Self { Self { words: [0; #words] } }

                /// Every flag.
                #[must_use]
                pub const fn all() -> Self {
                    Self::empty() #(.union(Self::#names))*
                }

                /// The flags that either of them has.
                #[must_use]
                pub const fn union(mut self, other: Self) -> Self {
                    let mut n = 0;
                    while n < #words {
                        self.words[n] |= other.words[n];
                        n += 1;
                    }
                    self
                }

                /// Whether all flags of `other` are also set here.
                #[must_use]
                pub const fn contains(self, other: Self) -> bool {
                    let mut n = 0;
                    while n < #words {
                        if self.words[n] & other.words[n] != other.words[n] {
                            return false;
                        }
                        n += 1;
                    }
                    true
                }
            }

            impl ::core::ops::BitOr for #name {
                type Output = Self;
                fn bitor(self, other: Self) -> Self { self.union(other) }
            }

            impl ::core::ops::BitOrAssign for #name {
                fn bitor_assign(&mut self, other: Self) { *self = self.union(other); }
            }

            impl #stub::serde::Serialize for #name {
                fn serialize<S: #stub::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    #stub::serde::Serialize::serialize(&self.words, serializer)
                }
            }

            impl<'de> #stub::serde::Deserialize<'de> for #name {
                fn deserialize<D: #stub::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    let words = #stub::serde::Deserialize::deserialize(deserializer)?;
                    let flags = Self { words };
                    if Self::all().contains(flags) {
                        ::core::result::Result::Ok(flags)
                    } else {
                        ::core::result::Result::Err(#stub::serde::de::Error::custom(#expected))
                    }
                }
            }
        }
    }

    /// A type, as it is written where it is used.
    pub(crate) fn ty(&self, ty: &Type) -> TokenStream {
        match ty {
            Type::Bool => quote!(bool),
            Type::U8 => quote!(u8),
            Type::U16 => quote!(u16),
            Type::U32 => quote!(u32),
            Type::U64 => quote!(u64),
            Type::S8 => quote!(i8),
            Type::S16 => quote!(i16),
            Type::S32 => quote!(i32),
            Type::S64 => quote!(i64),
            Type::F32 => quote!(f32),
            Type::F64 => quote!(f64),
            Type::Char => quote!(char),
            Type::String => quote!(::std::string::String),
            // Never used, because it is not transportable.
            Type::ErrorContext => quote!(()),
            Type::Id(id) => {
                let def = &self.resolve.types[*id];
                let Some(name) = &def.name else { return self.kind(*id) };
                let name = camel(name);
                match def.owner {
                    TypeOwner::Interface(owner) if owner != self.interface => {
                        let module = self.modules.get(&owner);
                        quote!(super::#module::#name)
                    }
                    _ => quote!(#name),
                }
            }
        }
    }

    /// A type by its structure.
    fn kind(&self, id: TypeId) -> TokenStream {
        let optional = |ty: &Option<Type>| ty.as_ref().map_or_else(|| quote!(()), |ty| self.ty(ty));
        match &self.resolve.types[id].kind {
            TypeDefKind::Type(ty) => self.ty(ty),
            TypeDefKind::List(element) if is_byte(self.resolve, element) => {
                quote!(::wharf_client::Bytes)
            }
            TypeDefKind::List(element) => {
                let element = self.ty(element);
                quote!(::std::vec::Vec<#element>)
            }
            TypeDefKind::FixedLengthList(element, len) => {
                let element = self.ty(element);
                let len = *len as usize;
                // serde supports arrays up to this length.
                if len <= 32 {
                    quote!([#element; #len])
                } else {
                    quote!(::wharf_client::FixedList<#element, #len>)
                }
            }
            TypeDefKind::Tuple(tuple) => {
                let types = tuple.types.iter().map(|ty| self.ty(ty));
                quote!((#(#types,)*))
            }
            TypeDefKind::Option(some) => {
                let some = self.ty(some);
                quote!(::core::option::Option<#some>)
            }
            TypeDefKind::Result(result) => {
                let (ok, err) = (optional(&result.ok), optional(&result.err));
                quote!(::core::result::Result<#ok, #err>)
            }
            // These are named, or not transportable.
            _ => quote!(()),
        }
    }

    /// A parameter: its type, and the expression that is passed to the encoder. Values on the heap
    /// are borrowed.
    pub(crate) fn parameter(&self, name: &Ident, ty: &Type) -> (TokenStream, TokenStream) {
        let stub = stub();
        let as_is = quote!(#name);
        if traits(self.resolve, ty).copy {
            return (self.ty(ty), as_is);
        }
        match self.shape(ty) {
            Shape::String => (quote!(&str), as_is),
            Shape::Bytes => (quote!(&[u8]), quote!(#stub::Blob(#name))),
            Shape::List(element) => {
                let element = self.ty(&element);
                (quote!(&[#element]), as_is)
            }
            Shape::Option(some) => match self.shape(&some) {
                Shape::String => (quote!(::core::option::Option<&str>), as_is),
                Shape::Bytes => {
                    (quote!(::core::option::Option<&[u8]>), quote!(#name.map(#stub::Blob)))
                }
                _ => {
                    let some = self.ty(&some);
                    (quote!(::core::option::Option<&#some>), as_is)
                }
            },
            Shape::Other => {
                let ty = self.ty(ty);
                (quote!(&#ty), as_is)
            }
        }
    }

    fn shape(&self, ty: &Type) -> Shape {
        match ty {
            Type::String => Shape::String,
            Type::Id(id) => match &self.resolve.types[*id].kind {
                TypeDefKind::Type(ty) => self.shape(ty),
                TypeDefKind::List(element) if is_byte(self.resolve, element) => Shape::Bytes,
                TypeDefKind::List(element) => Shape::List(*element),
                TypeDefKind::Option(some) => Shape::Option(*some),
                _ => Shape::Other,
            },
            _ => Shape::Other,
        }
    }
}

/// How a parameter can be borrowed.
enum Shape {
    String,
    Bytes,
    List(Type),
    Option(Type),
    Other,
}

/// Makes a method's own error a Rust error, so that it can be the source of another one.
fn error(name: &Ident) -> TokenStream {
    quote! {
        impl ::core::fmt::Display for #name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(self, f)
            }
        }

        impl ::core::error::Error for #name {}
    }
}

/// The documentation from the WIT. If there is none, the name has to be enough.
pub(crate) fn doc(docs: &Docs) -> TokenStream {
    match &docs.contents {
        Some(text) => {
            let lines = plain(text);
            quote!(#(#[doc = #lines])*)
        }
        None => quote!(#[allow(missing_docs)]),
    }
}

/// Lines of documentation in which no code block counts as Rust: rustdoc would compile it and run
/// it as a test.
fn plain(text: &str) -> Vec<String> {
    let mut within = false;
    let line = |line: &str| {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            within = !within;
            let fence = trimmed.trim_end();
            // The block is marked as text, whatever its language.
            return if within { format!(" {}text", &fence[..3]) } else { format!(" {fence}") };
        }
        // Four spaces would begin a code block.
        let indented = line.len() - trimmed.len() >= 4;
        if indented && !within { format!("    {trimmed}").split_off(1) } else { format!(" {line}") }
    };
    text.trim_end().lines().map(line).collect()
}

fn is_byte(resolve: &Resolve, ty: &Type) -> bool {
    match ty {
        Type::U8 => true,
        Type::Id(id) => match &resolve.types[*id].kind {
            TypeDefKind::Type(ty) => is_byte(resolve, ty),
            _ => false,
        },
        _ => false,
    }
}

/// The types that a type consists of.
pub(crate) fn parts(resolve: &Resolve, id: TypeId) -> Vec<Type> {
    match &resolve.types[id].kind {
        TypeDefKind::Type(ty)
        | TypeDefKind::List(ty)
        | TypeDefKind::FixedLengthList(ty, _)
        | TypeDefKind::Option(ty) => vec![*ty],
        TypeDefKind::Record(record) => record.fields.iter().map(|field| field.ty).collect(),
        TypeDefKind::Tuple(tuple) => tuple.types.clone(),
        TypeDefKind::Variant(variant) => variant.cases.iter().filter_map(|case| case.ty).collect(),
        TypeDefKind::Result(result) => result.ok.into_iter().chain(result.err).collect(),
        _ => Vec::new(),
    }
}

/// Whether values of a type can be sent. The recursion ends, because WIT types have no cycles.
fn is_transportable(resolve: &Resolve, ty: &Type) -> bool {
    let Type::Id(id) = ty else { return *ty != Type::ErrorContext };
    let itself = matches!(
        resolve.types[*id].kind,
        TypeDefKind::Type(_)
            | TypeDefKind::List(_)
            | TypeDefKind::FixedLengthList(..)
            | TypeDefKind::Option(_)
            | TypeDefKind::Record(_)
            | TypeDefKind::Tuple(_)
            | TypeDefKind::Variant(_)
            | TypeDefKind::Enum(_)
            | TypeDefKind::Flags(_)
            | TypeDefKind::Result(_)
    );
    itself && parts(resolve, *id).iter().all(|part| is_transportable(resolve, part))
}

fn traits(resolve: &Resolve, ty: &Type) -> Traits {
    match ty {
        Type::F32 | Type::F64 => Traits { total: false, copy: true },
        Type::String => Traits { total: true, copy: false },
        Type::Id(id) => {
            // An array could be `Copy` too, but it may be long.
            let kind = &resolve.types[*id].kind;
            let heap = matches!(kind, TypeDefKind::List(_) | TypeDefKind::FixedLengthList(..));
            let parts = parts(resolve, *id);
            let parts = parts.iter().map(|part| traits(resolve, part));
            parts.fold(Traits { total: true, copy: !heap }, |all, part| Traits {
                total: all.total && part.total,
                copy: all.copy && part.copy,
            })
        }
        _ => Traits { total: true, copy: true },
    }
}

/// The name of an interface's client.
pub(crate) fn client_name(interface: &str) -> Ident {
    format_ident!("{}Client", camel(interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_in_documentation_are_no_tests() {
        let text = "One.\n\n    f {a: 1}\n\n```\n    g()\n```\n```rust\nh()\n```";
        let lines = plain(text);
        assert_eq!(
            lines,
            [
                " One.",
                " ",
                "   f {a: 1}",
                " ",
                " ```text",
                "     g()",
                " ```",
                " ```text",
                " h()",
                " ```"
            ]
        );
    }
}
