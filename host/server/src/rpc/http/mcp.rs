//! Tools for models at `POST /mcp`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wharf_net::budget::Taken;
use wharf_schema::arguments_from_body;
use wharf_wire::{Status, TraceParent};

use super::{Connection, answer, body, connect};
use crate::doors::Door;
use crate::rpc::invoke::CallFailure;
use crate::rpc::mcp::{self, Message, Problem};
use crate::rpc::tools::Tools;

const REVISION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";

/// Answers a message.
pub(super) async fn answer(connection: &Connection, request: Request<Body>) -> Response {
    if request.method() != Method::POST {
        return answer::not_allowed("POST");
    }
    if let Err(response) = body::check_type(request.headers(), &[]) {
        return *response;
    }
    let (parts, body) = request.into_parts();
    let (text, taken) = match body::read(connection, body, None).await {
        Ok(read) => read,
        Err(failure) => return answer::failure(&failure),
    };
    let message = mcp::read(&text);
    drop(text);
    let mut request = match message {
        Ok(Message::Request(request)) => request,
        Ok(Message::Notification) => {
            return match revision(&parts.headers) {
                Ok(_) => StatusCode::ACCEPTED.into_response(),
                Err(problem) => refused(400, problem.answer(None)),
            };
        }
        Err(problem) => return refused(400, problem.answer(None)),
    };
    let is_stateless = match is_stateless(&parts.headers, &request) {
        Ok(is_stateless) => is_stateless,
        Err(problem) => return refused(400, problem.answer(Some(&request))),
    };
    match result(connection, &parts.headers, (&mut request, taken), is_stateless).await {
        Ok(result) => match body::of_answer(connection, request.answer(&result)) {
            Ok(body) => answer::json(StatusCode::OK, body),
            Err(failure) => answer::failure(&failure),
        },
        Err(Failure::Problem(problem)) => {
            let status =
                if is_stateless || problem.is_about_form() { problem.status() } else { 200 };
            refused(status, problem.answer(Some(&request)))
        }
        Err(Failure::Host(failure)) => answer::failure(&failure),
    }
}

enum Failure {
    Problem(Problem),
    Host(CallFailure),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Problem(problem)
    }
}

impl From<CallFailure> for Failure {
    fn from(failure: CallFailure) -> Self {
        Failure::Host(failure)
    }
}

fn refused(status: u16, text: String) -> Response {
    answer::json(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), text)
}

/// The revision that the header names.
///
/// # Errors
/// When it is not spoken here.
fn revision(headers: &HeaderMap) -> Result<Option<&'static str>, Problem> {
    let Some(named) = headers.get(REVISION) else { return Ok(None) };
    let named = named.to_str().unwrap_or_default();
    let known = mcp::revisions().into_iter().find(|revision| *revision == named);
    known.map(Some).ok_or_else(|| Problem::revision(named))
}

/// Whether a request is of the stateless revision. If so, its headers have to say what its body says:
/// what stands before a host may judge by the headers.
///
/// # Errors
/// When they do not, or when the revision is not spoken here.
fn is_stateless(headers: &HeaderMap, request: &mcp::Request) -> Result<bool, Problem> {
    if request.method == "initialize" {
        return Ok(false);
    }
    let said = request.meta(mcp::REVISION);
    let header = headers.get(REVISION).and_then(|value| value.to_str().ok());
    let named = match (said, header) {
        (None, header) if header != Some(mcp::STATELESS) => {
            revision(headers)?;
            return Ok(false);
        }
        (None, _) => {
            let why = format!("_meta has to have '{}' and '{}'", mcp::REVISION, mcp::CAPABILITIES);
            return Err(Problem::params(why));
        }
        (Some(said), _) => said.as_str().unwrap_or_default(),
    };
    for name in [REVISION, METHOD, NAME] {
        // Two readers could take different ones.
        if headers.get_all(name).iter().count() > 1 {
            return Err(Problem::header(name));
        }
    }
    if header != Some(named) {
        return Err(Problem::header("MCP-Protocol-Version"));
    }
    if headers.get(METHOD).is_none_or(|method| *method != *request.method) {
        return Err(Problem::header("Mcp-Method"));
    }
    if request.method == "tools/call"
        && let Some(Value::String(tool)) = request.params.get("name")
        && decoded(headers).as_ref() != Some(tool)
    {
        return Err(Problem::header("Mcp-Name"));
    }
    if named != mcp::STATELESS {
        return Err(Problem::revision(named));
    }
    if request.meta(mcp::CAPABILITIES).is_none() {
        return Err(Problem::params(format!("_meta has to have '{}'", mcp::CAPABILITIES)));
    }
    Ok(true)
}

/// The name in a header. What a header cannot carry is in base64.
fn decoded(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(NAME)?.to_str().ok()?;
    let encoded = name.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    match encoded {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(name.to_owned()),
    }
}

async fn result(
    connection: &Connection,
    headers: &HeaderMap,
    (request, taken): (&mut mcp::Request, Taken),
    is_stateless: bool,
) -> Result<String, Failure> {
    Ok(match (&request.method[..], is_stateless) {
        ("server/discover", true) => mcp::discovered().to_string(),
        ("initialize", false) => mcp::initialized(request).to_string(),
        ("ping", false) => "{}".to_owned(),
        ("tools/list", _) => mcp::listed(&*tools(connection).await?, request)?,
        ("tools/call", _) => call(connection, headers, request, taken).await?,
        (other, _) => return Err(Problem::method(other).into()),
    })
}

async fn tools(connection: &Connection) -> Result<Arc<Tools>, CallFailure> {
    let shared = &connection.shared;
    let (table, sight) = (shared.table.clone(), connection.sight());
    let key = sight.key();
    let make = move || Ok(Arc::new(Tools::of(&sight.all(&table))));
    let lost = |error| {
        CallFailure::refused(Status::Internal, format!("the list of tools failed: {error}"))
    };
    shared.tools.get(&key, shared.table.version(), make, lost).await
}

async fn call(
    connection: &Connection,
    headers: &HeaderMap,
    request: &mut mcp::Request,
    mut taken: Taken,
) -> Result<String, Failure> {
    let Some(Value::String(name)) = request.params.get("name") else {
        return Err(Problem::params("tools/call needs the name of a tool").into());
    };
    let name = name.clone();
    let mut terms = connect::terms(headers)?;
    if terms.trace.is_none() {
        let trace = request.meta(TraceParent::KEY).and_then(Value::as_str);
        terms.trace = trace.and_then(|trace| trace.parse().ok());
    }
    // From here on, the arguments are what counts.
    let params = std::mem::take(&mut request.params);
    let given = match params.get("arguments") {
        None | Some(Value::Null) => None,
        Some(arguments @ Value::Object(_)) => Some(arguments),
        Some(_) => return Err(Problem::params("the arguments are an object").into()),
    };
    let unknown = || Problem::tool(&name);
    let tools = tools(connection).await?;
    let method = tools.method(&name).ok_or_else(unknown)?;
    let named = match connection.named(Door::Mcp, method) {
        // The list may be of a moment ago.
        Ok(named) if named.is_tool() => named,
        Err(failure) if failure.missing.is_none() => return Ok(mcp::failed(&failure.message)),
        Ok(_) | Err(_) => return Err(unknown().into()),
    };
    let signature = named.signature()?;
    let arguments = arguments_from_body(named.service.types(), &signature.params, given);
    drop(params);
    let outcome = match arguments {
        Ok(arguments) => {
            taken.shrink_to(arguments.len() as u64);
            connection.call(Door::Mcp, &named, arguments.into(), terms, Some(taken)).await
        }
        Err(error) => {
            let why = format!("{name}: {error}");
            Err(CallFailure::refused(Status::InvalidArgument, why))
        }
    };
    Ok(mcp::of_call(&named.service, signature, &outcome))
}
