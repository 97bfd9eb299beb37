//! The arguments of a call out of one JSON value, as protocols have them whose callers write JSON.

use serde_json::{Map, Value};

use crate::example::example;
use crate::name::find_name;
use crate::{Param, Type, TypeId, Types, ValueError, arguments_from_json, value_from_json};

/// The arguments of a call from one JSON value: an object by the names of the parameters, the record
/// itself where the only parameter is one, an array by position, a bare value for the only parameter,
/// or nothing where there are no parameters.
///
/// # Errors
/// When something is missing, unknown, or does not fit its type.
pub fn arguments_from_body(
    types: &Types,
    params: &[Param],
    body: Option<&Value>,
) -> Result<Vec<u8>, ValueError> {
    match body {
        None | Some(Value::Null) => named(types, params, &Map::new()),
        Some(Value::Array(values)) => arguments_from_json(types, params, values),
        Some(Value::Object(object)) => match params {
            [only] if is_meant(types, only, object) => {
                let value = one(types, only, body);
                // Its only member may name the parameter all the same, as descriptions have it.
                match value.is_err() && object.len() == 1 {
                    true => named(types, params, object).or(value),
                    false => value,
                }
            }
            _ => named(types, params, object),
        },
        Some(_) => match params {
            [only] => one(types, only, body),
            _ => {
                let named: Vec<&str> = params.iter().map(|param| &param.name[..]).collect();
                let wanted = named.join(", ");
                Err(ValueError::new(format!("expected an object with the members {wanted}")))
            }
        },
    }
}

/// Whether an object is the value of the only parameter, and does not name it.
fn is_meant(types: &Types, param: &Param, object: &Map<String, Value>) -> bool {
    let names: Vec<&str> = match &types[innermost(types, param.ty)] {
        Type::Record(fields) => fields.iter().map(|field| &field.name[..]).collect(),
        Type::Variant(cases) => cases.iter().map(|case| &case.name[..]).collect(),
        Type::Result { .. } => vec!["ok", "err"],
        _ => return false,
    };
    let names_it = |name: &String| find_name(std::iter::once(&param.name[..]), name).is_some();
    let is_member = |name: &String| find_name(names.iter().copied(), name).is_some();
    !(object.len() == 1 && object.keys().all(|name| names_it(name) && !is_member(name)))
}

fn innermost(types: &Types, mut ty: TypeId) -> TypeId {
    while let Type::Option(some) = &types[ty] {
        ty = *some;
    }
    ty
}

fn one(types: &Types, param: &Param, body: Option<&Value>) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    value_from_json(types, param.ty, body.unwrap_or(&Value::Null), &mut out)
        .map_err(|error| error.within(&param.name).like(&example(types, param.ty)))?;
    Ok(out)
}

fn named(
    types: &Types,
    params: &[Param],
    object: &Map<String, Value>,
) -> Result<Vec<u8>, ValueError> {
    let mut given: Vec<Option<&Value>> = vec![None; params.len()];
    for (name, value) in object {
        let Some(index) = find_name(params.iter().map(|param| &param.name[..]), name) else {
            let known: Vec<&str> = params.iter().map(|param| &param.name[..]).collect();
            let known = match &known[..] {
                [] => "the method takes none".to_owned(),
                known => format!("there are {}", known.join(", ")),
            };
            return Err(
                ValueError::new(format!("there is no such parameter; {known}")).within(name)
            );
        };
        if given[index].replace(value).is_some() {
            return Err(ValueError::new("the parameter is given twice").within(name));
        }
    }
    let mut out = Vec::new();
    for (param, value) in params.iter().zip(given) {
        let value = match value {
            Some(value) => value,
            None if matches!(types[param.ty], Type::Option(_)) => &Value::Null,
            None => {
                let problem = format!("the parameter is missing ({})", types.notation(param.ty));
                let error = ValueError::new(problem).within(&param.name);
                return Err(error.like(&example_of(types, params)));
            }
        };
        value_from_json(types, param.ty, value, &mut out)
            .map_err(|error| error.within(&param.name).like(&example(types, param.ty)))?;
    }
    Ok(out)
}

/// An example of a whole body.
#[must_use]
pub fn example_of(types: &Types, params: &[Param]) -> String {
    match params {
        [] => "{}".to_owned(),
        [only] if matches!(types[only.ty], Type::Record(_)) => example(types, only.ty),
        _ => {
            let members: Vec<String> = params
                .iter()
                .map(|param| {
                    let name = crate::lower_camel(&param.name);
                    format!("\"{name}\":{}", example(types, param.ty))
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Field;
    use crate::encoding::put_signed;

    fn types() -> (Types, TypeId, TypeId, TypeId) {
        let mut types = Types::default();
        let s64 = types.add(Type::S64).unwrap();
        let field = |name: &str| Field { name: name.into(), ty: s64 };
        let args = types.add(Type::Record(vec![field("a"), field("b")])).unwrap();
        let maybe = types.add(Type::Option(s64)).unwrap();
        (types, s64, args, maybe)
    }

    fn encoded(numbers: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        numbers.iter().for_each(|number| put_signed(&mut out, *number));
        out
    }

    #[test]
    fn one_record_is_the_body_or_is_named() {
        let (types, _, args, _) = types();
        let params = [Param { name: "args".into(), ty: args }];
        for body in [
            json!({"a": 7, "b": 8}),
            json!({"A": 7, "B": 8}),
            json!({"args": {"a": 7, "b": 8}}),
            json!([{"a": 7, "b": 8}]),
        ] {
            let read = arguments_from_body(&types, &params, Some(&body));
            assert_eq!(read.unwrap(), encoded(&[7, 8]), "{body}");
        }
        let error = arguments_from_body(&types, &params, Some(&json!({"a": 7}))).unwrap_err();
        assert!(error.to_string().starts_with("args.b: the field is missing"), "{error}");
        assert!(error.to_string().contains(r#"write it like {"a":-7,"b":-7}"#), "{error}");
    }

    #[test]
    fn an_object_that_names_an_optional_record_is_taken_as_its_description_says() {
        let (mut types, s64, ..) = types();
        let fields = vec![Field { name: "args".into(), ty: s64 }];
        let record = types.add(Type::Record(fields)).unwrap();
        let maybe = types.add(Type::Option(record)).unwrap();
        let params = [Param { name: "args".into(), ty: maybe }];
        // The record itself, and the record by the name of the parameter.
        for body in [json!({"args": 7}), json!({"args": {"args": 7}})] {
            let read = arguments_from_body(&types, &params, Some(&body));
            assert_eq!(read.unwrap(), [&[1][..], &encoded(&[7])].concat(), "{body}");
        }
    }

    #[test]
    fn several_parameters_are_named_or_in_order_and_options_may_be_left_out() {
        let (types, s64, _, maybe) = types();
        let param = |name: &str, ty| Param { name: name.into(), ty };
        let params = [param("left-hand", s64), param("right", maybe)];
        let both = [encoded(&[7]), vec![1], encoded(&[8])].concat();
        for body in
            [json!({"leftHand": 7, "right": 8}), json!({"LEFT_HAND": 7, "right": 8}), json!([7, 8])]
        {
            assert_eq!(arguments_from_body(&types, &params, Some(&body)).unwrap(), both, "{body}");
        }
        let short = json!({"leftHand": 7});
        let read = arguments_from_body(&types, &params, Some(&short)).unwrap();
        assert_eq!(read, [encoded(&[7]), vec![0]].concat());
        for (body, words) in [
            (json!({"right": 8}), "left-hand: the parameter is missing (s64)"),
            (
                json!({"leftHand": 7, "up": 1}),
                "up: there is no such parameter; there are left-hand, right",
            ),
            (json!({"leftHand": 7, "left_hand": 7}), "given twice"),
            (json!(7), "expected an object with the members left-hand, right"),
            (json!(null), "left-hand: the parameter is missing"),
        ] {
            let error = arguments_from_body(&types, &params, Some(&body)).unwrap_err().to_string();
            assert!(error.contains(words), "{body}: {error}");
        }
    }

    #[test]
    fn a_bare_value_is_the_only_parameter_and_nothing_is_no_parameters() {
        let (types, s64, ..) = types();
        let params = [Param { name: "n".into(), ty: s64 }];
        assert_eq!(arguments_from_body(&types, &params, Some(&json!(7))).unwrap(), encoded(&[7]));
        for body in [None, Some(json!(null)), Some(json!({})), Some(json!([]))] {
            assert_eq!(arguments_from_body(&types, &[], body.as_ref()).unwrap(), [0; 0]);
        }
        assert!(arguments_from_body(&types, &[], Some(&json!({"x": 1}))).is_err());
    }

    #[test]
    fn an_example_of_a_body_is_read_as_one() {
        let (types, s64, args, maybe) = types();
        let param = |name: &str, ty| Param { name: name.into(), ty };
        for params in [
            vec![],
            vec![param("args", args)],
            vec![param("left-hand", s64), param("right", maybe)],
            vec![param("args", args), param("x", s64)],
        ] {
            let text = example_of(&types, &params);
            let body = serde_json::from_str(&text).unwrap();
            arguments_from_body(&types, &params, Some(&body)).unwrap();
        }
    }
}
