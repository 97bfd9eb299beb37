//! One connection to one endpoint: a task that owns its socket and all of its state.
//!
//! Callers hand requests to the task and wait; only the task touches the socket, so a caller that
//! gives up can leave nothing half written.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use wharf_schema::Fingerprint;
use wharf_wire::{
    Body, DetailKind, FrameError, Header, Inbound, Metadata, Outbound, Status, Timeout, limits,
};

use crate::error::{ConnectError, Failure, Remote};
use crate::opening::{self, Opened};
use crate::pending::{Pending, Waiter, ticket};

/// Requests that may wait for the task; callers beyond them wait for a place.
const REQUESTS: usize = 1024;

/// Bytes read from the socket at once.
const READ: usize = 64 * 1024;

/// Requests taken in a row before they are written.
const BATCH: usize = 256;

/// While more than this waits to be written, no requests are taken.
const OUTBOUND_PAUSE: usize = 1024 * 1024;

/// Replies that arrive in chunks, all unfinished ones of a connection together.
const UNFINISHED_MAX: u64 = 256 * 1024 * 1024;

/// How often time is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A peer that was silent for this long is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(10);

/// A peer that is silent for this long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// The way to a connection's task. When the last one is gone, the connection closes.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: mpsc::Sender<Request>,
    cancels: mpsc::UnboundedSender<u64>,
    open: Arc<AtomicBool>,
    max_message: u64,
}

struct Request {
    question: Question,
    deadline: Instant,
    waiter: Waiter,
}

/// What a caller wants to know; the same may be asked of several endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// The result of a method.
    Call { method: Method, arguments: Bytes },
    /// A service's description.
    Describe { service: Arc<str> },
}

/// A method as a caller means it: each is resolved once per connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Method {
    pub(crate) name: Arc<str>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Connection {
    /// Connects and starts the task.
    pub(crate) async fn open(
        address: &str,
        token: &[u8],
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let opened = opening::open(address, token, timeout).await?;
        let max_message = opened.negotiated.max_message;
        let (requests, to_do) = mpsc::channel(REQUESTS);
        let (cancels, to_cancel) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicBool::new(true));
        let task = Task::new(opened, to_do, to_cancel, open.clone());
        let address = address.to_owned();
        tokio::spawn(async move {
            let end = task.run().await;
            tracing::debug!(address, end, "a connection ended");
        });
        Ok(Connection { requests, cancels, open, max_message })
    }

    /// Whether it takes new calls.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) && !self.requests.is_closed()
    }

    /// Asks the host. Dropping the future cancels the question there.
    pub(crate) async fn ask(
        &self,
        question: Question,
        deadline: Instant,
    ) -> Result<Bytes, Failure> {
        if let Question::Call { arguments, .. } = &question {
            let len = arguments.len() as u64;
            if len > self.max_message {
                return Err(Failure::TooLarge { len, max: self.max_message });
            }
        }
        let (ticket, waiter) = ticket(self.cancels.clone());
        if self.requests.send(Request { question, deadline, waiter }).await.is_err() {
            return Err(not_sent("it was closed before the call was sent"));
        }
        ticket.answer().await
    }
}

fn not_sent(reason: &str) -> Failure {
    Failure::ConnectionLost { reason: reason.to_owned(), not_executed: true }
}

/// What is known of a method on this connection.
enum Resolution {
    /// Calls use this index.
    Known(u32),
    /// It is asked for; these wait for the answer.
    Asked(Vec<Request>),
}

struct Task {
    stream: TcpStream,
    inbound: Inbound,
    outbound: Outbound,
    requests: mpsc::Receiver<Request>,
    cancels: mpsc::UnboundedReceiver<u64>,
    open: Arc<AtomicBool>,
    pending: Pending,
    /// Resolutions that were asked for, by the id of the question.
    questions: HashMap<u64, Method>,
    /// Which method a call is of, while its index may turn out to be stale.
    methods: HashMap<Method, Resolution>,
    calls: HashMap<u64, Method>,
    last_id: u64,
    max_calls: usize,
    last_heard: Instant,
    last_asked: Instant,
    /// The host takes no new calls.
    going: bool,
}

impl Task {
    fn new(
        opened: Opened,
        requests: mpsc::Receiver<Request>,
        cancels: mpsc::UnboundedReceiver<u64>,
        open: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Task {
            stream: opened.stream,
            inbound: opened.inbound,
            outbound: Outbound::new(opened.negotiated.chunk),
            requests,
            cancels,
            open,
            pending: Pending::new(limits::MAX_MESSAGE, UNFINISHED_MAX),
            questions: HashMap::new(),
            methods: HashMap::new(),
            calls: HashMap::new(),
            last_id: 0,
            max_calls: opened.negotiated.max_calls.max(1) as usize,
            last_heard: now,
            last_asked: now,
            going: false,
        }
    }

    /// Runs to the connection's end; says why it ended.
    async fn run(mut self) -> String {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = std::future::poll_fn(|cx| {
            while looks.poll_tick(cx).is_ready() {
                if let Err(end) = self.look_at_the_time() {
                    return Poll::Ready(end);
                }
            }
            match self.poll(cx) {
                Ok(()) => Poll::Pending,
                Err(end) => Poll::Ready(end),
            }
        })
        .await;
        self.open.store(false, Ordering::Release);
        let reason = end.to_string();
        self.requests.close();
        self.pending.fail_beyond(0, || Failure::ConnectionLost {
            reason: reason.clone(),
            not_executed: false,
        });
        for (_, resolution) in self.methods.drain() {
            if let Resolution::Asked(waiting) = resolution {
                waiting
                    .into_iter()
                    .for_each(|request| request.waiter.answer(Err(not_sent(&reason))));
            }
        }
        while let Some(request) = self.requests.recv().await {
            request.waiter.answer(Err(not_sent(&reason)));
        }
        reason
    }

    /// Does what can be done, until nothing can.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let took = self.poll_requests(cx)?;
            let read = self.poll_read(cx)?;
            self.poll_write(cx)?;
            if self.going && self.pending.is_empty() {
                return Err(End::GoneAway);
            }
            if !took && !read {
                return Ok(());
            }
        }
    }

    /// Takes requests and cancels; whether there may be more at once.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        while let Poll::Ready(Some(id)) = self.cancels.poll_recv(cx) {
            if self.pending.cancel(id) {
                self.calls.remove(&id);
                self.outbound.abandon(id);
                self.outbound.push(&Header::Cancel { id });
            }
        }
        for _ in 0..BATCH {
            if self.pending.len() >= self.max_calls || self.outbound.queued() > OUTBOUND_PAUSE {
                // An answer, or room to write, wakes the task.
                return Ok(false);
            }
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.take(request),
                Poll::Ready(None) if self.pending.is_empty() => return Err(End::Unused),
                Poll::Ready(None) | Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn take(&mut self, request: Request) {
        if self.going {
            return request.waiter.answer(Err(not_sent("the host shuts down")));
        }
        if request.waiter.is_abandoned() {
            return;
        }
        let Question::Call { method, .. } = &request.question else { return self.send(request, 0) };
        match self.methods.get_mut(method) {
            Some(Resolution::Known(index)) => {
                let index = *index;
                self.send(request, index);
            }
            Some(Resolution::Asked(waiting)) => waiting.push(request),
            None => {
                let method = method.clone();
                let id = self.next_id();
                let fingerprint = method.fingerprint.map(|fingerprint| fingerprint.0);
                self.outbound.push(&Header::Resolve { id, name: &method.name, fingerprint });
                self.questions.insert(id, method.clone());
                self.methods.insert(method, Resolution::Asked(vec![request]));
            }
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
            }
            Question::Call { method, arguments } => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.outbound.push_message(id, arguments, |body| Header::Call {
                    id,
                    method: index,
                    timeout: Timeout::after(left),
                    metadata: Metadata::default(),
                    body,
                });
                self.calls.insert(id, method);
            }
        }
        self.pending.insert(id, waiter);
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Reads and dispatches once; whether there may be more at once.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.inbound.buffer().reserve(READ);
        match poll_read_buf(Pin::new(&mut self.stream), cx, self.inbound.buffer()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(End::Closed),
            Poll::Ready(Ok(_)) => {
                self.last_heard = Instant::now();
                while let Some(frame) = self.inbound.next_frame()? {
                    let (header, payload) = frame.parse()?;
                    self.dispatch(header, payload)?;
                }
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(End::Io(error)),
        }
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
                self.calls.remove(&id);
                self.pending.complete(id, Ok(payload));
            }
            Header::Reply { id, body: Body::Chunked(total) } => {
                self.calls.remove(&id);
                self.pending.begin_reply(id, total, &payload);
            }
            Header::Chunk { id } => self.pending.continue_reply(id, &payload),
            Header::Resolved { id, method, .. } => {
                if let Some(asked) = self.questions.remove(&id) {
                    let known = Resolution::Known(method);
                    if let Some(Resolution::Asked(waiting)) = self.methods.insert(asked, known) {
                        waiting.into_iter().for_each(|request| self.send(request, method));
                    }
                }
            }
            Header::Fail(fail) => {
                let remote = || remote(&fail, &payload);
                if let Some(asked) = self.questions.remove(&fail.id) {
                    if let Some(Resolution::Asked(waiting)) = self.methods.remove(&asked) {
                        for request in waiting {
                            request.waiter.answer(Err(Failure::Remote(Box::new(remote()))));
                        }
                    }
                    return Ok(());
                }
                // The method behind the index is gone or another: ask again for the next call.
                let stale = fail.not_executed
                    && matches!(fail.status, Status::FailedPrecondition | Status::Unavailable);
                if let Some(method) = self.calls.remove(&fail.id)
                    && stale
                {
                    self.methods.remove(&method);
                }
                // What is left of its arguments need not be sent.
                self.outbound.abandon(fail.id);
                self.pending.complete(fail.id, Err(Failure::Remote(Box::new(remote()))));
            }
            Header::GoAway { last_id, message, .. } => {
                self.going = true;
                self.open.store(false, Ordering::Release);
                let reason = format!("the host goes away: {message}");
                self.pending.fail_beyond(last_id, || not_sent(&reason));
                for (_, resolution) in self.methods.drain() {
                    if let Resolution::Asked(waiting) = resolution {
                        let answer =
                            |request: Request| request.waiter.answer(Err(not_sent(&reason)));
                        waiting.into_iter().for_each(answer);
                    }
                }
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
        let silent = self.last_heard.elapsed();
        if silent >= DEAD_AFTER {
            return Err(End::Silent(silent));
        }
        if silent >= PING_AFTER && self.last_asked < self.last_heard {
            self.last_asked = Instant::now();
            self.outbound.push(&Header::Ping { nonce: self.last_id });
        }
        Ok(())
    }
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
