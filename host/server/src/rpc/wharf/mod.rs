//! Wharf's own protocol. One task owns a connection, its stream and all of its state.
//!
//! The task reads frames, begins calls, and writes everything that is ready in one write.

mod dispatch;
mod opening;
mod replies;

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Buf;
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use wharf_net::budget::Taken;
use wharf_net::{Meter, Stream};
use wharf_wire::{Assembler, GoAwayCode, Header, Inbound, Outbound, Status, limits};

use self::dispatch::Dispatched;
use self::replies::Replies;
use super::Shared;
use super::caller::Caller;
use super::invoke::{Call, CallFailure, HELD_MAX, Invoker};
use super::last_words::{self, LAST_WORDS};

/// Bytes read from the socket at once.
const READ: usize = 64 * 1024;

/// The most reads in a row before the replies are written.
const READS: usize = 4;

/// The most writes in a row before reading goes on. A peer on a fast link takes a large reply as quickly as
/// it is written, and small calls arrive meanwhile.
const WRITES: usize = 4;

/// How long calls may run on the connection's task before other tasks must run. Many busy connections
/// delay a call by so much each.
const TURN: Duration = Duration::from_micros(250);

/// How many Cancels and names that do not exist a connection may send in one turn. They are rare, and
/// cost more than the frames that others wait for.
const ODD: u32 = 8;

/// While more bytes than this are ready to be written, nothing is read. So a peer that does not read its
/// replies cannot send more requests. Large replies that are not cut yet are not ready: see [`Replies`].
const OUTBOUND_PAUSE: usize = 1024 * 1024;

/// The most bytes of arguments that arrive in chunks and are not complete, for all calls of a
/// connection together.
const UNFINISHED_MAX: u64 = HELD_MAX;

/// How often timeouts are checked: idle connections, arguments that never arrive completely, a
/// connection that does not finish closing.
const LOOK: Duration = Duration::from_millis(500);

/// How long the arguments of one call may take to arrive, even if its deadline is later.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How many calls that run a connection may cancel in a row, and how many more at each check of timeouts.
/// Each costs an instance. This is what our Hello announces, and as much again, because what is sent in
/// time may arrive in lots. Beyond, nothing is read from the connection for a while: Cancels wait, and none
/// is lost.
const STOPS: (u32, u32) = (2 * limits::MAX_CANCELS, limits::MAX_CANCELS / 2);

/// The same for Cancels of calls that do not run. Beyond, the connection is closed.
const CANCELS: (u32, u32) = (4096, 512);

/// The same for names that do not exist.
const MISSES: (u32, u32) = (4096, 512);

/// The same for names that do not exist and are answered with similar ones. To find these takes time.
const HINTS: (u32, u32) = (32, 8);

/// Bytes of replies that a connection may queue without counting them for the host.
const UNCOUNTED: u64 = 128 * 1024;

/// When replies take nearly all the room that the host has for them, a connection that holds more
/// than its share must read this part of what it holds between two checks of timeouts.
const SLOWEST: u64 = 20;

/// Serves a connection to its end.
pub(super) async fn serve(
    mut stream: Stream,
    caller: Caller,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
    open_by: tokio::time::Instant,
) {
    let peer = caller.peer;
    let mut inbound = Inbound::new();
    let opened = tokio::select! {
        opened = opening::open((&mut stream, peer.ip()), &mut inbound, &shared.config, open_by) => opened,
        _ = drain.wait_for(|drain| *drain) => return,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%peer, %error, "a connection did not open");
            return;
        }
    };
    tracing::debug!(%peer, agent = opened.agent, version = opened.negotiated.version, "a connection opened");
    // The Hello showed who it is.
    let caller = Caller { who: opened.who.clone(), ..caller };
    let principals = shared.config.principals.clone();
    let names = caller.names.clone();
    let mut connection = Connection::new((stream, caller), inbound, &opened, shared);
    let end = {
        let mut told_to_drain = pin!(async {
            let _ = drain.wait_for(|drain| *drain).await;
        });
        let seat = connection.stream.seat().clone();
        seat.says_goodbye();
        let mut has_to_leave = pin!(seat.has_to_leave());
        let disbelieved = connection.stream.disbelieved();
        let mut withdrawn = pin!(async {
            tokio::select! {
                () = principals.withdrawn(&opened.who, names.as_deref()) => "what you may call has changed: connect again",
                () = disbelieved => "your certificate is not believed any more: connect again with another",
            }
        });
        let mut is_withdrawn = false;
        let mut told = false;
        let mut leaves = false;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        std::future::poll_fn(|cx| {
            if !told && told_to_drain.as_mut().poll(cx).is_ready() {
                told = true;
                connection.go_away(GoAwayCode::Shutdown, "the host shuts down: connect to another");
            }
            if !is_withdrawn && let Poll::Ready(why) = withdrawn.as_mut().poll(cx) {
                is_withdrawn = true;
                connection.go_away(GoAwayCode::Other, why);
            }
            if !leaves && has_to_leave.as_mut().poll(cx).is_ready() {
                leaves = true;
                let why = "the host needs the place of this idle connection: connect again";
                // The client connects again when it needs to, and not before.
                connection.close(GoAwayCode::Idle, why);
            }
            while looks.poll_tick(cx).is_ready() {
                connection.look_at_the_time();
            }
            connection.poll(cx)
        })
        .await
    };
    // What was written may still wait in an encrypted stream.
    let waits = connection.shared.config.tls.is_some() && matches!(end, End::Closed);
    if connection.said_why || connection.going.is_some() || waits {
        last_words::let_hear(&mut connection.stream).await;
    }
    match end {
        End::Closed => tracing::debug!(%peer, "a connection ended"),
        End::Failed(error) => tracing::debug!(%peer, %error, "a connection broke"),
    }
}

/// How a connection ended.
enum End {
    /// It was closed in order, or the peer left.
    Closed,
    /// The socket failed.
    Failed(io::Error),
}

/// Why reading stopped.
enum Read {
    /// Everything was read. The socket wakes the task when more arrives.
    Drained,
    /// Replies must be written first, or too many calls were cancelled.
    Paused,
    /// Other tasks must run first.
    TurnOver,
}

enum Wrote {
    /// Everything, or all that the socket takes. It wakes the task when it takes more.
    All,
    /// Reading must go on first.
    Some,
}

struct Connection {
    stream: Stream,
    inbound: Inbound,
    outbound: Outbound,
    assembler: Assembler<Arriving>,
    invoker: Invoker,
    replies: Replies,
    /// Calls that the peer gave up, and that are still to be stopped.
    given_up: VecDeque<u64>,
    shared: Arc<Shared>,
    /// The largest id that was received.
    last_id: u64,
    /// The largest reply that the peer accepts, in bytes.
    max_reply: u64,
    /// How many more calls that run may be cancelled now.
    stops: Meter,
    /// How many more Cancels of calls that do not run are allowed. Each answer adds one, because a Cancel
    /// may have crossed with it.
    cancels: Meter,
    misses: Meter,
    hints: Meter,
    /// How many more of those this turn has room for.
    odd: u32,
    /// What the replies that wait take of the host.
    unread: Taken,
    /// Bytes that the peer has taken since timeouts were checked last.
    written: u64,
    /// Set once a GoAway was sent. The calls up to this id are still answered.
    going: Option<u64>,
    /// What callers are told of it.
    going_why: &'static str,
    /// Set once nothing more is read. The queued frames are written, then the connection ends.
    closing: Option<Instant>,
    /// Whether a GoAway says why the connection closes.
    said_why: bool,
    /// The time when the clock was last read.
    now: Instant,
    last_used: Instant,
}

/// A call whose arguments arrive in chunks.
struct Arriving {
    call: Call,
    /// When all arguments must have arrived.
    complete_by: Instant,
    /// What the bytes that have arrived take of the host.
    taken: Taken,
}

impl Connection {
    fn new(
        (stream, caller): (Stream, Caller),
        inbound: Inbound,
        opened: &opening::Opened,
        shared: Arc<Shared>,
    ) -> Self {
        let outbound = Outbound::new(opened.negotiated.chunk, opened.negotiated.window);
        let now = Instant::now();
        Connection {
            stream,
            inbound,
            outbound,
            assembler: Assembler::new(shared.config.calls.max_message, UNFINISHED_MAX),
            unread: shared.unread.account(caller.payer()).take_anyway(0),
            invoker: Invoker::new(shared.clone(), caller),
            replies: Replies::default(),
            given_up: VecDeque::new(),
            last_id: 0,
            max_reply: opened.negotiated.max_message,
            stops: meter(STOPS),
            cancels: meter(CANCELS),
            misses: meter(MISSES),
            hints: meter(HINTS),
            odd: ODD,
            written: 0,
            going: None,
            going_why: "",
            closing: None,
            said_why: false,
            now,
            last_used: now,
            shared,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let turn_ends = Instant::now() + TURN;
        self.odd = ODD;
        loop {
            while let Poll::Ready((id, outcome)) = self.invoker.poll_finished(cx) {
                self.replies.ended(id);
                self.answer(id, outcome);
            }
            self.begin_waiting(cx);
            let read = match self.poll_read(cx, turn_ends) {
                Ok(read) => read,
                Err(end) => return Poll::Ready(end),
            };
            let wrote = match self.poll_write(cx) {
                Ok(wrote) => wrote,
                Err(error) => return Poll::Ready(End::Failed(error)),
            };
            // Arguments that are only announced, and replies that are not read, keep no place.
            self.stream.seat().set_busy(!self.invoker.is_idle());
            let gone = self.closing.is_some() || (self.going.is_some() && self.has_no_call());
            if gone && !self.outbound.has_remaining() {
                return Poll::Ready(End::Closed);
            }
            // Nothing wakes this task for bytes that it has not read, or a socket that takes more.
            let is_turn_over = match (read, wrote) {
                (Read::TurnOver, _) => true,
                (_, Wrote::Some) => Instant::now() >= turn_ends,
                (Read::Paused, Wrote::All) if !self.is_paused() => false,
                (Read::Paused | Read::Drained, Wrote::All) => return Poll::Pending,
            };
            if is_turn_over {
                // Other tasks run first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Whether reading must pause: until the peer has taken the queued frames, or until it may cancel
    /// more calls.
    fn is_paused(&self) -> bool {
        self.closing.is_some()
            || self.outbound.remaining() > OUTBOUND_PAUSE
            || self.stops.is_used_up()
    }

    /// Whether no call runs, waits or arrives.
    fn has_no_call(&self) -> bool {
        self.invoker.is_idle() && self.assembler.is_empty() && self.replies.waiting().0 == 0
    }

    /// Dispatches and reads a limited number of times, and at most until `turn_ends`.
    fn poll_read(&mut self, cx: &mut Context<'_>, turn_ends: Instant) -> Result<Read, End> {
        for _ in 0..READS {
            // First handle what was read earlier: together with the Hello, or in an earlier turn.
            match self.dispatch_all(cx, turn_ends) {
                Ok(Dispatched::All) => {}
                Ok(Dispatched::WritingIsDue) => return Ok(Read::Paused),
                Ok(Dispatched::TurnOver) => return Ok(Read::TurnOver),
                Err(error) => self.close(error.code(), &error.to_string()),
            }
            if self.is_paused() {
                return Ok(Read::Paused);
            }
            self.inbound.make_room(READ);
            match poll_read_buf(Pin::new(&mut self.stream), cx, self.inbound.buffer()) {
                Poll::Pending => return Ok(Read::Drained),
                Poll::Ready(Ok(0)) => self.end_of_input(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(End::Failed(error)),
            }
        }
        Ok(Read::TurnOver)
    }

    /// The peer has closed its side, and most likely the whole connection. Its running calls are
    /// cancelled. Replies that are already queued are still sent.
    fn end_of_input(&mut self) {
        self.cancel_all();
        self.closing.get_or_insert_with(Instant::now);
    }

    fn cancel_all(&mut self) {
        self.invoker.cancel_all();
        self.replies = Replies::default();
    }

    /// Writes a limited number of times.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Wrote> {
        let mut wrote = Wrote::All;
        for _ in 0..WRITES {
            wrote = Wrote::All;
            if !self.outbound.has_remaining() {
                break;
            }
            match poll_write_buf(Pin::new(&mut self.stream), cx, &mut self.outbound) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count as u64,
                Poll::Ready(Err(error)) => return Err(error),
            }
            wrote = Wrote::Some;
        }
        // With TLS, some of it may wait in the stream.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Err(error);
        }
        if self.unread.amount() > 0 {
            self.unread.shrink_to(self.outbound.queued() as u64);
        }
        Ok(if self.outbound.has_remaining() { wrote } else { Wrote::All })
    }

    /// Stops taking new calls. Calls in flight are still answered.
    fn go_away(&mut self, code: GoAwayCode, message: &'static str) {
        if self.going.is_none() {
            (self.going, self.going_why) = (Some(self.last_id), message);
            self.outbound.push(&Header::GoAway { last_id: self.last_id, code, message });
        }
    }

    /// Sends a GoAway that says why, and closes the connection.
    fn close(&mut self, code: GoAwayCode, message: &str) {
        if self.closing.is_none() {
            self.closing = Some(Instant::now());
            self.said_why = true;
            let message = &message[..message.floor_char_boundary(limits::MESSAGE)];
            self.outbound.push(&Header::GoAway { last_id: self.last_id, code, message });
        }
    }

    fn look_at_the_time(&mut self) {
        let now = Instant::now();
        for meter in [&mut self.stops, &mut self.cancels, &mut self.misses, &mut self.hints] {
            meter.refill();
        }
        let written = std::mem::take(&mut self.written);
        let account = self.unread.account();
        if account.budget().is_nearly_taken()
            && account.is_over_its_share()
            && written < self.unread.amount() / SLOWEST
        {
            let why = "replies wait that are read too slowly, and the host needs their room";
            self.close(GoAwayCode::Overload, why);
        }
        for id in self.assembler.discard_where(|arriving| arriving.complete_by <= now) {
            let message = "the deadline passed before all arguments had arrived";
            self.fail(id, &CallFailure::refused(Status::DeadlineExceeded, message));
        }
        while let Some(id) = self.replies.late(now) {
            let message = "the deadline passed while earlier replies waited to be read";
            self.fail(id, &CallFailure::refused(Status::DeadlineExceeded, message));
        }
        let idle = self.has_no_call() && !self.outbound.has_remaining();
        if idle && now.duration_since(self.last_used) >= self.shared.config.idle_timeout {
            self.close(GoAwayCode::Idle, "the connection was idle for too long: connect again");
        }
        if self.closing.is_some_and(|since| now.duration_since(since) >= LAST_WORDS) {
            // The peer does not read. Discard everything that is queued, because a frame may be
            // half written, and nothing may follow half a frame. (While the connection is not
            // closing, a stalled write fails by itself.)
            self.cancel_all();
            self.closing = Some(now);
            self.outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
        }
    }
}

fn meter((burst, refill): (u32, u32)) -> Meter {
    Meter::new(burst, refill)
}
