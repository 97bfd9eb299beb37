//! What each frame leads to: calls begin, answers and failures are queued.

use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;
use wharf_wire::{
    AssemblyError, Body, DetailKind, Fail, FrameError, GoAwayCode, Header, Metadata, Status,
};

use super::calls::{Arrived, Share};
use super::{ARRIVAL, Arriving, Connection, calls, methods, trace};
use crate::fail::Failure;
use crate::server::Shared;

/// Arguments of one connection's calls that are not answered yet, arriving ones included.
pub(super) const HELD_MAX: u64 = 64 * 1024 * 1024;

/// How long answers are held back, to be written together with those that come after them: some dozen
/// quick calls, which take as long as one write or two. The peer goes on with the first while the others
/// are made; both sides would wait for each other, if all that was read were answered by one write. A
/// third of the calls a second were lost with 40 us on one connection with 64 callers, and a quarter
/// with 8 us where there were 256.
const HELD_BACK: Duration = Duration::from_micros(16);

/// The longest that they are held back where so much was read that a quarter of it takes longer.
const HELD_BACK_MOST: Duration = Duration::from_micros(64);

/// Replies beyond this are dropped in favour of a failure: what one connection may hold of memory.
const OUTBOUND_MAX: usize = 64 * 1024 * 1024;

/// How far dispatching came.
pub(super) enum Dispatched {
    /// To the last frame.
    All,
    /// There are more, and what was answered so far is to be written first.
    WritingIsDue,
    /// There are more, and others have their turn.
    TurnOver,
}

impl Connection {
    /// Dispatches the frames that were read; how far it came.
    pub(super) fn dispatch_all(
        &mut self,
        cx: &mut Context<'_>,
        turn_ends: Instant,
    ) -> Result<Dispatched, Violation> {
        self.now = Instant::now();
        let (begun, read) = (self.now, self.inbound.buffer().len());
        while !self.is_paused()
            && let Some(frame) = self.inbound.next_frame()?
        {
            let (header, payload) = frame.parse()?;
            if !matches!(header, Header::Ping { .. } | Header::Pong { .. }) {
                // Keeping alive is not using.
                self.last_used = self.now;
            }
            let before = self.now;
            self.dispatch(cx, header, payload)?;
            if self.now == before {
                // It was no call that came to its end here, which says when it did.
                self.now = Instant::now();
            }
            // A quick call runs to its end in here; many of them must not hold up everyone else.
            if self.now >= turn_ends {
                return Ok(Dispatched::TurnOver);
            }
            let held_back = self.now.duration_since(begun);
            let quarter = self.inbound.buffer().len() <= read - read / 4;
            if held_back >= HELD_BACK_MOST || (held_back >= HELD_BACK && quarter) {
                return Ok(Dispatched::WritingIsDue);
            }
        }
        Ok(Dispatched::All)
    }

    fn dispatch(
        &mut self,
        cx: &mut Context<'_>,
        header: Header<'_>,
        payload: Bytes,
    ) -> Result<(), Violation> {
        match header {
            Header::Call { id, method, timeout, metadata, body } => {
                self.take_id(id)?;
                let now = self.now;
                let cap = self.shared.config.max_call_timeout;
                // Checked: what a peer says can be any number.
                let timeout = timeout.duration().map_or(cap, |timeout| timeout.min(cap));
                let deadline = now.checked_add(timeout).unwrap_or(now);
                let len = match body {
                    Body::Whole => payload.len() as u64,
                    Body::Chunked(total) => total,
                };
                if let Some(failure) = self.refusal(id, len) {
                    self.refuse(id, method, &failure);
                    return Ok(());
                }
                let span = self.span(method, metadata);
                match body {
                    Body::Whole => {
                        let share = None;
                        let arrived =
                            Arrived { arguments: payload, at: now, deadline, share, span };
                        self.start(cx, id, method, arrived);
                    }
                    Body::Chunked(total) => {
                        let max = self.shared.config.max_held;
                        let Some(share) = Share::of(&self.shared.held, total, max) else {
                            self.refuse(id, method, &host_is_full());
                            return Ok(());
                        };
                        let complete_by = deadline.min(now + ARRIVAL);
                        let arriving = Arriving { method, deadline, complete_by, share, span };
                        let begun = self.assembler.begin(id, arriving, total, &payload);
                        self.assembled(cx, id, begun)?;
                    }
                }
            }
            Header::Chunk { id } => {
                let pushed = self.assembler.push(id, &payload);
                self.assembled(cx, id, pushed)?;
            }
            Header::Resolve { id, name, fingerprint } => {
                self.take_id(id)?;
                let Shared { table, metrics, .. } = &*self.shared;
                match self.methods.resolve(table, metrics, name, fingerprint) {
                    Ok((method, fingerprint)) => {
                        self.outbound.push(&Header::Resolved { id, method, fingerprint });
                    }
                    Err(failure) => self.fail(id, &failure),
                }
            }
            Header::Describe { id, service } => {
                self.take_id(id)?;
                match methods::describe(&self.shared.table, service) {
                    Ok(document) => self.reply(id, document),
                    Err(failure) => self.fail(id, &failure),
                }
            }
            Header::Cancel { id } => {
                self.cancels_left = self.cancels_left.checked_sub(1).ok_or(Violation::Cancels)?;
                self.assembler.discard(id);
                self.calls.cancel(id);
                self.outbound.abandon(id);
            }
            Header::Ping { nonce } => self.outbound.push(&Header::Pong { nonce }),
            // The peer takes no new calls, and a host makes none.
            Header::Pong { .. } | Header::GoAway { .. } => {}
            Header::Hello(_) | Header::Resolved { .. } | Header::Reply { .. } | Header::Fail(_) => {
                return Err(Violation::OutOfPlace);
            }
        }
        Ok(())
    }

    /// Ids grow, so that none is ever used twice.
    fn take_id(&mut self, id: u64) -> Result<(), Violation> {
        if id <= self.last_id {
            return Err(Violation::Id { id, last: self.last_id });
        }
        self.last_id = id;
        Ok(())
    }

    /// Why a new call cannot be taken, if it cannot.
    fn refusal(&self, id: u64, len: u64) -> Option<Failure> {
        if self.going.is_some_and(|last| id > last) {
            let message = "the host shuts down: call another";
            return Some(Failure::refused(Status::Unavailable, message));
        }
        let held = self.calls.held().saturating_add(self.assembler.reserved());
        // One call of any size that is allowed at all always has room.
        if held > 0 && held.saturating_add(len) > HELD_MAX {
            let message = format!(
                "the arguments of this connection's calls in flight would take more than {HELD_MAX} bytes"
            );
            return Some(Failure::refused(Status::ResourceExhausted, message).retry_after(50));
        }
        let all = self.shared.held.load(Ordering::Relaxed);
        if all > 0 && all.saturating_add(len) > self.shared.config.max_held {
            return Some(host_is_full());
        }
        let max = self.shared.config.max_calls as usize;
        if self.calls.len() + self.assembler.len() >= max {
            let message =
                format!("{max} calls are in flight on this connection, and no more are taken");
            return Some(Failure::refused(Status::ResourceExhausted, message).retry_after(10));
        }
        None
    }

    fn assembled(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        assembled: Result<Option<(Arriving, Bytes)>, AssemblyError>,
    ) -> Result<(), Violation> {
        match assembled {
            Ok(None) => {}
            Ok(Some((Arriving { method, deadline, share, span, .. }, arguments))) => {
                let (share, at) = (Some(share), self.now);
                let arrived = Arrived { arguments, at, deadline, share, span };
                self.start(cx, id, method, arrived);
            }
            Err(error @ (AssemblyError::TooLarge { .. } | AssemblyError::TooMuch(_))) => {
                let failure =
                    Failure::refused(Status::ResourceExhausted, format!("the arguments: {error}"));
                self.fail(id, &failure);
            }
            Err(error @ (AssemblyError::Overrun(_) | AssemblyError::Duplicate(_))) => {
                return Err(Violation::Chunks(error));
            }
        }
        Ok(())
    }

    fn start(&mut self, cx: &mut Context<'_>, id: u64, method: u32, arrived: Arrived) {
        match self.methods.callee(method) {
            Ok(callee) => {
                if let Some((outcome, now)) = self.calls.start(cx, id, callee, arrived) {
                    self.now = now;
                    self.answer(id, outcome);
                }
            }
            Err(failure) => self.refuse(id, method, &failure),
        }
    }

    /// Fails a call that was not begun.
    fn refuse(&mut self, id: u64, method: u32, failure: &Failure) {
        if let Some(target) = self.methods.target(method) {
            target.metrics.answered(failure.status, Duration::ZERO);
        }
        self.fail(id, failure);
    }

    /// The span of a call, below the caller's if it sent one.
    fn span(&self, method: u32, metadata: Metadata<'_>) -> Span {
        let name = || self.methods.target(method).map_or("unknown", |target| &target.name);
        trace::span(metadata, name)
    }

    pub(super) fn answer(&mut self, id: u64, outcome: Result<Bytes, Failure>) {
        self.cancels_left = (self.cancels_left + 1).min(calls::CANCELS);
        match outcome {
            Ok(payload) => self.reply(id, payload),
            Err(failure) => self.fail(id, &failure),
        }
    }

    fn reply(&mut self, id: u64, payload: Bytes) {
        let len = payload.len();
        let too_large = |what: String| Failure {
            not_executed: false,
            ..Failure::refused(Status::ResourceExhausted, what)
        };
        if len as u64 > self.max_reply {
            let message = format!(
                "the result has {len} bytes, and this caller takes at most {}",
                self.max_reply
            );
            return self.fail(id, &too_large(message));
        }
        if self.outbound.queued().saturating_add(len) > OUTBOUND_MAX {
            let message = format!(
                "more than {OUTBOUND_MAX} bytes of replies wait for this caller to read them"
            );
            return self.fail(id, &too_large(message));
        }
        self.outbound.push_message(id, payload, |body| Header::Reply { id, body });
    }

    pub(super) fn fail(&mut self, id: u64, failure: &Failure) {
        let (detail, text): &(DetailKind, String) = &failure.detail;
        let fail = Fail {
            not_executed: failure.not_executed,
            retry_after_ms: failure.retry_after_ms,
            detail: *detail,
            ..Fail::new(id, failure.status, &failure.message)
        };
        self.outbound.push_fail(&fail, text.as_bytes());
    }
}

fn host_is_full() -> Failure {
    let message =
        "the arguments of all calls in flight take as much memory as this host has for them";
    Failure::refused(Status::ResourceExhausted, message).retry_after(100)
}

impl Violation {
    pub(super) fn code(&self) -> GoAwayCode {
        match self {
            Violation::Cancels => GoAwayCode::Overload,
            _ => GoAwayCode::Protocol,
        }
    }
}

/// How a peer broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("id {id} after id {last}: ids grow, and none is used twice")]
    Id { id: u64, last: u64 },
    #[error(transparent)]
    Chunks(AssemblyError),
    #[error("a frame that only a host sends, or a second Hello")]
    OutOfPlace,
    #[error("too many calls were cancelled: cancel more slowly")]
    Cancels,
}
