//! What a service said of the types of its argument.
//!
//! JSON does not tell `int` from `uint`, or a string from `[]byte`. Go's decoder names the type that it
//! wants and does not run the call, so the next attempt has it.

use std::collections::HashMap;

/// The most types that are remembered of one method.
const MAX_KNOWN: usize = 64;

/// The longest error that is looked at, in bytes.
const MAX_TEXT: usize = 1000;

/// The types that a service wants: of the argument itself ([`ROOT`]), and of the fields of structs, as
/// `T0.A`.
#[derive(Clone, Debug, Default)]
pub(in crate::net_rpc) struct Learned(HashMap<String, Want>);

/// Stands for the argument itself.
pub(super) const ROOT: &str = "the argument";

/// A type of Go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Bool,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    List(Box<Want>),
    /// With this many elements.
    Array(Box<Want>, u64),
    Map(Box<Want>, Box<Want>),
    /// A struct, whose fields are found out by themselves.
    Struct,
}

impl std::fmt::Display for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Want::Bool => f.write_str("bool"),
            Want::Int => f.write_str("int"),
            Want::Uint => f.write_str("uint"),
            Want::Float => f.write_str("float64"),
            Want::String => f.write_str("string"),
            Want::Bytes => f.write_str("[]byte, which is a string in base64"),
            Want::List(element) => write!(f, "[]{element}"),
            Want::Array(element, len) => write!(f, "[{len}]{element}"),
            Want::Map(key, element) => write!(f, "map[{key}]{element}"),
            Want::Struct => f.write_str("a type of its own"),
        }
    }
}

impl Learned {
    pub(super) fn at(&self, place: &str) -> Option<&Want> {
        self.0.get(place)
    }

    /// Takes what the text of an error says. Returns whether it says anything.
    ///
    /// # Errors
    /// When it contradicts what was said before.
    pub(in crate::net_rpc) fn take(&mut self, error: &str) -> Result<bool, String> {
        if error.len() > MAX_TEXT || self.0.len() >= MAX_KNOWN {
            return Ok(false);
        }
        let Some((place, want)) = said(error) else { return Ok(false) };
        // A service that decodes gob itself may say the same of types that are not ours.
        let is_ours = place == ROOT
            || place.strip_prefix('T').and_then(|rest| rest.split_once('.')).is_some_and(
                |(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()),
            );
        if !is_ours {
            return Ok(false);
        }
        match self.0.insert(place, want.clone()) {
            // It has what it wanted, and still does not take it.
            Some(before) if before == want => Ok(false),
            // Objects that look alike have one type here, because Go's decoder confuses several types
            // for one of its own.
            Some(_) => Err(format!(
                "the service has several types for objects that look alike ({error}): write all their \
                 fields, so that they differ"
            )),
            None => Ok(true),
        }
    }
}

/// Reads the two errors by which Go's decoder says that a type does not fit.
fn said(error: &str) -> Option<(String, Want)> {
    if let Some(rest) = error.strip_prefix("gob: wrong type (") {
        let (local, place) = rest.split_once(") for received field ")?;
        return Some((place.to_owned(), want(local)?));
    }
    let rest = error.strip_prefix("gob: decoding into local type ")?;
    let (local, _) = rest.split_once(", received remote type ")?;
    Some((ROOT.to_owned(), want(local)?))
}

/// A type in Go's notation.
fn want(local: &str) -> Option<Want> {
    let local = local.trim_start_matches('*');
    if local == "[]uint8" || local == "[]byte" {
        return Some(Want::Bytes);
    }
    if let Some(rest) = local.strip_prefix("map[") {
        let (key, element) = rest.split_once(']')?;
        return Some(Want::Map(Box::new(want(key)?), Box::new(want(element)?)));
    }
    if let Some(rest) = local.strip_prefix('[') {
        let (len, element) = rest.split_once(']')?;
        let element = Box::new(want(element)?);
        return Some(match len {
            "" => Want::List(element),
            len => Want::Array(element, len.parse().ok()?),
        });
    }
    Some(match local {
        "bool" => Want::Bool,
        "string" => Want::String,
        _ if local.starts_with("uint") => Want::Uint,
        _ if local.starts_with("int") && !local.starts_with("interface") => Want::Int,
        _ if local.starts_with("float") => Want::Float,
        // A name of a package: `main.Point`. Of what kind it is, the text does not say.
        _ if local.contains('.') && !local.contains(' ') => Want::Struct,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_errors_say_which_type_is_wanted_where() {
        for (error, place, expected) in [
            ("gob: wrong type (uint) for received field Args.A", "Args.A", Want::Uint),
            ("gob: wrong type (*float64) for received field T1.B_C", "T1.B_C", Want::Float),
            ("gob: wrong type ([]uint8) for received field Args.D", "Args.D", Want::Bytes),
            (
                "gob: wrong type (map[string][]int) for received field Args.M",
                "Args.M",
                Want::Map(Box::new(Want::String), Box::new(Want::List(Box::new(Want::Int)))),
            ),
            ("gob: decoding into local type *uint16, received remote type int", ROOT, Want::Uint),
        ] {
            assert_eq!(said(error), Some((place.to_owned(), expected)), "{error}");
        }
        for error in ["divide by zero", "gob: wrong type (", "gob: duplicate type received"] {
            assert_eq!(said(error), None, "{error}");
        }
        let mut learned = Learned::default();
        let uint = "gob: wrong type (uint) for received field T0.A";
        assert_eq!((learned.take(uint), learned.take(uint)), (Ok(true), Ok(false)));
        let other = "gob: wrong type (uint) for received field Cache.A";
        assert_eq!(learned.take(other), Ok(false));
        let int = "gob: wrong type (int) for received field T0.A";
        assert!(learned.take(int).unwrap_err().contains("write all their fields"));
    }
}
