//! Converts postcard to JSON, by type.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::encoding::Reader;
use crate::{JsonDialect, Type, TypeId, Types, ValueError, lower_camel};

/// The longest JSON that is written, in bytes. JSON spells out the names of cases and fields, so a
/// few bytes of postcard can become very long JSON.
const MAX_JSON: usize = 128 * 1024 * 1024;

/// How a call ended for the application. Both variants hold JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result; `null` where there is none.
    Ok(String),
    /// The Err of a method whose result is a `result`.
    Err(String),
}

/// One value as JSON.
///
/// # Errors
/// When the bytes are not exactly one value of this type.
pub fn value_to_json(types: &Types, ty: TypeId, bytes: &[u8]) -> Result<String, ValueError> {
    let mut writer = Writer::new(types, bytes, JsonDialect::Plain);
    writer.value(ty)?;
    writer.reader.finish()?;
    Ok(writer.out)
}

/// A call's result as JSON. If it is a WIT `result`, its two cases become those of [`Outcome`].
///
/// # Errors
/// When the bytes are not exactly one value of this type.
pub fn result_to_json(
    types: &Types,
    result: Option<TypeId>,
    bytes: &[u8],
) -> Result<Outcome, ValueError> {
    result_to_json_in(JsonDialect::Plain, types, result, bytes)
}

/// Like [`result_to_json`], in one of the dialects.
///
/// # Errors
/// When the bytes are not exactly one value of this type.
pub fn result_to_json_in(
    dialect: JsonDialect,
    types: &Types,
    result: Option<TypeId>,
    bytes: &[u8],
) -> Result<Outcome, ValueError> {
    let mut writer = Writer::new(types, bytes, dialect);
    let mut failed = false;
    match result.map(|ty| (ty, &types[ty])) {
        None => writer.out.push_str("null"),
        Some((_, Type::Result { ok, err })) => {
            failed = writer.reader.discriminant(2)? == 1;
            match if failed { err } else { ok } {
                Some(ty) => writer.value(*ty)?,
                None => writer.out.push_str("null"),
            }
        }
        Some((ty, _)) => writer.value(ty)?,
    }
    writer.reader.finish()?;
    Ok(if failed { Outcome::Err(writer.out) } else { Outcome::Ok(writer.out) })
}

struct Writer<'a> {
    types: &'a Types,
    reader: Reader<'a>,
    out: String,
    dialect: JsonDialect,
}

impl<'a> Writer<'a> {
    fn new(types: &'a Types, bytes: &'a [u8], dialect: JsonDialect) -> Self {
        Writer { types, reader: Reader::new(bytes), out: String::new(), dialect }
    }

    fn value(&mut self, ty: TypeId) -> Result<(), ValueError> {
        if self.out.len() > MAX_JSON {
            return Err(ValueError::new(format!("as JSON it takes more than {MAX_JSON} bytes")));
        }
        match &self.types[ty] {
            Type::Bool => {
                let text = if self.reader.bool()? { "true" } else { "false" };
                self.out.push_str(text);
            }
            Type::U8 => {
                let number = self.reader.u8()?;
                self.display(number);
            }
            Type::S8 => {
                let number = self.reader.u8()?.cast_signed();
                self.display(number);
            }
            Type::U16 => self.unsigned(16)?,
            Type::U32 => self.unsigned(32)?,
            Type::U64 => self.unsigned(64)?,
            Type::S16 => self.signed(16)?,
            Type::S32 => self.signed(32)?,
            Type::S64 => self.signed(64)?,
            Type::F32 => {
                let number = self.reader.f32()?;
                self.float(number.into(), &number);
            }
            Type::F64 => {
                let number = self.reader.f64()?;
                self.float(number, &number);
            }
            Type::Char => {
                let character = self.reader.char()?;
                self.string(character.encode_utf8(&mut [0; 4]));
            }
            Type::String => {
                let text = self.reader.str()?;
                self.string(text);
            }
            Type::Bytes => {
                let bytes = self.reader.bytes()?;
                self.out.push('"');
                BASE64_STANDARD.encode_string(bytes, &mut self.out);
                self.out.push('"');
            }
            Type::List(element) => {
                let len = self.reader.length()?;
                self.array((0..len).map(|_| *element))?;
            }
            Type::FixedList(element, len) => self.array((0..*len).map(|_| *element))?,
            Type::Tuple(types) => self.array(types.iter().copied())?,
            Type::Record(fields) => {
                self.out.push('{');
                for (index, field) in fields.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    let name = lower_camel(&field.name);
                    self.string(&name);
                    self.out.push(':');
                    self.value(field.ty).map_err(|e| e.within(&name))?;
                }
                self.out.push('}');
            }
            Type::Variant(cases) => {
                let case = &cases[self.reader.discriminant(cases.len())?];
                self.case(&case.name, case.ty)?;
            }
            Type::Enum(names) => {
                let name = &names[self.reader.discriminant(names.len())?];
                self.string(name);
            }
            Type::Option(some) => {
                if !self.reader.bool()? {
                    self.out.push_str("null");
                } else if matches!(self.types[*some], Type::Option(_)) {
                    // A bare null for the inner none would read as the outer none.
                    self.case("some", Some(*some))?;
                } else {
                    self.value(*some)?;
                }
            }
            Type::Result { ok, err } => match self.reader.discriminant(2)? {
                0 => self.case("ok", *ok)?,
                _ => self.case("err", *err)?,
            },
            Type::Flags(names) => {
                let set = self.reader.flags(names.len())?;
                self.out.push('[');
                let mut first = true;
                for (name, _) in names.iter().zip(set).filter(|(_, set)| *set) {
                    if !std::mem::take(&mut first) {
                        self.out.push(',');
                    }
                    self.string(name);
                }
                self.out.push(']');
            }
        }
        Ok(())
    }

    fn array(&mut self, elements: impl Iterator<Item = TypeId>) -> Result<(), ValueError> {
        self.out.push('[');
        for (index, ty) in elements.enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.value(ty).map_err(|e| e.within(format_args!("[{index}]")))?;
        }
        self.out.push(']');
        Ok(())
    }

    fn case(&mut self, name: &str, payload: Option<TypeId>) -> Result<(), ValueError> {
        let Some(ty) = payload else {
            self.string(name);
            return Ok(());
        };
        self.out.push('{');
        self.string(name);
        self.out.push(':');
        self.value(ty).map_err(|e| e.within(name))?;
        self.out.push('}');
        Ok(())
    }

    fn unsigned(&mut self, bits: u32) -> Result<(), ValueError> {
        let number = self.reader.unsigned(bits)?;
        self.integer(bits, number);
        Ok(())
    }

    fn signed(&mut self, bits: u32) -> Result<(), ValueError> {
        let number = self.reader.signed(bits)?;
        self.integer(bits, number);
        Ok(())
    }

    fn integer(&mut self, bits: u32, number: impl std::fmt::Display) {
        match self.dialect {
            JsonDialect::Model if bits > 32 => self.display(format_args!("\"{number}\"")),
            _ => self.display(number),
        }
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{value}");
    }

    /// A float, with the shortest digits that read back as the same number. JSON has no NaN and no
    /// infinities, so these become strings.
    fn float(&mut self, number: f64, shortest: &impl serde::Serialize) {
        let text = if number.is_finite() {
            serde_json::to_string(shortest).unwrap_or_default()
        } else if number.is_nan() {
            "\"NaN\"".to_owned()
        } else if number > 0.0 {
            "\"Infinity\"".to_owned()
        } else {
            "\"-Infinity\"".to_owned()
        };
        self.out.push_str(&text);
    }

    fn string(&mut self, text: &str) {
        // A string always has a JSON form.
        self.out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}
