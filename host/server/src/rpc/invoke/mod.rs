//! A call whose protocol does not matter any more: which method it is of, until when it may run, whether
//! there is room for it, in which trace it is, and what came out.
//!
//! Each connection has an [`Invoker`], which owns its calls in flight: it completes, cancels and forgets
//! them. A call is polled once where it arrives: a quick one ends there, without a task or a wake-up of
//! its own. One that does not end at once goes to the guests' threads.

mod admission;
mod failure;
mod methods;
mod trace;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::ReusableBoxFuture;
use tracing::{Instrument, Span};
use wharf_runtime::{InvokeError, Running};
use wharf_wire::{Status, TraceParent};

pub(crate) use self::admission::{HELD_MAX, Load, Share};
pub(crate) use self::failure::Failure;
use self::methods::{Methods, ResolvedMethod, ServedMethod};
use super::Shared;

/// What a call came to.
pub(crate) type Outcome = Result<Bytes, Failure>;

/// Calls the methods that one connection has resolved. Dropped, it ends all calls that run.
pub(crate) struct Invoker {
    shared: Arc<Shared>,
    methods: Methods,
    /// Calls that did not end where they arrived.
    running: HashMap<u64, RunningCall>,
    /// Bytes of their arguments.
    held: u64,
    /// Never more messages than calls: each sends one.
    finished: mpsc::UnboundedReceiver<(u64, Outcome)>,
    finish: mpsc::UnboundedSender<(u64, Outcome)>,
    /// Where calls begin: those that end at once leave the block to the next.
    beginning: ReusableBoxFuture<'static, Result<Bytes, InvokeError>>,
}

struct RunningCall {
    /// Dropped, it ends the call.
    running: Running,
    held: u64,
}

/// A call whose arguments may still be on their way.
pub(crate) struct Call {
    method: u32,
    pub(crate) deadline: Instant,
    span: Span,
}

/// How far a call came where it began.
pub(crate) enum Begun {
    /// To its end.
    Ended(EndedCall),
    /// It goes on; [`Invoker::poll_finished`] tells of its end.
    Running,
}

/// A call that ended where it began. What it came to is counted when the time is known.
pub(crate) struct EndedCall {
    method: Arc<ResolvedMethod>,
    arrived: Instant,
    result: Result<Bytes, InvokeError>,
}

impl EndedCall {
    /// What it came to; `now` is when.
    pub(crate) fn outcome(self, now: Instant) -> Outcome {
        counted(&self.method, now.duration_since(self.arrived), self.result)
    }
}

impl Invoker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (finish, finished) = mpsc::unbounded_channel();
        Invoker {
            shared,
            methods: Methods::default(),
            running: HashMap::new(),
            held: 0,
            finished,
            finish,
            beginning: none_begins(),
        }
    }

    /// Finds a method by its name; its number from now on, and its fingerprint.
    ///
    /// # Errors
    /// When there is none, or its fingerprint is not the one that is `wanted`.
    pub(crate) fn resolve(
        &mut self,
        name: &str,
        wanted: Option<[u8; 16]>,
    ) -> Result<(u32, [u8; 16]), Failure> {
        self.methods.resolve(&self.shared.table, &self.shared.metrics, name, wanted)
    }

    /// The description of a service.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn describe(&self, service: &str) -> Outcome {
        methods::describe(&self.shared.table, service)
    }

    /// What the calls that run take.
    pub(crate) fn load(&self) -> Load {
        Load { calls: self.running.len(), held: self.held }
    }

    /// Whether no call runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Takes a call with `len` bytes of arguments, `now`, beside the connection's `load`. Its deadline is
    /// capped by the host's.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(crate) fn admit(
        &self,
        method: u32,
        (load, len): (Load, u64),
        timeout: Option<Duration>,
        trace: Option<TraceParent>,
        now: Instant,
    ) -> Result<Call, Failure> {
        let bounds = &self.shared.config.calls;
        admission::check(bounds, load, self.shared.held(), len)
            .map_err(|failure| self.refused(method, failure))?;
        let timeout = timeout.map_or(bounds.max_timeout, |timeout| timeout.min(bounds.max_timeout));
        // Checked: what a peer says can be any number.
        let deadline = now.checked_add(timeout).unwrap_or(now);
        let name = || self.methods.resolved(method).map_or("unknown", |method| &method.name);
        Ok(Call { method, deadline, span: trace::span(trace, name) })
    }

    /// Takes room in the host for arguments that are on their way.
    ///
    /// # Errors
    /// When the host has none.
    pub(crate) fn reserve(&self, method: u32, bytes: u64) -> Result<Share, Failure> {
        let share = Share::of(&self.shared.held, bytes, self.shared.config.calls.max_held);
        share.ok_or_else(|| self.refused(method, admission::host_is_full()))
    }

    /// Begins a call whose arguments have all arrived, `now`; `share` is what they have reserved, if
    /// they did.
    ///
    /// # Errors
    /// When its method is not served at the moment.
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        call: Call,
        (arguments, share): (Bytes, Option<Share>),
        now: Instant,
    ) -> Result<Begun, Failure> {
        let Call { method, deadline, span } = call;
        let ServedMethod { method, resolved } = match self.methods.served(method) {
            Ok(served) => served,
            Err(failure) => return Err(self.refused(method, failure)),
        };
        let held = arguments.len() as u64;
        let (quick, plugin) = (method.is_quick(), method.plugin().clone());
        let call = method.call(arguments, now, deadline);
        let watched = !span.is_disabled();
        match watched {
            false => self.beginning.set(call),
            true => self.beginning.set(call.instrument(span)),
        }
        // A guest that computes for longer than a tick yields, so this is bounded; and if its calls
        // tend to do that, they do not begin here.
        if quick && let Poll::Ready(result) = self.beginning.poll(cx) {
            if watched {
                // Its span ends now, and not when the next call takes its place.
                self.beginning = none_begins();
            }
            return Ok(Begun::Ended(EndedCall { method: resolved, arrived: now, result }));
        }
        let call = std::mem::replace(&mut self.beginning, none_begins());
        let finish = self.finish.clone();
        self.held += held;
        // Arguments that came in one piece were judged when they came, and count from now on.
        let share = share.or_else(|| Share::of(&self.shared.held, held, u64::MAX));
        let running = plugin.spawn(async move {
            let _share = share;
            let result = call.await;
            let outcome = counted(&resolved, now.elapsed(), result);
            // The connection may be gone.
            let _ = finish.send((id, outcome));
        });
        self.running.insert(id, RunningCall { running, held });
        Ok(Begun::Running)
    }

    /// The next call that finished.
    pub(crate) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Outcome)> {
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
    pub(crate) fn cancel(&mut self, id: u64) {
        self.forget(id);
    }

    /// Ends all calls.
    pub(crate) fn cancel_all(&mut self) {
        *self = Invoker::new(self.shared.clone());
    }

    fn forget(&mut self, id: u64) -> Option<Running> {
        let RunningCall { running, held } = self.running.remove(&id)?;
        self.held -= held;
        Some(running)
    }

    /// Counts a call that was not begun.
    pub(crate) fn refused(&self, method: u32, failure: Failure) -> Failure {
        if let Some(method) = self.methods.resolved(method) {
            method.metrics.answered(failure.status, Duration::ZERO);
        }
        failure
    }
}

/// Takes no memory: a call that is set in its place brings its own.
fn none_begins() -> ReusableBoxFuture<'static, Result<Bytes, InvokeError>> {
    ReusableBoxFuture::new(std::future::pending())
}

/// What a call came to, counted.
fn counted(method: &ResolvedMethod, took: Duration, result: Result<Bytes, InvokeError>) -> Outcome {
    let outcome = result.map_err(|error| {
        if error.is_trap() {
            method.metrics.trapped();
        }
        Failure::of_call(&method.name, &error)
    });
    let status = outcome.as_ref().map_or_else(|failure| failure.status, |_| Status::Ok);
    method.metrics.answered(status, took);
    outcome
}
