//! One connection to one endpoint, as its callers see it.
//!
//! Callers hand requests to the task and wait; only the task touches the socket, so a caller that
//! gives up can leave nothing half written.

mod task;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use self::task::{Task, Way};
use crate::error::{ConnectError, Failure};
use crate::methods::MethodKey;
use crate::opening;
use crate::pending::{Waiter, ticket};

/// Requests that may wait for the task; callers beyond them wait for a place.
const REQUESTS: usize = 1024;

/// Calls in flight on one connection, however many more its host would take.
const MAX_CALLS: u32 = 16 * 1024;

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Shown to hosts.
    pub(crate) token: Vec<u8>,
    /// To each endpoint.
    pub(crate) connections: NonZeroUsize,
    pub(crate) keep_alive: KeepAlive,
}

/// How a peer is found that went away without a word: stopped, cut off, or gone with its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// A peer that says nothing for so long while calls wait for it is asked whether it lives;
    /// 1 second unless told otherwise. While none wait, it is asked after ten times as long.
    pub ask_after: Duration,
    /// If it does not answer for so long, the connection is given up, with the calls on it;
    /// 3 seconds unless told otherwise. Either is looked at twice a second.
    pub give_up_after: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        KeepAlive { ask_after: Duration::from_secs(1), give_up_after: Duration::from_secs(3) }
    }
}

/// Why a connection takes no more calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It was not used for long.
    Idle,
    /// The host goes away, or is gone; why.
    Lost(String),
    /// The host does not want us; why.
    Refused(String),
}

/// The way to a connection's task. When the last one is gone, the connection closes.
pub(crate) struct Connection {
    requests: mpsc::Sender<Request>,
    cancels: mpsc::Sender<u64>,
    open: Arc<AtomicBool>,
    max_message: u64,
}

struct Request {
    question: Question,
    deadline: Instant,
    waiter: Waiter,
}

/// When a call began and when it is over, and what the caller allowed for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) begun: Instant,
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
}

/// What a caller wants to know; the same may be asked of several endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// The result of a method.
    Call { method: Arc<MethodKey>, arguments: Bytes, metadata: Bytes },
    /// A service's description.
    Describe { service: Arc<str> },
}

impl Question {
    /// Whether asking changes nothing, so that it may be asked again whatever became of it.
    pub(crate) fn is_harmless(&self) -> bool {
        matches!(self, Question::Describe { .. })
    }
}

impl Connection {
    /// Connects and starts the task; what comes beside tells when no more calls are taken.
    pub(crate) async fn open(
        address: &str,
        settings: &Settings,
        timeout: Duration,
    ) -> Result<(Self, oneshot::Receiver<Leaving>), ConnectError> {
        let opened = opening::open(address, &settings.token, timeout).await?;
        let max_message = opened.negotiated.max_message;
        let (requests, to_do) = mpsc::channel(REQUESTS);
        let max_calls = opened.negotiated.max_calls.clamp(1, MAX_CALLS) as usize;
        // Of calls in flight, and of those that were answered since cancels were last looked at:
        // there are never more.
        let (cancels, to_cancel) = mpsc::channel(2 * max_calls);
        let (leave, leaving) = oneshot::channel();
        let open = Arc::new(AtomicBool::new(true));
        let way = Way { requests: to_do, cancels: to_cancel, open: open.clone(), leave };
        let task = Task::new(opened, way, max_calls, settings.keep_alive);
        let address = address.to_owned();
        tokio::spawn(async move {
            let end = task.run().await;
            tracing::debug!(address, end, "a connection ended");
        });
        Ok((Connection { requests, cancels, open, max_message }, leaving))
    }

    /// Whether it takes new calls.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) && !self.requests.is_closed()
    }

    /// Asks the host, until the deadline; `now` is the time. Dropping the future cancels the question
    /// there. An answer may have come after the deadline.
    pub(crate) async fn ask(
        &self,
        question: Question,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Bytes, Failure> {
        if let Question::Call { arguments, .. } = &question {
            let len = arguments.len() as u64;
            if len > self.max_message {
                return Err(Failure::TooLarge { len, max: self.max_message });
            }
        }
        if now >= deadline.at {
            return Err(deadline.passed(true));
        }
        let harmless = question.is_harmless();
        let (mut ticket, waiter) = ticket(&self.cancels, harmless);
        match self.requests.try_send(Request { question, deadline: deadline.at, waiter }) {
            Ok(()) => {}
            // Apart from here, since nearly all calls have a place at once.
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

    /// Waits for a place among those that wait for the task.
    async fn queue(&self, request: Request, deadline: Deadline) -> Result<(), Failure> {
        match tokio::time::timeout_at(deadline.at.into(), self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(deadline.passed(true)),
        }
    }
}

impl Deadline {
    /// What a call fails with that was not answered in time.
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
