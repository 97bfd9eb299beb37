//! One connection to one endpoint, as its callers see it.
//!
//! Callers hand requests to the task and wait. Only the task touches the socket, so a caller that
//! gives up leaves nothing half written.

mod cancels;
mod credit;
mod failures;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use self::credit::Credit;
use self::task::{Task, Way};
use crate::error::{ConnectError, Failure};
use crate::methods::MethodKey;
use crate::opening;
use crate::pending::{Waiter, ticket};
use crate::settings::Settings;

/// The length of the queue of requests; further callers wait for a place in it.
const REQUESTS: usize = 1024;

/// The most calls in flight on one connection, even if its host takes more.
const MAX_CALLS: u32 = 16 * 1024;

/// Why a connection takes no more calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It was not used for a long time.
    Idle,
    /// The host is going away, or is gone; why.
    Lost(String),
    /// The host refuses this client; why.
    Refused(String),
}

/// A handle for a connection's task. When the last one is dropped, the connection closes.
pub(crate) struct Connection {
    requests: mpsc::Sender<Request>,
    given_up: mpsc::Sender<u64>,
    open: Arc<AtomicBool>,
    max_message: u64,
    credit: Credit,
}

struct Request {
    question: Question,
    deadline: Instant,
    waiter: Waiter,
}

/// When a call began, when its deadline is, and the timeout that the caller set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) begun: Instant,
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
}

/// The content of a request. The same one may be sent to several endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// The result of a method.
    Call { method: Arc<MethodKey>, arguments: Bytes, metadata: Bytes },
    /// A service's description.
    Describe { service: Arc<str> },
}

impl Question {
    /// Whether it has no effect, so that it may always be sent again.
    pub(crate) fn is_harmless(&self) -> bool {
        matches!(self, Question::Describe { .. })
    }
}

impl Connection {
    /// Connects and starts the task. The receiver tells when no more calls are taken.
    pub(crate) async fn open(
        (address, host): (&str, &str),
        settings: &Settings,
        timeout: Duration,
    ) -> Result<(Self, oneshot::Receiver<Leaving>), ConnectError> {
        let opened = opening::open((address, host), settings, timeout).await?;
        let (max_message, credit) =
            (opened.negotiated.max_message, Credit::new(&opened.negotiated));
        let (requests, to_do) = mpsc::channel(REQUESTS);
        let max_calls = opened.negotiated.max_calls.clamp(1, MAX_CALLS) as usize;
        // There is room for all calls in flight, and for those answered since cancels were last
        // read. There are never more cancels than that.
        let (given_up, to_cancel) = mpsc::channel(2 * max_calls);
        let (leave, leaving) = oneshot::channel();
        let open = Arc::new(AtomicBool::new(true));
        let way = Way { requests: to_do, given_up: to_cancel, open: open.clone(), leave };
        let task = Task::new(opened, way, max_calls, settings.keep_alive);
        let address = address.to_owned();
        tokio::spawn(async move {
            let end = task.run().await;
            tracing::debug!(address, end, "a connection ended");
        });
        Ok((Connection { requests, given_up, open, max_message, credit }, leaving))
    }

    /// Whether it takes new calls.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) && !self.requests.is_closed()
    }

    /// Sends a question to the host, and waits for the answer until the deadline; `now` is the
    /// current time. Dropping the future cancels the question at the host. The answer may have come
    /// after the deadline.
    pub(crate) async fn ask(
        &self,
        question: Question,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Bytes, Failure> {
        if now >= deadline.at {
            return Err(deadline.passed(true));
        }
        // Given back after the ticket: when other arguments take its place, the Cancel is on its way.
        let mut _credit = None;
        if let Question::Call { arguments, .. } = &question {
            let len = arguments.len() as u64;
            if len > self.max_message {
                return Err(Failure::TooLarge { len, max: self.max_message });
            }
            if self.credit.is_needed_for(len) {
                // Boxed, because most arguments need none.
                let taken = tokio::time::timeout_at(deadline.at.into(), self.credit.take(len));
                _credit = Some(Box::pin(taken).await.map_err(|_| deadline.passed(true))?);
            }
        }
        let harmless = question.is_harmless();
        let (mut ticket, waiter) = ticket(&self.given_up, harmless);
        match self.requests.try_send(Request { question, deadline: deadline.at, waiter }) {
            Ok(()) => {}
            // Boxed, because nearly all calls find a place at once.
            Err(TrySendError::Full(request)) => Box::pin(self.queue(request, deadline)).await?,
            Err(TrySendError::Closed(_)) => return Err(closed()),
        }
        match tokio::time::timeout_at(deadline.at.into(), &mut ticket).await {
            Ok(answer) => answer,
            Err(_) => {
                let was_sent = ticket.give_up();
                Err(deadline.passed(harmless || !was_sent))
            }
        }
    }

    /// Waits for a place in the queue of requests.
    async fn queue(&self, request: Request, deadline: Deadline) -> Result<(), Failure> {
        match tokio::time::timeout_at(deadline.at.into(), self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(deadline.passed(true)),
        }
    }
}

impl Deadline {
    /// The failure of a call that was not answered in time.
    pub(crate) fn passed(self, not_executed: bool) -> Failure {
        Failure::DeadlineExceeded { timeout: self.timeout, not_executed }
    }
}

fn closed() -> Failure {
    not_sent("it was closed before the call was sent")
}

fn not_sent(reason: &str) -> Failure {
    Failure::ConnectionLost { reason: reason.to_owned(), not_executed: true }
}
