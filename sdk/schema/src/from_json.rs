//! Converts JSON to postcard, by type. It reads what people write leniently. An error names the
//! place in the value.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::encoding::{put_bytes, put_char, put_flags, put_signed, put_unsigned};
use crate::example::example;
use crate::name::find_name;
use crate::{Param, Type, TypeId, Types, ValueError};

/// The arguments of a call: one JSON value for each parameter. Options at the end may be left out.
///
/// # Errors
/// When their number is wrong, or one of them does not fit its type.
pub fn arguments_from_json(
    types: &Types,
    params: &[Param],
    arguments: &[Value],
) -> Result<Vec<u8>, ValueError> {
    let left_out = params.get(arguments.len()..).unwrap_or_default();
    let are_optional = left_out.iter().all(|param| matches!(types[param.ty], Type::Option(_)));
    if params.len() < arguments.len() || !are_optional {
        let named: Vec<String> =
            params.iter().map(|p| format!("{}: {}", p.name, types.notation(p.ty))).collect();
        let wanted = match &named[..] {
            [] => "no arguments".to_owned(),
            [one] => format!("1 argument ({one})"),
            many => format!("{} arguments ({})", many.len(), many.join(", ")),
        };
        let error = ValueError::new(format!("expected {wanted}, found {}", arguments.len()));
        let examples: Vec<String> = params.iter().map(|p| example(types, p.ty)).collect();
        return Err(if params.is_empty() { error } else { error.like(&examples.join(" ")) });
    }
    let mut out = Vec::new();
    let given = arguments.iter().chain(std::iter::repeat(&Value::Null));
    for (param, argument) in params.iter().zip(given) {
        let read = value_from_json(types, param.ty, argument, &mut out);
        read.map_err(|error| error.within(&param.name).like(&example(types, param.ty)))?;
    }
    Ok(out)
}

/// Reads an argument as a person typed it: as JSON, or as a bare word if the type is a string, a
/// character, bytes, an enum or variant, or an option of one of these.
///
/// # Errors
/// When it is neither.
pub fn argument_from_text(types: &Types, param: &Param, text: &str) -> Result<Value, ValueError> {
    let parsed = serde_json::from_str(text);
    let word = match (&types[innermost(types, param.ty)], &parsed) {
        // `7` is a number in JSON, but a word if the type is a string.
        (Type::String | Type::Char, Ok(Value::String(_))) => false,
        (Type::String | Type::Char, Ok(Value::Null)) => !matches!(types[param.ty], Type::Option(_)),
        (Type::String | Type::Char, _) => true,
        // Base64 can look like a number, or like `true`.
        (Type::Bytes, Ok(Value::String(_) | Value::Array(_))) => false,
        (Type::Bytes, Ok(Value::Null)) => !matches!(types[param.ty], Type::Option(_)),
        (Type::Bytes, _) => true,
        (Type::Enum(_) | Type::Variant(_), Err(_)) => true,
        _ => false,
    };
    if word {
        return Ok(Value::String(text.to_owned()));
    }
    parsed.map_err(|error| {
        let problem = format!("expected {} as JSON: {error}", types.notation(param.ty));
        ValueError::new(problem).within(&param.name).like(&example(types, param.ty))
    })
}

fn innermost(types: &Types, mut ty: TypeId) -> TypeId {
    while let Type::Option(some) = &types[ty] {
        ty = *some;
    }
    ty
}

/// Appends one value.
///
/// # Errors
/// When the JSON does not fit the type. `out` may then hold a part of the value.
pub fn value_from_json(
    types: &Types,
    ty: TypeId,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    Encoder { types, out }.value(ty, value)
}

struct Encoder<'a> {
    types: &'a Types,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn value(&mut self, id: TypeId, value: &Value) -> Result<(), ValueError> {
        let ty = &self.types[id];
        match (ty, value) {
            (Type::Bool, Value::Bool(value)) => self.out.push((*value).into()),
            (Type::U8, _) => {
                let number = self.unsigned(id, value, u8::MAX.into())?;
                self.out.push(number.to_le_bytes()[0]);
            }
            (Type::S8, _) => {
                let number = self.signed(id, value, i8::MIN.into(), i8::MAX.into())?;
                self.out.push(number.to_le_bytes()[0]);
            }
            (Type::U16, _) => self.put_unsigned(id, value, u16::MAX.into())?,
            (Type::U32, _) => self.put_unsigned(id, value, u32::MAX.into())?,
            (Type::U64, _) => self.put_unsigned(id, value, u64::MAX)?,
            (Type::S16, _) => self.put_signed(id, value, i16::MIN.into(), i16::MAX.into())?,
            (Type::S32, _) => self.put_signed(id, value, i32::MIN.into(), i32::MAX.into())?,
            (Type::S64, _) => self.put_signed(id, value, i64::MIN, i64::MAX)?,
            (Type::F32, _) => {
                let number = self.float(id, value)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rounding is what f32 asks for"
                )]
                let short = number as f32;
                if short.is_infinite() && number.is_finite() {
                    return Err(self.mismatch(id, value));
                }
                self.out.extend_from_slice(&short.to_le_bytes());
            }
            (Type::F64, _) => {
                let number = self.float(id, value)?;
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            (Type::Char, Value::String(text)) => {
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(one), None) => put_char(self.out, one),
                    _ => return Err(self.mismatch(id, value)),
                }
            }
            (Type::String, Value::String(text)) => put_bytes(self.out, text.as_bytes()),
            (Type::Bytes, Value::String(text)) => {
                let bytes = from_base64(text)
                    .ok_or_else(|| ValueError::new("list<u8>: the string is not base64"))?;
                put_bytes(self.out, &bytes);
            }
            (Type::Bytes, Value::Array(numbers)) => {
                let bytes: Option<Vec<u8>> =
                    numbers.iter().map(|n| n.as_u64().and_then(|n| n.try_into().ok())).collect();
                put_bytes(self.out, &bytes.ok_or_else(|| self.mismatch(id, value))?);
            }
            (Type::List(element), Value::Array(values)) => {
                put_unsigned(self.out, values.len() as u64);
                self.array(values.iter().map(|value| (*element, value)))?;
            }
            (Type::FixedList(element, len), Value::Array(values)) => {
                if values.len() != *len as usize {
                    return Err(self.mismatch(id, value));
                }
                self.array(values.iter().map(|value| (*element, value)))?;
            }
            (Type::Tuple(types), Value::Array(values)) => {
                if values.len() != types.len() {
                    return Err(self.mismatch(id, value));
                }
                self.array(types.iter().copied().zip(values))?;
            }
            (Type::Record(fields), Value::Object(object)) => self.record(id, fields, object)?,
            (Type::Variant(cases), _) => {
                let (name, payload) = self.case(id, value)?;
                let index = find_name(cases.iter().map(|case| &case.name[..]), name)
                    .ok_or_else(|| self.mismatch(id, value))?;
                let case = &cases[index];
                put_unsigned(self.out, index as u64);
                self.payload(id, value, &case.name, case.ty, payload)?;
            }
            (Type::Enum(names), Value::String(text)) => {
                let index = find_name(names.iter().map(String::as_str), text)
                    .ok_or_else(|| self.mismatch(id, value))?;
                put_unsigned(self.out, index as u64);
            }
            (Type::Option(_), Value::Null) => self.out.push(0),
            (Type::Option(some), _) => {
                self.out.push(1);
                match value {
                    Value::Object(object)
                        if matches!(self.types[*some], Type::Option(_)) && object.len() == 1 =>
                    {
                        let inner = object.get("some").ok_or_else(|| self.mismatch(id, value))?;
                        self.value(*some, inner).map_err(|e| e.within("some"))?;
                    }
                    _ => self.value(*some, value)?,
                }
            }
            (Type::Result { ok, err }, _) => {
                let (name, payload) = self.case(id, value)?;
                let (index, ty) = match find_name(["ok", "err"].into_iter(), name) {
                    Some(0) => (0, ok),
                    Some(_) => (1, err),
                    None => return Err(self.mismatch(id, value)),
                };
                self.out.push(index);
                self.payload(id, value, name, *ty, payload)?;
            }
            (Type::Flags(names), Value::Array(values)) => {
                let mut set = vec![false; names.len()];
                for flag in values {
                    let index = flag
                        .as_str()
                        .and_then(|flag| find_name(names.iter().map(String::as_str), flag));
                    set[index.ok_or_else(|| self.mismatch(id, value))?] = true;
                }
                put_flags(self.out, &set);
            }
            _ => return Err(self.mismatch(id, value)),
        }
        Ok(())
    }

    fn record(
        &mut self,
        id: TypeId,
        fields: &[crate::Field],
        object: &serde_json::Map<String, Value>,
    ) -> Result<(), ValueError> {
        let mut given: Vec<Option<&Value>> = vec![None; fields.len()];
        for (name, value) in object {
            let Some(index) = find_name(fields.iter().map(|field| &field.name[..]), name) else {
                let notation = self.types.notation(id);
                let problem = format!("there is no such field in {notation}");
                return Err(ValueError::new(problem).within(name));
            };
            if given[index].replace(value).is_some() {
                let name = &fields[index].name;
                return Err(ValueError::new("the field is given twice").within(name));
            }
        }
        for (field, given) in fields.iter().zip(given) {
            let value = match given {
                Some(value) => value,
                // A missing field is none, if its type is an option.
                None if matches!(self.types[field.ty], Type::Option(_)) => &Value::Null,
                None => {
                    let notation = self.types.notation(field.ty);
                    let problem = format!("the field is missing ({notation})");
                    return Err(ValueError::new(problem).within(&field.name));
                }
            };
            self.value(field.ty, value).map_err(|e| e.within(&field.name))?;
        }
        Ok(())
    }

    fn array<'v>(
        &mut self,
        values: impl Iterator<Item = (TypeId, &'v Value)>,
    ) -> Result<(), ValueError> {
        for (index, (ty, value)) in values.enumerate() {
            self.value(ty, value).map_err(|e| e.within(format_args!("[{index}]")))?;
        }
        Ok(())
    }

    /// Reads a case: `"name"`, or an object with one member.
    fn case<'v>(
        &self,
        id: TypeId,
        value: &'v Value,
    ) -> Result<(&'v str, Option<&'v Value>), ValueError> {
        match value {
            Value::String(name) => Ok((name, None)),
            Value::Object(object) => match (object.iter().next(), object.len()) {
                (Some((name, payload)), 1) => Ok((name, Some(payload))),
                _ => Err(self.mismatch(id, value)),
            },
            _ => Err(self.mismatch(id, value)),
        }
    }

    fn payload(
        &mut self,
        id: TypeId,
        whole: &Value,
        name: &str,
        ty: Option<TypeId>,
        payload: Option<&Value>,
    ) -> Result<(), ValueError> {
        match (ty, payload) {
            (None, None | Some(Value::Null)) => Ok(()),
            (Some(ty), Some(payload)) => self.value(ty, payload).map_err(|e| e.within(name)),
            (Some(ty), None) if matches!(self.types[ty], Type::Option(_)) => {
                self.value(ty, &Value::Null)
            }
            _ => Err(self.mismatch(id, whole)),
        }
    }

    fn put_unsigned(&mut self, id: TypeId, value: &Value, max: u64) -> Result<(), ValueError> {
        let number = self.unsigned(id, value, max)?;
        put_unsigned(self.out, number);
        Ok(())
    }

    fn put_signed(
        &mut self,
        id: TypeId,
        value: &Value,
        min: i64,
        max: i64,
    ) -> Result<(), ValueError> {
        let number = self.signed(id, value, min, max)?;
        put_signed(self.out, number);
        Ok(())
    }

    fn unsigned(&self, id: TypeId, value: &Value, max: u64) -> Result<u64, ValueError> {
        integer(value)
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n <= max)
            .ok_or_else(|| self.mismatch(id, value))
    }

    fn signed(&self, id: TypeId, value: &Value, min: i64, max: i64) -> Result<i64, ValueError> {
        integer(value)
            .and_then(|n| i64::try_from(n).ok())
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| self.mismatch(id, value))
    }

    fn float(&self, id: TypeId, value: &Value) -> Result<f64, ValueError> {
        match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match &text[..] {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| self.mismatch(id, value))
    }

    fn mismatch(&self, id: TypeId, value: &Value) -> ValueError {
        ValueError::new(format!("expected {}, found {}", self.types.notation(id), excerpt(value)))
    }
}

/// A whole number: as a JSON number, or as a string, for callers whose JSON library rounds numbers
/// beyond 2^53.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number
            .as_i128()
            .or_else(|| number.as_f64().filter(|f| f.fract() == 0.0).and_then(exact)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Reads `7.0` as 7, but only up to 2^53. Beyond that, several whole numbers share one float.
#[expect(clippy::cast_possible_truncation, reason = "the bound is checked first")]
fn exact(float: f64) -> Option<i128> {
    (float.abs() <= 9_007_199_254_740_992.0).then_some(float as i128)
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet =
        if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
}

/// What was found, short enough for a message.
fn excerpt(value: &Value) -> String {
    let (kind, text) = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(value) => return value.to_string(),
        Value::Number(number) => return format!("the number {number}"),
        Value::String(text) => ("the string", serde_json::to_string(text).unwrap_or_default()),
        Value::Array(_) => ("the array", value.to_string()),
        Value::Object(_) => ("the object", value.to_string()),
    };
    if text.len() <= 60 {
        format!("{kind} {text}")
    } else {
        format!("{kind} {}...", &text[..text.floor_char_boundary(60)])
    }
}
