//! Handles each frame: begins calls, and queues replies and failures.

use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf_net::budget::Taken;
use wharf_wire::{
    AssemblyError, Body, DetailKind, Fail, FrameError, GoAwayCode, Header, Metadata, Status,
    TraceParent, cancelled,
};

use super::{ARRIVAL, Arriving, Connection, UNCOUNTED};
use crate::rpc::invoke::{Begun, Call, CallFailure, Load, Outcome, Room, host_is_full};

/// How long replies are held back, so that one write sends many of them. In this time, some dozen
/// quick calls are made, which take as long as one or two writes. The peer continues with the first
/// replies while the next calls are made. If one write answered everything that was read, both
/// sides would wait for each other. Measured: with 40 us, one connection with 64 callers lost a
/// third of its calls per second; with 8 us, one with 256 callers lost a quarter.
const HELD_BACK: Duration = Duration::from_micros(16);

/// The longest time that replies are held back. It applies if so much was read that a quarter of it
/// takes longer than [`HELD_BACK`].
const HELD_BACK_MOST: Duration = Duration::from_micros(64);

/// Why dispatching stopped.
pub(super) enum Dispatched {
    /// All frames were handled, or reading has to pause.
    All,
    /// More frames are left, but the replies so far must be written first.
    WritingIsDue,
    /// More frames are left, but other tasks must run first.
    TurnOver,
}

impl Connection {
    /// Handles the frames that were read. Returns why it stopped.
    pub(super) fn dispatch_all(
        &mut self,
        cx: &mut Context<'_>,
        turn_ends: Instant,
    ) -> Result<Dispatched, Violation> {
        self.now = Instant::now();
        let (begun, read) = (self.now, self.inbound.buffer().len());
        while !self.is_paused() {
            if let Some(id) = self.given_up.pop_front() {
                self.cancel(id)?;
                if self.odd == 0 {
                    return Ok(Dispatched::TurnOver);
                }
                continue;
            }
            let Some(frame) = self.inbound.next_frame()? else { break };
            let (header, payload) = frame.parse()?;
            if !matches!(header, Header::Ping { .. } | Header::Pong { .. }) {
                // Pings and pongs do not count as use.
                self.last_used = self.now;
            }
            let before = self.now;
            self.dispatch(cx, header, payload)?;
            if self.now == before {
                // No call completed, so read the clock.
                self.now = Instant::now();
            }
            // Quick calls run to their end in here. Many of them must not delay other tasks.
            if self.now >= turn_ends || self.odd == 0 {
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
                let len = match body {
                    Body::Whole => payload.len() as u64,
                    Body::Chunked(total) => total,
                };
                let arrived = payload.len() as u64;
                let (timeout, trace) = (timeout.duration(), trace(metadata));
                let begun = self.admit(method, id, (len, arrived), timeout, trace);
                match (begun, body) {
                    (Ok(call), Body::Whole) => self.begin(cx, id, call, (payload, None)),
                    (Ok(call), Body::Chunked(total)) => {
                        let taken = match self.invoker.expect(method, arrived) {
                            Ok(taken) => taken,
                            Err(failure) => {
                                self.fail(id, &failure);
                                return Ok(());
                            }
                        };
                        let complete_by = call.deadline.min(self.now + ARRIVAL);
                        let arriving = Arriving { call, complete_by, taken };
                        let begun = self.assembler.begin(id, arriving, total, &payload);
                        self.assembled(cx, id, begun)?;
                    }
                    (Err(failure), _) => self.fail(id, &failure),
                }
            }
            Header::Chunk { id } => {
                // The bytes count as they arrive. What was only announced takes nothing.
                let arriving = self.assembler.context(id);
                if arriving.is_some_and(|arriving| !arriving.taken.grow(payload.len() as u64)) {
                    self.assembler.discard(id);
                    self.fail(id, &host_is_full());
                    return Ok(());
                }
                let pushed = self.assembler.push(id, &payload);
                self.assembled(cx, id, pushed)?;
            }
            Header::Resolve { id, name, fingerprint } => {
                self.take_id(id)?;
                if let Some(failure) = self.leaving(id) {
                    self.fail(id, &failure);
                    return Ok(());
                }
                let hints = &mut self.hints;
                match self.invoker.resolve(name, fingerprint, || hints.count()) {
                    Ok((method, fingerprint)) => {
                        self.outbound.push(&Header::Resolved { id, method, fingerprint });
                    }
                    Err(failure) => self.miss(id, &failure)?,
                }
            }
            Header::Describe { id, service } => {
                self.take_id(id)?;
                // For whoever sees a part of a service, it is made anew.
                self.odd = self.odd.saturating_sub(1);
                if let Some(failure) = self.leaving(id) {
                    self.fail(id, &failure);
                    return Ok(());
                }
                let hints = &mut self.hints;
                match self.invoker.describe(service, || hints.count()) {
                    Ok(document) => self.reply(id, document),
                    Err(failure) => self.miss(id, &failure)?,
                }
            }
            Header::Cancel { id } => self.given_up.extend(cancelled(id, &payload)),
            Header::Ping { nonce } => self.outbound.push(&Header::Pong { nonce }),
            // A GoAway means that the peer takes no new calls. A host makes none.
            Header::Pong { .. } | Header::GoAway { .. } => {}
            Header::Hello(_) | Header::Resolved { .. } | Header::Reply { .. } | Header::Fail(_) => {
                return Err(Violation::OutOfPlace);
            }
        }
        Ok(())
    }

    /// Stops a call that was given up.
    fn cancel(&mut self, id: u64) -> Result<(), Violation> {
        self.odd = self.odd.saturating_sub(1);
        let arriving = self.assembler.discard(id).map(|Arriving { call, .. }| call);
        let waiting = || self.replies.give_up(id).map(|held| held.call);
        let unbegun = arriving.or_else(waiting);
        if let Some(call) = &unbegun {
            self.invoker.cancelled(call);
        }
        let was_running = self.invoker.cancel(id);
        self.replies.ended(id);
        self.outbound.abandon(id);
        // What runs may always be given up: once the meter of that is used up, nothing is dispatched
        // until it has room. Other Cancels crossed with an answer, or mean nothing.
        let is_stop = unbegun.is_some() || was_running;
        let meter = if is_stop { &mut self.stops } else { &mut self.cancels };
        if meter.count() { Ok(()) } else { Err(Violation::Cancels) }
    }

    /// Answers a request for something that the host does not have.
    fn miss(&mut self, id: u64, failure: &CallFailure) -> Result<(), Violation> {
        if !self.misses.count() {
            return Err(Violation::Misses);
        }
        self.odd = self.odd.saturating_sub(1);
        self.fail(id, failure);
        Ok(())
    }

    /// Accepts the id of a request. Ids must grow, so that none is used twice.
    fn take_id(&mut self, id: u64) -> Result<(), Violation> {
        if id <= self.last_id {
            return Err(Violation::Id { id, last: self.last_id });
        }
        self.last_id = id;
        Ok(())
    }

    /// The failure of whatever is asked after this side has said that it goes away.
    fn leaving(&self, id: u64) -> Option<CallFailure> {
        let leaves = self.going.is_some_and(|last| id > last);
        leaves.then(|| CallFailure::refused(Status::Unavailable, self.going_why))
    }

    /// Admits a call whose arguments will have `len` bytes, of which `arrived` are there.
    fn admit(
        &self,
        method: u32,
        id: u64,
        (len, arrived): (u64, u64),
        timeout: Option<Duration>,
        trace: Option<TraceParent>,
    ) -> Result<Call, CallFailure> {
        if let Some(failure) = self.leaving(id) {
            return Err(self.invoker.refused(method, failure));
        }
        let (running, (waiting, held)) = (self.invoker.load(), self.replies.waiting());
        let load = Load {
            calls: running.calls + self.assembler.len() + waiting,
            held: running.held.saturating_add(self.assembler.reserved()).saturating_add(held),
        };
        self.invoker.admit(method, (load, len, arrived), timeout, trace, self.now)
    }

    fn assembled(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        assembled: Result<Option<(Arriving, Bytes)>, AssemblyError>,
    ) -> Result<(), Violation> {
        match assembled {
            Ok(None) => {}
            Ok(Some((Arriving { call, taken, .. }, arguments))) => {
                self.begin(cx, id, call, (arguments, Some(taken)));
            }
            Err(error @ (AssemblyError::TooLarge { .. } | AssemblyError::TooMuch(_))) => {
                let failure = CallFailure::refused(
                    Status::ResourceExhausted,
                    format!("the arguments: {error}"),
                );
                self.fail(id, &failure);
            }
            Err(error @ (AssemblyError::Overrun(_) | AssemblyError::Duplicate(_))) => {
                return Err(Violation::Chunks(error));
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        call: Call,
        arguments: (Bytes, Option<Taken>),
    ) {
        let room = self.replies.room(self.outbound.queued());
        self.begin_in(cx, (id, call), arguments, room);
    }

    fn begin_in(
        &mut self,
        cx: &mut Context<'_>,
        (id, call): (u64, Call),
        arguments: (Bytes, Option<Taken>),
        room: usize,
    ) {
        let room = Room::new(room, self.unread.account());
        match self.invoker.begin(cx, (id, call), arguments, room, self.now) {
            Ok(Begun::Ended(ended)) => {
                self.now = Instant::now();
                self.answer(id, ended.outcome(self.now));
            }
            Ok(Begun::Running(expected)) => self.replies.runs(id, expected),
            Ok(Begun::Waits(held)) => self.replies.wait(id, held),
            Err(failure) => self.fail(id, &failure),
        }
    }

    /// Begins calls that waited for room for their replies.
    pub(super) fn begin_waiting(&mut self, cx: &mut Context<'_>) {
        // When the connection closes, nobody would hear their answers.
        while self.closing.is_none()
            && let Some((id, held)) = self.replies.next(self.outbound.queued())
        {
            self.now = Instant::now();
            let (call, arguments) = held.into_parts();
            self.begin_in(cx, (id, call), arguments, usize::MAX);
        }
    }

    pub(super) fn answer(&mut self, id: u64, outcome: Outcome) {
        match outcome {
            Ok(payload) => self.reply(id, payload),
            Err(failure) => self.fail(id, &failure),
        }
    }

    fn reply(&mut self, id: u64, payload: Bytes) {
        self.cancels.allow_one();
        let len = payload.len();
        let too_large = |what: String| CallFailure {
            not_executed: false,
            ..CallFailure::refused(Status::ResourceExhausted, what)
        };
        if len as u64 > self.max_reply {
            let message = format!(
                "the result has {len} bytes, but this caller accepts at most {}",
                self.max_reply
            );
            return self.fail(id, &too_large(message));
        }
        let queued = (self.outbound.queued() + len) as u64;
        if queued > UNCOUNTED && !self.unread.grow_to(queued) {
            // Its call began before anybody knew that its result is large. Few calls are like that,
            // so it may take more, up to a bound that only an attack reaches.
            let budget = self.unread.account().budget();
            if budget.taken() > budget.max() + budget.max() / 4 {
                let message = "replies that callers do not read take too much memory of this host: \
                               read them sooner, or ask for less";
                return self.fail(id, &too_large(message.to_owned()));
            }
            self.unread.grow_anyway_to(queued);
        }
        self.outbound.push_message(id, payload, |body| Header::Reply { id, body });
    }

    pub(super) fn fail(&mut self, id: u64, failure: &CallFailure) {
        self.cancels.allow_one();
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

/// The caller's trace. If it cannot be read, it is ignored, as the standard requires.
fn trace(metadata: Metadata<'_>) -> Option<TraceParent> {
    metadata.iter().find(|(key, _)| *key == TraceParent::KEY)?.1.parse().ok()
}

impl Violation {
    pub(super) fn code(&self) -> GoAwayCode {
        match self {
            Violation::Cancels | Violation::Misses => GoAwayCode::Overload,
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
    #[error("too many services and methods were asked for that are not here: ask the registry")]
    Misses,
}
