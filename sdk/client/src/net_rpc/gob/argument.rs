//! Writes a JSON value as a type of Go.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use wharf_gob::{StructBody, put_float, put_int, put_text, put_uint};

use super::shape::{Shape, Ty, field_name};

/// The bytes of a value.
///
/// # Errors
/// When it does not fit the type. The error says where.
pub(super) fn encoded(shape: &Shape, value: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    put(shape, &shape.root, value, &mut out)?;
    Ok(out)
}

fn put(shape: &Shape, ty: &Ty, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let unfit = |wanted: &str| format!("the service wants {wanted} here, not {value}");
    let or_zero = |number: Option<u64>, wanted: &str| match (number, value) {
        (Some(number), _) => Ok(number),
        (None, Value::Null) => Ok(0),
        (None, _) => Err(unfit(wanted)),
    };
    match ty {
        Ty::Nothing => put_int(out, 0),
        Ty::Bool => put_uint(out, u64::from(value.as_bool().unwrap_or_default())),
        Ty::Int => {
            // A whole number may be a string of digits.
            let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            let bits = or_zero(number.map(i64::cast_unsigned), "an int")?;
            put_int(out, bits.cast_signed());
        }
        Ty::Uint => {
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
            put_uint(out, or_zero(number, "a uint")?);
        }
        Ty::Float => put_float(out, value.as_f64().unwrap_or_default()),
        Ty::String => put_text(out, value.as_str().unwrap_or_default().as_bytes()),
        Ty::Bytes => {
            let bytes = BASE64_STANDARD.decode(value.as_str().unwrap_or_default());
            put_text(out, &bytes.map_err(|_| unfit("bytes in base64"))?);
        }
        Ty::List(element) | Ty::Array(element, _) => {
            let elements = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Ty::Array(_, len) = ty
                && elements.len() as u64 != *len
            {
                return Err(unfit(&format!("an array of {len}")));
            }
            put_uint(out, elements.len() as u64);
            for (place, value) in elements.iter().enumerate() {
                put(shape, element, value, out).map_err(|error| format!("[{place}]: {error}"))?;
            }
        }
        Ty::Map(key, element) => {
            let members = value.as_object();
            put_uint(out, members.map_or(0, Map::len) as u64);
            for (name, value) in members.into_iter().flatten() {
                put(shape, key, &Value::from(&name[..]), out)?;
                put(shape, element, value, out).map_err(|error| format!("{name}: {error}"))?;
            }
        }
        Ty::Empty => StructBody::end(out),
        Ty::Struct(number) => {
            let fields = shape.structs.get(*number).map(Vec::as_slice).unwrap_or_default();
            put_struct(shape, fields, value, out)?;
        }
    }
    Ok(())
}

fn put_struct(
    shape: &Shape,
    fields: &[(String, Ty)],
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut body = StructBody::default();
    // Those of no type are not in the definition either.
    let known = fields.iter().filter(|(_, ty)| *ty != Ty::Nothing);
    for (index, (name, ty)) in known.enumerate() {
        let members = value.as_object().into_iter().flatten();
        let mut of_field = members.filter(|(member, _)| field_name(member) == *name);
        let Some((member, value)) = of_field.next().filter(|(_, value)| !value.is_null()) else {
            continue;
        };
        body.field(index, out);
        put(shape, ty, value, out).map_err(|error| format!("{member}: {error}"))?;
    }
    StructBody::end(out);
    Ok(())
}
