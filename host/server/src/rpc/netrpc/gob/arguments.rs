//! Translates the argument of a call from gob to postcard, by the types on both sides.

mod declared;
mod structs;

use std::collections::HashMap;
use std::sync::Arc;

use wharf_gob::{Item, Kind, Reader, TypeId as GobType, Types as GobTypes, Wire};
use wharf_schema::encoding::{put_bytes, put_char, put_flags, put_signed, put_unsigned};
use wharf_schema::{Param, Service, Type, TypeId, Types, ValueError, find_name};

use super::mirror::{Mirror, Used};
use crate::rpc::invoke::Named;

/// The most types and pairs of types of which something is remembered.
const MAX_MATCHED: usize = 1000;

/// What is known about the arguments of a method.
pub(super) struct Binding {
    service: Arc<Service>,
    params: Vec<Param>,
    /// Which field of a Go struct is which member of a WIT type. Go's types come from one connection.
    matched: HashMap<(GobType, Members), Arc<[Option<usize>]>>,
    /// What the types of arguments say of how a caller spells integers. Go leaves zeros out, so their
    /// values do not tell.
    declared: HashMap<GobType, Mirror>,
    /// The most bytes of the arguments.
    max: usize,
}

/// The WIT side of a struct.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Members {
    /// The parameters of the method.
    Params,
    /// The fields of a record, the parts of a tuple, or the cases of a variant.
    Of(TypeId),
}

impl Binding {
    pub(super) fn new(named: &Named, max: usize) -> Self {
        let params = named.signature().map(|signature| signature.params.clone());
        Binding {
            service: named.service.clone(),
            params: params.unwrap_or_default(),
            matched: HashMap::new(),
            declared: HashMap::new(),
            max,
        }
    }

    /// Whether it still describes the method, which may have been replaced.
    pub(super) fn is_for(&self, named: &Named) -> bool {
        Arc::ptr_eq(&self.service, &named.service)
    }

    /// The arguments of a call. `mirror` notes which gob types were used.
    ///
    /// # Errors
    /// What does not fit, and where.
    pub(super) fn arguments(
        &mut self,
        gob: &GobTypes,
        item: Item<'_>,
        mirror: &mut Mirror,
    ) -> Result<Vec<u8>, ValueError> {
        let service = self.service.clone();
        let params = std::mem::take(&mut self.params);
        let mut out = Vec::with_capacity(item.bytes.len());
        let declared = self.declared.get(&item.ty).copied();
        *mirror = declared.unwrap_or_default();
        let mut translation =
            Translation { gob, types: service.types(), binding: self, mirror, out: &mut out };
        if declared.is_none() {
            translation.declared_arguments(&params, item.ty);
        }
        let done = translation.arguments(&params, item);
        self.params = params;
        done.map(|()| out)
    }
}

struct Translation<'t> {
    gob: &'t GobTypes,
    types: &'t Types,
    binding: &'t mut Binding,
    mirror: &'t mut Mirror,
    out: &'t mut Vec<u8>,
}

impl<'t> Translation<'t> {
    fn arguments(&mut self, params: &[Param], item: Item<'_>) -> Result<(), ValueError> {
        let mut reader = Reader::new(item.bytes);
        let is_struct = matches!(self.kind(item.ty)?, Kind::Defined(Wire::Struct { .. }));
        match params {
            [] => Ok(()),
            [only] if !is_struct || self.is_struct_like(only.ty) => {
                self.value(&mut reader, item.ty, only.ty).map_err(|error| error.within(&only.name))
            }
            _ if is_struct => {
                let names = params.iter().map(|param| &param.name[..]).collect::<Vec<_>>();
                let types = params.iter().map(|param| param.ty).collect::<Vec<_>>();
                self.fields(&mut reader, item.ty, (Members::Params, &names, &types))
            }
            _ => {
                let names: Vec<&str> = params.iter().map(|param| &param.name[..]).collect();
                let found = self.gob.notation(item.ty);
                let wanted = names.join(", ");
                Err(ValueError::new(format!(
                    "expected a struct with the fields {wanted}, found {found}"
                )))
            }
        }
    }

    /// Whether the arguments are still within their bound. What Go leaves out takes no input, so input
    /// does not bound it.
    fn has_room(&self) -> Result<(), ValueError> {
        match self.out.len() > self.binding.max {
            true => Err(ValueError::new(format!("it takes more than {} bytes", self.binding.max))),
            false => Ok(()),
        }
    }

    /// Whether Go writes a value of this type as a struct.
    fn is_struct_like(&self, ty: TypeId) -> bool {
        match &self.types[ty] {
            Type::Record(_) | Type::Tuple(_) | Type::Variant(_) | Type::Result { .. } => true,
            Type::Option(some) => self.is_struct_like(*some),
            _ => false,
        }
    }

    fn kind(&self, ty: GobType) -> Result<Kind<'t>, ValueError> {
        self.gob.kind(ty).map_err(invalid)
    }

    fn value(
        &mut self,
        reader: &mut Reader<'_>,
        from: GobType,
        to: TypeId,
    ) -> Result<(), ValueError> {
        self.has_room()?;
        let gob = self.gob;
        let kind = gob.kind(from).map_err(invalid)?;
        if kind == Kind::Interface {
            return self.interface(reader, to);
        }
        let types = self.types;
        match (&types[to], kind) {
            (Type::Bool, Kind::Bool) => self.out.push(reader.bool().map_err(invalid)?.into()),
            (Type::U8, Kind::Int | Kind::Uint) => {
                let number = self.integer(reader, kind, to, (0, u8::MAX.into()))?;
                self.out.push(number.to_le_bytes()[0]);
            }
            (Type::S8, Kind::Int | Kind::Uint) => {
                let number = self.integer(reader, kind, to, (i8::MIN.into(), i8::MAX.into()))?;
                self.out.push(number.to_le_bytes()[0]);
            }
            (Type::U16, Kind::Int | Kind::Uint) => {
                self.unsigned(reader, kind, to, u16::MAX.into())?;
            }
            (Type::U32, Kind::Int | Kind::Uint) => {
                self.unsigned(reader, kind, to, u32::MAX.into())?;
            }
            (Type::U64, Kind::Int | Kind::Uint) => {
                self.unsigned(reader, kind, to, u64::MAX.into())?;
            }
            (Type::S16, Kind::Int | Kind::Uint) => {
                self.signed(reader, kind, to, (i16::MIN.into(), i16::MAX.into()))?;
            }
            (Type::S32, Kind::Int | Kind::Uint) => {
                self.signed(reader, kind, to, (i32::MIN.into(), i32::MAX.into()))?;
            }
            (Type::S64, Kind::Int | Kind::Uint) => {
                self.signed(reader, kind, to, (i64::MIN.into(), i64::MAX.into()))?;
            }
            (Type::F32, Kind::Float | Kind::Int | Kind::Uint) => {
                let number = self.float(reader, kind, to)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rounding is what f32 asks for"
                )]
                let short = number as f32;
                if short.is_infinite() && number.is_finite() {
                    return Err(self.mismatch(to, &number.to_string()));
                }
                self.out.extend_from_slice(&short.to_le_bytes());
            }
            (Type::F64, Kind::Float | Kind::Int | Kind::Uint) => {
                let number = self.float(reader, kind, to)?;
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            (Type::Char, Kind::Int | Kind::Uint) => {
                let number = integer(reader, kind)?;
                let char = u32::try_from(number).ok().and_then(char::from_u32);
                put_char(self.out, char.ok_or_else(|| self.mismatch(to, &number.to_string()))?);
            }
            (Type::Char, Kind::String) => {
                let text = self.text(reader, to)?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(one), None) => put_char(self.out, one),
                    _ => return Err(self.mismatch(to, "a string of another length")),
                }
            }
            (
                Type::String,
                Kind::String | Kind::Defined(Wire::Opaque { by: wharf_gob::Opaque::Text, .. }),
            ) => {
                let text = self.text(reader, to)?;
                put_bytes(self.out, text.as_bytes());
            }
            (Type::Bytes, Kind::Bytes | Kind::String | Kind::Defined(Wire::Opaque { .. })) => {
                put_bytes(self.out, reader.bytes().map_err(invalid)?);
            }
            (Type::Bytes, Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }))
                if matches!(*element, GobType::UINT | GobType::INT) =>
            {
                let kind = self.kind(*element)?;
                let count = reader.count().map_err(invalid)?;
                put_unsigned(self.out, count as u64);
                for _ in 0..count {
                    let byte = u8::try_from(integer(reader, kind)?);
                    self.out.push(byte.map_err(|_| self.mismatch(to, "a number beyond 255"))?);
                }
            }
            (
                Type::List(inner),
                Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }),
            ) => {
                let count = reader.count().map_err(invalid)?;
                put_unsigned(self.out, count as u64);
                self.elements(reader, *element, *inner, count)?;
            }
            (Type::List(inner), Kind::Defined(Wire::Map { key, element })) => {
                let pair = match &types[*inner] {
                    Type::Tuple(parts) => parts.clone(),
                    Type::Record(fields) => fields.iter().map(|field| field.ty).collect(),
                    _ => Vec::new(),
                };
                let [to_key, to_element] = pair[..] else { return Err(self.found(from, to)) };
                let count = reader.count().map_err(invalid)?;
                put_unsigned(self.out, count as u64);
                for index in 0..count {
                    let within = |error: ValueError| error.within(format_args!("[{index}]"));
                    self.value(reader, *key, to_key).map_err(within)?;
                    self.value(reader, *element, to_element).map_err(within)?;
                }
            }
            (Type::FixedList(inner, len), Kind::Bytes) if matches!(types[*inner], Type::U8) => {
                let bytes = reader.bytes().map_err(invalid)?;
                if bytes.len() != *len as usize {
                    return Err(self.mismatch(to, &format!("{} bytes", bytes.len())));
                }
                self.out.extend_from_slice(bytes);
            }
            (
                Type::FixedList(inner, len),
                Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }),
            ) => {
                let count = reader.count().map_err(invalid)?;
                if count != *len as usize {
                    return Err(self.mismatch(to, &format!("{count} elements")));
                }
                self.elements(reader, *element, *inner, count)?;
            }
            (Type::Tuple(parts), Kind::Defined(Wire::Struct { .. })) => {
                let names: Vec<String> = (0..parts.len()).map(|part| format!("f{part}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.fields(reader, from, (Members::Of(to), &names, parts))?;
            }
            (
                Type::Tuple(parts),
                Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }),
            ) => {
                let count = reader.count().map_err(invalid)?;
                if count != parts.len() {
                    return Err(self.mismatch(to, &format!("{count} elements")));
                }
                for (index, part) in parts.iter().enumerate() {
                    self.value(reader, *element, *part)
                        .map_err(|error| error.within(format_args!("[{index}]")))?;
                }
            }
            (Type::Record(fields), Kind::Defined(Wire::Struct { .. })) => {
                let names: Vec<&str> = fields.iter().map(|field| &field.name[..]).collect();
                let parts: Vec<TypeId> = fields.iter().map(|field| field.ty).collect();
                self.fields(reader, from, (Members::Of(to), &names, &parts))?;
            }
            (Type::Variant(cases), _) => {
                let cases: Vec<_> = cases.iter().map(|case| (&case.name[..], case.ty)).collect();
                self.variant(reader, from, (to, &cases))?;
            }
            (Type::Result { ok, err }, _) => {
                self.variant(reader, from, (to, &[("ok", *ok), ("err", *err)]))?;
            }
            (Type::Enum(names), Kind::Int | Kind::Uint) => {
                self.mirror.saw_enum(used(kind));
                let number = integer(reader, kind)?;
                let index = usize::try_from(number).ok().filter(|index| *index < names.len());
                let index = index.ok_or_else(|| self.mismatch(to, &number.to_string()))?;
                put_unsigned(self.out, index as u64);
            }
            (Type::Enum(names), Kind::String) => {
                self.mirror.saw_enum(Used::Text);
                let text = self.text(reader, to)?;
                let index = find_name(names.iter().map(String::as_str), text);
                put_unsigned(self.out, index.ok_or_else(|| self.mismatch(to, text))? as u64);
            }
            (Type::Flags(names), Kind::Int | Kind::Uint) => {
                self.mirror.saw_flags(used(kind));
                let mask = match kind {
                    Kind::Uint => reader.uint().map_err(invalid)?,
                    _ => reader.int().map_err(invalid)?.cast_unsigned(),
                };
                if names.len() < 64 && mask >> names.len() != 0 {
                    return Err(self.mismatch(to, &format!("{mask:#x}")));
                }
                let set: Vec<bool> =
                    (0..names.len()).map(|bit| bit < 64 && mask >> bit & 1 == 1).collect();
                put_flags(self.out, &set);
            }
            (Type::Flags(names), Kind::Defined(Wire::Slice { element: GobType::STRING })) => {
                let mut set = vec![false; names.len()];
                for _ in 0..reader.count().map_err(invalid)? {
                    let text = self.text(reader, to)?;
                    let index = find_name(names.iter().map(String::as_str), text);
                    set[index.ok_or_else(|| self.mismatch(to, text))?] = true;
                }
                put_flags(self.out, &set);
            }
            (Type::Option(some), _) => {
                self.out.push(1);
                self.value(reader, from, *some)?;
            }
            _ => return Err(self.found(from, to)),
        }
        Ok(())
    }

    /// A value in an interface. A nil one is none.
    fn interface(&mut self, reader: &mut Reader<'_>, to: TypeId) -> Result<(), ValueError> {
        match wharf_gob::interface(self.gob, reader).map_err(invalid)? {
            Some(ty) => self.value(reader, ty, to),
            None if matches!(self.types[to], Type::Option(_)) => {
                self.out.push(0);
                Ok(())
            }
            None => Err(self.mismatch(to, "nil")),
        }
    }

    fn elements(
        &mut self,
        reader: &mut Reader<'_>,
        from: GobType,
        to: TypeId,
        count: usize,
    ) -> Result<(), ValueError> {
        for index in 0..count {
            self.value(reader, from, to)
                .map_err(|error| error.within(format_args!("[{index}]")))?;
        }
        Ok(())
    }

    fn integer(
        &mut self,
        reader: &mut Reader<'_>,
        kind: Kind<'_>,
        to: TypeId,
        (min, max): (i128, i128),
    ) -> Result<i128, ValueError> {
        match self.types[to] {
            Type::S8 | Type::S16 | Type::S32 | Type::S64 => self.mirror.saw_signed(used(kind)),
            _ => self.mirror.saw_unsigned(used(kind)),
        }
        let number = integer(reader, kind)?;
        match (min..=max).contains(&number) {
            true => Ok(number),
            false => Err(self.mismatch(to, &number.to_string())),
        }
    }

    fn unsigned(
        &mut self,
        reader: &mut Reader<'_>,
        kind: Kind<'_>,
        to: TypeId,
        max: i128,
    ) -> Result<(), ValueError> {
        let number = self.integer(reader, kind, to, (0, max))?;
        put_unsigned(self.out, u64::try_from(number).unwrap_or(u64::MAX));
        Ok(())
    }

    fn signed(
        &mut self,
        reader: &mut Reader<'_>,
        kind: Kind<'_>,
        to: TypeId,
        range: (i128, i128),
    ) -> Result<(), ValueError> {
        let number = self.integer(reader, kind, to, range)?;
        put_signed(self.out, i64::try_from(number).unwrap_or(i64::MAX));
        Ok(())
    }

    /// A number with a fraction, or a whole one that is exact as such.
    fn float(
        &mut self,
        reader: &mut Reader<'_>,
        kind: Kind<'_>,
        to: TypeId,
    ) -> Result<f64, ValueError> {
        if kind == Kind::Float {
            return reader.float().map_err(invalid);
        }
        let number = integer(reader, kind)?;
        let exact = i32::try_from(number).map(f64::from);
        exact.map_err(|_| self.mismatch(to, &number.to_string()))
    }

    fn text<'a>(&self, reader: &mut Reader<'a>, to: TypeId) -> Result<&'a str, ValueError> {
        let bytes = reader.bytes().map_err(invalid)?;
        std::str::from_utf8(bytes).map_err(|_| self.mismatch(to, "bytes that are not UTF-8"))
    }

    fn mismatch(&self, to: TypeId, found: &str) -> ValueError {
        let shown = &found[..found.floor_char_boundary(100)];
        ValueError::new(format!("expected {}, found {shown}", self.types.notation(to)))
    }

    fn found(&self, from: GobType, to: TypeId) -> ValueError {
        self.mismatch(to, &self.gob.notation(from))
    }
}

fn integer(reader: &mut Reader<'_>, kind: Kind<'_>) -> Result<i128, ValueError> {
    match kind {
        Kind::Uint => reader.uint().map(i128::from).map_err(invalid),
        _ => reader.int().map(i128::from).map_err(invalid),
    }
}

fn used(kind: Kind<'_>) -> Used {
    if kind == Kind::Uint { Used::Uint } else { Used::Int }
}

/// What the decoder has checked already.
#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
fn invalid(error: wharf_gob::GobError) -> ValueError {
    ValueError::new(error.to_string())
}
