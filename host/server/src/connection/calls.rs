//! The calls in flight on one connection: one owner completes, cancels and forgets them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::ReusableBoxFuture;
use tracing::{Instrument, Span};
use wharf_runtime::{InvokeError, Running};
use wharf_wire::Status;

use super::methods::{Callee, Target};
use crate::fail::Failure;

/// Cancels that a connection may send in a row.
pub(super) const CANCELS: u32 = 4096;

/// Cancels that it gets back each time the connection looks at the time.
pub(super) const CANCELS_PER_LOOK: u32 = 512;

type Outcome = Result<Bytes, Failure>;

/// Calls that did not finish where they arrived. Dropped, it ends them all.
pub(super) struct Calls {
    running: HashMap<u64, InFlight>,
    /// Bytes of their arguments.
    held: u64,
    held_by_all: Arc<AtomicU64>,
    /// Never more messages than calls: each sends one.
    finished: mpsc::UnboundedReceiver<(u64, Outcome)>,
    finish: mpsc::UnboundedSender<(u64, Outcome)>,
    /// Where calls begin: those that finish at once leave the block to the next.
    beginning: ReusableBoxFuture<'static, Result<Bytes, InvokeError>>,
}

struct InFlight {
    /// Dropped, it ends the call.
    running: Running,
    held: u64,
}

/// What a call comes with.
pub(super) struct Arrived {
    pub(super) arguments: Bytes,
    /// Of its arguments, or of the last of them.
    pub(super) at: Instant,
    pub(super) deadline: Instant,
    pub(super) share: Option<Share>,
    pub(super) span: Span,
}

/// The share of one call in what all calls of the host hold; given back when it is dropped.
pub(super) struct Share {
    bytes: u64,
    of: Arc<AtomicU64>,
}

impl Share {
    /// A share of `bytes`, unless all together would then be more than `max`.
    pub(super) fn of(all: &Arc<AtomicU64>, bytes: u64, max: u64) -> Option<Self> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { bytes, of: all.clone() };
        // One call of any size that is allowed at all always has room.
        (before == 0 || before.saturating_add(bytes) <= max).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Calls {
    pub(super) fn new(held_by_all: Arc<AtomicU64>) -> Self {
        let (finish, finished) = mpsc::unbounded_channel();
        let beginning = none_begins();
        Calls { running: HashMap::new(), held: 0, held_by_all, finished, finish, beginning }
    }

    /// Bytes of arguments of the calls that are running.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts a call. Its outcome, and when, if it finished at once; else it goes on in a task.
    pub(super) fn start(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        callee: Callee,
        arrived: Arrived,
    ) -> Option<(Outcome, Instant)> {
        let Callee { method, target } = callee;
        let Arrived { arguments, at, deadline, share, span } = arrived;
        let held = arguments.len() as u64;
        let (quick, plugin) = (method.is_quick(), method.plugin().clone());
        let call = method.call(arguments, at, deadline);
        let watched = !span.is_disabled();
        match watched {
            false => self.beginning.set(call),
            true => self.beginning.set(call.instrument(span)),
        }
        // A guest that computes for longer than a tick yields, so this is bounded; and if its calls
        // tend to do that, they do not begin here.
        if quick && let Poll::Ready(result) = self.beginning.poll(cx) {
            let now = Instant::now();
            if watched {
                // Its span ends now, and not when the next call takes its place.
                self.beginning = none_begins();
            }
            return Some((outcome(&target, now.duration_since(at), result), now));
        }
        let call = std::mem::replace(&mut self.beginning, none_begins());
        let finish = self.finish.clone();
        self.held += held;
        // What came in one frame was judged when it came, and is counted from now on.
        let share = share.or_else(|| Share::of(&self.held_by_all, held, u64::MAX));
        let running = plugin.spawn(async move {
            let _share = share;
            let result = call.await;
            let outcome = outcome(&target, at.elapsed(), result);
            // The connection may be gone.
            let _ = finish.send((id, outcome));
        });
        self.running.insert(id, InFlight { running, held });
        None
    }

    /// The next call that finished.
    pub(super) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Outcome)> {
        loop {
            match self.finished.poll_recv(cx) {
                Poll::Ready(Some((id, outcome))) => {
                    // One that was cancelled while it finished is not answered.
                    if self.forget(id).is_some() {
                        return Poll::Ready((id, outcome));
                    }
                }
                // We hold a sender ourselves, so the channel is never closed.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ends a call; its guest is stopped and its instance dropped.
    pub(super) fn cancel(&mut self, id: u64) {
        self.forget(id);
    }

    fn forget(&mut self, id: u64) -> Option<Running> {
        let InFlight { running, held } = self.running.remove(&id)?;
        self.held -= held;
        Some(running)
    }
}

/// Takes no memory: a call that is set in its place brings its own.
fn none_begins() -> ReusableBoxFuture<'static, Result<Bytes, InvokeError>> {
    ReusableBoxFuture::new(std::future::pending())
}

/// The outcome of a call, counted.
fn outcome(target: &Target, took: Duration, result: Result<Bytes, InvokeError>) -> Outcome {
    match result {
        Ok(bytes) => {
            target.metrics.answered(Status::Ok, took);
            Ok(bytes)
        }
        Err(error) => {
            if matches!(
                error,
                InvokeError::Trapped { .. }
                    | InvokeError::MemoryLimit { .. }
                    | InvokeError::Exited(_)
            ) {
                target.metrics.trapped();
            }
            let failure = Failure::of_call(&target.name, &error);
            target.metrics.answered(failure.status, took);
            Err(failure)
        }
    }
}
