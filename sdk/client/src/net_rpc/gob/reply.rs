//! Makes JSON of a reply, by the types that it brings.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value as Json, json};
use wharf_gob::{Item, Kind, Opaque, TypeId, Types, Value, Wire};

/// The most fields of structs in a reply. Those that were left out take no bytes of it.
const MAX_FIELDS: usize = 1_000_000;

/// The reply's value as JSON. Fields that were left out are zero, as Go's reader has them.
///
/// # Errors
/// When the reply is damaged, or has too many fields.
pub(super) fn json(types: &Types, item: Item<'_>) -> Result<String, String> {
    let value = Value::read(types, item).map_err(|error| error.to_string())?;
    let mut left = MAX_FIELDS;
    if !count(types, item.ty, &value, &mut left) {
        return Err(format!("a reply has more than {MAX_FIELDS} fields"));
    }
    Ok(of(types, item.ty, &value).to_string())
}

/// Takes the fields of all structs off `left`. Returns whether there were enough.
fn count(types: &Types, ty: TypeId, value: &Value<'_>, left: &mut usize) -> bool {
    let Ok(kind) = types.kind(ty) else { return true };
    match (value, kind) {
        (Value::Interface(Some(inner)), _) => count(types, inner.1, &inner.2, left),
        (
            Value::List(elements),
            Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }),
        ) => elements.iter().all(|value| count(types, *element, value, left)),
        (Value::Map(pairs), Kind::Defined(Wire::Map { key, element })) => pairs
            .iter()
            .all(|(k, v)| count(types, *key, k, left) && count(types, *element, v, left)),
        (Value::Struct(found), Kind::Defined(Wire::Struct { fields, .. })) => {
            let Some(rest) = left.checked_sub(fields.len()) else { return false };
            *left = rest;
            found.iter().all(|(index, value)| {
                fields.get(*index).is_none_or(|field| count(types, field.ty, value, left))
            })
        }
        _ => true,
    }
}

fn of(types: &Types, ty: TypeId, value: &Value<'_>) -> Json {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Float(value) => float(*value),
        Value::Complex(real, imaginary) => json!([float(*real), float(*imaginary)]),
        Value::Bytes(bytes) => BASE64_STANDARD.encode(bytes).into(),
        Value::String(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::Interface(None) => Json::Null,
        Value::Interface(Some(inner)) => of(types, inner.1, &inner.2),
        Value::List(elements) => {
            let element = match types.kind(ty) {
                Ok(Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element })) => {
                    *element
                }
                _ => ty,
            };
            elements.iter().map(|value| of(types, element, value)).collect()
        }
        Value::Map(pairs) => map(types, ty, pairs),
        Value::Struct(found) => {
            let Ok(Kind::Defined(Wire::Struct { fields, .. })) = types.kind(ty) else {
                return Json::Null;
            };
            let mut found = found.iter().peekable();
            let mut members = Map::new();
            for (index, field) in fields.iter().enumerate() {
                let member = match found.next_if(|(at, _)| *at == index) {
                    Some((_, value)) => of(types, field.ty, value),
                    None => zero(types, field.ty),
                };
                members.insert(field.name.clone(), member);
            }
            members.into()
        }
        Value::Opaque(bytes) => match types.kind(ty) {
            Ok(Kind::Defined(Wire::Opaque { by: Opaque::Text, .. })) => {
                String::from_utf8_lossy(bytes).into()
            }
            _ => BASE64_STANDARD.encode(bytes).into(),
        },
    }
}

/// A map whose keys are strings or whole numbers is an object, as in Go's `encoding/json`. Any other
/// one is a list of pairs.
fn map(types: &Types, ty: TypeId, pairs: &[(Value<'_>, Value<'_>)]) -> Json {
    let Ok(Kind::Defined(Wire::Map { key, element })) = types.kind(ty) else { return Json::Null };
    if !matches!(*key, TypeId::STRING | TypeId::INT | TypeId::UINT) {
        let pair =
            |(k, v): &(Value<'_>, Value<'_>)| json!([of(types, *key, k), of(types, *element, v)]);
        return pairs.iter().map(pair).collect();
    }
    let member = |(k, v): &(Value<'_>, Value<'_>)| {
        let name = match of(types, *key, k) {
            Json::String(name) => name,
            other => other.to_string(),
        };
        (name, of(types, *element, v))
    };
    pairs.iter().map(member).collect::<Map<_, _>>().into()
}

/// What a field is that was left out. Structs never are, so a struct is behind a nil pointer then.
fn zero(types: &Types, ty: TypeId) -> Json {
    match types.kind(ty) {
        Ok(Kind::Bool) => false.into(),
        Ok(Kind::Int | Kind::Uint) => 0.into(),
        Ok(Kind::Float) => 0.0.into(),
        Ok(Kind::Bytes | Kind::String) => "".into(),
        Ok(Kind::Complex) => json!([0.0, 0.0]),
        Ok(Kind::Defined(Wire::Slice { .. })) => json!([]),
        Ok(Kind::Defined(Wire::Map { .. })) => json!({}),
        Ok(Kind::Interface | Kind::Defined(_)) | Err(_) => Json::Null,
    }
}

/// JSON has no NaN and no infinities, so these become strings.
fn float(value: f64) -> Json {
    match serde_json::Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}
