//! The calls in flight on one connection: one owner completes, cancels and fails them.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::mpsc;
use wharf_wire::Assembler;

use crate::error::Failure;
use crate::id_hasher::IdHasher;
use crate::methods::MethodKey;

/// The result of a request.
pub(crate) type Answer = Result<Bytes, Failure>;

/// What a request and its caller share.
struct Meeting {
    /// The id under which the request was sent; 0 before that.
    id: AtomicU64,
    /// The request has no effect, so it may always be sent again.
    harmless: bool,
    state: Mutex<Progress>,
}

enum Progress {
    /// The caller has not polled yet.
    New,
    /// The caller waits, and has to be woken.
    Waiting(Waker),
    Answered(Answer),
    /// The caller has taken its answer, or has given up.
    Over,
    /// There will be no answer.
    Lost,
}

impl Meeting {
    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: Progress) {
        let mut state = self.state();
        // The caller may just have given up.
        if let Progress::Over | Progress::Answered(_) = *state {
            return;
        }
        let before = std::mem::replace(&mut *state, end);
        drop(state);
        if let Progress::Waiting(waker) = before {
            waker.wake();
        }
    }
}

/// The caller's side of a request: a future of the answer. Dropping it before that cancels the
/// request.
pub(crate) struct Ticket<'c> {
    meeting: Arc<Meeting>,
    given_up: &'c mpsc::Sender<u64>,
    answered: bool,
}

/// The connection's side of a request.
pub(crate) struct Waiter(Arc<Meeting>);

/// Both sides of a request that is not sent yet.
pub(crate) fn ticket(given_up: &mpsc::Sender<u64>, harmless: bool) -> (Ticket<'_>, Waiter) {
    let meeting =
        Arc::new(Meeting { id: AtomicU64::new(0), harmless, state: Mutex::new(Progress::New) });
    (Ticket { meeting: meeting.clone(), given_up, answered: false }, Waiter(meeting))
}

impl Ticket<'_> {
    /// Stops waiting for the answer. Returns whether the request was handed to the host.
    pub(crate) fn give_up(&mut self) -> bool {
        self.answered = matches!(self.close(), Progress::Answered(_));
        self.meeting.id.load(Ordering::SeqCst) != 0
    }

    /// The caller closes the state first, and reads the id second. The connection writes the id
    /// first, and checks the state second. So either the connection sees that nobody waits, or the
    /// caller sees the id under which the request was sent.
    fn close(&self) -> Progress {
        std::mem::replace(&mut *self.meeting.state(), Progress::Over)
    }
}

impl Future for Ticket<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.meeting.state();
        match std::mem::replace(&mut *state, Progress::Over) {
            Progress::Waiting(waker) if waker.will_wake(cx.waker()) => {
                *state = Progress::Waiting(waker);
                Poll::Pending
            }
            Progress::New | Progress::Waiting(_) => {
                *state = Progress::Waiting(cx.waker().clone());
                Poll::Pending
            }
            Progress::Answered(answer) => {
                drop(state);
                self.answered = true;
                Poll::Ready(answer)
            }
            Progress::Lost | Progress::Over => {
                drop(state);
                self.answered = true;
                // The connection's task answers all requests before it ends, unless it is dropped
                // together with the whole runtime.
                let reason = "the client ended".into();
                Poll::Ready(Err(Failure::ConnectionLost { reason, not_executed: false }))
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let state = self.close();
        let id = self.meeting.id.load(Ordering::SeqCst);
        if id != 0 && !matches!(state, Progress::Answered(_)) {
            // If the connection has ended, there is nothing to cancel. If its queue is full, its task
            // finds this call by itself, within a second.
            let _ = self.given_up.try_send(id);
        }
    }
}

impl Waiter {
    /// Sets the id of a request that is about to be sent. Returns `false` if nobody waits any more.
    pub(crate) fn begin(&self, id: u64) -> bool {
        self.0.id.store(id, Ordering::SeqCst);
        !self.is_abandoned()
    }

    /// Whether the caller gave up.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(*self.0.state(), Progress::Over)
    }

    pub(crate) fn answer(self, answer: Answer) {
        self.0.end(Progress::Answered(answer));
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.end(Progress::Lost);
    }
}

/// All calls that were sent, by their ids.
pub(crate) struct Pending {
    waiting: HashMap<u64, Sent, BuildHasherDefault<IdHasher>>,
    replies: Assembler<()>,
}

struct Sent {
    waiter: Waiter,
    /// The method of a call and the index that it was sent with, which may turn out to be stale.
    method: Option<(Arc<MethodKey>, u32)>,
}

impl Pending {
    pub(crate) fn new(max_message: u64, max_total: u64) -> Self {
        Pending { waiting: HashMap::default(), replies: Assembler::new(max_message, max_total) }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn insert(
        &mut self,
        id: u64,
        waiter: Waiter,
        method: Option<(Arc<MethodKey>, u32)>,
    ) {
        self.waiting.insert(id, Sent { waiter, method });
    }

    /// The method of a call, and the index that stood for it when it was sent.
    pub(crate) fn method(&self, id: u64) -> Option<(Arc<MethodKey>, u32)> {
        self.waiting.get(&id)?.method.clone()
    }

    /// Ends a call with its answer. Returns `false` if the call was given up in the meantime.
    pub(crate) fn complete(&mut self, id: u64, answer: Answer) -> bool {
        self.replies.discard(id);
        let sent = self.waiting.remove(&id);
        let was_there = sent.is_some();
        if let Some(Sent { waiter, .. }) = sent {
            waiter.answer(answer);
        }
        was_there
    }

    /// Takes the first part of a chunked reply. Returns whether the rest is wanted. A reply that
    /// exceeds the limits fails its call.
    pub(crate) fn begin_reply(&mut self, id: u64, total: u64, first: &[u8]) -> bool {
        if !self.waiting.contains_key(&id) {
            // It was cancelled, and the host has been told.
            return true;
        }
        let begun = self.replies.begin(id, (), total, first);
        let fits = begun.is_ok();
        self.assembled(id, begun);
        fits
    }

    /// Takes a further part of a reply.
    pub(crate) fn continue_reply(&mut self, id: u64, chunk: &[u8]) {
        let pushed = self.replies.push(id, chunk);
        self.assembled(id, pushed);
    }

    fn assembled(&mut self, id: u64, part: Result<Option<((), Bytes)>, wharf_wire::AssemblyError>) {
        match part {
            Ok(None) => {}
            Ok(Some(((), whole))) => {
                self.complete(id, Ok(whole));
            }
            Err(error) => {
                self.complete(id, Err(Failure::Reply(error)));
            }
        }
    }

    /// Removes a call whose caller gave up. Returns whether it was there.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        self.replies.discard(id);
        self.waiting.remove(&id).is_some()
    }

    /// Calls whose callers gave up.
    pub(crate) fn abandoned(&self) -> Vec<u64> {
        let abandoned = self.waiting.iter().filter(|(_, call)| call.waiter.is_abandoned());
        abandoned.map(|(id, _)| *id).collect()
    }

    /// Fails all calls: the connection is lost, and whether they ran is unknown.
    pub(crate) fn lose(&mut self, reason: &str) {
        for (_, Sent { waiter, .. }) in self.waiting.drain() {
            let not_executed = waiter.0.harmless;
            waiter.answer(Err(Failure::ConnectionLost { reason: reason.to_owned(), not_executed }));
        }
    }

    /// Fails all calls with an id beyond `last`.
    pub(crate) fn fail_beyond(&mut self, last: u64, failure: impl Fn() -> Failure) {
        let ids: Vec<u64> = self.waiting.keys().copied().filter(|id| *id > last).collect();
        for id in ids {
            self.complete(id, Err(failure()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(ticket: &mut Ticket<'_>) -> Poll<Answer> {
        Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_request_that_was_given_up_is_not_sent_and_one_that_was_sent_is_cancelled() {
        let (cancels, mut cancelled) = mpsc::channel(4);
        let (mut early, waiter) = ticket(&cancels, false);
        assert!(poll(&mut early).is_pending());
        assert!(!early.give_up());
        assert!(!waiter.begin(1), "nobody waits for it");
        drop(waiter);
        let (mut late, waiter) = ticket(&cancels, false);
        assert!(waiter.begin(2));
        assert!(late.give_up());
        drop((early, late));
        assert_eq!(cancelled.try_recv().ok(), Some(1), "its id was taken, so the host is told");
        assert_eq!(cancelled.try_recv().ok(), Some(2));
        waiter.answer(Ok(Bytes::new()));
        assert!(cancelled.try_recv().is_err());
    }

    #[test]
    fn an_answer_comes_once_and_cancels_nothing() {
        let (cancels, mut cancelled) = mpsc::channel(4);
        let (mut waiting, waiter) = ticket(&cancels, false);
        assert!(waiter.begin(1));
        assert!(poll(&mut waiting).is_pending());
        waiter.answer(Ok(Bytes::from_static(b"56")));
        assert!(matches!(poll(&mut waiting), Poll::Ready(Ok(answer)) if answer == "56"));
        let (unread, waiter) = ticket(&cancels, false);
        assert!(waiter.begin(2));
        waiter.answer(Ok(Bytes::new()));
        drop((waiting, unread));
        assert!(cancelled.try_recv().is_err());
    }

    #[test]
    fn a_request_that_nobody_answers_is_lost() {
        let (cancels, _cancelled) = mpsc::channel(4);
        let (mut waiting, waiter) = ticket(&cancels, false);
        assert!(poll(&mut waiting).is_pending());
        drop(waiter);
        assert!(matches!(poll(&mut waiting), Poll::Ready(Err(Failure::ConnectionLost { .. }))));
    }
}
