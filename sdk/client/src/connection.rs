//! One connection to one endpoint, as its callers see it.
//!
//! Callers hand requests to the task and wait; only the task touches the socket, so a caller that
//! gives up can leave nothing half written.

mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use wharf_wire::TraceParent;

use self::task::Task;
use crate::error::{ConnectError, Failure};
use crate::methods::Method;
use crate::opening;
use crate::pending::{Waiter, ticket};

/// Requests that may wait for the task; callers beyond them wait for a place.
const REQUESTS: usize = 1024;

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

/// When a call is over, and what the caller allowed for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
}

/// What a caller wants to know; the same may be asked of several endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// The result of a method.
    Call { method: Method, arguments: Bytes, trace_parent: Option<TraceParent> },
    /// A service's description.
    Describe { service: Arc<str> },
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

    /// Asks the host, until the deadline. Dropping the future cancels the question there.
    pub(crate) async fn ask(
        &self,
        question: Question,
        Deadline { at, timeout }: Deadline,
    ) -> Result<Bytes, Failure> {
        if let Question::Call { arguments, .. } = &question {
            let len = arguments.len() as u64;
            if len > self.max_message {
                return Err(Failure::TooLarge { len, max: self.max_message });
            }
        }
        let harmless = matches!(question, Question::Describe { .. });
        let (ticket, waiter) = ticket(self.cancels.clone(), harmless);
        let sent = ticket.sent();
        let asking = async {
            if self.requests.send(Request { question, deadline: at, waiter }).await.is_err() {
                return Err(not_sent("it was closed before the call was sent"));
            }
            ticket.answer().await
        };
        tokio::time::timeout_at(at.into(), asking).await.unwrap_or_else(|_| {
            let not_executed = harmless || !sent.yet();
            Err(Failure::DeadlineExceeded { timeout, not_executed })
        })
    }
}

fn not_sent(reason: &str) -> Failure {
    Failure::ConnectionLost { reason: reason.to_owned(), not_executed: true }
}
