//! The task that owns a connection: its socket and all of its state, without a lock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{poll_read_buf, poll_write_buf};
use wharf_schema::Fingerprint;
use wharf_wire::{
    Body, DetailKind, FrameError, GoAwayCode, Header, Inbound, Metadata, Outbound, Status, Timeout,
    limits,
};

use super::{KeepAlive, Leaving, Question, Request, not_sent};
use crate::error::{Failure, Remote};
use crate::methods::{MethodKey, Methods, Resolved};
use crate::opening::Opened;
use crate::pending::Pending;

/// Bytes read from the socket at once.
const READ: usize = 64 * 1024;

/// Requests taken in a row before they are written.
const BATCH: usize = 256;

/// While more than this is ready to be written, no requests are taken.
const OUTBOUND_PAUSE: usize = 1024 * 1024;

/// The same for arguments that go in chunks, which hold nobody back: they are held in memory.
const UPLOADS_PAUSE: usize = 64 * 1024 * 1024;

/// Replies that arrive in chunks, all unfinished ones of a connection together.
const UNFINISHED_MAX: u64 = 256 * 1024 * 1024;

/// How often time is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// While no calls wait, a peer may be silent for so many times as long before it is asked.
const IDLE_FACTOR: u32 = 10;

/// Cancels that may be sent in a row, and how many more each second: well below what hosts take for
/// an attack. A call whose Cancel is not sent ends with its deadline.
const CANCELS: u32 = 1024;
const CANCELS_PER_LOOK: u32 = 256;

/// How far taking requests came.
enum Took {
    /// To the last one; the next wakes the task.
    All,
    /// To the end of its turn.
    Some,
    /// To what the host or the socket takes at the moment.
    NoRoom,
}

/// What callers and the task hold the two ends of.
pub(super) struct Way {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) cancels: mpsc::Receiver<u64>,
    /// Whether new calls are taken.
    pub(super) open: Arc<AtomicBool>,
    /// Tells when they are not any more.
    pub(super) leave: oneshot::Sender<Leaving>,
}

pub(super) struct Task {
    stream: TcpStream,
    inbound: Inbound,
    outbound: Outbound,
    requests: mpsc::Receiver<Request>,
    cancels: mpsc::Receiver<u64>,
    open: Arc<AtomicBool>,
    leave: Option<oneshot::Sender<Leaving>>,
    keep_alive: KeepAlive,
    pending: Pending,
    methods: Methods<Request>,
    /// Requests that were just taken; empty between the turns of the task.
    batch: Vec<Request>,
    last_id: u64,
    max_calls: usize,
    cancels_left: u32,
    /// The time, as this turn of the task began.
    now: Instant,
    last_heard: Instant,
    /// When the peer was asked whether it lives, and has not been heard since.
    ping_sent: Option<Instant>,
    /// Set once the host takes no new calls: why.
    going: Option<String>,
    /// Requests were taken that are not written yet, since more may come at any moment.
    gathering: bool,
}

impl Task {
    pub(super) fn new(
        opened: Opened,
        Way { requests, cancels, open, leave }: Way,
        max_calls: usize,
        keep_alive: KeepAlive,
    ) -> Self {
        let now = Instant::now();
        Task {
            stream: opened.stream,
            inbound: opened.inbound,
            outbound: Outbound::new(opened.negotiated.chunk),
            requests,
            cancels,
            open,
            leave: Some(leave),
            keep_alive,
            pending: Pending::new(limits::MAX_MESSAGE, UNFINISHED_MAX),
            methods: Methods::new(),
            batch: Vec::new(),
            cancels_left: CANCELS,
            ping_sent: None,
            last_id: 0,
            max_calls,
            now,
            last_heard: now,
            going: None,
            gathering: false,
        }
    }

    /// Runs to the connection's end; says why it ended.
    pub(super) async fn run(mut self) -> String {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = std::future::poll_fn(|cx| {
            // Read first, judge the silence after.
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

    fn take_no_more(&mut self, leaving: Leaving) {
        self.open.store(false, Ordering::Release);
        if let Some(leave) = self.leave.take() {
            // The client may be gone.
            let _ = leave.send(leaving);
        }
    }

    /// Does what can be done, until nothing can.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            self.now = Instant::now();
            let took = self.poll_requests(cx)?;
            if self.gathers() {
                // To the end of the runtime's queue: behind the callers that were just answered.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let read = self.poll_read(cx)?;
            self.poll_write(cx)?;
            if self.going.is_some() && self.pending.is_empty() {
                return Err(End::GoneAway);
            }
            let goes_on = match took {
                Took::All => false,
                Took::Some => true,
                // Nothing wakes this task for requests that it does not take, so if there is
                // room by now, it must go on by itself.
                Took::NoRoom => self.has_room(),
            };
            if !goes_on && !read {
                return Ok(());
            }
        }
    }

    /// Whether to let other callers run before anything is written. Many are answered out of one read,
    /// and call again one after the other: without this, each would cost a write of its own, here, and
    /// a read and another write at the host.
    fn gathers(&mut self) -> bool {
        let more_may_come = self.outbound.has_remaining() && self.pending.len() > 1;
        self.gathering = more_may_come && !self.gathering;
        self.gathering
    }

    /// Whether the host takes more calls, and the socket more bytes. Once no call is taken, there is
    /// always room to say so.
    fn has_room(&self) -> bool {
        self.going.is_some() || self.takes_more()
    }

    fn takes_more(&self) -> bool {
        self.pending.len() + self.methods.waiting() < self.max_calls
            && self.outbound.remaining() <= OUTBOUND_PAUSE
            && self.outbound.queued() <= UPLOADS_PAUSE
    }

    /// Takes requests and cancels, a bounded number of times.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<Took, End> {
        while let Poll::Ready(Some(id)) = self.cancels.poll_recv(cx) {
            self.cancel(id);
        }
        if !self.has_room() {
            return Ok(Took::NoRoom);
        }
        // Once no call is taken, each only learns of that.
        let room = self.max_calls.saturating_sub(self.pending.len() + self.methods.waiting());
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

    fn cancel(&mut self, id: u64) {
        if self.pending.cancel(id) {
            self.outbound.abandon(id);
            if let Some(left) = self.cancels_left.checked_sub(1) {
                self.cancels_left = left;
                self.outbound.push(&Header::Cancel { id });
            }
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

    /// Sends a call, unless it was made for another signature than the one behind the index.
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

    /// Dispatches and reads once; whether there may be more at once.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        // What came together with the Hello is here already.
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

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.outbound.has_remaining() {
            match poll_write_buf(Pin::new(&mut self.stream), cx, &mut self.outbound) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(End::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(End::Io(error)),
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, header: Header<'_>, payload: Bytes) -> Result<(), End> {
        match header {
            Header::Reply { id, body: Body::Whole } => {
                self.pending.complete(id, Ok(payload));
            }
            Header::Reply { id, body: Body::Chunked(total) } => {
                if !self.pending.begin_reply(id, total, &payload) {
                    self.outbound.push(&Header::Cancel { id });
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
                // The method behind the index is gone or another: ask again for the next call.
                let stale = fail.not_executed
                    && matches!(fail.status, Status::FailedPrecondition | Status::Unavailable);
                if stale && let Some((method, index)) = self.pending.method(fail.id) {
                    self.methods.stale(&method, index);
                }
                // What is left of its arguments need not be sent.
                self.outbound.abandon(fail.id);
                self.pending.complete(fail.id, Err(Failure::Remote(Box::new(remote()))));
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
                let reason = format!("the host goes away: {message}");
                self.pending.fail_beyond(last_id, || not_sent(&reason));
                answer_all(self.methods.give_up_all(), || not_sent(&reason));
                self.going = Some(reason);
            }
            Header::Ping { nonce } => self.outbound.push(&Header::Pong { nonce }),
            Header::Pong { .. } => {}
            Header::Hello(_)
            | Header::Resolve { .. }
            | Header::Describe { .. }
            | Header::Call { .. }
            | Header::Cancel { .. } => return Err(End::OutOfPlace),
        }
        Ok(())
    }

    fn look_at_the_time(&mut self) -> Result<(), End> {
        self.cancels_left = (self.cancels_left + CANCELS_PER_LOOK).min(CANCELS);
        self.methods.retain(|request| !request.waiter.is_abandoned());
        for id in self.pending.abandoned() {
            self.cancel(id);
        }
        let KeepAlive { ask_after, give_up_after } = self.keep_alive;
        let waiting = !self.pending.is_empty() || self.methods.waiting() > 0;
        let ask_after = if waiting { ask_after } else { ask_after.saturating_mul(IDLE_FACTOR) };
        // Only a peer that was asked can be found dead: after a pause of our own process, what it
        // sent meanwhile lies in the socket and is read before this looks again.
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

/// Two endpoints serve the same name with different signatures.
fn mismatch(method: &MethodKey) -> Failure {
    Failure::Remote(Box::new(Remote {
        status: Status::FailedPrecondition,
        message: format!(
            "{}: the signature here is another than the first one that this client has met",
            method.name
        ),
        not_executed: true,
        retry_after: None,
        served_wit: Some(String::new()),
    }))
}

fn remote(fail: &wharf_wire::Fail<'_>, detail: &[u8]) -> Remote {
    Remote {
        status: fail.status,
        message: fail.message.to_owned(),
        not_executed: fail.not_executed,
        retry_after: fail.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        served_wit: (fail.detail == DetailKind::SchemaMismatch)
            .then(|| String::from_utf8_lossy(detail).into_owned()),
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("nobody uses it")]
    Unused,
    #[error("the host closed it")]
    Closed,
    #[error("the host went away in good order")]
    GoneAway,
    #[error("the host was silent for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the host broke the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the host broke the protocol: a frame that only callers send")]
    OutOfPlace,
}
