//! JSON-RPC at `POST /rpc`.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use wharf_schema::arguments_from_body;
use wharf_wire::Status;

use super::{Connection, Terms, answer, body, connect};
use crate::doors::Door;
use crate::rpc::invoke::CallFailure;
use crate::rpc::jsonrpc::{self, Call, Entry, Message};

/// Further types of bodies that clients of JSON-RPC send.
const TYPES: &[&str] = &["application/json-rpc", "application/jsonrequest"];

/// Answers a message. Its errors are in the answer, whose status is 200.
pub(super) async fn answer(connection: &Connection, request: Request<Body>) -> Response {
    if request.method() != Method::POST {
        return answer::not_allowed("POST");
    }
    if let Err(response) = body::check_type(request.headers(), TYPES) {
        return *response;
    }
    match answers(connection, request).await {
        Ok(Some(text)) => match body::of_answer(connection, text) {
            Ok(body) => answer::json(StatusCode::OK, body),
            Err(failure) => answer::failure(&failure),
        },
        // Nobody wants an answer.
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(failure) => answer::failure(&failure),
    }
}

async fn answers(
    connection: &Connection,
    request: Request<Body>,
) -> Result<Option<String>, CallFailure> {
    let (parts, body) = request.into_parts();
    let terms = connect::terms(&parts.headers)?;
    let (text, _taken) = body::read(connection, body, terms.timeout).await?;
    Ok(match jsonrpc::read(&text) {
        Message::One(entry) => entry_answer(connection, entry, terms).await,
        Message::Batch(entries) => {
            let all = entries.into_iter().map(|entry| entry_answer(connection, entry, terms));
            let answers: Vec<String> = join_all(all).await.into_iter().flatten().collect();
            (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
        }
    })
}

async fn entry_answer(connection: &Connection, entry: Entry, terms: Terms) -> Option<String> {
    let call = match entry {
        Entry::Refused(answer) => return Some(answer),
        Entry::Call(call) => call,
    };
    let answer = call_answer(connection, &call, terms).await;
    let answer = answer.unwrap_or_else(|failure| call.head.failure(&call.method, &failure));
    call.head.wants_answer().then_some(answer)
}

async fn call_answer(
    connection: &Connection,
    call: &Call,
    terms: Terms,
) -> Result<String, CallFailure> {
    let named = connection.named(Door::JsonRpc, &call.method)?;
    let params = &named.signature()?.params;
    let arguments = arguments_from_body(named.service.types(), params, call.body(params.len()));
    let arguments = arguments.map_err(|error| {
        let message = format!("{}: {error}", call.method);
        CallFailure::refused(Status::InvalidArgument, message)
    })?;
    let outcome = connection.call(Door::JsonRpc, &named, arguments.into(), terms, None).await;
    Ok(jsonrpc::answer(&call.head, &named, &call.method, &outcome))
}
