//! Our own frames. One task owns a connection, its stream and all of its state.
//!
//! The task reads frames, begins calls, and writes whatever is ready, coalesced.

mod dispatch;
mod opening;

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Buf;
use tokio::sync::watch;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use wharf_net::Stream;
use wharf_wire::{Assembler, GoAwayCode, Header, Inbound, Outbound, Status};

use self::dispatch::Dispatched;
use super::Shared;
use super::invoke::{Call, Failure, HELD_MAX, Invoker, Share};
use super::last_words::{self, LAST_WORDS};

/// Bytes read from the socket at once.
const READ: usize = 64 * 1024;

/// Reads in a row before what they caused is written.
const READS: usize = 4;

/// How long calls may run on the connection's own task before others have their turn.
const TURN: Duration = Duration::from_millis(2);

/// While more than this waits to be written, nothing is read: a peer that does not listen is not
/// listened to.
const OUTBOUND_PAUSE: usize = 1024 * 1024;

/// Arguments that arrive in chunks, all unfinished ones of a connection together.
const UNFINISHED_MAX: u64 = HELD_MAX;

/// How often time is looked at: idle connections, stalled writes, arguments that never end.
const LOOK: Duration = Duration::from_millis(500);

/// How long the arguments of one call may take to arrive, whatever its deadline.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Cancels that a connection may send in a row.
const CANCELS: u32 = 4096;

/// Cancels that it gets back each time the connection looks at the time.
const CANCELS_PER_LOOK: u32 = 512;

/// Serves a connection to its end.
pub(super) async fn serve(
    mut stream: Stream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
    open_by: tokio::time::Instant,
) {
    let mut inbound = Inbound::new();
    let opened = tokio::select! {
        opened = opening::open(&mut stream, &mut inbound, &shared.config, open_by) => opened,
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
    let mut connection = Connection::new(stream, inbound, &opened, shared);
    let end = {
        let mut told_to_drain = pin!(async {
            let _ = drain.wait_for(|drain| *drain).await;
        });
        let mut told = false;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        std::future::poll_fn(|cx| {
            if !told && told_to_drain.as_mut().poll(cx).is_ready() {
                told = true;
                connection.go_away(GoAwayCode::Shutdown, "the host shuts down: connect to another");
            }
            while looks.poll_tick(cx).is_ready() {
                connection.look_at_the_time();
            }
            connection.poll(cx)
        })
        .await
    };
    if connection.said_why || connection.going.is_some() {
        last_words::let_hear(&mut connection.stream).await;
    }
    match end {
        End::Closed => tracing::debug!(%peer, "a connection ended"),
        End::Failed(error) => tracing::debug!(%peer, %error, "a connection broke"),
    }
}

/// How a connection came to its end.
enum End {
    /// In good order, or because the peer left.
    Closed,
    /// The socket failed.
    Failed(io::Error),
}

/// How far reading came.
enum Read {
    /// To the end of what there is; the socket wakes the task for more.
    Drained,
    /// To where something has to be written first.
    Paused,
    /// To the end of its turn.
    TurnOver,
}

struct Connection {
    stream: Stream,
    inbound: Inbound,
    outbound: Outbound,
    assembler: Assembler<Arriving>,
    invoker: Invoker,
    shared: Arc<Shared>,
    /// The largest id that was seen.
    last_id: u64,
    /// What the peer accepts in one reply.
    max_reply: u64,
    /// Cancels that are taken before they are too many; calls that end give them back.
    cancels_left: u32,
    /// Set once we said that we go; the calls up to this id are still answered.
    going: Option<u64>,
    /// Set once nothing more is read: what is queued is written, and that is the end.
    closing: Option<Instant>,
    /// Whether a GoAway says why it closes.
    said_why: bool,
    /// The time, as it was last looked at.
    now: Instant,
    last_used: Instant,
}

/// A call whose arguments arrive in chunks.
struct Arriving {
    call: Call,
    /// When the last of them must have come.
    complete_by: Instant,
    /// They count from the moment they are announced.
    share: Share,
}

impl Connection {
    fn new(
        stream: Stream,
        inbound: Inbound,
        opened: &opening::Opened,
        shared: Arc<Shared>,
    ) -> Self {
        let outbound = Outbound::new(opened.negotiated.chunk);
        let now = Instant::now();
        Connection {
            stream,
            inbound,
            outbound,
            assembler: Assembler::new(shared.config.calls.max_message, UNFINISHED_MAX),
            invoker: Invoker::new(shared.clone()),
            last_id: 0,
            max_reply: opened.negotiated.max_message,
            cancels_left: CANCELS,
            going: None,
            closing: None,
            said_why: false,
            now,
            last_used: now,
            shared,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let turn_ends = Instant::now() + TURN;
        loop {
            while let Poll::Ready((id, outcome)) = self.invoker.poll_finished(cx) {
                self.answer(id, outcome);
            }
            let read = match self.poll_read(cx, turn_ends) {
                Ok(read) => read,
                Err(end) => return Poll::Ready(end),
            };
            if let Err(error) = self.poll_write(cx) {
                return Poll::Ready(End::Failed(error));
            }
            let idle = self.invoker.is_idle() && self.assembler.is_empty();
            let gone = self.closing.is_some() || (self.going.is_some() && idle);
            if gone && !self.outbound.has_remaining() {
                return Poll::Ready(End::Closed);
            }
            match read {
                Read::Drained => return Poll::Pending,
                // Nothing wakes this task for what it does not read, so if writing has made room
                // by now, it must go on reading itself.
                Read::Paused if self.is_paused() => return Poll::Pending,
                Read::Paused => {}
                Read::TurnOver => {
                    // Others run first.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether the peer has to take what is queued before anything more is read.
    fn is_paused(&self) -> bool {
        self.closing.is_some() || self.outbound.queued() > OUTBOUND_PAUSE
    }

    /// Dispatches and reads, a bounded number of times, and no longer than to the end of the turn.
    fn poll_read(&mut self, cx: &mut Context<'_>, turn_ends: Instant) -> Result<Read, End> {
        for _ in 0..READS {
            // What was read before, with the Hello or in an earlier turn, comes first.
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

    /// The peer has closed its side, and most likely all of it. What runs for it is stopped; what is
    /// answered already is still sent.
    fn end_of_input(&mut self) {
        self.invoker.cancel_all();
        self.closing.get_or_insert_with(Instant::now);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.outbound.has_remaining() {
            match poll_write_buf(Pin::new(&mut self.stream), cx, &mut self.outbound) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes no new calls; those in flight are still answered.
    fn go_away(&mut self, code: GoAwayCode, message: &str) {
        if self.going.is_none() {
            self.going = Some(self.last_id);
            self.outbound.push(&Header::GoAway { last_id: self.last_id, code, message });
        }
    }

    /// Says why, and ends.
    fn close(&mut self, code: GoAwayCode, message: &str) {
        if self.closing.is_none() {
            self.closing = Some(Instant::now());
            self.said_why = true;
            let message = &message[..message.floor_char_boundary(wharf_wire::limits::MESSAGE)];
            self.outbound.push(&Header::GoAway { last_id: self.last_id, code, message });
        }
    }

    fn look_at_the_time(&mut self) {
        let now = Instant::now();
        self.cancels_left = self.cancels_left.saturating_add(CANCELS_PER_LOOK).min(CANCELS);
        for id in self.assembler.discard_where(|arriving| arriving.complete_by <= now) {
            let message = "the time was over before the arguments had arrived";
            self.fail(id, &Failure::refused(Status::DeadlineExceeded, message));
        }
        let idle =
            self.invoker.is_idle() && self.assembler.is_empty() && !self.outbound.has_remaining();
        if idle && now.duration_since(self.last_used) >= self.shared.config.idle_timeout {
            self.close(GoAwayCode::Idle, "the connection was idle for too long: connect again");
        }
        if self.closing.is_some_and(|since| now.duration_since(since) >= LAST_WORDS) {
            // Nobody listens: what is queued will not be heard, and nothing may follow half a frame.
            // (While the connection is not closing, a stalled write fails by itself.)
            self.invoker.cancel_all();
            self.closing = Some(now);
            self.outbound = Outbound::new(wharf_wire::limits::CHUNK);
        }
    }
}
