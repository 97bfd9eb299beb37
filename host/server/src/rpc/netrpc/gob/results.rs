//! Translates the result of a call from postcard to gob, by its WIT type.
//!
//! Every field of a struct is written, also if it is zero: Go reads into what its caller gave, and
//! would keep an old value there. Only an absent option is left out.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_gob::{
    Encoder, Field, StructBody, TypeId as GobType, Wire, put_float, put_int, put_text, put_uint,
};
use wharf_schema::encoding::Reader;
use wharf_schema::{Outcome, Service, Type, TypeId, Types, result_to_json};

use super::mirror::{Mirror, Used};
use super::{error_text, names};

/// The types of results that one connection remembers.
const MAX_KNOWN: usize = 1000;

/// The types that this connection has sent.
#[derive(Default)]
pub(super) struct Results {
    response: Option<GobType>,
    /// The types of results, by method and by what the argument used.
    known: HashMap<(u32, Mirror), (Arc<Service>, GobType, Shape)>,
}

/// What a result became.
pub(super) enum Written {
    /// The body of the message.
    Body,
    /// The method's own error, as text.
    Error(String),
}

/// Whether a value that stands alone has a zero in front.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Struct,
    Alone,
}

impl Results {
    /// The type `Response`.
    pub(super) fn response(&mut self, encoder: &mut Encoder, out: &mut Vec<u8>) -> GobType {
        *self.response.get_or_insert_with(|| {
            let field = |name: &str, ty| Field { name: name.to_owned(), ty };
            let fields = vec![
                field("ServiceMethod", GobType::STRING),
                field("Seq", GobType::UINT),
                field("Error", GobType::STRING),
            ];
            encoder.define(Wire::Struct { name: "Response".to_owned(), fields }, out)
        })
    }

    /// Writes the body of an answer to `out`, of at most `max` bytes. The definitions of new types go
    /// to `definitions`.
    ///
    /// # Errors
    /// What cannot be said in gob.
    pub(super) fn write(
        &mut self,
        (service, method, ty): (&Arc<Service>, u32, Option<TypeId>),
        mirror: Mirror,
        result: &[u8],
        (encoder, definitions): (&mut Encoder, &mut Vec<u8>),
        (out, max): (&mut Vec<u8>, usize),
    ) -> Result<Written, String> {
        let types = service.types();
        let mut reader = Reader::new(result);
        let mut carried = ty;
        if let Some(Type::Result { ok, .. }) = ty.map(|ty| &types[ty]) {
            if reader.discriminant(2).map_err(|error| error.to_string())? == 1 {
                return own_error(types, ty, result);
            }
            carried = *ok;
        }
        let key = (method, mirror);
        let known = self.known.get(&key).filter(|(known, ..)| Arc::ptr_eq(known, service));
        let (gob, shape) = match known {
            Some((_, gob, shape)) => (*gob, *shape),
            None => {
                let mut defining =
                    Defining { types, mirror, encoder, definitions, done: HashMap::new() };
                let gob = match carried {
                    Some(ty) => defining.ty(ty)?,
                    None => defining.nothing(),
                };
                let is_struct = carried.is_none_or(|ty| is_struct(types, ty));
                let shape = if is_struct { Shape::Struct } else { Shape::Alone };
                if self.known.len() >= MAX_KNOWN {
                    self.known.clear();
                }
                self.known.insert(key, (service.clone(), gob, shape));
                (gob, shape)
            }
        };
        put_int(out, gob.number());
        if shape == Shape::Alone {
            out.push(0);
        }
        let mut writing = Writing { types, mirror, reader, out, max };
        match carried {
            Some(ty) => writing.top(ty)?,
            None => StructBody::end(writing.out),
        }
        writing.reader.finish().map_err(|error| error.to_string())?;
        Ok(Written::Body)
    }
}

/// The Err of a method, as Go's programmers see errors: a text.
fn own_error(types: &Types, ty: Option<TypeId>, result: &[u8]) -> Result<Written, String> {
    let shown = result_to_json(types, ty, result).map_err(|error| error.to_string())?;
    let (Outcome::Ok(json) | Outcome::Err(json)) = shown;
    let text = match serde_json::from_str(&json) {
        Ok(serde_json::Value::Null) => "the call failed, and says no more".to_owned(),
        Ok(value) => error_text(&value),
        Err(_) => json,
    };
    Ok(Written::Error(text))
}

/// Whether Go sees a value of this type as a struct.
fn is_struct(types: &Types, ty: TypeId) -> bool {
    match &types[ty] {
        Type::Record(_) | Type::Tuple(_) | Type::Variant(_) | Type::Result { .. } => true,
        Type::Option(some) => is_struct(types, *some),
        _ => false,
    }
}

/// Defines the gob types of a WIT type.
struct Defining<'t> {
    types: &'t Types,
    mirror: Mirror,
    encoder: &'t mut Encoder,
    definitions: &'t mut Vec<u8>,
    /// Types refer to each other, and may do so often.
    done: HashMap<TypeId, GobType>,
}

impl Defining<'_> {
    fn ty(&mut self, ty: TypeId) -> Result<GobType, String> {
        if let Some(done) = self.done.get(&ty) {
            return Ok(*done);
        }
        let types = self.types;
        let gob = match &types[ty] {
            Type::Bool => GobType::BOOL,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => number(self.mirror.unsigned()),
            Type::S8 | Type::S16 | Type::S32 | Type::S64 => number(self.mirror.signed()),
            Type::F32 | Type::F64 => GobType::FLOAT,
            Type::Char => GobType::INT,
            Type::String => GobType::STRING,
            Type::Bytes => GobType::BYTES,
            Type::Enum(_) => number(self.mirror.enums()),
            Type::Flags(names) if names.len() > 64 => {
                return Err(format!("has flags with {} names, and a mask has 64", names.len()));
            }
            Type::Flags(_) => number(self.mirror.flags()),
            Type::Option(some) => self.ty(*some)?,
            Type::List(element) => {
                let element = self.ty(*element)?;
                self.define(Wire::Slice { element })
            }
            Type::FixedList(element, len) => {
                let element = self.ty(*element)?;
                self.define(Wire::Array { element, len: u64::from(*len) })
            }
            Type::Record(members) => {
                let mut fields = Vec::new();
                for member in members {
                    let ty = self.ty(member.ty)?;
                    for name in names::of_field(&member.name) {
                        fields.push(Field { name, ty });
                    }
                }
                self.structure(fields)
            }
            Type::Tuple(parts) => {
                let mut fields = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    fields.push(Field { name: format!("F{index}"), ty: self.ty(*part)? });
                }
                self.structure(fields)
            }
            Type::Variant(cases) => {
                let cases: Vec<_> = cases.iter().map(|case| (&case.name[..], case.ty)).collect();
                self.variant(&cases)?
            }
            Type::Result { ok, err } => self.variant(&[("ok", *ok), ("err", *err)])?,
        };
        self.done.insert(ty, gob);
        Ok(gob)
    }

    fn variant(&mut self, cases: &[(&str, Option<TypeId>)]) -> Result<GobType, String> {
        if cases.iter().any(|(name, payload)| *name == "tag" && payload.is_some()) {
            return Err("has a case 'tag', and in Go that says which case it is".to_owned());
        }
        let tag = match self.mirror.tags() {
            Used::Text => GobType::STRING,
            used => number(used),
        };
        let mut fields = vec![Field { name: "Tag".to_owned(), ty: tag }];
        for (name, payload) in cases {
            let Some(payload) = payload else { continue };
            let ty = self.ty(*payload)?;
            for name in names::of_field(name) {
                fields.push(Field { name, ty });
            }
        }
        Ok(self.structure(fields))
    }

    fn nothing(&mut self) -> GobType {
        self.structure(Vec::new())
    }

    fn structure(&mut self, fields: Vec<Field>) -> GobType {
        self.define(Wire::Struct { name: String::new(), fields })
    }

    fn define(&mut self, wire: Wire) -> GobType {
        self.encoder.define(wire, self.definitions)
    }
}

fn number(used: Used) -> GobType {
    match used {
        Used::Int => GobType::INT,
        Used::Uint => GobType::UINT,
        Used::Text => GobType::STRING,
    }
}

/// Writes a value.
struct Writing<'t> {
    types: &'t Types,
    mirror: Mirror,
    reader: Reader<'t>,
    out: &'t mut Vec<u8>,
    max: usize,
}

impl<'t> Writing<'t> {
    /// A value that stands alone. An absent one is zero, because an answer always has a body.
    fn top(&mut self, ty: TypeId) -> Result<(), String> {
        let Type::Option(some) = self.types[ty] else { return self.value(ty) };
        match self.read(|reader| reader.discriminant(2))? {
            0 => self.zero(some),
            _ => self.top(some),
        }
    }

    fn zero(&mut self, ty: TypeId) -> Result<(), String> {
        match &self.types[ty] {
            Type::Option(some) => return self.zero(*some),
            Type::FixedList(..) => {
                return Err("is none, which an array cannot say".to_owned());
            }
            // A struct without fields, or the number, text or list that is zero or empty.
            _ => self.out.push(0),
        }
        Ok(())
    }

    fn value(&mut self, ty: TypeId) -> Result<(), String> {
        if self.out.len() > self.max {
            return Err(format!("has more than {} bytes as gob", self.max));
        }
        let types = self.types;
        match &types[ty] {
            Type::Bool => {
                let value = self.read(|reader| reader.bool())?;
                put_uint(self.out, u64::from(value));
            }
            Type::U8 => {
                let value = self.read(|reader| reader.u8())?;
                self.unsigned(u64::from(value), self.mirror.unsigned())?;
            }
            Type::U16 => self.put_unsigned(16)?,
            Type::U32 => self.put_unsigned(32)?,
            Type::U64 => self.put_unsigned(64)?,
            Type::S8 => {
                let value = self.read(|reader| reader.u8())?;
                self.signed(i64::from(value.cast_signed()))?;
            }
            Type::S16 => self.put_signed(16)?,
            Type::S32 => self.put_signed(32)?,
            Type::S64 => self.put_signed(64)?,
            Type::F32 => {
                let value = self.read(|reader| reader.f32())?;
                put_float(self.out, f64::from(value));
            }
            Type::F64 => {
                let value = self.read(|reader| reader.f64())?;
                put_float(self.out, value);
            }
            Type::Char => {
                let value = self.read(|reader| reader.char())?;
                put_int(self.out, i64::from(u32::from(value)));
            }
            Type::String => {
                let value = self.read(|reader| reader.str())?;
                put_text(self.out, value.as_bytes());
            }
            Type::Bytes => {
                let value = self.read(|reader| reader.bytes())?;
                put_text(self.out, value);
            }
            Type::List(element) => {
                let count = self.read(|reader| reader.length())?;
                put_uint(self.out, count as u64);
                for _ in 0..count {
                    self.element(*element)?;
                }
            }
            Type::FixedList(element, len) => {
                put_uint(self.out, u64::from(*len));
                for _ in 0..*len {
                    self.element(*element)?;
                }
            }
            Type::Record(members) => {
                let (mut body, mut index) = (StructBody::default(), 0);
                for member in members {
                    let count = names::of_field(&member.name).len();
                    self.field(&mut body, index, count, member.ty)?;
                    index += count;
                }
                StructBody::end(self.out);
            }
            Type::Tuple(parts) => {
                let mut body = StructBody::default();
                for (index, part) in parts.iter().enumerate() {
                    self.field(&mut body, index, 1, *part)?;
                }
                StructBody::end(self.out);
            }
            Type::Variant(cases) => {
                let cases: Vec<_> = cases.iter().map(|case| (&case.name[..], case.ty)).collect();
                self.variant(&cases)?;
            }
            Type::Result { ok, err } => self.variant(&[("ok", *ok), ("err", *err)])?,
            Type::Enum(names) => {
                let case = self.read(|reader| reader.discriminant(names.len()))?;
                self.tag(&names[case], case, self.mirror.enums())?;
            }
            Type::Flags(names) => {
                let set = self.read(|reader| reader.flags(names.len()))?;
                let mask = set
                    .iter()
                    .enumerate()
                    .fold(0, |mask, (bit, set)| mask | u64::from(*set) << bit);
                match self.mirror.flags() {
                    Used::Int => put_int(self.out, mask.cast_signed()),
                    _ => put_uint(self.out, mask),
                }
            }
            Type::Option(some) => match self.read(|reader| reader.discriminant(2))? {
                0 => return Err("is none where Go has no pointer".to_owned()),
                _ => self.value(*some)?,
            },
        }
        Ok(())
    }

    /// An element of a list. Go cannot say that it is absent.
    fn element(&mut self, ty: TypeId) -> Result<(), String> {
        let mut ty = ty;
        while let Type::Option(some) = self.types[ty] {
            if self.read(|reader| reader.discriminant(2))? == 0 {
                return Err("has none in a list, which gob cannot say".to_owned());
            }
            ty = some;
        }
        self.value(ty)
    }

    /// A field with all of its names. An absent option is left out.
    fn field(
        &mut self,
        body: &mut StructBody,
        index: usize,
        count: usize,
        ty: TypeId,
    ) -> Result<(), String> {
        let mut ty = ty;
        let mut outermost = true;
        while let Type::Option(some) = self.types[ty] {
            match (self.read(|reader| reader.discriminant(2))?, outermost) {
                (0, true) => return Ok(()),
                (0, false) => {
                    return Err("has none within an option, which gob cannot say".to_owned());
                }
                _ => (ty, outermost) = (some, false),
            }
        }
        body.field(index, self.out);
        let begins = self.out.len();
        self.value(ty)?;
        let ends = self.out.len();
        for other in 1..count {
            // Nested, they would double at each level.
            if self.out.len() + (ends - begins) > self.max {
                return Err(format!("has more than {} bytes as gob", self.max));
            }
            body.field(index + other, self.out);
            self.out.extend_from_within(begins..ends);
        }
        Ok(())
    }

    fn variant(&mut self, cases: &[(&str, Option<TypeId>)]) -> Result<(), String> {
        let case = self.read(|reader| reader.discriminant(cases.len()))?;
        let mut body = StructBody::default();
        body.field(0, self.out);
        self.tag(cases[case].0, case, self.mirror.tags())?;
        let mut index = 1;
        for (place, (name, payload)) in cases.iter().enumerate() {
            let Some(payload) = payload else { continue };
            let count = names::of_field(name).len();
            if place == case {
                self.field(&mut body, index, count, *payload)?;
            }
            index += count;
        }
        StructBody::end(self.out);
        Ok(())
    }

    fn tag(&mut self, name: &str, case: usize, used: Used) -> Result<(), String> {
        match used {
            Used::Text => put_text(self.out, name.as_bytes()),
            used => self.unsigned(case as u64, used)?,
        }
        Ok(())
    }

    fn put_unsigned(&mut self, bits: u32) -> Result<(), String> {
        let value = self.read(|reader| reader.unsigned(bits))?;
        self.unsigned(value, self.mirror.unsigned())
    }

    fn put_signed(&mut self, bits: u32) -> Result<(), String> {
        let value = self.read(|reader| reader.signed(bits))?;
        self.signed(value)
    }

    fn unsigned(&mut self, value: u64, used: Used) -> Result<(), String> {
        match used {
            Used::Int => {
                let value = i64::try_from(value);
                put_int(self.out, value.map_err(|_| "does not fit the caller's int".to_owned())?);
            }
            _ => put_uint(self.out, value),
        }
        Ok(())
    }

    fn signed(&mut self, value: i64) -> Result<(), String> {
        match self.mirror.signed() {
            Used::Uint => {
                let value = u64::try_from(value);
                put_uint(self.out, value.map_err(|_| "does not fit the caller's uint".to_owned())?);
            }
            _ => put_int(self.out, value),
        }
        Ok(())
    }

    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'t>) -> Result<T, wharf_schema::ValueError>,
    ) -> Result<T, String> {
        read(&mut self.reader).map_err(|error| error.to_string())
    }
}
