//! JSON objects as Go reads them.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::Value;
use wharf_registry_api::{Metadata, Problem};

use crate::http::parameters::invalid;
use crate::upkeep::MAX_CHECKS;

/// The shortest and the longest time that may be asked for.
const TIMES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(30 * 24 * 3600)];

/// A JSON object, with names in any case.
pub(in super::super) struct Object(HashMap<String, Value>);

/// `ServiceID`, `serviceId` and `service_id` are the same.
fn folded(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

impl Object {
    pub(in super::super) fn read(body: &Bytes) -> Result<Self, Problem> {
        let value = serde_json::from_slice::<Value>(body)
            .map_err(|error| invalid(format!("the body has to be a JSON object: {error}")))?;
        Object::of(value).ok_or_else(|| invalid("the body has to be a JSON object"))
    }

    pub(super) fn of(value: Value) -> Option<Self> {
        let Value::Object(fields) = value else { return None };
        Some(Object(fields.into_iter().map(|(name, value)| (folded(&name), value)).collect()))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(&folded(name)).filter(|value| !value.is_null())
    }

    /// A text; an empty one is none.
    pub(in super::super) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(invalid(format!("{name} has to be a string"))),
        }
    }

    pub(super) fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| *number <= most);
        let number =
            number.ok_or_else(|| invalid(format!("{name} has to be a number up to {most}")));
        number.map(Some)
    }

    pub(in super::super) fn object(&self, name: &str) -> Result<Option<Object>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let object = Object::of(value.clone());
        object.map(Some).ok_or_else(|| invalid(format!("{name} has to be an object")))
    }

    /// The objects in a field for one, and in a field for several.
    pub(in super::super) fn objects(
        &self,
        one: &str,
        several: &str,
    ) -> Result<Vec<Object>, Problem> {
        let mut objects: Vec<Object> = self.object(one)?.into_iter().collect();
        match self.get(several) {
            None => {}
            Some(Value::Array(values)) => {
                for value in values {
                    let object = Object::of(value.clone());
                    objects.push(object.ok_or_else(|| {
                        invalid(format!("{several} has to be a list of objects"))
                    })?);
                }
            }
            Some(_) => return Err(invalid(format!("{several} has to be a list of objects"))),
        }
        if objects.len() > MAX_CHECKS {
            return Err(invalid(format!("{} checks, at most {MAX_CHECKS}", objects.len())));
        }
        Ok(objects)
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        serde_json::from_value(value.clone())
            .map_err(|_| invalid(format!("{name} has to be a list of strings")))
    }

    pub(super) fn map(&self, name: &str) -> Result<Metadata, Problem> {
        let Some(value) = self.get(name) else { return Ok(Metadata::new()) };
        serde_json::from_value(value.clone())
            .map_err(|_| invalid(format!("{name} has to be an object of strings")))
    }

    /// A time as Go writes it, `1m30s`, or a number of nanoseconds; an empty or zero one is none.
    pub(super) fn time(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(time) = self.long_time(name)? else { return Ok(None) };
        let [shortest, longest] = TIMES;
        if !(shortest..=longest).contains(&time) {
            return Err(invalid(format!(
                "{name} is {time:?}: choose a time from {shortest:?} to {} days",
                longest.as_secs() / 86_400
            )));
        }
        Ok(Some(time))
    }

    /// The same of any length; what is too long is as long as it may be.
    pub(super) fn long_time(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let time = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => go_duration(text),
            Some(value) => value.as_u64().map(Duration::from_nanos),
        };
        let time = time
            .ok_or_else(|| invalid(format!("{name} has to be a time like 10s, 1m30s or 500ms")))?;
        Ok((!time.is_zero()).then(|| time.min(TIMES[1])))
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(values) => !values.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(set) => *set,
            _ => true,
        })
    }
}

/// Parses a time as Go's `time.ParseDuration` does: numbers, also with fractions, each with its unit.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() || text.len() > 64 {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("500ms", 500), ("0", 0)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "10x", "-5s", "1.2.3s", "1e9h", "\u{661}s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
