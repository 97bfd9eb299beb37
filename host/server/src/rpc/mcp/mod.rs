//! The Model Context Protocol: methods that sidecars offer are tools for language models.
//! <https://modelcontextprotocol.io/specification>
//!
//! Two revisions are spoken: the stateless one, in which each request says all about itself, and the
//! one before it, in which a client first says `initialize`. Neither has a session here.

mod message;
mod result;

use serde_json::{Value, json};

pub(super) use self::message::{Message, Problem, Request, read};
pub(super) use self::result::{failed, of_call};

use super::tools::Tools;

/// The revision in which each request says all about itself.
pub(super) const STATELESS: &str = "2026-07-28";

/// The revisions that begin with `initialize`, newest first.
pub(super) const HANDSHAKE: [&str; 2] = ["2025-11-25", "2025-06-18"];

/// The members of `_meta` that say which revision a request is of, and what its client can do.
pub(super) const REVISION: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// How long a client may keep the list of tools, in milliseconds. A plugin may be replaced at any time.
const TTL_MS: u32 = 30_000;

/// What the model is told of all tools.
const INSTRUCTIONS: &str = "Each tool is a method of a service. Whole numbers of 64 bits are strings of \
                            digits, and bytes are strings in base64.";

/// All revisions that are spoken.
pub(super) fn revisions() -> Vec<&'static str> {
    [STATELESS].into_iter().chain(HANDSHAKE).collect()
}

fn server() -> Value {
    json!({ "name": "wharf", "title": "Wharf", "version": env!("CARGO_PKG_VERSION") })
}

/// The result of `server/discover`.
pub(super) fn discovered() -> Value {
    json!({
        "_meta": { "io.modelcontextprotocol/serverInfo": server() },
        "supportedVersions": revisions(),
        "capabilities": { "tools": {} },
        "instructions": INSTRUCTIONS,
        "resultType": "complete",
        "ttlMs": TTL_MS,
        "cacheScope": "private",
    })
}

/// The result of `initialize`: the revision that the client asked for, or else the newest one.
pub(super) fn initialized(request: &Request) -> Value {
    let wanted = request.params.get("protocolVersion").and_then(Value::as_str);
    let revision = HANDSHAKE.into_iter().find(|revision| Some(*revision) == wanted);
    json!({
        "protocolVersion": revision.unwrap_or(HANDSHAKE[0]),
        "capabilities": { "tools": {} },
        "serverInfo": server(),
        "instructions": INSTRUCTIONS,
    })
}

/// The result of `tools/list`: the tools after the one that the cursor names.
///
/// # Errors
/// When the cursor is none.
pub(super) fn listed(tools: &Tools, request: &Request) -> Result<String, Problem> {
    let after = match request.params.get("cursor") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(&name[..]),
        Some(_) => return Err(Problem::params("the cursor is a string, as the last page gave it")),
    };
    let (page, next) = tools.page(after);
    let next = next.map(|name| format!(r#","nextCursor":{}"#, Value::from(name)));
    Ok(format!(
        r#"{{"tools":[{}]{},"resultType":"complete","ttlMs":{TTL_MS},"cacheScope":"private"}}"#,
        page.join(","),
        next.unwrap_or_default()
    ))
}
