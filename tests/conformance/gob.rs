//! gob against Go itself: types and values that Go makes up. The program is `tests/go/gobs`.

use std::collections::HashMap;

use tokio::process::Command;
use wharf_gob::{Decoder, Encoder, Kind, Limits, TypeId, Types, Value, Wire};
use wharf_tests::{go_program, run_command};

/// Values of one run. Each has a type of its own, and all are in one stream.
const VALUES: u32 = 150;

/// Streams of one run.
const STREAMS: u64 = 20;

/// Damages of each stream.
const DAMAGES: u32 = 200;

/// Limits that made-up types do not reach.
const LIMITS: Limits =
    Limits { types: 100_000, definitions: 1 << 24, message: 1 << 26, depth: 100 };

#[tokio::test]
async fn what_go_encodes_is_read_and_what_is_written_go_reads_for_made_up_types_and_values() {
    let Some(program) = go_program("gobs").await.unwrap() else { return };
    for seed in 0..STREAMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (seed, count) = (seed.to_string(), VALUES.to_string());
        let run = async |what: &str| {
            let mut command = Command::new(&program);
            let finished =
                run_command(command.args([what, &seed, &count]).arg(path)).await.unwrap();
            assert_eq!(finished.code, Some(0), "seed {seed}: {}", finished.stderr);
            finished.stdout
        };
        run("encode").await;
        let written = std::fs::read_to_string(path.join("values.txt")).unwrap();
        let (read, again) = over(&std::fs::read(path.join("go.gob")).unwrap());
        assert_same(&seed, "what Go wrote", &read, &written);
        // Our own stream is read by us too.
        let (twice, _) = over(&again);
        assert_same(&seed, "what we wrote, read by us", &twice, &written);
        damaged(&again);
        std::fs::write(path.join("ours.gob"), again).unwrap();
        assert_same(&seed, "what we wrote, read by Go", &run("decode").await, &written);
    }
}

/// Reads a stream that was damaged, in many ways. Whatever is accepted has a value.
fn damaged(stream: &[u8]) {
    let mut random = fastrand::Rng::with_seed(stream.len() as u64);
    for _ in 0..DAMAGES {
        let start = random.usize(..stream.len());
        let mut stream = stream[..stream.len().min(start + 4096)].to_vec();
        for _ in 0..=random.usize(..3) {
            let at = random.usize(..stream.len());
            stream[at] = random.u8(..);
        }
        let (mut decoder, mut rest) = (Decoder::new(LIMITS), &stream[..]);
        while let Ok(Some((used, item))) = decoder.next(rest) {
            rest = &rest[used..];
            let Some(item) = item else { continue };
            let read = Value::read(decoder.types(), item);
            assert!(read.is_ok(), "{read:?} {item:?} {:?}", decoder.types());
        }
    }
}

/// Two texts of many lines, of which only the first that differs is shown.
#[track_caller]
fn assert_same(seed: &str, what: &str, found: &str, expected: &str) {
    assert_eq!(found.lines().count(), expected.lines().count(), "seed {seed}: {what}");
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "seed {seed}, value {number}: {what}");
    }
}

/// The values of a stream in the program's notation, and a stream of ours with the same values.
fn over(stream: &[u8]) -> (String, Vec<u8>) {
    let (mut decoder, mut encoder) = (Decoder::new(LIMITS), Encoder::default());
    let (mut rest, mut text, mut again) = (stream, String::new(), Vec::new());
    let mut adopted = HashMap::new();
    while !rest.is_empty() {
        // In two pieces, of which the first is too short.
        assert!(decoder.next(&rest[..1]).unwrap().is_none());
        let (used, item) = decoder.next(rest).unwrap().unwrap();
        rest = &rest[used..];
        let Some(item) = item else { continue };
        let types = decoder.types();
        let value = Value::read(types, item).unwrap();
        write(types, item.ty, &value, &mut text);
        text.push('\n');
        let mut adopt = |ty| encoder.adopt(types, ty, &mut adopted, &mut again).unwrap();
        let ty = adopt(item.ty);
        interfaces(&value, &mut |inner| {
            adopt(inner);
        });
        value.put_message(ty, &adopted, &mut again);
    }
    (text, again)
}

/// The types of the values of interfaces.
fn interfaces(value: &Value<'_>, found: &mut dyn FnMut(TypeId)) {
    match value {
        Value::Interface(Some(inner)) => {
            found(inner.1);
            interfaces(&inner.2, found);
        }
        Value::List(elements) => elements.iter().for_each(|value| interfaces(value, found)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, element)| {
            interfaces(key, found);
            interfaces(element, found);
        }),
        Value::Struct(fields) => fields.iter().for_each(|(_, value)| interfaces(value, found)),
        _ => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The notation of `tests/go/gobs`.
fn write(types: &Types, ty: TypeId, value: &Value<'_>, out: &mut String) {
    let wire = match types.kind(ty).unwrap() {
        Kind::Defined(wire) => Some(wire),
        _ => None,
    };
    match value {
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Int(value) => out.push_str(&format!("i{value}")),
        Value::Uint(value) => out.push_str(&format!("u{value}")),
        Value::Float(value) => out.push_str(&format!("f{:x}", value.to_bits())),
        Value::Complex(real, imaginary) => {
            out.push_str(&format!("c{:x},{:x}", real.to_bits(), imaginary.to_bits()));
        }
        Value::Bytes(bytes) => out.push_str(&format!("b{}", hex(bytes))),
        Value::String(bytes) => out.push_str(&format!("s{}", hex(bytes))),
        Value::Opaque(bytes) => out.push_str(&format!("o{}", hex(bytes))),
        Value::Interface(None) => out.push_str("nil"),
        Value::Interface(Some(inner)) => {
            let (name, ty, value) = &**inner;
            out.push_str(&format!("<{} ", std::str::from_utf8(name).unwrap()));
            write(types, *ty, value, out);
            out.push('>');
        }
        Value::List(elements) => {
            let Some(Wire::Slice { element } | Wire::Array { element, .. }) = wire else {
                panic!("a list of no type")
            };
            out.push('[');
            for value in elements {
                write(types, *element, value, out);
                out.push(' ');
            }
            out.push(']');
        }
        Value::Map(pairs) => {
            let Some(Wire::Map { key, element }) = wire else { panic!("a map of no type") };
            let pair = |(k, v): &(Value<'_>, Value<'_>)| {
                let mut pair = String::new();
                write(types, *key, k, &mut pair);
                pair.push(':');
                write(types, *element, v, &mut pair);
                pair
            };
            let mut pairs: Vec<String> = pairs.iter().map(pair).collect();
            pairs.sort();
            out.push_str(&format!("{{{}}}", pairs.join(" ")));
        }
        Value::Struct(found) => {
            let Some(Wire::Struct { fields, .. }) = wire else { panic!("a struct of no type") };
            out.push('(');
            for (index, value) in found {
                let field = &fields[*index];
                out.push_str(&format!("{}=", field.name));
                write(types, field.ty, value, out);
                out.push(' ');
            }
            out.push(')');
        }
    }
}
