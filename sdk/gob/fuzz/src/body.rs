//! What is fuzzed: a stream, from its bytes to values, and back to bytes.
//!
//! Shared by the fuzz target, the program that writes its seeds, and an ordinary test.

#![allow(dead_code, reason = "each of its three users needs a part of it")]
#![allow(clippy::panic, reason = "a fuzz target fails by panicking")]

use std::collections::HashMap;

use wharf_gob::{
    Decoder, Encoder, Field, Limits, Opaque, Reader, TypeId, Types, Value, Wire, interface, skip,
};

/// Limits that short inputs can reach.
const LIMITS: Limits = Limits { message: 4096, types: 30, definitions: 2048, depth: 30 };

/// Reads a stream to its end or to its first mistake. What was read is written again, and reads as the
/// same. Returns how many values it had.
pub(crate) fn stream(input: &[u8]) -> usize {
    let (mut decoder, mut again) = (Decoder::new(LIMITS), Decoder::new(Limits::default()));
    let (mut encoder, mut adopted) = (Encoder::default(), HashMap::new());
    let (mut rest, mut count) = (input, 0);
    while let Ok(Some((used, item))) = decoder.next(rest) {
        rest = &rest[used..];
        let Some(item) = item else { continue };
        let types = decoder.types();
        let _ = types.notation(item.ty);
        let Ok(value) = Value::read(types, item) else { panic!("accepted, and not readable") };
        let mut reader = Reader::new(item.bytes);
        assert!(skip(types, &mut reader, item.ty).is_ok() && reader.rest().is_empty());
        if item.ty == TypeId::INTERFACE {
            assert!(interface(types, &mut Reader::new(item.bytes)).is_ok());
        }
        // A type may refer to one that is not defined, as long as there is no value of it.
        let mut out = Vec::new();
        let Ok(ty) = encoder.adopt(types, item.ty, &mut adopted, &mut out) else { return count };
        if !adopt_all(types, &value, &mut encoder, &mut adopted, &mut out) {
            return count;
        }
        value.put_message(ty, &adopted, &mut out);
        let mut rest = &out[..];
        loop {
            let Ok(Some((used, item))) = again.next(rest) else { panic!("ours is not readable") };
            rest = &rest[used..];
            let Some(item) = item else { continue };
            let Ok(read) = Value::read(again.types(), item) else { panic!("ours is damaged") };
            assert_eq!(shown(&read), shown(&value));
            break;
        }
        assert!(rest.is_empty());
        count += 1;
    }
    count
}

/// A value as text. Types have other numbers in another stream, and NaN is not equal to itself.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Float(number) => format!("{:x}", number.to_bits()),
        Value::Complex(a, b) => format!("{:x} {:x}", a.to_bits(), b.to_bits()),
        Value::Interface(Some(inner)) => format!("<{:?} {}>", inner.0, shown(&inner.2)),
        Value::List(elements) => {
            format!("{:?}", elements.iter().map(shown).collect::<Vec<_>>())
        }
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, element)| (shown(key), shown(element)));
            format!("{:?}", pairs.collect::<Vec<_>>())
        }
        Value::Struct(fields) => {
            let fields = fields.iter().map(|(index, value)| (index, shown(value)));
            format!("{:?}", fields.collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

/// Adopts the types of the values of interfaces. Returns whether that was possible.
fn adopt_all(
    types: &Types,
    value: &Value<'_>,
    encoder: &mut Encoder,
    adopted: &mut HashMap<TypeId, TypeId>,
    out: &mut Vec<u8>,
) -> bool {
    let mut all = |value: &Value<'_>| adopt_all(types, value, encoder, adopted, out);
    match value {
        Value::Interface(Some(inner)) => {
            all(&inner.2) && encoder.adopt(types, inner.1, adopted, out).is_ok()
        }
        Value::List(elements) => elements.iter().all(all),
        Value::Map(pairs) => pairs.iter().all(|(key, element)| all(key) && all(element)),
        Value::Struct(fields) => fields.iter().all(|(_, value)| all(value)),
        _ => true,
    }
}

/// Streams of all kinds of types and values: empty, nested, recursive.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let field = |name: &str, ty| Field { name: name.to_owned(), ty };
    let mut all = Vec::new();
    let mut add = |group: Vec<Wire>, value: Value<'_>| {
        let mut out = Vec::new();
        let mut encoder = Encoder::default();
        let ids = encoder.define_group(group, &mut out);
        let ty = ids.last().copied().unwrap_or(TypeId::INT);
        value.put_message(ty, &HashMap::new(), &mut out);
        value.put_message(ty, &HashMap::new(), &mut out);
        all.push(out);
    };
    let list = || Value::List(vec![Value::Int(7), Value::Int(i64::MIN)]);
    add(vec![], Value::Int(-1));
    add(vec![Wire::Slice { element: TypeId::INT }], list());
    add(vec![Wire::Array { element: TypeId::INT, len: 2 }], list());
    add(
        vec![Wire::Slice { element: TypeId::BYTES }],
        Value::List(vec![Value::Bytes(b""), Value::Bytes(b"ab")]),
    );
    let pair = (Value::String(b"key"), Value::Float(0.5));
    add(vec![Wire::Map { key: TypeId::STRING, element: TypeId::FLOAT }], Value::Map(vec![pair]));
    let opaque = Wire::Opaque { name: "Time".to_owned(), by: Opaque::Binary };
    add(vec![opaque], Value::Opaque(b"\x01\x00"));
    // A tree, and a list of what a field may be.
    let tree = Wire::Struct {
        name: "Tree".to_owned(),
        fields: vec![
            field("Label", TypeId::STRING),
            field("Left", TypeId::in_group(0)),
            field("All", TypeId::in_group(1)),
            field("Any", TypeId::INTERFACE),
            field("Complex", TypeId::COMPLEX),
            field("Yes", TypeId::BOOL),
            field("Number", TypeId::UINT),
        ],
    };
    let slice = Wire::Slice { element: TypeId::in_group(0) };
    let leaf = || Value::Struct(vec![(0, Value::String(b"leaf")), (6, Value::Uint(u64::MAX))]);
    let any = Value::Interface(Some(Box::new((b"int", TypeId::INT, Value::Int(3)))));
    let node = Value::Struct(vec![
        (1, leaf()),
        (2, Value::List(vec![leaf(), Value::Struct(Vec::new())])),
        (3, any),
        (4, Value::Complex(1.0, -0.0)),
        (5, Value::Bool(true)),
    ]);
    let outer = Wire::Struct { name: String::new(), fields: vec![field("T", TypeId::in_group(0))] };
    add(vec![tree, slice, outer], Value::Struct(vec![(0, node)]));
    // As Go writes it: a value that goes over two messages, because its interface has a new type.
    let mut two = Vec::new();
    let any =
        Wire::Struct { name: "Any".to_owned(), fields: vec![field("One", TypeId::INTERFACE)] };
    Encoder::default().define(any, &mut two);
    two.extend(b"\x15\xff\x82\x01\x05[]int\xff\x83\x02\x01\x02\xff\x84\x00\x01\x04\x00\x00");
    two.extend(b"\x07\xff\x84\x03\x00\x01\x0e\x00");
    all.push(two);
    all
}
