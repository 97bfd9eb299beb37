//! The bodies of requests and answers, within the host's budgets.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::BytesMut;
use http_body::{Frame, SizeHint};
use wharf_net::budget::Taken;
use wharf_wire::Status;

use super::{Connection, answer};
use crate::rpc::invoke::{CallFailure, host_is_full};

/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Bytes of an answer that are not counted for the host.
const UNCOUNTED: usize = 128 * 1024;

/// The types of bodies that are read as JSON. The last one is what curl sends if nobody says
/// otherwise.
const JSON: &[&str] = &["application/json", "application/x-www-form-urlencoded"];

/// Checks what a body claims to be. `also` are further types that are JSON here.
///
/// # Errors
/// The answer.
pub(super) fn check_type(headers: &HeaderMap, also: &[&str]) -> Result<(), Box<Response>> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let why = "the body is compressed, which is not read here: send it as it is";
        return Err(Box::new(answer::failure(&CallFailure::refused(Status::Unimplemented, why))));
    }
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let given = given.to_str().unwrap_or_default();
    let (name, parameters) = given.split_once(';').unwrap_or((given, ""));
    let is_known = JSON.iter().chain(also).any(|known| known.eq_ignore_ascii_case(name.trim()));
    let charset = parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let is_utf8 = charset.is_none_or(|charset| {
        charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
    });
    match is_known && is_utf8 {
        true => Ok(()),
        false => Err(Box::new(answer::unsupported("the body has to be application/json in UTF-8"))),
    }
}

/// Reads a body to its end. What has arrived counts for the host.
///
/// # Errors
/// When it is too long or too slow, when the host has no room, or when the caller breaks it off.
pub(super) async fn read(
    connection: &Connection,
    body: Body,
    timeout: Option<Duration>,
) -> Result<(Bytes, Taken), CallFailure> {
    let arrival = timeout.map_or(ARRIVAL, |timeout| timeout.min(ARRIVAL));
    match tokio::time::timeout(arrival, collect(connection, body)).await {
        Ok(read) => read,
        Err(_) => {
            let why = "the body did not arrive in time";
            Err(CallFailure::refused(Status::DeadlineExceeded, why))
        }
    }
}

async fn collect(connection: &Connection, mut body: Body) -> Result<(Bytes, Taken), CallFailure> {
    let max = connection.shared.config.calls.max_message;
    let mut taken = connection.shared.held.account(connection.caller.payer()).take_anyway(0);
    let too_long = || {
        let why = format!("the body has more than {max} bytes");
        CallFailure::refused(Status::ResourceExhausted, why)
    };
    if body.size_hint().lower() > max {
        return Err(too_long());
    }
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            let why = format!("the body broke off: {error}");
            CallFailure::refused(Status::InvalidArgument, why)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if !taken.grow(data.len() as u64) {
            return Err(host_is_full());
        }
        if taken.amount() > max {
            return Err(too_long());
        }
        // Most bodies are one piece, which is not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    Ok((whole, taken))
}

/// The body of an answer. A large one counts for the host until the caller has read it.
///
/// # Errors
/// When the host has no room for it.
pub(super) fn of_answer(connection: &Connection, bytes: String) -> Result<Body, CallFailure> {
    if bytes.len() <= UNCOUNTED {
        return Ok(Body::from(bytes));
    }
    let account = connection.shared.unread.account(connection.caller.payer());
    match account.take(bytes.len() as u64) {
        Some(taken) => Ok(Body::new(Counted { bytes: bytes.into(), taken })),
        None => {
            let why = "replies that callers do not read take too much memory of this host: read \
                       them sooner, or ask for less";
            let failure = CallFailure::refused(Status::ResourceExhausted, why);
            Err(CallFailure { not_executed: false, ..failure })
        }
    }
}

/// A body that gives back its room piece by piece, as it is sent.
struct Counted {
    bytes: Bytes,
    taken: Taken,
}

/// The bytes of one piece.
const PIECE: usize = 64 * 1024;

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let count = self.bytes.len().min(PIECE);
        let piece = self.bytes.split_to(count);
        let left = self.bytes.len() as u64;
        self.taken.shrink_to(left);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }
}
