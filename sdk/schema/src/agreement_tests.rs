//! Tests both encodings against serde on the natural Rust types: every row of the table of values.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Outcome, Service, TypeId, argument_from_text, arguments_from_json, result_to_json,
    service_from_wit, value_from_json, value_to_json,
};

const WIT: &str = "
package t:t;
interface api {
    record inner { id: u64, tags: list<string> }
    variant choice { none, number(s64), both(tuple<u8, string>), record-of(inner) }
    enum colour { red, dark-green, blue }
    flags few { a, b-c, d }
    flags ten { bit0, bit1, bit2, bit3, bit4, bit5, bit6, bit7, bit8, bit9 }
    flags many {
        bit0, bit1, bit2, bit3, bit4, bit5, bit6, bit7, bit8, bit9, bit10, bit11, bit12, bit13, bit14, bit15, bit16, bit17, bit18, bit19,
        bit20, bit21, bit22, bit23, bit24, bit25, bit26, bit27, bit28, bit29, bit30, bit31, bit32, bit33
    }
    record everything {
        yes: bool,
        small: tuple<u8, s8>,
        middle: tuple<u16, s16>,
        wide: tuple<u32, s32>,
        widest: tuple<u64, s64>,
        single: f32,
        double: f64,
        letter: char,
        text: string,
        raw-bytes: list<u8>,
        numbers: list<s32>,
        fixed: list<u16, 3>,
        choices: list<choice>,
        colour: colour,
        maybe: option<string>,
        twice: option<option<u8>>,
        outcome: result<inner, string>,
        bare: result,
        few: few,
        ten: ten,
        many: many,
    }
    f: func(value: everything) -> everything;
    g: func(a: u8, b: option<string>) -> result<list<u8>, choice>;
    h: func();
}";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    id: u64,
    tags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    None,
    Number(i64),
    Both((u8, String)),
    RecordOf(Inner),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Colour {
    Red,
    DarkGreen,
    Blue,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    yes: bool,
    small: (u8, i8),
    middle: (u16, i16),
    wide: (u32, i32),
    widest: (u64, i64),
    single: f32,
    double: f64,
    letter: char,
    text: String,
    raw_bytes: Vec<u8>,
    numbers: Vec<i32>,
    fixed: [u16; 3],
    choices: Vec<Choice>,
    colour: Colour,
    maybe: Option<String>,
    twice: Option<Option<u8>>,
    outcome: Result<Inner, String>,
    bare: Result<(), ()>,
    few: u8,
    ten: u16,
    many: (u32, u32),
}

fn inner() -> impl Strategy<Value = Inner> {
    (any::<u64>(), proptest::collection::vec(any::<String>(), 0..3))
        .prop_map(|(id, tags)| Inner { id, tags })
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(Choice::None),
        any::<i64>().prop_map(Choice::Number),
        any::<(u8, String)>().prop_map(Choice::Both),
        inner().prop_map(Choice::RecordOf),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let scalars = (
        any::<(bool, (u8, i8), (u16, i16), (u32, i32), (u64, i64))>(),
        any::<(f32, f64, char, String, Vec<u8>, Vec<i32>, [u16; 3])>(),
    );
    let composed = (
        proptest::collection::vec(choice(), 0..4),
        prop_oneof![Just(Colour::Red), Just(Colour::DarkGreen), Just(Colour::Blue)],
        any::<(Option<String>, Option<Option<u8>>, Result<(), ()>)>(),
        prop_oneof![inner().prop_map(Ok), any::<String>().prop_map(Err)],
        (0u8..8, 0u16..1024, any::<u32>(), 0u32..4),
    );
    (scalars, composed).prop_map(|((a, b), (choices, colour, c, outcome, flags))| Everything {
        yes: a.0,
        small: a.1,
        middle: a.2,
        wide: a.3,
        widest: a.4,
        single: b.0,
        double: b.1,
        letter: b.2,
        text: b.3,
        raw_bytes: b.4,
        numbers: b.5,
        fixed: b.6,
        choices,
        colour,
        maybe: c.0,
        twice: c.1,
        bare: c.2,
        outcome,
        few: flags.0,
        ten: flags.1,
        many: (flags.2, flags.3),
    })
}

fn service() -> Service {
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_str("test.wit", WIT).unwrap();
    let (_, interface) = resolve.interfaces.iter().next().unwrap();
    service_from_wit(&resolve, interface, "t:t/api", String::new()).unwrap()
}

fn everything_of(service: &Service) -> TypeId {
    service.method("f").unwrap().signature.as_ref().unwrap().params[0].ty
}

fn sample() -> Everything {
    Everything {
        yes: true,
        small: (255, -128),
        middle: (65535, -32768),
        wide: (u32::MAX, i32::MIN),
        widest: (u64::MAX, i64::MIN),
        single: 0.1,
        double: -1.5e300,
        letter: '\u{1F40B}',
        text: "a\"\n".into(),
        raw_bytes: vec![0, 255],
        numbers: vec![-1, 300],
        fixed: [1, 2, 3],
        choices: vec![
            Choice::None,
            Choice::Number(-7),
            Choice::Both((1, "x".into())),
            Choice::RecordOf(Inner { id: 1, tags: vec![] }),
        ],
        colour: Colour::DarkGreen,
        maybe: None,
        twice: Some(None),
        outcome: Err("no".into()),
        bare: Ok(()),
        few: 0b110,
        ten: 1 << 9,
        many: (1, 0b10),
    }
}

fn sample_json() -> Value {
    json!({
        "yes": true,
        "small": [255, -128],
        "middle": [65535, -32768],
        "wide": [4294967295u64, -2147483648i64],
        "widest": [18446744073709551615u64, -9223372036854775808i64],
        "single": 0.1,
        "double": -1.5e300,
        "letter": "\u{1F40B}",
        "text": "a\"\n",
        "rawBytes": "AP8=",
        "numbers": [-1, 300],
        "fixed": [1, 2, 3],
        "choices": ["none", {"number": -7}, {"both": [1, "x"]}, {"record-of": {"id": 1, "tags": []}}],
        "colour": "dark-green",
        "maybe": null,
        "twice": {"some": null},
        "outcome": {"err": "no"},
        "bare": "ok",
        "few": ["b-c", "d"],
        "ten": ["bit9"],
        "many": ["bit0", "bit33"],
    })
}

#[test]
fn every_type_has_the_json_form_of_the_table() {
    let service = service();
    let ty = everything_of(&service);
    let bytes = postcard::to_stdvec(&sample()).unwrap();
    let json = value_to_json(service.types(), ty, &bytes).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), sample_json());
    let mut back = Vec::new();
    value_from_json(service.types(), ty, &sample_json(), &mut back).unwrap();
    assert_eq!(back, bytes);
}

#[test]
fn json_input_is_read_in_any_spelling() {
    let service = service();
    let ty = everything_of(&service);
    let mut json = sample_json();
    let object = json.as_object_mut().unwrap();
    object.remove("maybe");
    object.remove("rawBytes");
    object.insert("Raw_Bytes".into(), json!([0, 255]));
    object.insert("colour".into(), json!("DarkGreen"));
    object.insert("widest".into(), json!(["18446744073709551615", -9223372036854775808i64]));
    object.insert("few".into(), json!(["BC", "d"]));
    object.insert("small".into(), json!([255.0, -128]));
    let mut bytes = Vec::new();
    value_from_json(service.types(), ty, &json, &mut bytes).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(&sample()).unwrap());
    json["few"] = json!(["bCd"]);
    let error = value_from_json(service.types(), ty, &json, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("few: expected flags { a, b-c, d }"), "{error}");
    json["few"] = json!(["d"]);
    json["Few"] = json!(["d"]);
    let error = value_from_json(service.types(), ty, &json, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "few: the field is given twice");
}

#[test]
fn a_result_is_taken_apart_at_the_top_only() {
    let service = service();
    let result = service.method("g").unwrap().signature.as_ref().unwrap().result;
    let json = |bytes: Vec<u8>| result_to_json(service.types(), result, &bytes).unwrap();
    let ok: Result<Vec<u8>, Choice> = Ok(vec![1]);
    assert_eq!(json(postcard::to_stdvec(&ok).unwrap()), Outcome::Ok("\"AQ==\"".into()));
    let err: Result<Vec<u8>, Choice> = Err(Choice::Number(3));
    assert_eq!(json(postcard::to_stdvec(&err).unwrap()), Outcome::Err("{\"number\":3}".into()));
    assert_eq!(result_to_json(service.types(), None, &[]), Ok(Outcome::Ok("null".into())));
    assert!(result_to_json(service.types(), None, &[0]).is_err());
}

#[test]
fn options_at_the_end_may_be_left_out() {
    let service = service();
    let params = &service.method("g").unwrap().signature.as_ref().unwrap().params;
    let short = arguments_from_json(service.types(), params, &[json!(1)]).unwrap();
    assert_eq!(
        short,
        arguments_from_json(service.types(), params, &[json!(1), json!(null)]).unwrap()
    );
}

#[test]
fn refusals_name_the_place_and_the_type() {
    let service = service();
    let check = |method: &str, arguments: Value, message: &str| {
        let signature = service.method(method).unwrap().signature.as_ref().unwrap();
        let arguments = arguments.as_array().unwrap();
        let error = arguments_from_json(service.types(), &signature.params, arguments).unwrap_err();
        let error = error.to_string();
        let (error, example) = error.split_once("; write it like ").unwrap_or((&error, ""));
        assert_eq!(error, message);
        assert!(!example.is_empty() || signature.params.is_empty(), "{message}");
    };
    check("g", json!([300, null]), "a: expected u8, found the number 300");
    check("g", json!([-1, null]), "a: expected u8, found the number -1");
    check("g", json!([1.5, null]), "a: expected u8, found the number 1.5");
    check("g", json!([1, 2]), "b: expected string, found the number 2");
    check("g", json!([]), "expected 2 arguments (a: u8, b: option<string>), found 0");
    check("h", json!([1]), "expected no arguments, found 1");
    let with = |field: &str, value: Value| {
        let mut json = sample_json();
        json[field] = value;
        json!([json])
    };
    check(
        "f",
        with("choices", json!(["none", {"number": "x"}])),
        "value.choices[1].number: expected s64, found the string \"x\"",
    );
    check(
        "f",
        with("fixed", json!([1, 2])),
        "value.fixed: expected list<u16, 3>, found the array [1,2]",
    );
    check("f", with("single", json!(1e300)), "value.single: expected f32, found the number 1e+300");
    check("f", with("rawBytes", json!("?")), "value.raw-bytes: list<u8>: the string is not base64");
    let mut missing = sample_json();
    missing.as_object_mut().unwrap().remove("yes");
    check("f", json!([missing]), "value.yes: the field is missing (bool)");
}

#[test]
fn a_bare_word_serves_where_the_type_is_a_string() {
    let service = service();
    let signature = service.method("g").unwrap().signature.as_ref().unwrap();
    let text =
        |index: usize, text| argument_from_text(service.types(), &signature.params[index], text);
    assert_eq!(text(1, "hello there"), Ok(json!("hello there")));
    assert_eq!(text(1, "7"), Ok(json!("7")));
    assert_eq!(text(1, "\"quoted\""), Ok(json!("quoted")));
    assert_eq!(text(1, "null"), Ok(Value::Null));
    assert_eq!(text(0, "7"), Ok(json!(7)));
    let error = text(0, "seven").unwrap_err().to_string();
    assert!(error.starts_with("a: expected u8 as JSON: expected value"), "{error}");
}

#[test]
fn json_that_names_make_endless_is_cut_off() {
    let mut types = crate::Types::default();
    let long = types.add(crate::Type::Enum(vec!["x".repeat(100_000)])).unwrap();
    let list = types.add(crate::Type::List(long)).unwrap();
    let mut bytes = Vec::new();
    crate::encoding::put_unsigned(&mut bytes, 100_000);
    bytes.extend([0; 100_000]);
    let error = value_to_json(&types, list, &bytes).unwrap_err();
    assert!(error.to_string().contains("as JSON it takes more than"), "{error}");
}

proptest! {
    #[test]
    fn values_survive_the_way_through_json(value in everything()) {
        let service = service();
        let ty = everything_of(&service);
        let bytes = postcard::to_stdvec(&value).unwrap();
        let json = value_to_json(service.types(), ty, &bytes).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let mut back = Vec::new();
        value_from_json(service.types(), ty, &json, &mut back).unwrap();
        let read: Everything = postcard::from_bytes(&back).unwrap();
        if value.single.is_nan() || value.double.is_nan() {
            // JSON does not keep which NaN it was. Everything else is the same.
            prop_assert_eq!(back.len(), bytes.len());
        } else {
            prop_assert_eq!(read, value);
            prop_assert_eq!(back, bytes);
        }
    }

    #[test]
    fn mutated_bytes_end_in_the_same_verdict_as_serdes(
        value in everything(),
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let service = service();
        let ty = everything_of(&service);
        let mut bytes = postcard::to_stdvec(&value).unwrap();
        for (index, byte) in mutations {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Ours is stricter in two points: no bytes after the value, no flags beyond the last.
        let theirs = postcard::take_from_bytes::<Everything>(&bytes);
        match value_to_json(service.types(), ty, &bytes) {
            Ok(_) => prop_assert!(theirs.is_ok_and(|(_, rest)| rest.is_empty())),
            Err(error) => {
                let strict = theirs.is_ok_and(|(value, rest)| {
                    !rest.is_empty() || value.few > 7 || value.ten > 1023 || value.many.1 > 3
                });
                prop_assert!(strict || postcard::take_from_bytes::<Everything>(&bytes).is_err(), "{}", error);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let service = service();
        let _ = value_to_json(service.types(), everything_of(&service), &bytes);
        let _ = Service::from_document(&bytes);
    }
}
