//! A service's description as a JSON document: what a host answers to Describe.
//!
//! The document has its own types, so that the internal ones can change without breaking it.

use serde::{Deserialize, Serialize};

use crate::service::MethodParts;
use crate::types::MAX_TYPES;
use crate::{Case, Field, Param, Service, ServiceName, Type, TypeError, TypeId, Types};

/// The largest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// The version of the document's format. A reader refuses any other.
const VERSION: u32 = 1;

/// A document that does not describe a service.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Too large to be read.
    #[error("a service description of {0} bytes, at most {MAX_DOCUMENT} are read")]
    TooLarge(usize),
    /// Not JSON of the right form.
    #[error("a service description cannot be read")]
    Json(#[from] serde_json::Error),
    /// A version that this side does not read.
    #[error("a service description of version {0}; this side reads version {VERSION}: update it")]
    Version(u32),
    /// A name that is not valid.
    #[error("a service description with an invalid name")]
    Name(#[from] crate::NameError),
    /// Types that are not valid.
    #[error("a service description with invalid types")]
    Types(#[from] TypeError),
    /// The index of a type that does not exist.
    #[error("a service description refers to type {0}, which it does not have")]
    NoSuchType(u32),
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    service: String,
    #[serde(default)]
    docs: String,
    #[serde(default)]
    wit: String,
    /// Written for other readers. This one computes it itself.
    #[serde(default)]
    fingerprint: String,
    types: Vec<TypeDocument>,
    methods: Vec<MethodDocument>,
}

#[derive(Serialize, Deserialize)]
struct MethodDocument {
    name: String,
    #[serde(default)]
    docs: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    untransportable: Option<String>,
    #[serde(default)]
    params: Vec<NamedType>,
    #[serde(default)]
    result: Option<u32>,
    #[serde(default)]
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct NamedType {
    name: String,
    #[serde(rename = "type")]
    ty: u32,
}

#[derive(Serialize, Deserialize)]
struct NamedCase {
    name: String,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    ty: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum TypeDocument {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F32,
    F64,
    Char,
    String,
    Bytes,
    List { element: u32 },
    FixedList { element: u32, length: u32 },
    Tuple { types: Vec<u32> },
    Record { fields: Vec<NamedType> },
    Variant { cases: Vec<NamedCase> },
    Enum { names: Vec<String> },
    Option { some: u32 },
    Result { ok: Option<u32>, err: Option<u32> },
    Flags { names: Vec<String> },
}

impl Service {
    /// The description as a JSON document.
    #[must_use]
    pub fn to_document(&self) -> String {
        let methods = self
            .methods()
            .iter()
            .map(|method| {
                let signature = method.signature.as_ref();
                let params = signature.map(|s| &s.params[..]).unwrap_or_default();
                MethodDocument {
                    name: method.name.clone(),
                    docs: method.docs.clone(),
                    untransportable: signature.err().cloned(),
                    params: params
                        .iter()
                        .map(|p| NamedType { name: p.name.clone(), ty: p.ty.0 })
                        .collect(),
                    result: signature.ok().and_then(|s| s.result).map(|ty| ty.0),
                    fingerprint: signature.map(|s| s.fingerprint.to_string()).unwrap_or_default(),
                }
            })
            .collect();
        let document = Document {
            version: VERSION,
            service: self.name().to_string(),
            docs: self.docs().to_owned(),
            wit: self.wit().to_owned(),
            fingerprint: self.fingerprint().to_string(),
            types: self.types().iter().map(to_document).collect(),
            methods,
        };
        // It has only strings and numbers, so JSON encoding cannot fail.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is too large, is not a document, or describes types that are not valid.
    pub fn from_document(text: &[u8]) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge(text.len()));
        }
        let document: Document = serde_json::from_slice(text)?;
        if document.version != VERSION {
            return Err(DocumentError::Version(document.version));
        }
        if document.types.len() > MAX_TYPES {
            return Err(TypeError::TooMany.into());
        }
        let mut reading = Reading { types: Types::default(), ids: Vec::new() };
        for ty in document.types {
            let ty = reading.ty(ty)?;
            let id = reading.types.add(ty)?;
            reading.ids.push(id);
        }
        let mut methods = Vec::new();
        for method in document.methods {
            let signature = match method.untransportable {
                Some(reason) => Err(reason),
                None => Ok((
                    reading.named(method.params, |name, ty| Param { name, ty })?,
                    reading.optional(method.result)?,
                )),
            };
            methods.push(MethodParts { name: method.name, docs: method.docs, signature });
        }
        let name = ServiceName::parse(&document.service)?;
        Ok(Service::new(name, document.docs, document.wit, reading.types, methods))
    }
}

/// Types read so far, by their index in the document.
struct Reading {
    types: Types,
    ids: Vec<TypeId>,
}

impl Reading {
    fn id(&self, index: u32) -> Result<TypeId, DocumentError> {
        self.ids.get(index as usize).copied().ok_or(DocumentError::NoSuchType(index))
    }

    fn optional(&self, index: Option<u32>) -> Result<Option<TypeId>, DocumentError> {
        index.map(|index| self.id(index)).transpose()
    }

    fn named<T>(
        &self,
        named: Vec<NamedType>,
        make: impl Fn(String, TypeId) -> T,
    ) -> Result<Vec<T>, DocumentError> {
        named.into_iter().map(|n| Ok(make(n.name, self.id(n.ty)?))).collect()
    }

    fn ty(&self, ty: TypeDocument) -> Result<Type, DocumentError> {
        Ok(match ty {
            TypeDocument::Bool => Type::Bool,
            TypeDocument::U8 => Type::U8,
            TypeDocument::U16 => Type::U16,
            TypeDocument::U32 => Type::U32,
            TypeDocument::U64 => Type::U64,
            TypeDocument::S8 => Type::S8,
            TypeDocument::S16 => Type::S16,
            TypeDocument::S32 => Type::S32,
            TypeDocument::S64 => Type::S64,
            TypeDocument::F32 => Type::F32,
            TypeDocument::F64 => Type::F64,
            TypeDocument::Char => Type::Char,
            TypeDocument::String => Type::String,
            TypeDocument::Bytes => Type::Bytes,
            TypeDocument::List { element } => Type::List(self.id(element)?),
            TypeDocument::FixedList { element, length } => {
                Type::FixedList(self.id(element)?, length)
            }
            TypeDocument::Tuple { types } => {
                Type::Tuple(types.into_iter().map(|ty| self.id(ty)).collect::<Result<_, _>>()?)
            }
            TypeDocument::Record { fields } => {
                Type::Record(self.named(fields, |name, ty| Field { name, ty })?)
            }
            TypeDocument::Variant { cases } => Type::Variant(
                cases
                    .into_iter()
                    .map(|case| Ok(Case { name: case.name, ty: self.optional(case.ty)? }))
                    .collect::<Result<_, DocumentError>>()?,
            ),
            TypeDocument::Enum { names } => Type::Enum(names),
            TypeDocument::Option { some } => Type::Option(self.id(some)?),
            TypeDocument::Result { ok, err } => {
                Type::Result { ok: self.optional(ok)?, err: self.optional(err)? }
            }
            TypeDocument::Flags { names } => Type::Flags(names),
        })
    }
}

fn to_document(ty: &Type) -> TypeDocument {
    match ty {
        Type::Bool => TypeDocument::Bool,
        Type::U8 => TypeDocument::U8,
        Type::U16 => TypeDocument::U16,
        Type::U32 => TypeDocument::U32,
        Type::U64 => TypeDocument::U64,
        Type::S8 => TypeDocument::S8,
        Type::S16 => TypeDocument::S16,
        Type::S32 => TypeDocument::S32,
        Type::S64 => TypeDocument::S64,
        Type::F32 => TypeDocument::F32,
        Type::F64 => TypeDocument::F64,
        Type::Char => TypeDocument::Char,
        Type::String => TypeDocument::String,
        Type::Bytes => TypeDocument::Bytes,
        Type::List(element) => TypeDocument::List { element: element.0 },
        Type::FixedList(element, length) => {
            TypeDocument::FixedList { element: element.0, length: *length }
        }
        Type::Tuple(types) => TypeDocument::Tuple { types: types.iter().map(|t| t.0).collect() },
        Type::Record(fields) => TypeDocument::Record {
            fields: fields.iter().map(|f| NamedType { name: f.name.clone(), ty: f.ty.0 }).collect(),
        },
        Type::Variant(cases) => TypeDocument::Variant {
            cases: cases
                .iter()
                .map(|c| NamedCase { name: c.name.clone(), ty: c.ty.map(|ty| ty.0) })
                .collect(),
        },
        Type::Enum(names) => TypeDocument::Enum { names: names.clone() },
        Type::Option(some) => TypeDocument::Option { some: some.0 },
        Type::Result { ok, err } => {
            TypeDocument::Result { ok: ok.map(|ty| ty.0), err: err.map(|ty| ty.0) }
        }
        Type::Flags(names) => TypeDocument::Flags { names: names.clone() },
    }
}
