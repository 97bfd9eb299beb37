//! A WIT value as a Go program would declare and send it, by PROTOCOL.md's table. This is written a
//! second time here, so that the host's own translation is not its own judge.

use std::collections::HashMap;

use wharf_gob::{
    Encoder, Field, StructBody, TypeId as GobType, Types as GobTypes, Value, Wire, put_float,
    put_int, put_message, put_text, put_uint,
};
use wharf_schema::encoding::Reader;
use wharf_schema::{Type, TypeId, Types, net_rpc};

/// What gob cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Uncarried {
    /// A none as an element of a list or an array.
    NoneInList,
    /// A none within an option.
    NestedNone,
}

/// Appends a call of net/rpc with one argument.
///
/// # Errors
/// What of the argument gob cannot carry.
pub(crate) fn put_call(
    encoder: &mut Encoder,
    number: u64,
    method: &str,
    (types, ty, argument): (&Types, TypeId, &[u8]),
    out: &mut Vec<u8>,
) -> Result<(), Uncarried> {
    let mut value = Vec::new();
    put(types, ty, &mut Reader::new(argument), &mut value)?;
    let mut body = put_request(encoder, number, method, out);
    let gob = define(types, ty, encoder, out, &mut HashMap::new());
    put_int(&mut body, gob.number());
    if !is_struct(types, ty) {
        body.push(0);
    }
    body.extend(value);
    put_message(out, &body);
    Ok(())
}

/// Appends a call whose argument is a struct with these fields, all of them `int`.
pub(crate) fn put_call_with(
    encoder: &mut Encoder,
    number: u64,
    method: &str,
    given: &[(&str, i64)],
    out: &mut Vec<u8>,
) {
    let mut body = put_request(encoder, number, method, out);
    let field = |(name, _): &(&str, i64)| Field { name: (*name).to_owned(), ty: GobType::INT };
    let fields = given.iter().map(field).collect();
    let argument = encoder.define(Wire::Struct { name: "Args".to_owned(), fields }, out);
    put_int(&mut body, argument.number());
    let mut members = StructBody::default();
    for (index, (_, value)) in given.iter().enumerate() {
        members.field(index, &mut body);
        put_int(&mut body, *value);
    }
    StructBody::end(&mut body);
    put_message(out, &body);
}

/// Appends a `Request`. Returns a buffer for its argument.
fn put_request(encoder: &mut Encoder, number: u64, method: &str, out: &mut Vec<u8>) -> Vec<u8> {
    let field = |name: &str, ty| Field { name: name.to_owned(), ty };
    let fields = vec![field("ServiceMethod", GobType::STRING), field("Seq", GobType::UINT)];
    let request = encoder.define(Wire::Struct { name: "Request".to_owned(), fields }, out);
    let mut body = Vec::new();
    put_int(&mut body, request.number());
    let mut head = StructBody::default();
    head.field(0, &mut body);
    put_text(&mut body, method.as_bytes());
    head.field(1, &mut body);
    put_uint(&mut body, number);
    StructBody::end(&mut body);
    put_message(out, &body);
    body.clear();
    body
}

fn is_struct(types: &Types, ty: TypeId) -> bool {
    match &types[ty] {
        Type::Record(_) | Type::Tuple(_) | Type::Variant(_) | Type::Result { .. } => true,
        Type::Option(some) => is_struct(types, *some),
        _ => false,
    }
}

/// The members of what Go sees as a struct, with the types of those that have one.
fn members(types: &Types, ty: TypeId) -> Vec<(String, Option<TypeId>)> {
    match &types[ty] {
        Type::Record(fields) => fields.iter().map(|f| (net_rpc(&f.name), Some(f.ty))).collect(),
        Type::Tuple(parts) => {
            parts.iter().enumerate().map(|(n, part)| (format!("F{n}"), Some(*part))).collect()
        }
        Type::Variant(cases) => cases.iter().map(|c| (net_rpc(&c.name), c.ty)).collect(),
        Type::Result { ok, err } => vec![("Ok".to_owned(), *ok), ("Err".to_owned(), *err)],
        _ => Vec::new(),
    }
}

fn define(
    types: &Types,
    ty: TypeId,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    done: &mut HashMap<TypeId, GobType>,
) -> GobType {
    if let Some(known) = done.get(&ty) {
        return *known;
    }
    let gob = match &types[ty] {
        Type::Bool => GobType::BOOL,
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::Flags(_) => GobType::UINT,
        Type::S8 | Type::S16 | Type::S32 | Type::S64 | Type::Char | Type::Enum(_) => GobType::INT,
        Type::F32 | Type::F64 => GobType::FLOAT,
        Type::String => GobType::STRING,
        Type::Bytes => GobType::BYTES,
        Type::Option(some) => define(types, *some, encoder, out, done),
        Type::List(element) => {
            let element = define(types, *element, encoder, out, done);
            encoder.define(Wire::Slice { element }, out)
        }
        Type::FixedList(element, len) => {
            let element = define(types, *element, encoder, out, done);
            encoder.define(Wire::Array { element, len: u64::from(*len) }, out)
        }
        Type::Record(_) | Type::Tuple(_) | Type::Variant(_) | Type::Result { .. } => {
            let mut fields = Vec::new();
            if matches!(types[ty], Type::Variant(_) | Type::Result { .. }) {
                fields.push(Field { name: "Tag".to_owned(), ty: GobType::INT });
            }
            for (name, member) in members(types, ty) {
                if let Some(member) = member {
                    fields.push(Field { name, ty: define(types, member, encoder, out, done) });
                }
            }
            encoder.define(Wire::Struct { name: String::new(), fields }, out)
        }
    };
    done.insert(ty, gob);
    gob
}

fn put(
    types: &Types,
    ty: TypeId,
    from: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Uncarried> {
    match &types[ty] {
        Type::Bool => put_uint(out, from.bool().unwrap().into()),
        Type::U8 => put_uint(out, from.u8().unwrap().into()),
        Type::S8 => put_int(out, from.u8().unwrap().cast_signed().into()),
        Type::U16 => put_uint(out, from.unsigned(16).unwrap()),
        Type::U32 => put_uint(out, from.unsigned(32).unwrap()),
        Type::U64 => put_uint(out, from.unsigned(64).unwrap()),
        Type::S16 => put_int(out, from.signed(16).unwrap()),
        Type::S32 => put_int(out, from.signed(32).unwrap()),
        Type::S64 => put_int(out, from.signed(64).unwrap()),
        Type::F32 => put_float(out, from.f32().unwrap().into()),
        Type::F64 => put_float(out, from.f64().unwrap()),
        Type::Char => put_int(out, u32::from(from.char().unwrap()).into()),
        Type::String => put_text(out, from.str().unwrap().as_bytes()),
        Type::Bytes => put_text(out, from.bytes().unwrap()),
        Type::Enum(names) => put_int(out, from.discriminant(names.len()).unwrap() as i64),
        Type::Flags(names) => {
            let set = from.flags(names.len()).unwrap();
            let bits = set.iter().enumerate().map(|(bit, set)| u64::from(*set) << bit);
            put_uint(out, bits.sum());
        }
        Type::List(element) => {
            let len = from.length().unwrap();
            put_elements(types, *element, len, from, out)?;
        }
        Type::FixedList(element, len) => {
            put_elements(types, *element, *len as usize, from, out)?;
        }
        Type::Option(_) => {
            // Here the option is the argument itself, or within another one.
            if let Some(some) = some(types, ty, from)? {
                put(types, some, from, out)?;
            } else {
                return Err(Uncarried::NestedNone);
            }
        }
        Type::Record(_) | Type::Tuple(_) => {
            let mut body = StructBody::default();
            for (index, (_, member)) in members(types, ty).into_iter().enumerate() {
                put_field(types, member, (&mut body, index), from, out)?;
            }
            StructBody::end(out);
        }
        Type::Variant(_) | Type::Result { .. } => {
            let cases = members(types, ty);
            let case = from.discriminant(cases.len()).unwrap();
            let mut body = StructBody::default();
            body.field(0, out);
            put_int(out, case as i64);
            // Cases without a payload have no field.
            let index = 1 + cases[..case].iter().filter(|(_, payload)| payload.is_some()).count();
            put_field(types, cases[case].1, (&mut body, index), from, out)?;
            StructBody::end(out);
        }
    }
    Ok(())
}

/// The type of what an option has, however many options it is in. `None` for none.
fn some(types: &Types, ty: TypeId, from: &mut Reader<'_>) -> Result<Option<TypeId>, Uncarried> {
    let (mut ty, mut is_within) = (ty, false);
    while let Type::Option(inner) = &types[ty] {
        match (from.bool().unwrap(), is_within) {
            (true, _) => (ty, is_within) = (*inner, true),
            (false, false) => return Ok(None),
            (false, true) => return Err(Uncarried::NestedNone),
        }
    }
    Ok(Some(ty))
}

fn put_elements(
    types: &Types,
    element: TypeId,
    len: usize,
    from: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Uncarried> {
    put_uint(out, len as u64);
    for _ in 0..len {
        let inner = some(types, element, from).map_err(|_| Uncarried::NoneInList)?;
        put(types, inner.ok_or(Uncarried::NoneInList)?, from, out)?;
    }
    Ok(())
}

fn put_field(
    types: &Types,
    member: Option<TypeId>,
    (body, index): (&mut StructBody, usize),
    from: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Uncarried> {
    let Some(member) = member else { return Ok(()) };
    if let Some(ty) = some(types, member, from)? {
        body.field(index, out);
        put(types, ty, from, out)?;
    }
    Ok(())
}

/// Asserts that a value of gob is the same as a WIT value. `at` says where.
pub(crate) fn assert_same(
    (types, ty): (&Types, TypeId),
    from: &mut Reader<'_>,
    (gob, gob_ty): (&GobTypes, GobType),
    value: &Value<'_>,
    at: &str,
) {
    let integer = || match value {
        Value::Int(number) => i128::from(*number),
        Value::Uint(number) => i128::from(*number),
        other => panic!("{at}: {other:?} is no integer"),
    };
    match &types[ty] {
        Type::Bool => assert_eq!(value, &Value::Bool(from.bool().unwrap()), "{at}"),
        Type::U8 => assert_eq!(integer(), from.u8().unwrap().into(), "{at}"),
        Type::S8 => assert_eq!(integer(), from.u8().unwrap().cast_signed().into(), "{at}"),
        Type::U16 => assert_eq!(integer(), from.unsigned(16).unwrap().into(), "{at}"),
        Type::U32 => assert_eq!(integer(), from.unsigned(32).unwrap().into(), "{at}"),
        Type::U64 => assert_eq!(integer(), from.unsigned(64).unwrap().into(), "{at}"),
        Type::S16 => assert_eq!(integer(), from.signed(16).unwrap().into(), "{at}"),
        Type::S32 => assert_eq!(integer(), from.signed(32).unwrap().into(), "{at}"),
        Type::S64 => assert_eq!(integer(), from.signed(64).unwrap().into(), "{at}"),
        Type::F32 => assert_eq!(value, &Value::Float(from.f32().unwrap().into()), "{at}"),
        Type::F64 => assert_eq!(value, &Value::Float(from.f64().unwrap()), "{at}"),
        Type::Char => assert_eq!(integer(), u32::from(from.char().unwrap()).into(), "{at}"),
        Type::String => assert_eq!(value, &Value::String(from.str().unwrap().as_bytes()), "{at}"),
        Type::Bytes => assert_eq!(value, &Value::Bytes(from.bytes().unwrap()), "{at}"),
        Type::Enum(names) => {
            assert_eq!(integer(), from.discriminant(names.len()).unwrap() as i128, "{at}");
        }
        Type::Flags(names) => {
            let set = from.flags(names.len()).unwrap();
            let bits = set.iter().enumerate().map(|(bit, set)| i128::from(*set) << bit);
            assert_eq!(integer(), bits.sum(), "{at}");
        }
        Type::Option(_) => {
            let inner = some(types, ty, from).unwrap().unwrap_or_else(|| panic!("{at}: not none"));
            assert_same((types, inner), from, (gob, gob_ty), value, at);
        }
        Type::List(_) | Type::FixedList(..) => {
            let (element, len) = match &types[ty] {
                Type::List(element) => (*element, from.length().unwrap()),
                Type::FixedList(element, len) => (*element, *len as usize),
                _ => panic!("no list"),
            };
            let Value::List(elements) = value else { panic!("{at}: {value:?} is no list") };
            assert_eq!(elements.len(), len, "{at}");
            let inner = match gob.kind(gob_ty).unwrap() {
                wharf_gob::Kind::Defined(Wire::Slice { element } | Wire::Array { element, .. }) => {
                    *element
                }
                other => panic!("{at}: {other:?} is no type of a list"),
            };
            for (place, value) in elements.iter().enumerate() {
                assert_same((types, element), from, (gob, inner), value, &format!("{at}[{place}]"));
            }
        }
        Type::Record(_) | Type::Tuple(_) => {
            let fields = Found::of(gob, gob_ty, value, at);
            for (name, member) in members(types, ty) {
                fields.assert_field((types, member), from, &name, at);
            }
        }
        Type::Variant(_) | Type::Result { .. } => {
            let cases = members(types, ty);
            let case = from.discriminant(cases.len()).unwrap();
            let fields = Found::of(gob, gob_ty, value, at);
            let (_, tag) = fields.get("Tag").unwrap_or_else(|| panic!("{at}: no Tag"));
            assert!(matches!(tag, Value::Int(n) if *n == case as i64), "{at}: {tag:?}, not {case}");
            fields.assert_field((types, cases[case].1), from, &cases[case].0, at);
        }
    }
}

/// The fields of a struct that came.
struct Found<'g, 'v> {
    gob: &'g GobTypes,
    fields: &'g [Field],
    found: &'g [(usize, Value<'v>)],
}

impl<'g, 'v> Found<'g, 'v> {
    fn of(gob: &'g GobTypes, ty: GobType, value: &'g Value<'v>, at: &str) -> Self {
        match (gob.kind(ty).unwrap(), value) {
            (wharf_gob::Kind::Defined(Wire::Struct { fields, .. }), Value::Struct(found)) => {
                Found { gob, fields, found }
            }
            other => panic!("{at}: {other:?} is no struct"),
        }
    }

    fn get(&self, name: &str) -> Option<(GobType, &Value<'v>)> {
        let index = self.fields.iter().position(|field| field.name == name)?;
        let (_, value) = self.found.iter().find(|(at, _)| *at == index)?;
        Some((self.fields[index].ty, value))
    }

    fn assert_field(
        &self,
        (types, member): (&Types, Option<TypeId>),
        from: &mut Reader<'_>,
        name: &str,
        at: &str,
    ) {
        let Some(member) = member else { return };
        let at = format!("{at}.{name}");
        match (some(types, member, from).unwrap(), self.get(name)) {
            (Some(ty), Some((gob_ty, value))) => {
                assert_same((types, ty), from, (self.gob, gob_ty), value, &at);
            }
            (None, None) => {}
            (expected, found) => panic!("{at}: {expected:?}, found {found:?}"),
        }
    }
}
