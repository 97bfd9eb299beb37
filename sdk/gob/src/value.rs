//! A value of any type, for those who do not know its type beforehand.

use std::collections::HashMap;

use crate::{GobError, Item, Kind, Limits, Reader, StructBody, TypeId, Types, Wire, walk};
use crate::{put_float, put_int, put_message, put_text, put_uint};

/// A value. What is in it is borrowed from the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `bool`
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// `[]byte`
    Bytes(&'a [u8]),
    /// `string`. Go does not promise that it is UTF-8.
    String(&'a [u8]),
    /// A complex number: its real part and its imaginary part.
    Complex(f64, f64),
    /// An interface: the registered name of the value's type, the type, and the value. `None` is nil.
    Interface(Option<Box<(&'a [u8], TypeId, Value<'a>)>>),
    /// An array or a slice.
    List(Vec<Value<'a>>),
    /// A map.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A struct: the fields that were sent, by their index. The others are zero.
    Struct(Vec<(usize, Value<'a>)>),
    /// What a type wrote that encodes itself.
    Opaque(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads a value that a [`Decoder`](crate::Decoder) has accepted.
    ///
    /// # Errors
    /// When the bytes are not a value of its type, which the decoder rules out.
    pub fn read(types: &Types, item: Item<'a>) -> Result<Self, GobError> {
        Value::read_from(types, &mut Reader::new(item.bytes), item.ty, Limits::default().depth)
    }

    fn read_from(
        types: &Types,
        reader: &mut Reader<'a>,
        ty: TypeId,
        depth: usize,
    ) -> Result<Self, GobError> {
        let inside = depth.checked_sub(1).ok_or(GobError::TooDeep(depth))?;
        Ok(match types.kind(ty)? {
            Kind::Bool => Value::Bool(reader.bool()?),
            Kind::Int => Value::Int(reader.int()?),
            Kind::Uint => Value::Uint(reader.uint()?),
            Kind::Float => Value::Float(reader.float()?),
            Kind::Bytes => Value::Bytes(reader.bytes()?),
            Kind::String => Value::String(reader.bytes()?),
            Kind::Complex => Value::Complex(reader.float()?, reader.float()?),
            Kind::Interface => {
                let name = reader.bytes()?;
                if name.is_empty() {
                    return Ok(Value::Interface(None));
                }
                let ty = walk::concrete(reader, |_, _, _| Ok(()))?;
                reader.uint()?;
                walk::begin(types, reader, ty)?;
                let value = Value::read_from(types, reader, ty, inside)?;
                Value::Interface(Some(Box::new((name, ty, value))))
            }
            Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }) => {
                let count = reader.count()?;
                let elements =
                    (0..count).map(|_| Value::read_from(types, reader, *element, inside));
                Value::List(elements.collect::<Result<_, _>>()?)
            }
            Kind::Defined(Wire::Map { key, element }) => {
                let count = reader.count()?;
                let mut pairs = Vec::new();
                for _ in 0..count {
                    let key = Value::read_from(types, reader, *key, inside)?;
                    pairs.push((key, Value::read_from(types, reader, *element, inside)?));
                }
                Value::Map(pairs)
            }
            Kind::Defined(Wire::Struct { fields, .. }) => {
                let (mut found, mut before) = (Vec::new(), None);
                while let Some(index) = reader.field(before, fields.len())? {
                    let ty = fields.get(index).ok_or(GobError::NoSuchField)?.ty;
                    found.push((index, Value::read_from(types, reader, ty, inside)?));
                    before = Some(index);
                }
                Value::Struct(found)
            }
            Kind::Defined(Wire::Opaque { .. }) => Value::Opaque(reader.bytes()?),
        })
    }

    /// Appends a message with this value, which stands alone. `ty` is its type in the stream that it is
    /// written to, and `adopted` gives the types there for those of interfaces' values, as
    /// [`Encoder::adopt`](crate::Encoder::adopt) fills it.
    pub fn put_message(&self, ty: TypeId, adopted: &HashMap<TypeId, TypeId>, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        put_int(&mut body, ty.number());
        self.put_alone(adopted, &mut body);
        put_message(out, &body);
    }

    fn put_alone(&self, adopted: &HashMap<TypeId, TypeId>, out: &mut Vec<u8>) {
        if !matches!(self, Value::Struct(_)) {
            out.push(0);
        }
        self.put(adopted, out);
    }

    fn put(&self, adopted: &HashMap<TypeId, TypeId>, out: &mut Vec<u8>) {
        match self {
            Value::Bool(value) => put_uint(out, u64::from(*value)),
            Value::Int(value) => put_int(out, *value),
            Value::Uint(value) => put_uint(out, *value),
            Value::Float(value) => put_float(out, *value),
            Value::Bytes(bytes) | Value::String(bytes) | Value::Opaque(bytes) => {
                put_text(out, bytes);
            }
            Value::Complex(real, imaginary) => {
                put_float(out, *real);
                put_float(out, *imaginary);
            }
            Value::Interface(None) => put_text(out, b""),
            Value::Interface(Some(inner)) => {
                let (name, ty, value) = &**inner;
                put_text(out, name);
                put_int(out, adopted.get(ty).unwrap_or(ty).number());
                let mut alone = Vec::new();
                value.put_alone(adopted, &mut alone);
                put_message(out, &alone);
            }
            Value::List(elements) => {
                put_uint(out, elements.len() as u64);
                elements.iter().for_each(|element| element.put(adopted, out));
            }
            Value::Map(pairs) => {
                put_uint(out, pairs.len() as u64);
                for (key, element) in pairs {
                    key.put(adopted, out);
                    element.put(adopted, out);
                }
            }
            Value::Struct(fields) => {
                let mut body = StructBody::default();
                for (index, value) in fields {
                    body.field(*index, out);
                    value.put(adopted, out);
                }
                StructBody::end(out);
            }
        }
    }
}
