//! Each kind of type, under each option of a lift, at the root of a component and nested in it: the
//! codec and the dynamic path return what the component model says.
//!
//! The components echo their argument, as the *Canonical ABI Explainer* lays it out. They are written by
//! hand, so that they do not share a mistake with a toolchain.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use wharf_runtime::{Candidate, Engine, MethodIndex, Settings};

/// A type, the core function that echoes its values, and some of these.
struct Kind {
    ty: &'static str,
    /// Types that it refers to. They are exported, since the component model wants records, variants,
    /// enums and flags to have names.
    definition: Option<&'static str>,
    /// The parameters and the result of the core function, and its body.
    core: (&'static str, &'static str),
    has_text: bool,
    values: Vec<Vec<u8>>,
}

fn kind(ty: &'static str, core: (&'static str, &'static str), values: Vec<Vec<u8>>) -> Kind {
    Kind { ty, definition: None, core, has_text: ty.contains("string"), values }
}

fn defined(
    definition: &'static str,
    core: (&'static str, &'static str),
    values: Vec<Vec<u8>>,
) -> Kind {
    let has_text = definition.contains("string");
    Kind { ty: "a named type", definition: Some(definition), core, has_text, values }
}

fn encoded<T: Serialize>(values: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    values.into_iter().map(|value| postcard::to_stdvec(&value).unwrap()).collect()
}

const I32: &str = "(param i32) (result i32)";
const SAME: &str = "local.get 0";
/// A pointer and a length, handed back through memory.
const BLOCK: (&str, &str) = (
    "(param i32 i32) (result i32)",
    "(i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) i32.const 16",
);

fn kinds() -> Vec<Kind> {
    let long = "x".repeat(300);
    vec![
        kind("bool", (I32, SAME), encoded([true, false])),
        kind("u8", (I32, SAME), encoded([0u8, 7, 255])),
        kind("s8", (I32, SAME), encoded([0i8, -128, 127])),
        kind("u16", (I32, SAME), encoded([0u16, 300, u16::MAX])),
        kind("s16", (I32, SAME), encoded([0i16, i16::MIN, i16::MAX])),
        kind("u32", (I32, SAME), encoded([0u32, u32::MAX])),
        kind("s32", (I32, SAME), encoded([0i32, i32::MIN, i32::MAX])),
        kind("u64", ("(param i64) (result i64)", SAME), encoded([0u64, u64::MAX])),
        kind("s64", ("(param i64) (result i64)", SAME), encoded([i64::MIN, i64::MAX])),
        kind("f32", ("(param f32) (result f32)", SAME), encoded([0.5f32, f32::INFINITY])),
        kind("f64", ("(param f64) (result f64)", SAME), encoded([-1.5f64, f64::MIN_POSITIVE])),
        kind("char", (I32, SAME), encoded(['a', 'Ö', '🚢', '\u{10ffff}'])),
        kind("string", BLOCK, encoded(["", "plain", "Ünïcöde 🚢", &long])),
        kind("(list u8)", BLOCK, encoded([Bytes::new(), Bytes::from_static(b"\0\xff")])),
        kind("(list u32)", BLOCK, encoded([vec![], vec![1u32, u32::MAX]])),
        kind("(list string)", BLOCK, encoded([vec![], vec!["", "ö", "🚢"]])),
        kind(
            "(tuple u8 u16)",
            (
                "(param i32 i32) (result i32)",
                "(i32.store8 (i32.const 16) (local.get 0)) (i32.store16 (i32.const 18) (local.get 1)) i32.const 16",
            ),
            encoded([(7u8, 300u16)]),
        ),
        kind(
            "(option u32)",
            (
                "(param i32 i32) (result i32)",
                "(i32.store8 (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) i32.const 16",
            ),
            encoded([None, Some(0u32), Some(u32::MAX)]),
        ),
        kind(
            "(result u8 (error string))",
            (
                "(param i32 i32 i32) (result i32)",
                "(i32.store8 (i32.const 16) (local.get 0))
                 (if (local.get 0)
                    (then (i32.store (i32.const 20) (local.get 1)) (i32.store (i32.const 24) (local.get 2)))
                    (else (i32.store8 (i32.const 20) (local.get 1))))
                 i32.const 16",
            ),
            encoded::<Result<u8, &str>>([Ok(9), Err("töt"), Err("")]),
        ),
        kind("(result)", (I32, SAME), encoded::<Result<(), ()>>([Ok(()), Err(())])),
        kind(
            "(list u16 3)",
            (
                "(param i32 i32 i32) (result i32)",
                "(i32.store16 (i32.const 16) (local.get 0)) (i32.store16 (i32.const 18) (local.get 1))
                 (i32.store16 (i32.const 20) (local.get 2)) i32.const 16",
            ),
            encoded([(1u16, 2u16, u16::MAX)]),
        ),
        defined(
            r#"(record (field "a" u8) (field "b" string))"#,
            (
                "(param i32 i32 i32) (result i32)",
                "(i32.store8 (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1))
                 (i32.store (i32.const 24) (local.get 2)) i32.const 16",
            ),
            encoded([(7u8, "name"), (0, "")]),
        ),
        defined(
            r#"(variant (case "number" s64) (case "text" string) (case "nothing"))"#,
            (
                "(param i32 i64 i32) (result i32)",
                "(i32.store8 (i32.const 16) (local.get 0))
                 (if (i32.eqz (local.get 0)) (then (i64.store (i32.const 24) (local.get 1))))
                 (if (i32.eq (local.get 0) (i32.const 1)) (then
                    (i32.store (i32.const 24) (i32.wrap_i64 (local.get 1)))
                    (i32.store (i32.const 28) (local.get 2))))
                 i32.const 16",
            ),
            vec![
                postcard::to_stdvec(&(0u32, i64::MIN)).unwrap(),
                postcard::to_stdvec(&(1u32, "Text")).unwrap(),
                postcard::to_stdvec(&2u32).unwrap(),
            ],
        ),
        defined(r#"(enum "a" "b" "c")"#, (I32, SAME), encoded([0u32, 2])),
        defined(r#"(flags "a" "b" "c")"#, (I32, SAME), encoded([0u8, 0b101])),
    ]
}

/// What lifts the function `$f`, for the inside of a component. `ty` is its type.
fn body(kind: &Kind, options: &str, ty: &str, export: &str) -> String {
    let Kind { definition, core: (signature, code), .. } = kind;
    let define = definition.map(|definition| format!("(type $own {definition})"));
    let define = define.unwrap_or_default();
    format!(
        r#"{define}
        (core module $m
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 1024))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                (local.set $at (global.get $next))
                (memory.copy (local.get $at) (local.get 0) (local.get 1))
                (global.set $next (i32.add (global.get $next) (local.get 3)))
                (if (i32.gt_u (global.get $next) (i32.const 100000))
                    (then (global.set $next (i32.const 1024))))
                (local.get $at))
            (func (export "post") (param i32))
            (func (export "f") {signature} {code}))
        (core instance $i (instantiate $m))
        {export}
        (func $f (param "value" {ty}) (result {ty})
            (canon lift (core func $i "f") (memory $i "memory") (realloc (func $i "realloc")) {options}))"#
    )
}

/// A component that exports the interface `a:b/x` with one function, `f`. It lifts the function itself,
/// or a component inside of it does.
fn component(kind: &Kind, options: &str, nested: bool) -> Vec<u8> {
    let text = match (kind.definition, nested) {
        (None, false) => {
            let inside = body(kind, options, kind.ty, "");
            format!(
                r#"(component {inside}
                    (instance $x (export "f" (func $f)))
                    (export "a:b/x" (instance $x)))"#
            )
        }
        // A function may only use types that its instance exports under a name. wit-component makes
        // such an instance by a component that hands on what it is given.
        (Some(definition), false) => {
            let inside = body(kind, options, "$own", "");
            format!(
                r#"(component {inside}
                    (component $names
                        (type $given {definition})
                        (import "named" (type $named (eq $given)))
                        (import "f" (func $f (param "value" $named) (result $named)))
                        (export $exported "named" (type $named))
                        (export "f" (func $f) (func (param "value" $exported) (result $exported))))
                    (instance $x (instantiate $names (with "named" (type $own)) (with "f" (func $f))))
                    (export "a:b/x" (instance $x)))"#
            )
        }
        (definition, true) => {
            let (ty, export) = match definition {
                Some(_) => ("$named", "(export $named \"named\" (type $own))"),
                None => (kind.ty, ""),
            };
            let inside = body(kind, options, ty, export);
            format!(
                r#"(component
                    (component $c {inside} (export "f" (func $f)))
                    (instance $x (instantiate $c))
                    (export "a:b/x" (instance $x)))"#
            )
        }
    };
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", kind.ty))
}

#[tokio::test]
async fn every_kind_of_type_comes_back_as_it_was_whatever_the_lift() {
    let engine = Engine::new(None).unwrap();
    for kind in kinds() {
        let encodings: &[&str] = match kind.has_text {
            true => &[
                "",
                "string-encoding=utf8",
                "string-encoding=utf16",
                "string-encoding=latin1+utf16",
            ],
            false => &["", "string-encoding=utf16"],
        };
        let returns_memory = kind.core.0.ends_with("(result i32)") && kind.core.1 != SAME;
        for encoding in encodings {
            for post in [false, returns_memory] {
                let options = match post {
                    true => format!("{encoding} (post-return (func $i \"post\"))"),
                    false => (*encoding).to_owned(),
                };
                for nested in [false, true] {
                    let what =
                        format!("{} {:?} {options} nested: {nested}", kind.ty, kind.definition);
                    let bytes = component(&kind, &options, nested);
                    let candidate = Candidate::read(bytes).await;
                    let candidate = candidate.unwrap_or_else(|error| panic!("{what}: {error}"));
                    // What the outermost component lifts itself, in UTF-8, goes through a codec.
                    let through_codec = !nested && matches!(*encoding, "" | "string-encoding=utf8");
                    let both = [candidate.clone(), candidate.without_codec()];
                    for (candidate, expected) in both.into_iter().zip([through_codec, false]) {
                        let plugin = candidate.load(&engine, "lifts", Settings::default()).await;
                        let plugin = plugin.unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert_eq!(plugin.uses_codec(), expected, "{what}");
                        for value in &kind.values {
                            let (method, now) =
                                (MethodIndex { service: 0, method: 0 }, Instant::now());
                            let deadline = now + Duration::from_secs(20);
                            let call =
                                plugin.clone().call(method, value.clone().into(), now, deadline);
                            let result =
                                call.await.unwrap_or_else(|error| panic!("{what}: {error}"));
                            assert_eq!(result, value, "{what}, by codec: {expected}");
                        }
                    }
                }
            }
        }
    }
}
