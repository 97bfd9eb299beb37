//! Go's net/rpc: over gob, and over JSON, which other callers of JSON-RPC use too.

mod connection;
mod gob;
mod json;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use wharf_net::Stream;

use self::connection::Connection;
use self::gob::Gob;
use self::json::Json;
use super::Shared;
use super::caller::Caller;
use super::last_words;

/// What `rpc.DialHTTP` sends first.
pub(super) const CONNECT: &[u8] = b"CONNECT /_goRPC_ ";

/// What it expects, to the letter.
const CONNECTED: &[u8] = b"HTTP/1.0 200 Connected to Go RPC\n\n";

/// The longest head of such a request, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Serves a connection that speaks gob, to its end.
pub(super) async fn serve_gob(
    stream: Stream,
    caller: Caller,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
) {
    let gob = Gob::new(shared.config.calls.max_message);
    Connection::new(stream, caller, gob, &shared).serve(drain).await;
}

/// Serves a connection that speaks JSON-RPC, to its end.
pub(super) async fn serve_json(
    stream: Stream,
    caller: Caller,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
) {
    let json = Json::new(shared.config.calls.max_message);
    Connection::new(stream, caller, json, &shared).serve(drain).await;
}

/// Answers `rpc.DialHTTP`, and then serves gob.
pub(super) async fn serve_connect(
    mut stream: Stream,
    caller: Caller,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
    open_by: Instant,
) {
    let peer: SocketAddr = caller.peer;
    let connecting = async {
        // Byte by byte: what follows the head belongs to the gob stream, and the head is short.
        let mut head = Vec::new();
        while !(head.ends_with(b"\n\n") || head.ends_with(b"\r\n\r\n")) {
            if head.len() >= MAX_HEAD {
                return Ok(false);
            }
            head.push(stream.read_u8().await?);
        }
        stream.write_all(CONNECTED).await?;
        stream.flush().await?;
        std::io::Result::Ok(true)
    };
    match tokio::time::timeout_at(open_by, connecting).await {
        Ok(Ok(true)) => serve_gob(stream, caller, shared, drain).await,
        Ok(Ok(false)) => {
            last_words::say(stream, b"HTTP/1.0 431 Request Header Fields Too Large\n\n").await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection did not open"),
        Err(_) => tracing::debug!(%peer, "a connection sent no complete request in time"),
    }
}
