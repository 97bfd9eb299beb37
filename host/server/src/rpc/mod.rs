//! The RPC port, and the protocols on it.
//!
//! `detect` recognizes the protocol of a connection by its first bytes. A protocol only translates:
//! from bytes to a method and its arguments, and from an outcome to bytes. `invoke` decides for all
//! protocols which calls are admitted, what their deadlines are, which trace they belong to, and
//! how they are counted.

mod caller;
mod calls;
mod denials;
mod detect;
mod http;
mod invoke;
mod jsonrpc;
mod kept;
mod last_words;
mod mcp;
mod netrpc;
mod plain;
mod shared;
mod sight;
mod tools;
mod wharf;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use wharf_net::Stream;
use wharf_net::listener::{self, Bounds};
use wharf_net::tls::Tls;
use wharf_wire::limits;

use self::caller::Caller;
use self::detect::Protocol;
pub(crate) use self::shared::Shared;
use crate::doors::{Door, Doors};

/// Accepts connections until it is told to drain. Then waits until they end, at most for the drain
/// timeout.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
) {
    let cap = shared.config.drain_timeout;
    let mut bounds = Bounds::new(shared.config.max_connections, cap);
    bounds.tls = shared.config.tls.as_ref().map(Tls::with_http2);
    bounds.refuse_plain = plain::refuse;
    let connection = {
        let drain = drain.clone();
        let shared = shared.clone();
        move |stream, peer| connection(stream, peer, shared.clone(), drain.clone())
    };
    let cut_off = listener::serve(listener, &bounds, drain, connection).await;
    if cut_off > 0 {
        // Their tasks end a moment later.
        let calls = shared.running.load(std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(
            ?cap,
            calls,
            connections = cut_off,
            "calls did not finish within the drain timeout, and were ended"
        );
    }
}

async fn connection(
    mut stream: Stream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
) {
    let _open = shared.metrics.connection_opened();
    let open_by = Instant::now() + limits::HELLO_TIMEOUT;
    let detected = tokio::select! {
        detected = tokio::time::timeout_at(open_by, detect::detect(&mut stream)) => detected,
        _ = drain.wait_for(|drain| *drain) => return,
    };
    let protocol = match detected {
        Ok(Ok(Some(protocol))) => protocol,
        Ok(Ok(None)) => {
            return tracing::debug!(%peer, "a connection ended without sending anything");
        }
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a connection did not open"),
        Err(_) => return tracing::debug!(%peer, "a connection sent nothing in time"),
    };
    let door = match protocol {
        Protocol::Wharf => Door::Wharf,
        Protocol::Gob | Protocol::GobAfterConnect => Door::Gob,
        Protocol::Json => Door::JsonRpc,
        Protocol::Http1 | Protocol::Http2 => Door::Http,
        Protocol::Unknown => {
            return tracing::debug!(%peer, "a connection speaks an unknown protocol");
        }
    };
    let is_open = match door {
        Door::Http => http::is_open(&shared.config.doors),
        door => shared.config.doors.has(door),
    };
    if !is_open {
        tracing::debug!(%peer, door = door.name(), "a connection speaks what this host does not");
        let words = closed(door, &shared.config.doors);
        return last_words::say(stream, words.as_bytes()).await;
    }
    // Where a caller shows who it is depends on the protocol; some have no place for it.
    let principals = shared.config.principals.clone();
    let names = stream.names().cloned();
    let known = principals.known();
    let who = known.recognise(None, names.as_ref()).unwrap_or_else(|_| known.anonymous().clone());
    let caller = Caller { peer, door, names: names.clone(), who: who.clone() };
    // Whoever loses rights on a connection without a place to say so finishes its calls, as when the host
    // drains. The others look after it by themselves.
    let disbelieved = stream.disbelieved();
    let (leave, leaving) = watch::channel(false);
    let told_to_leave = async {
        tokio::select! {
            _ = drain.wait_for(|drain| *drain) => {}
            () = principals.withdrawn(&who, names.as_deref()), if matches!(door, Door::Gob | Door::JsonRpc) => {
                tracing::debug!(%peer, "a caller's rights have changed, and its connection ends");
            }
            () = disbelieved, if door != Door::Wharf => {
                tracing::debug!(%peer, "a caller's certificate is not believed any more");
            }
        }
        leave.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serve_protocol(protocol, stream, caller, shared, leaving, open_by) => {}
        () = told_to_leave => {}
    }
}

async fn serve_protocol(
    protocol: Protocol,
    stream: Stream,
    caller: Caller,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
    open_by: Instant,
) {
    match protocol {
        Protocol::Wharf => wharf::serve(stream, caller, shared, drain, open_by).await,
        Protocol::Gob => netrpc::serve_gob(stream, caller, shared, drain).await,
        Protocol::GobAfterConnect => {
            netrpc::serve_connect(stream, caller, shared, drain, open_by).await;
        }
        Protocol::Json => netrpc::serve_json(stream, caller, shared, drain).await,
        Protocol::Http1 => http::serve(stream, caller, shared, drain, http::Version::One).await,
        Protocol::Http2 => http::serve(stream, caller, shared, drain, http::Version::Two).await,
        Protocol::Unknown => {}
    }
}

/// What a caller is told whose door is closed. Gob has no place for it.
fn closed(door: Door, doors: &Doors) -> String {
    let why = format!("this host does not serve {}: it serves {}", door.name(), doors.names());
    match door {
        Door::Http | Door::Mcp => http::refuse("403 Forbidden", &why),
        Door::JsonRpc => jsonrpc::refuse(&why) + "\n",
        Door::Gob | Door::Wharf => String::new(),
    }
}
