//! `POST /SERVICE/METHOD` with JSON.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use serde_json::Value;
use wharf_schema::{
    Outcome as Shown, Service, Signature, arguments_from_body, example_of, result_to_json,
};
use wharf_wire::Status;

use super::{Connection, answer, body, connect};
use crate::doors::Door;
use crate::rpc::invoke::{CallFailure, Missing};

/// The longest path, in bytes.
const MAX_PATH: usize = 2048;

/// Answers a call.
pub(super) async fn answer(connection: &Connection, request: Request<Body>) -> Response {
    if request.method() != Method::POST {
        return answer::not_allowed("POST");
    }
    if let Err(response) = body::check_type(request.headers(), &[]) {
        return *response;
    }
    match call(connection, request).await {
        Ok(response) => response,
        Err(failure) => answer::failure(&failure),
    }
}

async fn call(connection: &Connection, request: Request<Body>) -> Result<Response, CallFailure> {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let name = method_name(parts.uri.path())?;
    let terms = connect::terms(&parts.headers)?;
    let named = connection.named(Door::Http, &name)?;
    let (text, mut taken) = body::read(connection, body, terms.timeout).await?;
    let terms = terms.after(begun.elapsed());
    let signature = named.signature()?;
    let arguments = bind(&named.service, signature, &text).map_err(|problem| {
        CallFailure::refused(Status::InvalidArgument, format!("{name}: {problem}"))
    })?;
    // From here on, the arguments are what counts.
    drop(text);
    taken.shrink_to(arguments.len() as u64);
    let result = connection.call(Door::Http, &named, arguments.into(), terms, Some(taken)).await?;
    let shown = result_to_json(named.service.types(), signature.result, &result);
    let shown = shown.map_err(|error| {
        let message = format!("{name}: the result is damaged: {error}");
        CallFailure { not_executed: false, ..CallFailure::refused(Status::Internal, message) }
    })?;
    Ok(match shown {
        Shown::Ok(json) => answer::json(StatusCode::OK, body::of_answer(connection, json)?),
        Shown::Err(json) => {
            let body = format!("{{\"error\":{json}}}");
            answer::json(StatusCode::UNPROCESSABLE_ENTITY, body::of_answer(connection, body)?)
        }
    })
}

/// `/demo:arith/arith@0.1.0/multiply` as `demo:arith/arith@0.1.0.multiply`.
fn method_name(path: &str) -> Result<String, CallFailure> {
    let decoded = percent_decoded(path);
    let path = decoded.as_deref().unwrap_or_default();
    let divided = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    match divided {
        Some((service, method))
            if !service.is_empty() && !method.is_empty() && !method.contains('.') =>
        {
            Ok(format!("{service}.{method}"))
        }
        _ => {
            let message = "the path has to be /SERVICE/METHOD, as in POST /arith/multiply";
            Err(CallFailure::missing(Missing::Service, message))
        }
    }
}

/// A path without `%` escapes. `None` if it is too long or is not UTF-8.
fn percent_decoded(path: &str) -> Option<String> {
    if path.len() > MAX_PATH {
        return None;
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| *first == b'%');
        let byte = escaped
            .and_then(|(digits, _)| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (byte, escaped) {
            (Some(byte), Some((_, later))) => {
                out.push(byte);
                rest = later;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}

fn bind(service: &Service, signature: &Signature, text: &Bytes) -> Result<Vec<u8>, String> {
    let body: Option<Value> = match text.trim_ascii().is_empty() {
        true => None,
        false => Some(serde_json::from_slice(text).map_err(|error| {
            let example = example_of(service.types(), &signature.params);
            format!("the body is not JSON: {error}; write it like {example}")
        })?),
    };
    arguments_from_body(service.types(), &signature.params, body.as_ref())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segment_is_the_method_and_the_rest_the_service() {
        for (path, name) in [
            ("/arith/multiply", "arith.multiply"),
            ("/Arith/Multiply", "Arith.Multiply"),
            ("/demo:arith/arith/multiply", "demo:arith/arith.multiply"),
            ("/demo:arith/arith@0.1.0/multiply", "demo:arith/arith@0.1.0.multiply"),
            ("/demo%3Aarith/arith%400.1.0/multiply", "demo:arith/arith@0.1.0.multiply"),
        ] {
            assert_eq!(method_name(path).unwrap(), name);
        }
        let long = format!("/a/{}", "x".repeat(MAX_PATH));
        for path in ["/", "/arith", "/arith/", "//multiply", "/a/b.c", "/%ff/x", "*", &long] {
            let failure = method_name(path).unwrap_err();
            assert_eq!(failure.status, Status::NotFound, "{path}");
        }
    }
}
