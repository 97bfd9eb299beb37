//! Messages, which are those of JSON-RPC 2.0 without batches.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::rpc::jsonrpc::members::{MAX_ID, Members};

/// A message of a client.
pub(in crate::rpc) enum Message {
    Request(Request),
    /// Nobody wants an answer to it.
    Notification,
}

/// A request.
#[derive(Debug)]
pub(in crate::rpc) struct Request {
    /// As it came: a number or a string.
    id: Box<RawValue>,
    pub(in crate::rpc) method: String,
    pub(in crate::rpc) params: Map<String, Value>,
}

/// Why a message is not answered with a result.
#[derive(Clone, Debug)]
pub(in crate::rpc) struct Problem {
    code: i64,
    message: String,
    data: Option<Value>,
}

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const UNKNOWN_REVISION: i64 = -32022;

/// The longest part of what a client sent that an answer repeats, in bytes.
const MAX_SHOWN: usize = 100;

/// Reads a message.
///
/// # Errors
/// When it is none.
pub(in crate::rpc) fn read(text: &[u8]) -> Result<Message, Problem> {
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::request("send one message at a time: batches are not taken"));
    }
    let members: Members = serde_json::from_slice(text).map_err(|error| match error.is_data() {
        true => Problem::request(error.to_string()),
        false => Problem::new(PARSE_ERROR, format!("the message is not JSON: {error}")),
    })?;
    if members.jsonrpc != Some(Value::from("2.0")) {
        return Err(Problem::request("the member jsonrpc has to be \"2.0\""));
    }
    let Some(Value::String(method)) = members.method else {
        return Err(Problem::request("the member method has to be a string"));
    };
    let Some(id) = members.id else { return Ok(Message::Notification) };
    if !id.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        return Err(Problem::request("an id is a number or a string"));
    }
    if id.get().len() > MAX_ID {
        return Err(Problem::request(format!("an id has at most {MAX_ID} bytes")));
    }
    let params = match members.params {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(Problem::request("params are an object")),
    };
    Ok(Message::Request(Request { id, method, params }))
}

impl Request {
    /// What the client says of a request, beside its parameters.
    pub(in crate::rpc) fn meta(&self, key: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(key)
    }

    /// The answer with a result, which is JSON.
    pub(in crate::rpc) fn answer(&self, result: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.id.get())
    }
}

impl Problem {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), data: None }
    }

    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// A parameter is not as it should be.
    pub(in crate::rpc) fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// There is no such method.
    pub(in crate::rpc) fn method(name: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("there is no method '{}'", shown(name)))
    }

    /// There is no such tool.
    pub(in crate::rpc) fn tool(name: &str) -> Self {
        Self::params(format!("there is no tool '{}': tools/list has all", shown(name)))
    }

    /// A header contradicts the body.
    pub(in crate::rpc) fn header(name: &str) -> Self {
        Self::new(HEADER_MISMATCH, format!("the header {name} does not say what the body says"))
    }

    /// A revision that is not spoken here.
    pub(in crate::rpc) fn revision(requested: &str) -> Self {
        let supported = super::revisions();
        Problem {
            data: Some(json!({ "supported": supported, "requested": shown(requested) })),
            ..Self::new(UNKNOWN_REVISION, format!("this host speaks {}", supported.join(", ")))
        }
    }

    /// The status of HTTP for it, in the stateless revision.
    pub(in crate::rpc) fn status(&self) -> u16 {
        if self.code == METHOD_NOT_FOUND { 404 } else { 400 }
    }

    /// Whether it is about the message itself, whatever it asks for.
    pub(in crate::rpc) fn is_about_form(&self) -> bool {
        [PARSE_ERROR, INVALID_REQUEST, HEADER_MISMATCH, UNKNOWN_REVISION].contains(&self.code)
    }

    /// The answer that says so.
    pub(in crate::rpc) fn answer(&self, request: Option<&Request>) -> String {
        let id = request.map_or("null", |request| request.id.get());
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
    }
}

/// The beginning of a text.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_SHOWN)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_repeats_little_of_what_a_client_sent() {
        let long = "é".repeat(1 << 20);
        for problem in [Problem::method(&long), Problem::tool(&long), Problem::revision(&long)] {
            assert!(problem.answer(None).len() < 1024);
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_code_for_it() {
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "7".repeat(MAX_ID));
        for (text, code) in [
            (&long[..], -32600),
            ("{", -32700),
            ("[]", -32600),
            ("7", -32600),
            (r#"{"method":"ping","id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, -32600),
        ] {
            match read(text.as_bytes()) {
                Err(problem) => assert_eq!(problem.code, code, "{text}"),
                Ok(_) => panic!("{text} was taken"),
            }
        }
        let notification = read(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert!(matches!(notification, Ok(Message::Notification)));
        for id in ["7", "-1", "\"a\\u0062\"", "18446744073709551616"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            let Ok(Message::Request(request)) = read(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(
                request.answer("{}"),
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
            );
        }
    }
}
