//! Generates a module for each interface: its types, and a client if the interface is called.

use std::collections::{BTreeSet, HashMap, HashSet};

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use wharf_schema::{Service, Signature, kebab};
use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDefKind, TypeId, TypeOwner};

use crate::input::Input;
use crate::names::{camel, method as method_name, snake};
use crate::types::{Writer, client_name, doc, parts, stub};
use crate::wit::{Error, Loaded};

/// If there are more parameters than this, they are grouped: serde supports tuples up to this
/// length.
const TUPLE: usize = 16;

/// All modules, and what they export to the place where the macro is used.
pub(crate) fn modules(loaded: &Loaded, input: &Input) -> Result<TokenStream, Error> {
    let Loaded { resolve, services, .. } = loaded;
    let idempotent = idempotent(services, input)?;
    let mut needed: BTreeSet<InterfaceId> = services.iter().map(|(id, _)| *id).collect();
    // Types may come from interfaces that are not called.
    let mut queue: Vec<InterfaceId> = needed.iter().copied().collect();
    while let Some(interface) = queue.pop() {
        for owner in owners(resolve, interface) {
            if needed.insert(owner) {
                queue.push(owner);
            }
        }
    }
    let names = module_names(loaded, &needed);
    let errors = error_types(loaded);
    let modules = needed.iter().map(|id| {
        let writer = Writer { resolve, interface: *id, modules: &names, errors: &errors };
        let service = services.iter().find(|(called, _)| called == id).map(|(_, service)| service);
        module(&writer, &names, service, &idempotent)
    });
    let modules: Vec<TokenStream> = modules.collect::<Result<_, _>>()?;
    // If there is only one service, its types and its client can be used without the module's name.
    let reexport = match &services[..] {
        [(only, _)] => {
            let name = names.get(only);
            quote!(pub use self::#name::*;)
        }
        _ => TokenStream::new(),
    };
    Ok(quote! { #(#modules)* #reexport })
}

fn module(
    writer: &Writer<'_>,
    names: &HashMap<InterfaceId, Ident>,
    service: Option<&Service>,
    idempotent: &HashSet<(String, String)>,
) -> Result<TokenStream, Error> {
    let interface = &writer.resolve.interfaces[writer.interface];
    let name = names.get(&writer.interface);
    let docs = doc(&interface.docs);
    // A type that Rust cannot have is left out, together with the methods that use it.
    let possible = |id: &&TypeId| too_long(writer.resolve, &Type::Id(**id)).is_none();
    let types = interface.types.values().filter(possible).filter_map(|id| writer.definition(*id));
    let client = service.map(|service| client(writer, service, idempotent)).transpose()?;
    Ok(quote! {
        #docs
        #[allow(
            clippy::all, clippy::pedantic, clippy::restriction, dead_code, rustdoc::all,
            unused_qualifications
        )]
        pub mod #name {
            #(#types)*
            #client
        }
    })
}

fn client(
    writer: &Writer<'_>,
    service: &Service,
    idempotent: &HashSet<(String, String)>,
) -> Result<TokenStream, Error> {
    let resolve = writer.resolve;
    let interface = &resolve.interfaces[writer.interface];
    let name = client_name(&service.name().interface);
    let taken = |id: &TypeId| resolve.types[*id].name.as_deref().map(camel).as_ref() == Some(&name);
    if let Some(id) = interface.types.values().find(|id| taken(id)) {
        let location = resolve.render_location(resolve.types[*id].span);
        let what =
            format!("this type would be called {name}, like the service's client: rename it");
        return Err(Error::Type { location, what });
    }
    let stub = stub();
    let (mut methods, mut specs) = (Vec::new(), Vec::new());
    let mut left_out = Vec::new();
    for (known, function) in service.methods().iter().zip(interface.functions.values()) {
        match &known.signature {
            Ok(signature) => {
                let fingerprint = signature.fingerprint.0;
                let wit_name = &known.name;
                let mut types = function.params.iter().map(|param| param.ty).chain(function.result);
                if let Some(len) = types.find_map(|ty| too_long(resolve, &ty)) {
                    left_out.push(format!(
                        " - `{wit_name}` is left out: it has a tuple of {len} elements, and Rust \
                         supports at most {MAX_TUPLE} here; a record of the same types has the same \
                         bytes."
                    ));
                    continue;
                }
                let idempotent =
                    idempotent.contains(&(service.name().to_string(), wit_name.clone()));
                specs.push(quote! {
                    #stub::MethodSpec {
                        name: #wit_name,
                        fingerprint: [#(#fingerprint),*],
                        idempotent: #idempotent,
                    }
                });
                methods.push(method(writer, function, signature, methods.len(), idempotent));
            }
            Err(reason) => {
                left_out.push(format!(" - `{}` cannot be called: {reason}.", known.name));
            }
        }
    }
    let full = service.name();
    let (package, short) = (option(full.package.as_deref()), &full.interface);
    let version = option(full.version.as_ref().map(ToString::to_string).as_deref());
    let fingerprint = service.fingerprint().0;
    let title = format!(" Calls the service `{full}`.");
    Ok(quote! {
        static INTERFACE: #stub::Interface = #stub::Interface {
            package: #package,
            interface: #short,
            version: #version,
            fingerprint: [#(#fingerprint),*],
            methods: &[#(#specs),*],
        };

        #[doc = #title]
        ///
        /// It calls versions that are compatible with the one that it was built against. It prefers
        /// endpoints that serve exactly the same methods; if there are none, it calls those of the
        /// newest version. The host refuses a method whose signature differs. Clones are cheap, and
        /// share everything.
        #(#[doc = #left_out])*
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        pub struct #name { stub: #stub::Stub }

        impl #name {
            /// Calls through a client, with the client's defaults.
            #[must_use]
            pub fn new(client: &::wharf_client::Client) -> Self {
                Self::with_options(client, ::core::default::Default::default())
            }

            /// Calls through a client, each call with these options.
            #[must_use]
            pub fn with_options(
                client: &::wharf_client::Client,
                options: ::wharf_client::CallOptions,
            ) -> Self {
                Self { stub: #stub::Stub::new(client, &INTERFACE, options) }
            }

            #(#methods)*
        }
    })
}

fn method(
    writer: &Writer<'_>,
    function: &Function,
    signature: &Signature,
    index: usize,
    idempotent: bool,
) -> TokenStream {
    let name = method_name(&function.name);
    let docs = match function.docs.contents {
        Some(_) => doc(&function.docs),
        None => {
            let text = format!(" Calls `{}`.", function.name);
            quote!(#[doc = #text])
        }
    };
    let parameters: Vec<(Ident, (TokenStream, TokenStream))> = function
        .params
        .iter()
        .map(|param| {
            // `snake` escapes Rust's keywords, which cannot name a parameter.
            let name = snake(&param.name);
            let written = writer.parameter(&name, &param.ty);
            (name, written)
        })
        .collect();
    debug_assert_eq!(parameters.len(), signature.params.len());
    let declared = parameters.iter().map(|(name, (ty, _))| quote!(#name: #ty));
    let arguments: Vec<&TokenStream> = parameters.iter().map(|(_, (_, value))| value).collect();
    // A tuple of tuples is encoded to the same bytes as one long tuple.
    let groups = arguments.chunks(TUPLE).map(|group| quote!((#(#group,)*)));
    let arguments = quote!((#(#groups,)*));
    let fallible = function.result.as_ref().and_then(|ty| fallible(writer.resolve, ty));
    let optional = |ty: &Option<Type>| ty.as_ref().map_or_else(|| quote!(()), |ty| writer.ty(ty));
    let (ok, err, call) = match (&function.result, fallible) {
        (_, Some((ok, err))) => (optional(&ok), optional(&err), quote!(call_fallible)),
        (result, None) => (optional(result), quote!(::core::convert::Infallible), quote!(call)),
    };
    let application = fallible.map(|_| {
        quote! {
            /// [`CallError::Application`](::wharf_client::CallError::Application): the method's own
            /// error.
        }
    });
    let again = if idempotent {
        " The method is idempotent: a call is retried even if it may have run."
    } else {
        " A call is retried only if it certainly did not run."
    };
    quote! {
        #docs
        ///
        #[doc = #again]
        ///
        /// # Errors
        #application
        /// [`CallError::Rpc`](::wharf_client::CallError::Rpc): there is no answer.
        ///
        /// # Cancel safety
        /// Dropping the future cancels the call. It may have been executed.
        pub async fn #name(
            &self,
            #(#declared),*
        ) -> ::core::result::Result<#ok, ::wharf_client::CallError<#err>> {
            self.stub.#call(#index, &#arguments).await
        }
    }
}

/// The two sides of a method's result, if it is a WIT `result`.
fn fallible(resolve: &Resolve, ty: &Type) -> Option<(Option<Type>, Option<Type>)> {
    let Type::Id(id) = ty else { return None };
    match &resolve.types[*id].kind {
        TypeDefKind::Result(result) => Some((result.ok, result.err)),
        TypeDefKind::Type(ty) => fallible(resolve, ty),
        _ => None,
    }
}

/// Named types that are the error of some method.
fn error_types(loaded: &Loaded) -> HashSet<TypeId> {
    let resolve = &loaded.resolve;
    let mut errors = HashSet::new();
    for (interface, _) in &loaded.services {
        for function in resolve.interfaces[*interface].functions.values() {
            let result = function.result.as_ref().and_then(|ty| fallible(resolve, ty));
            let mut error = result.and_then(|(_, error)| error);
            // Follow its aliases to the definition.
            while let Some(Type::Id(id)) = error {
                errors.insert(id);
                error = match &resolve.types[id].kind {
                    TypeDefKind::Type(ty) => Some(*ty),
                    _ => None,
                };
            }
        }
    }
    errors
}

/// The other interfaces whose types an interface uses.
fn owners(resolve: &Resolve, interface: InterfaceId) -> Vec<InterfaceId> {
    let used = resolve.interfaces[interface].types.values();
    used.flat_map(|id| parts(resolve, *id))
        .filter_map(|part| match part {
            Type::Id(id) => Some(resolve.types[id].owner),
            _ => None,
        })
        .filter_map(|owner| match owner {
            TypeOwner::Interface(owner) if owner != interface => Some(owner),
            _ => None,
        })
        .collect()
}

/// A module has the name of its interface. Interfaces of the package that was read come first and
/// keep that name. If it is taken, another interface gets its package's name in front, and if that
/// is taken too, also its version. The last resort is a number.
fn module_names(loaded: &Loaded, needed: &BTreeSet<InterfaceId>) -> HashMap<InterfaceId, Ident> {
    let resolve = &loaded.resolve;
    let mut order: Vec<InterfaceId> = needed.iter().copied().collect();
    let is_foreign = |id: &InterfaceId| resolve.interfaces[*id].package != Some(loaded.package);
    order.sort_by_key(is_foreign);
    let mut names = HashMap::new();
    let mut taken = HashSet::new();
    for id in order {
        let interface = &resolve.interfaces[id];
        let called = || loaded.services.iter().find(|(called, _)| *called == id);
        let own = interface.name.clone();
        let own = own.or_else(|| called().map(|(_, service)| service.name().interface.clone()));
        let own = own.unwrap_or_default();
        let package = interface.package.map(|id| resolve.packages[id].name.clone());
        let with_package = package.as_ref().map(|p| format!("{}-{}-{own}", p.namespace, p.name));
        let version = package.and_then(|package| package.version);
        let with_version = with_package.clone().zip(version).map(|(name, version)| {
            format!("{name}-{}", version.to_string().replace(['.', '-', '+'], "-"))
        });
        let numbered = (2..).map(|n| format!("{own}-{n}"));
        let candidates =
            [Some(own.clone()), with_package, with_version].into_iter().flatten().chain(numbered);
        let free = candidates.map(|name| snake(&name)).find(|name| taken.insert(name.to_string()));
        names.extend(free.map(|name| (id, name)));
    }
    names
}

/// The methods marked idempotent, each with its service. They are written `multiply`, or
/// `arith.multiply` if several services have a method of that name. A name that no method has is an
/// error.
fn idempotent(
    services: &[(InterfaceId, Service)],
    input: &Input,
) -> Result<HashSet<(String, String)>, Error> {
    let mut found = HashSet::new();
    for text in &input.idempotent {
        let text = text.value();
        let (service, method) = match text.rsplit_once('.') {
            Some((service, method)) => (Some(kebab(service)), method),
            None => (None, text.as_str()),
        };
        let meant = services.iter().map(|(_, known)| known).filter(|known| {
            service.as_ref().is_none_or(|service| *service == known.name().interface)
        });
        let matching: Vec<(&Service, &str)> = meant
            .filter_map(|service| Some((service, &service.method(method)?.name[..])))
            .collect();
        let list = |methods: &mut dyn Iterator<Item = (&Service, &str)>| {
            let names = methods.map(|(s, method)| format!("{}.{method}", s.name().interface));
            names.collect::<Vec<_>>().join(", ")
        };
        match &matching[..] {
            [(service, method)] => {
                found.insert((service.name().to_string(), (*method).to_owned()));
            }
            [] => {
                let mut all = services
                    .iter()
                    .flat_map(|(_, s)| s.methods().iter().map(move |m| (s, &m.name[..])));
                return Err(Error::NoMethod { known: list(&mut all), method: text });
            }
            several => {
                let known = list(&mut several.iter().copied());
                return Err(Error::Ambiguous { known, method: text });
            }
        }
    }
    Ok(found)
}

/// Rust implements its own traits (`Debug`, `PartialEq`) only for tuples of up to this many elements.
const MAX_TUPLE: usize = 12;

/// The length of a tuple in a type that is too long for Rust.
fn too_long(resolve: &Resolve, ty: &Type) -> Option<usize> {
    let Type::Id(id) = ty else { return None };
    if let TypeDefKind::Tuple(tuple) = &resolve.types[*id].kind
        && tuple.types.len() > MAX_TUPLE
    {
        return Some(tuple.types.len());
    }
    parts(resolve, *id).iter().find_map(|part| too_long(resolve, part))
}

fn option(text: Option<&str>) -> TokenStream {
    match text {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wit::tests::load_text;

    fn generate(wit: &str, options: &str) -> Result<String, Error> {
        let (loaded, input) = load_text(wit, options)?;
        let tokens = modules(&loaded, &input)?;
        assert!(syn::parse2::<syn::File>(tokens.clone()).is_ok(), "it is Rust: {tokens}");
        Ok(tokens.to_string().replace(' ', ""))
    }

    #[test]
    fn parameters_are_borrowed_and_results_are_owned() {
        let wit = "package a:b@1.0.0; interface api {
            record r { t: string } type blob = list<u8>;
            f: func(a: string, b: blob, c: list<r>, d: option<string>, e: r, g: u8) -> list<u8>;
            h: func() -> result<_, string>; }";
        let code = generate(wit, "").unwrap();
        let f = "f(&self,a:&str,b:&[u8],c:&[R],d:::core::option::Option<&str>,e:&R,g:u8)";
        assert!(code.contains(f), "{code}");
        assert!(code.contains("Result<::wharf_client::Bytes,::wharf_client::CallError<"), "{code}");
        assert!(code.contains("::wharf_client::CallError<::std::string::String>>"), "{code}");
    }

    #[test]
    fn what_cannot_be_called_is_left_out_with_its_reason() {
        let wit = "package a:b; interface api {
            resource r; record holds { r: own<r> } f: func(h: holds); g: func(); }";
        let code = generate(wit, "").unwrap();
        assert!(code.contains("`f`cannotbecalled:parameterh:"), "{code}");
        assert!(!code.contains("structHolds") && code.contains("fng("), "{code}");
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        let wit = "package a:b;\ninterface api {\n  enum api-client { x }\n  f: func();\n}";
        let error = generate(wit, "").unwrap_err().to_string();
        assert!(error.contains("api.wit:3:"), "{error}");
        assert!(error.contains("would be called ApiClient"), "{error}");
        let wit = "package a:b; interface api { f: func(); }";
        let error = generate(wit, "idempotent: [\"g\"]").unwrap_err().to_string();
        assert_eq!(error, "idempotent: no service of the WIT has a method 'g'; there are api.f");
        assert!(generate(wit, "idempotent: [\"F\"]").unwrap().contains("idempotent:true"));
    }

    #[test]
    fn a_method_with_a_tuple_that_rust_does_not_support_is_left_out_and_the_others_are_there() {
        let tuple = ["u8"; 13].join(", ");
        let wit = format!(
            "package a:b; interface api {{ type long = tuple<{tuple}>; record holds {{ l: long }}
             f: func(x: list<tuple<{tuple}>>); h: func() -> holds; g: func(); }}"
        );
        let code = generate(&wit, "").unwrap();
        assert!(code.contains("`f`isleftout:ithasatupleof13elements"), "{code}");
        assert!(code.contains("`h`isleftout"), "{code}");
        assert!(code.contains("fng(") && !code.contains("fnf("), "{code}");
        assert!(!code.contains("structHolds"), "{code}");
    }

    #[test]
    fn unstable_items_are_there_when_their_feature_is_asked_for() {
        let wit = "package a:b@1.0.0; interface api {
            f: func(); @unstable(feature = fancy) g: func(); }";
        assert!(!generate(wit, "").unwrap().contains("fng("));
        assert!(generate(wit, "features: [\"fancy\"]").unwrap().contains("fng("));
    }

    #[test]
    fn a_method_is_idempotent_in_the_service_that_is_meant_and_in_no_other() {
        let wit = "package a:b;
            interface cache { put: func(); get-it: func(); } interface payments { put: func(); }";
        let error = generate(wit, "idempotent: [\"put\"]").unwrap_err().to_string();
        assert!(error.ends_with("say which is idempotent: cache.put, payments.put"), "{error}");
        let code = generate(wit, "idempotent: [\"cache.put\", \"getit\"]").unwrap();
        assert_eq!(code.matches("idempotent:true").count(), 2, "{code}");
        let payments = &code[code.find("pubmodpayments").unwrap()..];
        assert!(payments.contains("idempotent:false"), "{payments}");
    }

    #[test]
    fn types_of_other_interfaces_have_modules_of_their_own() {
        let wit = "package a:b;
            interface types { record point { x: f32 } }
            interface api { use types.{point}; f: func(p: point) -> point; }
            world w { export api; }";
        let code = generate(wit, "").unwrap();
        assert!(code.contains("pubmodtypes{"), "{code}");
        assert!(code.contains("pubtypePoint=super::types::Point;"), "{code}");
        assert!(code.contains("pubuseself::api::*;"), "{code}");
    }
}
