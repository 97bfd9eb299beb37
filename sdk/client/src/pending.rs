//! The calls in flight on one connection: one owner completes, cancels and fails them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wharf_wire::Assembler;

use crate::error::Failure;

/// What a request comes to.
pub(crate) type Answer = Result<Bytes, Failure>;

/// The caller's side of a request. Dropped before the answer, it cancels the request.
pub(crate) struct Ticket {
    answer: oneshot::Receiver<Answer>,
    id: Arc<AtomicU64>,
    cancels: mpsc::Sender<u64>,
    answered: bool,
}

/// The connection's side of a request.
pub(crate) struct Waiter {
    answer: oneshot::Sender<Answer>,
    id: Arc<AtomicU64>,
    /// Asking has no effect, so it may be asked again whatever became of it.
    harmless: bool,
}

/// Whether a request was handed to the host.
pub(crate) struct Sent(Arc<AtomicU64>);

impl Sent {
    pub(crate) fn yet(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// Both sides of a request that is not sent yet.
pub(crate) fn ticket(cancels: mpsc::Sender<u64>, harmless: bool) -> (Ticket, Waiter) {
    let (send, receive) = oneshot::channel();
    let id = Arc::new(AtomicU64::new(0));
    let ticket = Ticket { answer: receive, id: id.clone(), cancels, answered: false };
    (ticket, Waiter { answer: send, id, harmless })
}

impl Ticket {
    /// Tells whether the request was sent, also once the ticket is gone.
    pub(crate) fn sent(&self) -> Sent {
        Sent(self.id.clone())
    }

    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.answered = true;
        answer.unwrap_or_else(|_| {
            // The connection's task answers everyone before it ends, unless it is torn down with
            // the whole runtime.
            Err(Failure::ConnectionLost { reason: "the client ended".into(), not_executed: false })
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // Closed first, read second; the connection writes first and looks second. So either it
        // sees that nobody waits, or we see under which id it sent the request.
        self.answer.close();
        let id = self.id.load(Ordering::SeqCst);
        if id != 0 {
            // A connection that has ended has nothing to cancel; one that is behind with its cancels
            // finds by itself, within a second, that nobody waits.
            let _ = self.cancels.try_send(id);
        }
    }
}

impl Waiter {
    /// Takes an id for a request that is about to be sent; `false` when nobody waits any more.
    pub(crate) fn begin(&self, id: u64) -> bool {
        self.id.store(id, Ordering::SeqCst);
        !self.answer.is_closed()
    }

    /// Whether the caller gave up.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    pub(crate) fn answer(self, answer: Answer) {
        // The caller may have given up at this very moment.
        let _ = self.answer.send(answer);
    }
}

/// All calls that were sent, by their ids.
pub(crate) struct Pending {
    waiting: HashMap<u64, Waiter>,
    replies: Assembler<()>,
}

impl Pending {
    pub(crate) fn new(max_message: u64, max_total: u64) -> Self {
        Pending { waiting: HashMap::new(), replies: Assembler::new(max_message, max_total) }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn insert(&mut self, id: u64, waiter: Waiter) {
        self.waiting.insert(id, waiter);
    }

    /// Ends a call with its answer. One that was cancelled meanwhile is none of ours any more.
    pub(crate) fn complete(&mut self, id: u64, answer: Answer) {
        self.replies.discard(id);
        if let Some(waiter) = self.waiting.remove(&id) {
            waiter.answer(answer);
        }
    }

    /// The first part of a reply in chunks; whether the rest is wanted. What does not fit the bounds
    /// fails its call.
    pub(crate) fn begin_reply(&mut self, id: u64, total: u64, first: &[u8]) -> bool {
        if !self.waiting.contains_key(&id) {
            // It was cancelled, and the host told.
            return true;
        }
        let begun = self.replies.begin(id, (), total, first);
        let fits = begun.is_ok();
        self.assembled(id, begun);
        fits
    }

    /// A further part of a reply.
    pub(crate) fn continue_reply(&mut self, id: u64, chunk: &[u8]) {
        let pushed = self.replies.push(id, chunk);
        self.assembled(id, pushed);
    }

    fn assembled(&mut self, id: u64, part: Result<Option<((), Bytes)>, wharf_wire::AssemblyError>) {
        match part {
            Ok(None) => {}
            Ok(Some(((), whole))) => self.complete(id, Ok(whole)),
            Err(error) => {
                self.complete(id, Err(Failure::Reply(error)));
            }
        }
    }

    /// Forgets a call whose caller gave up; whether it was there.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        self.replies.discard(id);
        self.waiting.remove(&id).is_some()
    }

    /// Calls whose callers gave up.
    pub(crate) fn abandoned(&self) -> Vec<u64> {
        let abandoned = self.waiting.iter().filter(|(_, waiter)| waiter.is_abandoned());
        abandoned.map(|(id, _)| *id).collect()
    }

    /// Fails all calls: the connection is gone, and nobody knows what became of them.
    pub(crate) fn lose(&mut self, reason: &str) {
        for (_, waiter) in self.waiting.drain() {
            let not_executed = waiter.harmless;
            waiter.answer(Err(Failure::ConnectionLost { reason: reason.to_owned(), not_executed }));
        }
    }

    /// Fails all calls beyond an id.
    pub(crate) fn fail_beyond(&mut self, last: u64, failure: impl Fn() -> Failure) {
        let ids: Vec<u64> = self.waiting.keys().copied().filter(|id| *id > last).collect();
        for id in ids {
            self.complete(id, Err(failure()));
        }
    }
}
