//! The header of a frame: its kind, and everything except its payload.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Hello, Metadata, Status, limits};

/// What a frame says. On the wire, its postcard encoding stands between the length prefix and the
/// payload.
///
/// The order of the variants is part of the protocol. Only append new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Header<'a> {
    /// The first frame of each side, after the magic bytes. Its payload is reserved and ignored.
    #[serde(borrow)]
    Hello(Hello<'a>),
    /// Asks for the index by which this connection calls a method.
    Resolve {
        /// The id of this request; requests and calls share one sequence.
        id: u64,
        /// `arith.multiply`, `Arith.Multiply` or `demo:arith/arith@0.1.0.multiply`.
        name: &'a str,
        /// The signature that the caller was built against, if it knows one.
        fingerprint: Option<[u8; 16]>,
    },
    /// The answer to a Resolve.
    Resolved {
        /// The id of the request.
        id: u64,
        /// The index for this connection's Calls.
        method: u32,
        /// The fingerprint of the method as served.
        fingerprint: [u8; 16],
    },
    /// Asks for a service's description. The Reply's payload is a JSON document.
    Describe {
        /// The id of this request.
        id: u64,
        /// A service, in any of its spellings.
        service: &'a str,
    },
    /// A call. The payload, or its first part, is the encoded arguments.
    Call {
        /// The id of this call: larger than all before it on this connection, never used again.
        id: u64,
        /// From a Resolved of this connection.
        method: u32,
        /// The time left for the call when it is sent.
        timeout: Timeout,
        /// Trace context and the like.
        #[serde(borrow)]
        metadata: Metadata<'a>,
        /// Whether Chunks follow.
        body: Body,
    },
    /// The result of a call, or its first part.
    Reply {
        /// The id of the call.
        id: u64,
        /// Whether Chunks follow.
        body: Body,
    },
    /// A call or request that failed. The payload is the detail.
    #[serde(borrow)]
    Fail(Fail<'a>),
    /// The next part of a Call's or a Reply's payload.
    Chunk {
        /// The id of the call.
        id: u64,
    },
    /// The caller no longer wants the answer. The receiver sends none after it has read this. The payload
    /// may name further calls: see [`crate::cancelled`].
    Cancel {
        /// The id of the call.
        id: u64,
    },
    /// Asks the peer whether it is alive.
    Ping {
        /// Comes back in the Pong.
        nonce: u64,
    },
    /// The answer to a Ping.
    Pong {
        /// From the Ping.
        nonce: u64,
    },
    /// The sender takes no new calls on this connection. It closes the connection when the calls in
    /// flight have ended.
    GoAway {
        /// Calls with a larger id were not executed and will not be. 0 means that no call was
        /// executed.
        last_id: u64,
        /// Why.
        code: GoAwayCode,
        /// The reason, for a person to read.
        message: &'a str,
    },
}

/// A failed call or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fail<'a> {
    /// The id of the call or request.
    pub id: u64,
    /// What went wrong.
    pub status: Status,
    /// No plugin code ran for it, so it is safe to retry elsewhere.
    pub not_executed: bool,
    /// The earliest time to retry here, in milliseconds from now.
    pub retry_after_ms: Option<u32>,
    /// What the payload is.
    pub detail: DetailKind,
    /// For a person: what failed, where, and what to do next.
    pub message: &'a str,
}

impl<'a> Fail<'a> {
    /// A failure without detail; a message that is too long is cut.
    #[must_use]
    pub fn new(id: u64, status: Status, message: &'a str) -> Self {
        Fail {
            id,
            status,
            not_executed: false,
            retry_after_ms: None,
            detail: DetailKind::None,
            message: limits::cut(message, limits::MESSAGE),
        }
    }
}

/// What the payload of a [`Fail`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
#[repr(u8)]
pub enum DetailKind {
    /// Nothing.
    None = 0,
    /// The caller's fingerprint differs from the method's. The payload is the WIT of the method as
    /// served, in UTF-8.
    SchemaMismatch = 1,
    /// A kind that this side does not know. It ignores the payload.
    Other = 255,
}

impl From<u8> for DetailKind {
    fn from(code: u8) -> Self {
        match code {
            0 => DetailKind::None,
            1 => DetailKind::SchemaMismatch,
            _ => DetailKind::Other,
        }
    }
}

impl From<DetailKind> for u8 {
    fn from(kind: DetailKind) -> Self {
        kind as u8
    }
}

/// Why a side goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
#[repr(u8)]
pub enum GoAwayCode {
    /// An orderly shutdown; connect elsewhere.
    Shutdown = 0,
    /// The connection was idle for too long.
    Idle = 1,
    /// No protocol version in common.
    Version = 2,
    /// The token is missing or wrong.
    Unauthenticated = 3,
    /// The peer broke the protocol.
    Protocol = 4,
    /// The peer opens too many connections, or cancels too many calls.
    Overload = 5,
    /// A reason that this side does not know.
    Other = 255,
}

impl From<u8> for GoAwayCode {
    fn from(code: u8) -> Self {
        match code {
            0 => GoAwayCode::Shutdown,
            1 => GoAwayCode::Idle,
            2 => GoAwayCode::Version,
            3 => GoAwayCode::Unauthenticated,
            4 => GoAwayCode::Protocol,
            5 => GoAwayCode::Overload,
            _ => GoAwayCode::Other,
        }
    }
}

impl From<GoAwayCode> for u8 {
    fn from(code: GoAwayCode) -> Self {
        code as u8
    }
}

/// Whether a payload is complete in its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The frame's payload is all of it.
    Whole,
    /// The frame's payload is its beginning; Chunks bring the rest. The whole has exactly this many
    /// bytes.
    Chunked(u64),
}

/// The time left for a call when its frame is sent, as microseconds on the wire.
///
/// It is a duration, not a point in time, because clocks differ between machines. The receiver
/// counts it from the arrival of the frame, with checked arithmetic, and caps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout(Option<u64>);

impl Timeout {
    /// The caller sets no deadline; the host's default applies.
    pub const NONE: Timeout = Timeout(None);

    /// This long from now, at most 584,000 years.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Timeout(Some(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time that was left, if the caller set a deadline.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        self.0.map(Duration::from_micros)
    }
}
