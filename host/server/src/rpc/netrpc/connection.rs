//! A connection whose peer sends calls one after the other and reads answers in any order. One task
//! owns it. A dialect says what calls and answers look like.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use wharf_net::Stream;
use wharf_net::budget::Taken;

use crate::rpc::caller::Caller;
use crate::rpc::calls::Calls;
use crate::rpc::invoke::{CallFailure, Invoker, Outcome};
use crate::rpc::{Shared, last_words};

/// Bytes read from the socket at once.
const READ: usize = 64 * 1024;

/// How long calls may run on the connection's task before other tasks must run.
const TURN: Duration = Duration::from_millis(2);

/// How long answers are held back, so that one write sends many of them.
const HELD_BACK: Duration = Duration::from_micros(32);

/// While more bytes than this wait to be written, nothing is read.
const OUTPUT_PAUSE: usize = 1024 * 1024;

/// The most bytes of answers that one connection may hold. An answer beyond this is replaced by a
/// failure.
const OUTPUT_MAX: usize = 64 * 1024 * 1024;

/// Bytes that a connection may hold in either direction without counting them for the host.
const UNCOUNTED: usize = 128 * 1024;

/// How often timeouts are checked.
const LOOK: Duration = Duration::from_millis(500);

/// How long one call may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How long calls may run on once the peer sends no more. A peer that only closed its own side reads
/// what ends within this time; one that has gone away cancels its calls like that.
const GRACE: Duration = Duration::from_secs(1);

/// When replies take nearly all the room that the host has for them, a connection that holds more
/// than its share must read this part of what it holds between two checks of timeouts.
const SLOWEST: u64 = 20;

/// How calls and answers look.
pub(super) trait Dialect {
    /// A call that has arrived.
    type Request;

    /// Takes the next call off the input. `None`: it has not arrived entirely.
    ///
    /// # Errors
    /// When nothing more can be read. `last_words` may tell the peer.
    fn next(
        &mut self,
        input: &mut BytesMut,
        last_words: &mut Output,
    ) -> Result<Option<Self::Request>, Broken>;

    /// Begins a call. Its answer may follow at once, or be made by [`Dialect::answer`].
    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        request: Self::Request,
        calls: &mut Calls,
        out: &mut Output,
    );

    /// Answers a call that has ended.
    fn answer(&mut self, id: u64, outcome: Outcome, out: &mut Output);
}

/// Why nothing more can be read of a connection.
pub(super) type Broken = String;

/// The bytes that are to be sent.
#[derive(Default)]
pub(super) struct Output {
    pub(super) bytes: BytesMut,
    /// Set when the host has no room for more.
    full: bool,
}

impl Output {
    /// Whether an answer of `len` bytes has room.
    ///
    /// # Errors
    /// What the caller is told instead.
    pub(super) fn room_for(&self, len: usize) -> Result<(), CallFailure> {
        let why = if self.full {
            "replies that callers do not read take too much memory of this host: read them sooner, \
             or ask for less"
                .to_owned()
        } else if self.bytes.len().saturating_add(len) > OUTPUT_MAX {
            format!("more than {OUTPUT_MAX} bytes of replies would wait for this caller")
        } else {
            return Ok(());
        };
        let failure = CallFailure::refused(wharf_wire::Status::ResourceExhausted, why);
        Err(CallFailure { not_executed: false, ..failure })
    }
}

pub(super) struct Connection<D> {
    stream: Stream,
    peer: SocketAddr,
    dialect: D,
    calls: Calls,
    input: BytesMut,
    /// What the bytes of an unfinished call take of the host.
    arriving: Taken,
    /// When the call that is arriving began to arrive.
    since: Option<Instant>,
    out: Output,
    /// What the answers that wait take of the host.
    unread: Taken,
    /// Bytes that the peer has taken since timeouts were checked last.
    written: u64,
    /// No new bytes are read: the host shuts down.
    going: bool,
    /// The peer sends no more since then.
    ended: Option<Instant>,
    /// Nothing more can be read. What waits is written, then the connection ends.
    broken: bool,
}

/// Why reading stopped.
enum Read {
    /// The socket wakes the task when more arrives.
    Drained,
    /// Answers must be written first, or calls end.
    Paused,
    /// Other tasks must run first.
    TurnOver,
}

impl<D: Dialect> Connection<D> {
    pub(super) fn new(stream: Stream, caller: Caller, dialect: D, shared: &Arc<Shared>) -> Self {
        let peer = caller.peer;
        let unread = shared.unread.account(caller.payer()).take_anyway(0);
        let calls = Calls::new(Invoker::new(shared.clone(), caller), shared.config.calls.max_calls);
        Connection {
            stream,
            peer,
            arriving: calls.room(),
            dialect,
            calls,
            input: BytesMut::new(),
            since: None,
            out: Output::default(),
            unread,
            written: 0,
            going: false,
            ended: None,
            broken: false,
        }
    }

    /// Serves to the end.
    pub(super) async fn serve(mut self, mut drain: watch::Receiver<bool>) {
        let ended = {
            let mut told_to_drain = pin!(async {
                let _ = drain.wait_for(|drain| *drain).await;
            });
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            std::future::poll_fn(|cx| {
                if !self.going && told_to_drain.as_mut().poll(cx).is_ready() {
                    self.going = true;
                }
                while looks.poll_tick(cx).is_ready() {
                    self.look_at_the_time();
                }
                self.poll(cx)
            })
            .await
        };
        match ended {
            Ok(()) => {
                last_words::let_hear(&mut self.stream).await;
                tracing::debug!(peer = %self.peer, "a connection ended");
            }
            Err(error) => tracing::debug!(peer = %self.peer, %error, "a connection broke"),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn_ends = Instant::now() + TURN;
        loop {
            while let Poll::Ready((id, outcome)) = self.calls.poll_finished(cx) {
                self.dialect.answer(id, outcome, &mut self.out);
            }
            let read = self.poll_read(cx, turn_ends)?;
            self.poll_write(cx)?;
            self.stream.seat().set_busy(!self.calls.is_idle());
            let done =
                self.broken || ((self.going || self.ended.is_some()) && self.calls.is_idle());
            if done && self.out.bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match read {
                Read::Drained => return Poll::Pending,
                // What was read and not begun wakes nobody, so it is looked at again if there is room.
                Read::Paused if self.is_paused() => return Poll::Pending,
                Read::Paused => {}
                Read::TurnOver => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.broken || self.out.bytes.len() > OUTPUT_PAUSE || self.calls.is_full()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, turn_ends: Instant) -> io::Result<Read> {
        loop {
            let begun = Instant::now();
            loop {
                if self.is_paused() {
                    return Ok(Read::Paused);
                }
                match self.dialect.next(&mut self.input, &mut self.out) {
                    Ok(Some(request)) => {
                        self.since = None;
                        self.dialect.begin(cx, request, &mut self.calls, &mut self.out);
                    }
                    Ok(None) => break,
                    Err(why) => {
                        tracing::debug!(peer = %self.peer, why, "a connection is not understood");
                        self.broken = true;
                        self.calls.cancel_all();
                        return Ok(Read::Paused);
                    }
                }
                let now = Instant::now();
                if now >= turn_ends {
                    return Ok(Read::TurnOver);
                }
                if now.duration_since(begun) >= HELD_BACK {
                    return Ok(Read::Paused);
                }
            }
            self.hold_what_arrives();
            if self.going || self.ended.is_some() || self.broken {
                return Ok(Read::Drained);
            }
            self.input.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
                Poll::Pending => return Ok(Read::Drained),
                Poll::Ready(Ok(0)) => self.ended = Some(Instant::now()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
            if Instant::now() >= turn_ends {
                return Ok(Read::TurnOver);
            }
        }
    }

    /// Counts the bytes of a call that has not arrived entirely.
    fn hold_what_arrives(&mut self) {
        let len = self.input.len();
        self.since = if len == 0 { None } else { self.since.or_else(|| Some(Instant::now())) };
        let counted = if len > UNCOUNTED { len as u64 } else { 0 };
        self.arriving.shrink_to(counted);
        if !self.arriving.grow_to(counted) {
            tracing::debug!(peer = %self.peer, "a connection was closed: its call has no room");
            self.broken = true;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.out.bytes.is_empty() {
            match poll_write_buf(Pin::new(&mut self.stream), cx, &mut self.out.bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count as u64,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        // With TLS, some of it may wait in the stream.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Err(error);
        }
        let waiting = self.out.bytes.len();
        let counted = if waiting > UNCOUNTED { waiting as u64 } else { 0 };
        self.unread.shrink_to(counted);
        self.out.full = !self.unread.grow_to(counted);
        if waiting == 0 && self.out.bytes.capacity() > UNCOUNTED {
            // An answer that was large once does not keep its memory.
            self.out.bytes = BytesMut::new();
        }
        Ok(())
    }

    fn look_at_the_time(&mut self) {
        let now = Instant::now();
        self.calls.refill();
        let written = std::mem::take(&mut self.written);
        let account = self.unread.account();
        if account.budget().is_nearly_taken()
            && account.is_over_its_share()
            && written < self.unread.amount() / SLOWEST
        {
            tracing::debug!(peer = %self.peer, "a connection was closed: it reads too slowly");
            self.give_up();
        }
        if self.since.is_some_and(|since| now.duration_since(since) >= ARRIVAL) && !self.is_paused()
        {
            tracing::debug!(peer = %self.peer, "a connection was closed: its call does not arrive");
            self.give_up();
        }
        if self.ended.is_some_and(|since| now.duration_since(since) >= GRACE) {
            self.calls.cancel_all();
        }
    }

    fn give_up(&mut self) {
        self.calls.cancel_all();
        self.broken = true;
        self.out = Output::default();
    }
}
