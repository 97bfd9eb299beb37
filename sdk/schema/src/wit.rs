//! Reads services from WIT that wit-parser has resolved.

use std::collections::HashMap;

use wit_parser::{FunctionKind, Interface, Resolve, TypeDefKind};

use crate::service::MethodParts;
use crate::{
    Case, Field, Label, NameError, Param, Service, ServiceName, Type, TypeError, TypeId, Types,
};

/// Describes one interface.
///
/// `name` is the name under which it is exported, `demo:arith/arith@0.1.0`. `wit` is its text, for
/// people.
///
/// # Errors
/// When the name is not valid. A method that cannot be transported is no error: it is kept, with
/// the reason.
pub fn service_from_wit(
    resolve: &Resolve,
    interface: &Interface,
    name: &str,
    wit: String,
) -> Result<Service, NameError> {
    let name = ServiceName::parse(name)?;
    let mut reading =
        Reading { resolve, types: Types::default(), known: HashMap::new(), labels: HashMap::new() };
    let methods = interface
        .functions
        .values()
        .map(|function| MethodParts {
            name: function.name.clone(),
            docs: function.docs.contents.clone().unwrap_or_default(),
            signature: reading.signature(function),
        })
        .collect();
    let docs = interface.docs.contents.clone().unwrap_or_default();
    Ok(Service::new(name, docs, wit, reading.types, methods).with_labels(reading.labels))
}

/// Why a type cannot be transported.
#[derive(Clone)]
struct Untransportable(String);

impl From<TypeError> for Untransportable {
    fn from(error: TypeError) -> Self {
        Untransportable(error.to_string())
    }
}

struct Reading<'a> {
    resolve: &'a Resolve,
    types: Types,
    known: HashMap<wit_parser::TypeId, Result<TypeId, Untransportable>>,
    labels: HashMap<TypeId, Label>,
}

impl Reading<'_> {
    fn signature(
        &mut self,
        function: &wit_parser::Function,
    ) -> Result<(Vec<Param>, Option<TypeId>), String> {
        match function.kind {
            FunctionKind::Freestanding => {}
            FunctionKind::AsyncFreestanding => {
                return Err("it is an async function; wharf calls synchronous ones".into());
            }
            _ => return Err("it belongs to a resource, which lives only inside the plugin".into()),
        }
        let mut params = Vec::new();
        for param in &function.params {
            let ty = self
                .ty(&param.ty)
                .map_err(|Untransportable(reason)| format!("parameter {}: {reason}", param.name))?;
            params.push(Param { name: param.name.clone(), ty });
        }
        let result = function.result.map(|ty| self.ty(&ty)).transpose();
        Ok((params, result.map_err(|Untransportable(reason)| format!("result: {reason}"))?))
    }

    fn ty(&mut self, ty: &wit_parser::Type) -> Result<TypeId, Untransportable> {
        use wit_parser::Type as Wit;
        let simple = match ty {
            Wit::Bool => Type::Bool,
            Wit::U8 => Type::U8,
            Wit::U16 => Type::U16,
            Wit::U32 => Type::U32,
            Wit::U64 => Type::U64,
            Wit::S8 => Type::S8,
            Wit::S16 => Type::S16,
            Wit::S32 => Type::S32,
            Wit::S64 => Type::S64,
            Wit::F32 => Type::F32,
            Wit::F64 => Type::F64,
            Wit::Char => Type::Char,
            Wit::String => Type::String,
            Wit::ErrorContext => {
                return Err(Untransportable("an error-context cannot be transported".into()));
            }
            Wit::Id(id) => {
                if let Some(known) = self.known.get(id) {
                    return known.clone();
                }
                // This recursion ends, because in the component model a type refers only to earlier
                // types. wit-parser's own limit on nesting and `Types::add` bound its depth.
                let found = self.defined(*id);
                self.known.insert(*id, found.clone());
                return found;
            }
        };
        Ok(self.types.add(simple)?)
    }

    fn defined(&mut self, id: wit_parser::TypeId) -> Result<TypeId, Untransportable> {
        let resolve = self.resolve;
        let ty = match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => return self.ty(ty),
            TypeDefKind::List(wit_parser::Type::U8) => Type::Bytes,
            TypeDefKind::List(element) => match self.ty(element)? {
                element if self.types[element] == Type::U8 => Type::Bytes,
                element => Type::List(element),
            },
            TypeDefKind::FixedLengthList(element, len) => Type::FixedList(self.ty(element)?, *len),
            TypeDefKind::Tuple(tuple) => {
                Type::Tuple(tuple.types.iter().map(|ty| self.ty(ty)).collect::<Result<_, _>>()?)
            }
            TypeDefKind::Record(record) => {
                let mut fields = Vec::new();
                for field in &record.fields {
                    fields.push(Field { name: field.name.clone(), ty: self.ty(&field.ty)? });
                }
                Type::Record(fields)
            }
            TypeDefKind::Variant(variant) => {
                let mut cases = Vec::new();
                for case in &variant.cases {
                    let ty = self.optional(case.ty.as_ref())?;
                    cases.push(Case { name: case.name.clone(), ty });
                }
                Type::Variant(cases)
            }
            TypeDefKind::Enum(cases) => {
                Type::Enum(cases.cases.iter().map(|case| case.name.clone()).collect())
            }
            TypeDefKind::Flags(flags) => {
                Type::Flags(flags.flags.iter().map(|flag| flag.name.clone()).collect())
            }
            TypeDefKind::Option(some) => Type::Option(self.ty(some)?),
            TypeDefKind::Result(result) => Type::Result {
                ok: self.optional(result.ok.as_ref())?,
                err: self.optional(result.err.as_ref())?,
            },
            TypeDefKind::Resource
            | TypeDefKind::Handle(_)
            | TypeDefKind::Future(_)
            | TypeDefKind::Stream(_)
            | TypeDefKind::Map(..)
            | TypeDefKind::Unknown => {
                let kind = resolve.types[id].kind.as_str();
                return Err(Untransportable(format!(
                    "a value of kind {kind} cannot be transported"
                )));
            }
        };
        let added = self.types.add(ty)?;
        if let Some(label) = self.label(id) {
            // Types without names are equal if their members are. The first name counts.
            self.labels.entry(added).or_insert(label);
        }
        Ok(added)
    }

    fn label(&self, id: wit_parser::TypeId) -> Option<Label> {
        let ty = &self.resolve.types[id];
        let text = |docs: &wit_parser::Docs| docs.contents.clone().unwrap_or_default();
        let members: Vec<String> = match &ty.kind {
            TypeDefKind::Record(it) => it.fields.iter().map(|field| text(&field.docs)).collect(),
            TypeDefKind::Variant(it) => it.cases.iter().map(|case| text(&case.docs)).collect(),
            TypeDefKind::Enum(it) => it.cases.iter().map(|case| text(&case.docs)).collect(),
            TypeDefKind::Flags(it) => it.flags.iter().map(|flag| text(&flag.docs)).collect(),
            _ => return None,
        };
        Some(Label { name: ty.name.clone()?, docs: text(&ty.docs), members })
    }

    fn optional(
        &mut self,
        ty: Option<&wit_parser::Type>,
    ) -> Result<Option<TypeId>, Untransportable> {
        ty.map(|ty| self.ty(ty)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(body: &str) -> Service {
        let mut resolve = Resolve::default();
        let source = format!("package t:t@1.0.0; interface api {{ {body} }}");
        resolve.push_str("test.wit", &source).unwrap();
        let (_, interface) = resolve.interfaces.iter().next().unwrap();
        service_from_wit(&resolve, interface, "t:t/api@1.0.0", source.clone()).unwrap()
    }

    #[test]
    fn what_cannot_be_transported_is_listed_with_its_reason() {
        let service = service(
            "resource r { get: func() -> u8; }
             take: func(r: borrow<r>);
             later: func() -> list<future<u8>>;
             fine: func(x: u8) -> option<string>;",
        );
        let reason = |name| service.method(name).unwrap().signature.clone().unwrap_err();
        assert_eq!(reason("take"), "parameter r: a value of kind borrow cannot be transported");
        assert_eq!(reason("later"), "result: a value of kind future cannot be transported");
        let of_resource = service.methods().iter().find(|m| m.name.contains("get")).unwrap();
        assert!(of_resource.signature.is_err());
        let fine = service.method("Fine").unwrap();
        assert_eq!(service.notation(fine), "fine: func(x: u8) -> option<string>");
    }

    #[test]
    fn names_of_types_and_docs_do_not_change_the_fingerprint() {
        let one = service("type n = u8; record p { x: n } f: func(a: p) -> list<n>;");
        let two = service("/// Docs.\nrecord q { x: u8 } f: func(b: q) -> list<u8>;");
        let other = service("record p { y: u8 } f: func(a: p) -> list<u8>;");
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_ne!(one.fingerprint(), other.fingerprint());
    }

    #[test]
    fn names_and_docs_of_types_are_known_where_the_wit_was_read() {
        let service = service(
            "/// A point.
             record point {
                 /// Across.
                 x: u8,
                 y: u8,
             }
             f: func(a: point) -> list<u8>;",
        );
        let point = service.method("f").unwrap().signature.as_ref().unwrap().params[0].ty;
        let label = service.label(point).unwrap();
        assert_eq!((&label.name[..], &label.docs[..]), ("point", "A point."));
        assert_eq!(label.members, ["Across.", ""]);
    }

    #[test]
    fn a_document_describes_the_same_service() {
        let service = service(
            "flags f { a, b } enum e { x } variant v { n, s(string) }
             record r { f: f, e: e, v: v, o: option<u64>, t: tuple<f32, char>, b: list<u8> }
             resource res;
             call: func(r: r, l: list<r>) -> result<list<u16>, v>;
             none: func() -> own<res>;",
        );
        let read = Service::from_document(service.to_document().as_bytes()).unwrap();
        assert_eq!(read.fingerprint(), service.fingerprint());
        assert_eq!(read.types(), service.types());
        assert_eq!(read.to_document(), service.to_document());
        assert!(read.method("none").unwrap().signature.is_err());
    }
}
