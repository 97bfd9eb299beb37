//! The dynamic data path: decodes postcard into wasmtime's `Val`, calls, and encodes the result.
//!
//! It works for every component, but it is slow: a `Val` takes 40 bytes, and a list of bytes
//! becomes a list of `Val`s. The codec ([`crate::codec_path`]) is faster, and tests compare it with
//! this path.

use std::collections::HashMap;

use bytes::Bytes;
use wasmtime::component::{Func, Val};
use wasmtime::{AsContextMut, Store};
use wharf_schema::encoding::{Reader, put_bytes, put_char, put_flags, put_signed, put_unsigned};
use wharf_schema::{Type, TypeId, Types, ValueError};

use crate::callable::{Callable, PathError};
use crate::store::StoreData;

/// The most values that the arguments of one call may have on this path, nested values included. At
/// 40 bytes each, they take about 80 MiB. A name that must be copied counts by its length.
const MAX_VALUES: usize = 2 * 1024 * 1024;

/// Decodes the arguments, calls, and encodes the result into at most `limit` bytes.
pub(crate) async fn call(
    store: &mut Store<StoreData>,
    function: Func,
    method: &Callable,
    arguments: &[u8],
    limit: usize,
) -> Result<Bytes, PathError> {
    let params = decode(method, arguments)?;
    let mut results = vec![Val::Bool(false); usize::from(method.signature.result.is_some())];
    function
        .call_async(store.as_context_mut(), &params, &mut results)
        .await
        .map_err(PathError::Guest)?;
    let mut encoder =
        Encoder { types: method.types(), out: Vec::new(), limit, indices: HashMap::new() };
    if let (Some(ty), Some(value)) = (method.signature.result, results.first()) {
        encoder.value(ty, value)?;
    }
    Ok(encoder.out.into())
}

/// Decodes the arguments.
pub(crate) fn decode(method: &Callable, arguments: &[u8]) -> Result<Vec<Val>, PathError> {
    let mut decoder =
        Decoder { types: method.types(), reader: Reader::new(arguments), left: MAX_VALUES };
    let mut params = Vec::with_capacity(method.signature.params.len());
    for param in &method.signature.params {
        let value = decoder.value(param.ty);
        if decoder.left == 0 {
            return Err(PathError::TooLarge(format!(
                "the arguments have more than {MAX_VALUES} values, the limit for one call"
            )));
        }
        params.push(value.map_err(|error| PathError::Arguments(error.within(&param.name)))?);
    }
    decoder.reader.finish().map_err(PathError::Arguments)?;
    Ok(params)
}

/// The error for a result that is too large.
pub(crate) fn result_too_large(limit: usize) -> PathError {
    PathError::TooLarge(format!("the result takes more than {limit} bytes, this plugin's limit"))
}

struct Decoder<'a> {
    types: &'a Types,
    reader: Reader<'a>,
    /// How many more values may be made; 0 once there were too many.
    left: usize,
}

impl Decoder<'_> {
    fn charge(&mut self, values: usize) -> Result<(), ValueError> {
        self.left = self.left.saturating_sub(values);
        if self.left == 0 { Err(ValueError::new("too many values")) } else { Ok(()) }
    }

    fn name(&mut self, name: &str) -> Result<String, ValueError> {
        self.charge(1 + name.len() / 40)?;
        Ok(name.to_owned())
    }

    fn value(&mut self, ty: TypeId) -> Result<Val, ValueError> {
        self.charge(1)?;
        Ok(match &self.types[ty] {
            Type::Bool => Val::Bool(self.reader.bool()?),
            Type::U8 => Val::U8(self.reader.u8()?),
            Type::S8 => Val::S8(self.reader.u8()?.cast_signed()),
            Type::U16 => Val::U16(narrow(self.reader.unsigned(16)?)?),
            Type::U32 => Val::U32(narrow(self.reader.unsigned(32)?)?),
            Type::U64 => Val::U64(self.reader.unsigned(64)?),
            Type::S16 => Val::S16(narrow(self.reader.signed(16)?)?),
            Type::S32 => Val::S32(narrow(self.reader.signed(32)?)?),
            Type::S64 => Val::S64(self.reader.signed(64)?),
            Type::F32 => Val::Float32(self.reader.f32()?),
            Type::F64 => Val::Float64(self.reader.f64()?),
            Type::Char => Val::Char(self.reader.char()?),
            Type::String => Val::String(self.reader.str()?.to_owned()),
            Type::Bytes => {
                let bytes = self.reader.bytes()?;
                self.charge(bytes.len())?;
                Val::List(bytes.iter().map(|byte| Val::U8(*byte)).collect())
            }
            Type::List(element) => {
                let len = self.reader.length()?;
                Val::List(self.list((0..len).map(|_| *element))?)
            }
            Type::FixedList(element, len) => {
                Val::FixedLengthList(self.list((0..*len).map(|_| *element))?)
            }
            Type::Tuple(types) => Val::Tuple(self.list(types.iter().copied())?),
            Type::Record(fields) => {
                let mut values = Vec::with_capacity(fields.len());
                for field in fields {
                    let value = self.value(field.ty).map_err(|e| e.within(&field.name))?;
                    values.push((self.name(&field.name)?, value));
                }
                Val::Record(values)
            }
            Type::Variant(cases) => {
                let case = &cases[self.reader.discriminant(cases.len())?];
                let payload = self.optional(case.ty).map_err(|e| e.within(&case.name))?;
                Val::Variant(self.name(&case.name)?, payload)
            }
            Type::Enum(names) => {
                let index = self.reader.discriminant(names.len())?;
                Val::Enum(self.name(&names[index])?)
            }
            Type::Option(some) => {
                let some = self.reader.bool()?.then_some(*some);
                Val::Option(self.optional(some)?)
            }
            Type::Result { ok, err } => match self.reader.discriminant(2)? {
                0 => Val::Result(Ok(self.optional(*ok)?)),
                _ => Val::Result(Err(self.optional(*err)?)),
            },
            Type::Flags(names) => {
                let set = self.reader.flags(names.len())?;
                let named = names.iter().zip(set).filter(|(_, set)| *set);
                Val::Flags(named.map(|(name, _)| self.name(name)).collect::<Result<_, _>>()?)
            }
        })
    }

    /// The list grows as its elements are read. A large length alone takes no memory.
    fn list(&mut self, elements: impl Iterator<Item = TypeId>) -> Result<Vec<Val>, ValueError> {
        let mut values = Vec::new();
        for (index, ty) in elements.enumerate() {
            values.push(self.value(ty).map_err(|e| e.within(format_args!("[{index}]")))?);
        }
        Ok(values)
    }

    fn optional(&mut self, ty: Option<TypeId>) -> Result<Option<Box<Val>>, ValueError> {
        ty.map(|ty| self.value(ty).map(Box::new)).transpose()
    }
}

fn narrow<W, N: TryFrom<W>>(wide: W) -> Result<N, ValueError> {
    N::try_from(wide).map_err(|_| ValueError::new("an integer does not fit"))
}

struct Encoder<'a> {
    types: &'a Types,
    out: Vec<u8>,
    limit: usize,
    /// The index of each case, for types with many cases. Without it, a guest that returns the last
    /// case millions of times would force a search over all cases each time.
    indices: HashMap<TypeId, HashMap<&'a str, usize>>,
}

/// With up to this many cases, a linear search is fastest.
const FEW_CASES: usize = 16;

impl<'a> Encoder<'a> {
    /// The index of a case.
    fn index(
        &mut self,
        ty: TypeId,
        mut names: impl ExactSizeIterator<Item = &'a str>,
        name: &str,
    ) -> Option<usize> {
        if names.len() <= FEW_CASES {
            return names.position(|known| known == name);
        }
        let indices = self.indices.entry(ty);
        let indices = indices.or_insert_with(|| names.enumerate().map(|(i, n)| (n, i)).collect());
        indices.get(name).copied()
    }

    fn value(&mut self, ty: TypeId, value: &Val) -> Result<(), PathError> {
        let types: &'a Types = self.types;
        match (&types[ty], value) {
            (Type::Bool, Val::Bool(value)) => self.out.push((*value).into()),
            (Type::U8, Val::U8(value)) => self.out.push(*value),
            (Type::S8, Val::S8(value)) => self.out.push(value.cast_unsigned()),
            (Type::U16, Val::U16(value)) => put_unsigned(&mut self.out, (*value).into()),
            (Type::U32, Val::U32(value)) => put_unsigned(&mut self.out, (*value).into()),
            (Type::U64, Val::U64(value)) => put_unsigned(&mut self.out, *value),
            (Type::S16, Val::S16(value)) => put_signed(&mut self.out, (*value).into()),
            (Type::S32, Val::S32(value)) => put_signed(&mut self.out, (*value).into()),
            (Type::S64, Val::S64(value)) => put_signed(&mut self.out, *value),
            (Type::F32, Val::Float32(value)) => self.out.extend_from_slice(&value.to_le_bytes()),
            (Type::F64, Val::Float64(value)) => self.out.extend_from_slice(&value.to_le_bytes()),
            (Type::Char, Val::Char(value)) => put_char(&mut self.out, *value),
            (Type::String, Val::String(value)) => put_bytes(&mut self.out, value.as_bytes()),
            (Type::Bytes, Val::List(values)) => {
                put_unsigned(&mut self.out, values.len() as u64);
                for value in values {
                    let Val::U8(byte) = value else { return Err(unlike(value)) };
                    self.out.push(*byte);
                }
            }
            (Type::List(element), Val::List(values)) => {
                put_unsigned(&mut self.out, values.len() as u64);
                self.list(values.iter().map(|value| (*element, value)))?;
            }
            (Type::FixedList(element, _), Val::FixedLengthList(values)) => {
                self.list(values.iter().map(|value| (*element, value)))?;
            }
            (Type::Tuple(types), Val::Tuple(values)) => {
                self.list(types.iter().copied().zip(values))?;
            }
            (Type::Record(fields), Val::Record(values)) => {
                let values = values.iter().map(|(_, value)| value);
                self.list(fields.iter().map(|field| field.ty).zip(values))?;
            }
            (Type::Variant(cases), Val::Variant(name, payload)) => {
                let names = cases.iter().map(|case| case.name.as_str());
                let index = self.index(ty, names, name).ok_or_else(|| unlike(value))?;
                put_unsigned(&mut self.out, index as u64);
                self.optional(cases[index].ty, payload.as_deref())?;
            }
            (Type::Enum(names), Val::Enum(name)) => {
                let index = self.index(ty, names.iter().map(String::as_str), name);
                put_unsigned(&mut self.out, index.ok_or_else(|| unlike(value))? as u64);
            }
            (Type::Option(some), Val::Option(payload)) => {
                self.out.push(payload.is_some().into());
                self.optional(Some(*some), payload.as_deref())?;
            }
            (Type::Result { ok, err }, Val::Result(result)) => {
                let (index, ty, payload) = match result {
                    Ok(payload) => (0, ok, payload),
                    Err(payload) => (1, err, payload),
                };
                self.out.push(index);
                self.optional(*ty, payload.as_deref())?;
            }
            (Type::Flags(names), Val::Flags(set)) => {
                let set: Vec<bool> = names.iter().map(|name| set.contains(name)).collect();
                put_flags(&mut self.out, &set);
            }
            _ => return Err(unlike(value)),
        }
        if self.out.len() > self.limit {
            return Err(result_too_large(self.limit));
        }
        Ok(())
    }

    fn list<'v>(
        &mut self,
        values: impl Iterator<Item = (TypeId, &'v Val)>,
    ) -> Result<(), PathError> {
        for (ty, value) in values {
            self.value(ty, value)?;
        }
        Ok(())
    }

    fn optional(&mut self, ty: Option<TypeId>, value: Option<&Val>) -> Result<(), PathError> {
        match (ty, value) {
            (Some(ty), Some(value)) => self.value(ty, value),
            _ => Ok(()),
        }
    }
}

/// The error for a value that does not have its type. It should never occur: wasmtime checks a
/// guest's results against the component's types, and our types are made from those.
fn unlike(value: &Val) -> PathError {
    PathError::Guest(wasmtime::Error::msg(format!("a result of an unexpected type: {value:?}")))
}
