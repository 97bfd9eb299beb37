//! The answers of JSON-RPC.

use serde_json::{Value, json};
use wharf_schema::{Outcome as Shown, result_to_json};
use wharf_wire::Status;

use super::zero::zero;
use crate::rpc::invoke::{CallFailure, Named, Outcome};

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;

/// The code of a method's own error. The codes of other failures are this number minus their status.
const OWN_ERROR: i64 = -32000;

/// What an answer repeats of its call.
#[derive(Clone, Debug)]
pub(in crate::rpc) struct Head {
    pub(in crate::rpc) is_two: bool,
    /// As it came. `None`: the caller wants no answer.
    pub(in crate::rpc) id: Option<Box<str>>,
}

impl Head {
    /// Whether the caller wants an answer.
    pub(in crate::rpc) fn wants_answer(&self) -> bool {
        match &self.id {
            None => false,
            Some(id) => self.is_two || &**id != "null",
        }
    }

    pub(super) fn refuse(&self, why: &str) -> String {
        self.error(INVALID_REQUEST, why, None)
    }

    fn result(&self, json: &str) -> String {
        let id = self.id();
        match self.is_two {
            true => format!(r#"{{"jsonrpc":"2.0","result":{json},"id":{id}}}"#),
            false => format!(r#"{{"result":{json},"error":null,"id":{id}}}"#),
        }
    }

    fn error(&self, code: i64, message: &str, data: Option<&Value>) -> String {
        let id = self.id();
        if !self.is_two {
            // An empty text would look like success.
            let text =
                if message.is_empty() { "the call failed, and says no more" } else { message };
            return format!(r#"{{"result":null,"error":{},"id":{id}}}"#, Value::from(text));
        }
        let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
        let message = Value::from(message);
        format!(
            r#"{{"jsonrpc":"2.0","error":{{"code":{code},"message":{message}{data}}},"id":{id}}}"#
        )
    }

    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or("null")
    }

    /// The answer to a call that was not understood or has failed.
    pub(in crate::rpc) fn failure(&self, name: &str, failure: &CallFailure) -> String {
        // A name without a dot is that of no method.
        let is_formed = name.contains('.');
        if !self.is_two {
            let text = match failure.missing {
                _ if !is_formed => format!("rpc: service/method request ill-formed: {name}"),
                Some(missing) => missing.in_go(name),
                None => format!("wharf: {}: {}", failure.status.name(), failure.message),
            };
            return self.error(0, &text, None);
        }
        let code = match failure.status {
            _ if failure.missing.is_some() || !is_formed => METHOD_NOT_FOUND,
            Status::InvalidArgument => INVALID_PARAMS,
            Status::Internal => INTERNAL_ERROR,
            status => OWN_ERROR - i64::from(status as u8),
        };
        let mut data = json!({ "status": failure.status.name() });
        if failure.not_executed {
            data["notExecuted"] = true.into();
        }
        if let Some(milliseconds) = failure.retry_after_ms {
            data["retryAfterMs"] = milliseconds.into();
        }
        self.error(code, &failure.message, Some(&data))
    }
}

/// The answer to a call.
pub(in crate::rpc) fn answer(head: &Head, named: &Named, name: &str, outcome: &Outcome) -> String {
    let result = match outcome {
        Ok(result) => result,
        Err(failure) => return head.failure(name, failure),
    };
    let types = named.service.types();
    let carried = match named.signature() {
        Ok(signature) => signature.result,
        Err(failure) => return head.failure(name, &failure),
    };
    match result_to_json(types, carried, result) {
        // Go's client takes a result of null for the end of the connection.
        Ok(Shown::Ok(json)) if json == "null" && !head.is_two => head.result(&zero(types, carried)),
        Ok(Shown::Ok(json)) => head.result(&json),
        Ok(Shown::Err(json)) => {
            let value: Value = serde_json::from_str(&json).unwrap_or(Value::Null);
            let text = match &value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            head.error(OWN_ERROR, &text, Some(&value))
        }
        Err(error) => {
            let message = format!("{name}: the result is damaged: {error}");
            let failure = CallFailure::refused(Status::Internal, message);
            head.failure(name, &CallFailure { not_executed: false, ..failure })
        }
    }
}

/// The answers of a batch take too much room together.
pub(in crate::rpc) fn answers_too_large() -> CallFailure {
    let why = "the answers of the batch are too large together: ask for less in one batch";
    let failure = CallFailure::refused(Status::ResourceExhausted, why);
    CallFailure { not_executed: false, ..failure }
}

/// The answer to what is JSON and no call.
pub(in crate::rpc) fn refuse(why: &str) -> String {
    Head { is_two: true, id: None }.refuse(why)
}

/// The answer to what is not JSON.
pub(in crate::rpc) fn not_json(why: &str) -> String {
    Head { is_two: true, id: None }.error(PARSE_ERROR, why, None)
}
