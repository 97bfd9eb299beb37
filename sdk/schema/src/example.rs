//! An example of a value as JSON, for the errors and descriptions that people read.

use std::fmt::Write;

use crate::name::lower_camel;
use crate::{Type, TypeId, Types};

/// The most bytes of an example; a little more is written.
const MAX_EXAMPLE: usize = 200;

/// An example of a value of the type, as JSON. If it is too long, it is cut off with an ellipsis.
#[must_use]
pub fn example(types: &Types, ty: TypeId) -> String {
    let mut text = String::new();
    write(types, ty, &mut text);
    text
}

fn write(types: &Types, ty: TypeId, out: &mut String) {
    if out.len() > MAX_EXAMPLE {
        if !out.ends_with('…') {
            out.push('…');
        }
        return;
    }
    match &types[ty] {
        Type::Bool => out.push_str("true"),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => out.push('7'),
        Type::S8 | Type::S16 | Type::S32 | Type::S64 => out.push_str("-7"),
        Type::F32 | Type::F64 => out.push_str("1.5"),
        Type::Char => out.push_str("\"x\""),
        Type::String => out.push_str("\"text\""),
        // The bytes of `bytes`, in base64.
        Type::Bytes => out.push_str("\"Ynl0ZXM=\""),
        Type::List(element) => array([*element], types, out),
        Type::FixedList(element, len) => {
            let shown = (*len as usize).min(MAX_EXAMPLE);
            array(std::iter::repeat_n(*element, shown), types, out);
        }
        Type::Tuple(parts) => array(parts.iter().copied(), types, out),
        Type::Record(fields) => {
            out.push('{');
            for (place, field) in fields.iter().enumerate() {
                separate(place, out);
                if out.len() > MAX_EXAMPLE {
                    break;
                }
                name(&lower_camel(&field.name), out);
                out.push(':');
                write(types, field.ty, out);
            }
            out.push('}');
        }
        Type::Variant(cases) => match cases.first() {
            Some(case) => match case.ty {
                Some(ty) => {
                    out.push('{');
                    name(&case.name, out);
                    out.push(':');
                    write(types, ty, out);
                    out.push('}');
                }
                None => name(&case.name, out),
            },
            None => out.push_str("null"),
        },
        Type::Enum(names) => match names.first() {
            Some(first) => name(first, out),
            None => out.push_str("null"),
        },
        Type::Flags(names) => {
            out.push('[');
            if let Some(first) = names.first() {
                name(first, out);
            }
            out.push(']');
        }
        Type::Option(some) => write(types, *some, out),
        Type::Result { ok, .. } => {
            out.push_str("{\"ok\":");
            match ok {
                Some(ty) => write(types, *ty, out),
                None => out.push_str("null"),
            }
            out.push('}');
        }
    }
}

fn array(parts: impl IntoIterator<Item = TypeId>, types: &Types, out: &mut String) {
    out.push('[');
    for (place, part) in parts.into_iter().enumerate() {
        separate(place, out);
        if out.len() > MAX_EXAMPLE {
            break;
        }
        write(types, part, out);
    }
    out.push(']');
}

fn separate(place: usize, out: &mut String) {
    if place > 0 {
        out.push(',');
    }
}

fn name(text: &str, out: &mut String) {
    let short = &text[..text.floor_char_boundary(MAX_EXAMPLE)];
    // Names of WIT need no escapes.
    let _ = write!(out, "\"{short}\"");
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{Case, Field, MAX_DEPTH, value_from_json};

    #[test]
    fn an_example_is_a_value_of_its_type() {
        let mut types = Types::default();
        let s64 = types.add(Type::S64).unwrap();
        let text = types.add(Type::String).unwrap();
        let bytes = types.add(Type::Bytes).unwrap();
        let all = [
            types.add(Type::Record(vec![
                Field { name: "first-word".into(), ty: text },
                Field { name: "b".into(), ty: s64 },
            ])),
            types.add(Type::Tuple(vec![bytes, text])),
            types.add(Type::List(s64)),
            types.add(Type::FixedList(s64, 3)),
            types.add(Type::Option(text)),
            types.add(Type::Enum(vec!["up".into(), "down".into()])),
            types.add(Type::Flags(vec!["up".into(), "down".into()])),
            types.add(Type::Variant(vec![Case { name: "some".into(), ty: Some(s64) }])),
            types.add(Type::Variant(vec![Case { name: "none".into(), ty: None }])),
            types.add(Type::Result { ok: Some(text), err: None }),
            types.add(Type::Char),
            types.add(Type::F32),
            types.add(Type::Bool),
        ];
        let first = *all[0].as_ref().unwrap();
        assert_eq!(example(&types, first), r#"{"firstWord":"text","b":-7}"#);
        for ty in all {
            let ty = ty.unwrap();
            let text = example(&types, ty);
            let value: Value = serde_json::from_str(&text).unwrap();
            value_from_json(&types, ty, &value, &mut Vec::new())
                .unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn an_example_is_bounded_whatever_the_type() {
        let mut types = Types::default();
        let mut ty = types.add(Type::U8).unwrap();
        for _ in 1..MAX_DEPTH {
            ty = types.add(Type::Tuple(vec![ty, ty])).unwrap();
        }
        assert!(example(&types, ty).len() < 3 * MAX_EXAMPLE);
        let s64 = types.add(Type::S64).unwrap();
        let field = |n: usize| Field { name: format!("f{n}-{}", "x".repeat(1000)), ty: s64 };
        let long = types.add(Type::Record((0..1000).map(field).collect())).unwrap();
        assert!(example(&types, long).len() < 3 * MAX_EXAMPLE);
    }
}
