//! `calls.toml`: example calls of a service, and what they have to answer.

use std::fmt::Write;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use wharf_client::Status;
use wharf_schema::{MethodPath, Outcome, Service, find_name};

use super::project::{self, Project};
use crate::describe::Examples;

/// The most calls of one file.
const MAX_CALLS: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    call: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    method: String,
    arguments: Option<Value>,
    result: Option<Value>,
    error: Option<Value>,
    status: Option<String>,
}

/// One call.
pub(super) struct Call {
    pub(super) method: MethodPath,
    /// As the body of a call over HTTP.
    pub(super) arguments: Option<Value>,
    pub(super) expected: Expected,
}

/// How a call has to end.
pub(super) enum Expected {
    /// With some result.
    Success,
    Result(Value),
    /// With the method's own error.
    Error(Value),
    /// With this status.
    Status(Status),
}

/// Reads the calls of a project.
pub(super) fn read(project: &Project) -> anyhow::Result<Vec<Call>> {
    let path = project.calls();
    let document: Document = project::read(&path)?;
    anyhow::ensure!(
        document.call.len() <= MAX_CALLS,
        "{} has more than {MAX_CALLS} calls",
        path.display()
    );
    let calls = document.call.into_iter().enumerate();
    let calls = calls.map(|(index, entry)| {
        Call::of(entry).with_context(|| format!("{}, call {}", path.display(), index + 1))
    });
    calls.collect()
}

impl Call {
    fn of(entry: Entry) -> anyhow::Result<Self> {
        let Entry { method, arguments, result, error, status } = entry;
        let expected = match (result, error, status) {
            (None, None, None) => Expected::Success,
            (Some(result), None, None) => Expected::Result(result),
            (None, Some(error), None) => Expected::Error(error),
            (None, None, Some(name)) => {
                let status = Status::ALL.into_iter().find(|status| status.name() == name);
                Expected::Status(status.with_context(|| {
                    format!("'{name}' is no status: write one of gRPC's, as in INVALID_ARGUMENT")
                })?)
            }
            _ => anyhow::bail!("result, error and status exclude each other"),
        };
        Ok(Call { method: MethodPath::parse(&method)?, arguments, expected })
    }
}

impl Expected {
    /// What is wrong with an outcome, if it is not the expected one.
    pub(super) fn compare(&self, outcome: &Result<Outcome, (Status, String)>) -> Option<String> {
        let got = match outcome {
            Ok(Outcome::Ok(json)) => format!("the result {json}"),
            Ok(Outcome::Err(json)) => format!("the error {json}"),
            Err((status, message)) => format!("{}: {message}", status.name()),
        };
        let value = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default();
        let (is_met, expected) = match (self, outcome) {
            (Expected::Success, outcome) => {
                (matches!(outcome, Ok(Outcome::Ok(_))), "a result".to_owned())
            }
            (Expected::Result(expected), outcome) => {
                let is_met =
                    matches!(outcome, Ok(Outcome::Ok(json)) if fits(expected, &value(json)));
                (is_met, format!("the result {expected}"))
            }
            (Expected::Error(expected), outcome) => {
                let is_met =
                    matches!(outcome, Ok(Outcome::Err(json)) if fits(expected, &value(json)));
                (is_met, format!("the error {expected}"))
            }
            (Expected::Status(expected), outcome) => {
                let is_met = matches!(outcome, Err((status, _)) if status == expected);
                (is_met, expected.name().to_owned())
            }
        };
        (!is_met).then(|| format!("expected {expected}\ngot {got}"))
    }
}

/// Whether a value is what was written in TOML, which has no null and no integers beyond 63 bits: fields
/// that are null may be left out, and a number may be written as a text.
fn fits(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            let known = |name: &str| find_name(actual.keys().map(String::as_str), name);
            let names: Option<Vec<usize>> = expected.keys().map(|name| known(name)).collect();
            let Some(places) = names else { return false };
            let mut values = expected.values().zip(&places);
            let others = actual.values().enumerate().filter(|(place, _)| !places.contains(place));
            let mut others = others.map(|(_, value)| value);
            values.all(|(expected, place)| {
                actual.values().nth(*place).is_some_and(|actual| fits(expected, actual))
            }) && others.all(Value::is_null)
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len()
                && expected.iter().zip(actual).all(|(expected, actual)| fits(expected, actual))
        }
        (Value::Number(expected), Value::Number(actual)) => {
            // As floats, large integers would be the same as their neighbours.
            let is_float = expected.is_f64() || actual.is_f64();
            expected == actual || is_float && expected.as_f64() == actual.as_f64()
        }
        (Value::String(expected), Value::Number(actual)) => *expected == actual.to_string(),
        _ => expected == actual,
    }
}

/// A file with an example call of each method, for the author to complete.
pub(super) fn examples<'s>(services: impl Iterator<Item = &'s Service>) -> String {
    let mut text = String::from(
        "# Example calls. 'wharf test' builds the service, and makes them against a fresh host. Write the\n\
         # service, say what it has to answer, and take the marks away.\n",
    );
    for service in services {
        for method in service.methods() {
            let Ok(examples) = Examples::of(service, method) else { continue };
            let arguments = serde_json::from_str(&examples.arguments).unwrap_or_default();
            let _ = write!(
                text,
                "\n# [[call]]\n# method = \"{}.{}\"\n# arguments = {}\n",
                service.name().interface,
                method.name,
                toml_of(&arguments)
            );
            let result = examples.result.as_deref().map(serde_json::from_str::<Value>);
            // TOML has no null.
            if let Some(Ok(result)) = result.filter(|result| !matches!(result, Ok(Value::Null))) {
                let _ = writeln!(text, "# result = {}", toml_of(&result));
            }
        }
    }
    text
}

/// A value in TOML, on one line. Fields that are null are left out.
fn toml_of(value: &Value) -> String {
    match value {
        // A result without anything in it.
        Value::Object(fields) if fields.len() == 1 && fields.values().all(Value::is_null) => {
            let name: String = fields.keys().cloned().collect();
            format!("\"{name}\"")
        }
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(name, value)| format!("{name} = {}", toml_of(value)));
            let fields: Vec<String> = fields.collect();
            if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(toml_of).collect();
            format!("[{}]", values.join(", "))
        }
        // Numbers, texts and truth look the same in JSON.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn calls(text: &str) -> Result<Vec<Call>, String> {
        let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
        let calls = document.call.into_iter().map(Call::of).collect::<anyhow::Result<_>>();
        calls.map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_in_calls_are_told() {
        assert_eq!(calls("").unwrap().len(), 0);
        for (text, words) in [
            ("[[call]]\nmethod = \"a\"", "'a' is not a method"),
            ("[[call]]\nmethod = \"a.b\"\nreslt = 1", "unknown field `reslt`"),
            ("[[call]]\nmethod = \"a.b\"\nstatus = \"NOT_THERE\"", "'NOT_THERE' is no status"),
            ("[[call]]\nmethod = \"a.b\"\nresult = 1\nerror = 2", "exclude each other"),
        ] {
            let error = calls(text).err().unwrap();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_was_expected_is_compared_as_toml_can_write_it() {
        for (expected, actual) in [
            (json!("a"), json!("a")),
            (json!(7), json!(7.0)),
            (json!("18446744073709551615"), json!(18446744073709551615u64)),
            (json!({"a": 1}), json!({"a": 1, "b": null})),
            (json!({"first-word": "x"}), json!({"firstWord": "x"})),
            (json!([{"a": 1}]), json!([{"a": 1}])),
        ] {
            assert!(fits(&expected, &actual), "{expected} {actual}");
        }
        for (expected, actual) in [
            (json!({"a": 1}), json!({"a": 1, "b": 2})),
            (json!({"a": 1, "c": 1}), json!({"a": 1})),
            (json!([1]), json!([1, 2])),
            (json!("7"), json!("8")),
            (json!(9007199254740992i64), json!(9007199254740993i64)),
            (json!(true), json!(1)),
        ] {
            assert!(!fits(&expected, &actual), "{expected} {actual}");
        }
    }

    #[test]
    fn each_end_of_a_call_is_told_from_the_others() {
        let ok = Ok(Outcome::Ok("7".to_owned()));
        let err = Ok(Outcome::Err("\"by-zero\"".to_owned()));
        let failed = Err((Status::InvalidArgument, "a is missing".to_owned()));
        for (expected, met) in [
            (Expected::Success, &ok),
            (Expected::Result(json!(7)), &ok),
            (Expected::Error(json!("by-zero")), &err),
            (Expected::Status(Status::InvalidArgument), &failed),
        ] {
            assert_eq!(expected.compare(met), None);
        }
        for (expected, unmet, words) in [
            (Expected::Success, &err, "expected a result\ngot the error \"by-zero\""),
            (Expected::Result(json!(8)), &ok, "expected the result 8\ngot the result 7"),
            (Expected::Error(json!(7)), &ok, "expected the error 7\ngot the result 7"),
            (Expected::Result(json!(8)), &failed, "got INVALID_ARGUMENT: a is missing"),
            (Expected::Status(Status::NotFound), &failed, "expected NOT_FOUND"),
            (Expected::Status(Status::NotFound), &ok, "got the result 7"),
        ] {
            let told = expected.compare(unmet).unwrap();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn examples_are_calls_once_their_marks_are_gone() {
        let interfaces = super::super::interface::Interfaces::of(
            "package a:b; interface c { record r { a: u8, b: list<string> } f: func(r: r, o: option<u8>) -> r; g: func() -> result<_, u8>; h: func(x: tuple<result, u8>); }",
        )
        .unwrap();
        let text = examples(interfaces.services.iter().map(|(_, service)| service));
        assert_eq!(calls(&text).unwrap().len(), 0);
        let marked: Vec<&str> = text.lines().skip(2).collect();
        let calls = calls(&marked.join("\n").replace("# ", "")).unwrap();
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[2].arguments, Some(json!({ "x": ["ok", 7] })));
        assert!(matches!(&calls[0].expected, Expected::Result(result) if result["a"] == 7));
    }
}
