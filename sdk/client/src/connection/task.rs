//! The task that owns a connection: its socket and all of its state, without a lock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use wharf_net::{Meter, Socket};
use wharf_schema::Fingerprint;
use wharf_wire::{Body, GoAwayCode, Header, Inbound, Metadata, Outbound, Status, Timeout, limits};

use super::cancels::{Cancels, PACE};
use super::failures::{End, mismatch, remote};
use super::{Leaving, Question, Request, not_sent};
use crate::error::Failure;
use crate::methods::{Methods, Resolved};
use crate::opening::Opened;
use crate::pending::{Answer, Pending};
use crate::settings::KeepAlive;

/// Bytes read from the socket at once.
const READ: usize = 64 * 1024;

/// The most writes in a row before reading goes on. A host on a fast link takes large arguments as quickly as
/// they are written, and small replies arrive meanwhile.
const WRITES: usize = 4;

/// How long the task works before other tasks run, those of the callers that were answered among them.
const TURN: Duration = Duration::from_micros(250);

/// Requests taken in a row before they are written.
const BATCH: usize = 256;

/// While more bytes than this wait to be written, no requests are taken.
const OUTBOUND_PAUSE: usize = 1024 * 1024;

/// How long a host that is not believed any more has time for the answers that it owes.
const DOUBT: Duration = Duration::from_secs(10);

/// How often the task checks its timers.
const LOOK: Duration = Duration::from_millis(500);

/// While no call is in flight, a peer may be silent this many times longer before it is pinged.
const IDLE_FACTOR: u32 = 10;

/// How many pings a host may send in a row, and how many more at each look. An answer to each would
/// otherwise take memory without bound.
const PINGS: (u32, u32) = (1000, 50);

/// The result of taking requests.
enum Took {
    /// All requests were taken; the next one wakes the task.
    All,
    /// A full batch was taken; there may be more.
    Some,
    /// The host or the socket takes no more at the moment.
    NoRoom,
}

/// The task's ends of the channels that it shares with callers.
pub(super) struct Way {
    pub(super) requests: mpsc::Receiver<Request>,
    /// Calls that were given up.
    pub(super) given_up: mpsc::Receiver<u64>,
    /// Whether new calls are taken.
    pub(super) open: Arc<AtomicBool>,
    /// Tells when they are no longer taken.
    pub(super) leave: oneshot::Sender<Leaving>,
}

pub(super) struct Task {
    stream: Socket<TcpStream>,
    /// Completes when the host is not believed any more.
    doubt: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Since when it is not.
    doubted: Option<Instant>,
    inbound: Inbound,
    outbound: Outbound,
    requests: mpsc::Receiver<Request>,
    given_up: mpsc::Receiver<u64>,
    cancels: Cancels,
    /// Wakes the task while cancels wait.
    pace: Pin<Box<Sleep>>,
    open: Arc<AtomicBool>,
    leave: Option<oneshot::Sender<Leaving>>,
    keep_alive: KeepAlive,
    pending: Pending,
    methods: Methods<Request>,
    /// A buffer for requests that were just taken; empty between polls.
    batch: Vec<Request>,
    last_id: u64,
    max_calls: usize,
    pings: Meter,
    /// The time when the current poll began.
    now: Instant,
    last_heard: Instant,
    /// When a ping was sent, if nothing was heard since.
    ping_sent: Option<Instant>,
    /// Why the host takes no new calls, once it takes none.
    going: Option<String>,
    /// The last poll did not write, because more requests may come soon.
    gathering: bool,
}

impl Task {
    pub(super) fn new(
        opened: Opened,
        Way { requests, given_up, open, leave }: Way,
        max_calls: usize,
        keep_alive: KeepAlive,
    ) -> Self {
        let now = Instant::now();
        Task {
            stream: opened.stream,
            doubt: Box::pin(opened.doubt.arises()),
            doubted: None,
            inbound: opened.inbound,
            // What the host holds of arguments is counted before a call comes here.
            outbound: Outbound::new(opened.negotiated.chunk, u64::MAX),
            requests,
            given_up,
            cancels: Cancels::new(opened.negotiated.max_cancels, now),
            pace: Box::pin(tokio::time::sleep(PACE)),
            open,
            leave: Some(leave),
            keep_alive,
            pending: Pending::new(limits::MAX_MESSAGE, limits::WINDOW),
            methods: Methods::new(),
            batch: Vec::new(),
            pings: Meter::new(PINGS.0, PINGS.1),
            ping_sent: None,
            last_id: 0,
            max_calls,
            now,
            last_heard: now,
            going: None,
            gathering: false,
        }
    }

    /// Runs until the connection ends. Returns why it ended.
    pub(super) async fn run(mut self) -> String {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = std::future::poll_fn(|cx| {
            if self.going.is_none() && self.doubt.as_mut().poll(cx).is_ready() {
                self.leave_impostor();
            }
            // Read first, then judge the silence.
            let mut progress = self.poll(cx);
            while progress.is_ok() && looks.poll_tick(cx).is_ready() {
                progress = self.look_at_the_time().and_then(|()| self.poll(cx));
            }
            progress.map_or_else(Poll::Ready, |()| Poll::Pending)
        })
        .await;
        let reason = self.going.take().unwrap_or_else(|| end.to_string());
        self.take_no_more(Leaving::Lost(reason.clone()));
        self.requests.close();
        self.pending.lose(&reason);
        answer_all(self.methods.give_up_all(), || not_sent(&reason));
        while let Some(request) = self.requests.recv().await {
            request.waiter.answer(Err(not_sent(&reason)));
        }
        reason
    }

    /// Takes no more calls, because the host's certificate is not believed any more. What it was sent before
    /// may still be answered.
    fn leave_impostor(&mut self) {
        let reason = "the host's certificate is not believed any more";
        self.take_no_more(Leaving::Lost(reason.to_owned()));
        answer_all(self.methods.give_up_all(), || not_sent(reason));
        self.going = Some(reason.to_owned());
        self.doubted = Some(self.now);
    }

    fn take_no_more(&mut self, leaving: Leaving) {
        self.open.store(false, Ordering::Release);
        if let Some(leave) = self.leave.take() {
            // The client may be gone.
            let _ = leave.send(leaving);
        }
    }

    /// Takes requests, reads and writes, until nothing more can be done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.now = Instant::now();
        let turn_ends = self.now + TURN;
        loop {
            let took = self.poll_requests(cx)?;
            if self.gathers() {
                // Yields: the task is queued behind the callers that were just answered.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let read = self.poll_read(cx)?;
            let wrote_some = self.poll_write(cx)?;
            if self.going.is_some() && self.pending.is_empty() {
                return Err(End::GoneAway);
            }
            let goes_on = match took {
                Took::All => false,
                Took::Some => true,
                // Requests that are not taken do not wake this task. So if there is room now, it
                // must continue by itself.
                Took::NoRoom => self.has_room(),
            };
            if !goes_on && !read && !wrote_some {
                return Ok(());
            }
            self.now = Instant::now();
            if self.now >= turn_ends {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    /// Whether to yield once before writing. One read often answers many callers, and they soon
    /// call again, one after the other. Yielding lets them do so first, and all their calls go out
    /// in one write. Otherwise each call would cost a write here, and a read and a write at the
    /// host.
    fn gathers(&mut self) -> bool {
        let more_may_come = self.outbound.has_remaining() && self.pending.len() > 1;
        self.gathering = more_may_come && !self.gathering;
        self.gathering
    }

    /// Whether the host takes more calls, and the socket more bytes. When the host takes no calls
    /// any more, requests are only refused, and there is always room for that.
    fn has_room(&self) -> bool {
        self.going.is_some() || self.takes_more()
    }

    fn takes_more(&self) -> bool {
        self.in_flight() < self.max_calls && self.outbound.remaining() <= OUTBOUND_PAUSE
    }

    /// The calls that the host runs, and those that wait for the index of their method.
    fn in_flight(&self) -> usize {
        self.pending.len() + self.methods.waiting() + self.cancels.len()
    }

    /// Takes the cancels, and at most one batch of requests.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<Took, End> {
        while let Poll::Ready(Some(id)) = self.given_up.poll_recv(cx) {
            self.give_up(id);
        }
        self.send_cancels(cx);
        if !self.has_room() {
            return Ok(Took::NoRoom);
        }
        // When the host takes no calls any more, requests are only refused.
        let room = self.max_calls.saturating_sub(self.in_flight());
        let batch = if self.going.is_some() { BATCH } else { room.min(BATCH) };
        let mut batch_taken = std::mem::take(&mut self.batch);
        let polled = self.requests.poll_recv_many(cx, &mut batch_taken, batch);
        batch_taken.drain(..).for_each(|request| self.take(request));
        self.batch = batch_taken;
        match polled {
            Poll::Ready(0) if self.pending.is_empty() => Err(End::Unused),
            Poll::Ready(0) | Poll::Pending => Ok(Took::All),
            Poll::Ready(_) => Ok(Took::Some),
        }
    }

    fn give_up(&mut self, id: u64) {
        if self.pending.cancel(id) {
            self.outbound.abandon(id);
            self.cancels.push(id);
        }
    }

    /// Sends the cancels that the host takes now. If some have to wait, the task is woken for them.
    fn send_cancels(&mut self, cx: &mut Context<'_>) {
        while self.cancels.len() > 0 {
            self.outbound.push_cancels(&self.cancels.due(self.now));
            if self.cancels.len() == 0 || self.pace.as_mut().poll(cx).is_pending() {
                return;
            }
            self.pace.as_mut().reset(tokio::time::Instant::now() + PACE);
            self.now = Instant::now();
        }
    }

    fn take(&mut self, request: Request) {
        if let Some(reason) = &self.going {
            return request.waiter.answer(Err(not_sent(reason)));
        }
        let Question::Call { method, .. } = &request.question else {
            return self.send(request, 0);
        };
        if let Some((index, served)) = self.methods.index(method) {
            return self.send_if_accepted(request, index, served);
        }
        if request.waiter.is_abandoned() {
            return;
        }
        let method = method.clone();
        if self.methods.wait(&method, request) {
            let id = self.next_id();
            let fingerprint = method.wanted().map(|fingerprint| fingerprint.0);
            self.outbound.push(&Header::Resolve { id, name: &method.name, fingerprint });
            self.methods.asked(id, method);
        }
    }

    /// Sends a call, unless it was encoded for another signature than the index stands for.
    fn send_if_accepted(&mut self, request: Request, index: u32, served: Fingerprint) {
        match &request.question {
            Question::Call { method, .. } if !method.accepts(served) => {
                let failure = mismatch(method);
                request.waiter.answer(Err(failure));
            }
            _ => self.send(request, index),
        }
    }

    fn send(&mut self, Request { question, deadline, waiter }: Request, index: u32) {
        let id = self.next_id();
        if !waiter.begin(id) {
            return;
        }
        match question {
            Question::Describe { service } => {
                self.outbound.push(&Header::Describe { id, service: &service });
                self.pending.insert(id, waiter, None);
            }
            Question::Call { method, arguments, metadata } => {
                let left = deadline.saturating_duration_since(self.now);
                self.outbound.push_message(id, arguments, |body| Header::Call {
                    id,
                    method: index,
                    timeout: Timeout::after(left),
                    metadata: Metadata::over(&metadata),
                    body,
                });
                self.pending.insert(id, waiter, Some((method, index)));
            }
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Handles all frames that have arrived, and reads once. Returns whether there may be more to
    /// read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        // Frames that arrived together with the Hello are here already.
        self.dispatch_all()?;
        self.inbound.make_room(READ);
        match poll_read_buf(Pin::new(&mut self.stream), cx, self.inbound.buffer()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(End::Closed),
            Poll::Ready(Ok(_)) => {
                self.last_heard = self.now;
                self.ping_sent = None;
                self.dispatch_all()?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(End::Io(error)),
        }
    }

    fn dispatch_all(&mut self) -> Result<(), End> {
        while let Some(frame) = self.inbound.next_frame()? {
            let (header, payload) = frame.parse()?;
            self.dispatch(header, payload)?;
        }
        Ok(())
    }

    /// Writes a limited number of times. Returns whether that was the reason to stop.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut takes_more = true;
        for _ in 0..WRITES {
            if !self.outbound.has_remaining() {
                break;
            }
            match poll_write_buf(Pin::new(&mut self.stream), cx, &mut self.outbound) {
                Poll::Pending => {
                    takes_more = false;
                    break;
                }
                Poll::Ready(Ok(0)) => return Err(End::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(End::Io(error)),
            }
        }
        // With TLS, some of it may wait in the stream.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Err(End::Io(error));
        }
        Ok(takes_more && self.outbound.has_remaining())
    }

    fn dispatch(&mut self, header: Header<'_>, payload: Bytes) -> Result<(), End> {
        match header {
            Header::Reply { id, body: Body::Whole } => self.ended(id, Ok(payload)),
            Header::Reply { id, body: Body::Chunked(total) } => {
                if !self.pending.begin_reply(id, total, &payload) {
                    self.cancels.push(id);
                }
            }
            Header::Chunk { id } => self.pending.continue_reply(id, &payload),
            Header::Resolved { id, method, fingerprint } => {
                let served = Fingerprint(fingerprint);
                match self.methods.resolved(id, method, served) {
                    Some(Resolved::Send(requests)) => {
                        for request in requests {
                            self.send_if_accepted(request, method, served);
                        }
                    }
                    Some(Resolved::Mismatch(requests, method)) => {
                        answer_all(requests, || mismatch(&method));
                    }
                    None => {}
                }
            }
            Header::Fail(fail) => {
                let remote = || remote(&fail, &payload);
                if let Some(requests) = self.methods.refused(fail.id) {
                    answer_all(requests, || Failure::Remote(Box::new(remote())));
                    return Ok(());
                }
                // The index no longer stands for the method: the next call resolves it again.
                let stale = fail.not_executed
                    && matches!(fail.status, Status::FailedPrecondition | Status::Unavailable);
                if stale && let Some((method, index)) = self.pending.method(fail.id) {
                    self.methods.stale(&method, index);
                }
                // The rest of its arguments need not be sent.
                self.outbound.abandon(fail.id);
                self.ended(fail.id, Err(Failure::Remote(Box::new(remote()))));
            }
            Header::GoAway { last_id, code, message } => {
                self.take_no_more(match code {
                    GoAwayCode::Idle => Leaving::Idle,
                    GoAwayCode::Shutdown | GoAwayCode::Other => Leaving::Lost(message.to_owned()),
                    GoAwayCode::Version
                    | GoAwayCode::Unauthenticated
                    | GoAwayCode::Protocol
                    | GoAwayCode::Overload => Leaving::Refused(message.to_owned()),
                });
                let reason = format!("the host is going away: {message}");
                self.pending.fail_beyond(last_id, || not_sent(&reason));
                answer_all(self.methods.give_up_all(), || not_sent(&reason));
                self.going = Some(reason);
            }
            Header::Ping { nonce } => {
                if !self.pings.count() {
                    return Err(End::Pings);
                }
                self.outbound.push(&Header::Pong { nonce });
            }
            Header::Pong { .. } => {}
            Header::Hello(_)
            | Header::Resolve { .. }
            | Header::Describe { .. }
            | Header::Call { .. }
            | Header::Cancel { .. } => return Err(End::OutOfPlace),
        }
        Ok(())
    }

    /// A call has ended at the host.
    fn ended(&mut self, id: u64, answer: Answer) {
        if !self.pending.complete(id, answer) {
            self.cancels.forget(id);
        }
    }

    fn look_at_the_time(&mut self) -> Result<(), End> {
        if self.doubted.is_some_and(|since| since.elapsed() >= DOUBT) {
            return Err(End::GoneAway);
        }
        self.pings.refill();
        self.methods.retain(|request| !request.waiter.is_abandoned());
        for id in self.pending.abandoned() {
            self.give_up(id);
        }
        let KeepAlive { ask_after, give_up_after } = self.keep_alive;
        let waiting = !self.pending.is_empty() || self.methods.waiting() > 0;
        let ask_after = if waiting { ask_after } else { ask_after.saturating_mul(IDLE_FACTOR) };
        // A peer counts as dead only if it did not answer a ping. If our own process was paused,
        // the peer's bytes wait in the socket, and are read before the next check.
        match self.ping_sent {
            Some(sent) if sent.elapsed() >= give_up_after => {
                return Err(End::Silent(self.last_heard.elapsed()));
            }
            None if self.last_heard.elapsed() >= ask_after => {
                self.ping_sent = Some(Instant::now());
                self.outbound.push(&Header::Ping { nonce: self.last_id });
            }
            _ => {}
        }
        Ok(())
    }
}

fn answer_all(requests: Vec<Request>, failure: impl Fn() -> Failure) {
    requests.into_iter().for_each(|request| request.waiter.answer(Err(failure())));
}
