//! The results of `tools/call`.

use serde_json::Value;
use wharf_schema::{JsonDialect, Outcome as Shown, Service, Signature, result_to_json_in};

use crate::rpc::invoke::Outcome;
use crate::rpc::tools::{WRAPPED, carried, is_object};

/// The longest result, in bytes of JSON. No model reads more.
const MAX_RESULT: usize = 8 * 1024 * 1024;

/// The result of a call, as JSON. A call that failed is a result too, so that the model reads why and
/// can do better.
pub(in crate::rpc) fn of_call(
    service: &Service,
    signature: &Signature,
    outcome: &Outcome,
) -> String {
    let bytes = match outcome {
        Ok(bytes) => bytes,
        Err(failure) => return failed(&failure.message),
    };
    let types = service.types();
    match result_to_json_in(JsonDialect::Model, types, signature.result, bytes) {
        Ok(Shown::Ok(json) | Shown::Err(json)) if json.len() > MAX_RESULT => {
            failed(&format!("the result has {} bytes of JSON; ask for less", json.len()))
        }
        Ok(Shown::Err(json)) => failed(&json),
        Ok(Shown::Ok(json)) => match carried(types, signature.result) {
            None => content("done", None, false),
            Some(ty) if is_object(types, ty) => content(&json, Some(&json), false),
            Some(_) => {
                let wrapped = format!(r#"{{"{WRAPPED}":{json}}}"#);
                content(&json, Some(&wrapped), false)
            }
        },
        Err(error) => failed(&format!("the result is damaged: {error}")),
    }
}

/// The result of a call that failed.
pub(in crate::rpc) fn failed(why: &str) -> String {
    content(why, None, true)
}

fn content(text: &str, structured: Option<&str>, is_error: bool) -> String {
    let structured = structured.map(|json| format!(r#","structuredContent":{json}"#));
    format!(
        r#"{{"content":[{{"type":"text","text":{}}}]{},"isError":{is_error},"resultType":"complete"}}"#,
        Value::from(text),
        structured.unwrap_or_default()
    )
}
