//! JSON-RPC at `POST /rpc`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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

/// The most bytes of the answers of one batch.
const MAX_ANSWERS: usize = 64 * 1024 * 1024;

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
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let terms = connect::terms(&parts.headers)?;
    let (text, mut taken) = body::read(connection, body, terms.timeout).await?;
    let terms = terms.after(begun.elapsed());
    let message = jsonrpc::read(&text);
    drop(text);
    let room = AtomicUsize::new(MAX_ANSWERS);
    Ok(match message {
        Message::One(entry) => {
            // Its arguments take their own room.
            taken.shrink_to(0);
            entry_answer(connection, entry, terms, &room).await
        }
        Message::Batch(entries) => {
            let answer = |entry| entry_answer(connection, entry, terms, &room);
            let answers = join_all(entries.into_iter().map(answer)).await;
            let answers: Vec<String> = answers.into_iter().flatten().collect();
            (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
        }
    })
}

/// The answer to a call. `room` is what the answers of its batch may still take.
async fn entry_answer(
    connection: &Connection,
    entry: Entry,
    terms: Terms,
    room: &AtomicUsize,
) -> Option<String> {
    let call = match entry {
        Entry::Refused(answer) => return Some(answer),
        Entry::Call(call) => call,
    };
    let (head, method) = (call.head.clone(), call.method.clone());
    let answer = call_answer(connection, call, terms).await;
    if !head.wants_answer() {
        return None;
    }
    let answer = answer.unwrap_or_else(|failure| head.failure(&method, &failure));
    let has_room = room
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(answer.len()));
    Some(match has_room {
        Ok(_) => answer,
        Err(_) => head.failure(&method, &jsonrpc::answers_too_large()),
    })
}

async fn call_answer(
    connection: &Connection,
    call: Box<Call>,
    terms: Terms,
) -> Result<String, CallFailure> {
    let named = connection.named(Door::JsonRpc, &call.method)?;
    let params = &named.signature()?.params;
    let arguments = arguments_from_body(named.service.types(), params, call.body(params.len()));
    let Call { head, method, params } = *call;
    // A tree of JSON takes far more than the arguments that are made of it.
    drop(params);
    let arguments = arguments.map_err(|error| {
        CallFailure::refused(Status::InvalidArgument, format!("{method}: {error}"))
    })?;
    let outcome = connection.call(Door::JsonRpc, &named, arguments.into(), terms, None).await;
    Ok(jsonrpc::answer(&head, &named, &method, &outcome))
}
