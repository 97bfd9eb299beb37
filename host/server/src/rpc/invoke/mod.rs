//! Calls, independent of their protocol: their methods, deadlines, admission, traces and outcomes.
//!
//! Each connection has an [`Invoker`], which owns the calls in flight: it completes, cancels and
//! forgets them. A call is polled once where it arrives. A quick call ends there, without its own
//! task or wake-up. A call that does not end in that poll goes to the guests' threads.

mod admission;
mod answer;
mod failure;
mod methods;
mod room;
mod trace;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::ReusableBoxFuture;
use tracing::{Instrument, Span};
use wharf_net::budget::{Account, Taken};
use wharf_net::principals::Connected;
use wharf_runtime::{InvokeError, Plugin, Running};
use wharf_wire::{Status, TraceParent, limits};

/// Bytes of arguments and result, together, that are copied into and out of a guest on the connection's own
/// task. To copy more takes milliseconds, for which all other calls of the connection would wait.
const COPIED_IN_PLACE: u64 = 256 * 1024;

pub(crate) use self::admission::{HELD_MAX, Load, host_is_full};
use self::answer::{Answer, Finish};
pub(crate) use self::failure::{CallFailure, Missing};
pub(crate) use self::methods::Named;
use self::methods::{Methods, ResolvedMethod, ServedMethod};
use self::room::Fit;
pub(crate) use self::room::Room;
use super::Shared;
use super::caller::Caller;

/// The outcome of a call.
pub(crate) type Outcome = Result<Bytes, CallFailure>;

/// Calls the methods that one connection has resolved. Dropping it cancels all calls in flight.
pub(crate) struct Invoker {
    shared: Arc<Shared>,
    caller: Caller,
    /// `None`: the caller has more connections than it may.
    connected: Option<Connected>,
    methods: Methods,
    /// The calls that did not end where they arrived.
    running: HashMap<u64, RunningCall>,
    /// Bytes of their large arguments.
    held: u64,
    /// What the peer's calls hold of the host.
    account: Arc<Account>,
    /// What replies to the peer take of the host.
    unread: Arc<Account>,
    /// Never holds more messages than there are calls, because each call sends one.
    finished: mpsc::UnboundedReceiver<(u64, Outcome)>,
    finish: mpsc::UnboundedSender<(u64, Outcome)>,
    /// The block of memory in which calls begin. A call that ends at once leaves it to the next
    /// call.
    beginning: ReusableBoxFuture<'static, Result<Bytes, InvokeError>>,
}

struct RunningCall {
    /// Dropping it cancels the call.
    running: Running,
    held: u64,
}

/// An admitted call. Its arguments may still be arriving.
pub(crate) struct Call {
    method: u32,
    pub(crate) deadline: Instant,
    span: Span,
}

/// Whether a call ended where it began.
pub(crate) enum Begun {
    /// It ended.
    Ended(EndedCall),
    /// It still runs. [`Invoker::poll_finished`] returns its outcome. Its reply is expected to have so
    /// many bytes; 0 if it is likely to be small.
    Running(usize),
    /// It did not begin, because its reply has no room now.
    Waits(Held),
}

/// A call that waits for room for its reply.
pub(crate) struct Held {
    pub(crate) call: Call,
    arguments: Bytes,
    taken: Taken,
    /// What its reply is expected to have.
    pub(crate) expected: usize,
}

impl Held {
    /// The call, and its arguments.
    pub(crate) fn into_parts(self) -> (Call, (Bytes, Option<Taken>)) {
        (self.call, (self.arguments, Some(self.taken)))
    }

    /// What it holds of its connection's room for large arguments.
    pub(crate) fn held(&self) -> u64 {
        large(self.arguments.len())
    }
}

/// What became of a call that its caller awaits by itself.
pub(crate) enum Alone {
    /// It ended where it began.
    Ended(EndedCall),
    /// It still runs.
    Running(Awaited),
}

/// A call that runs. Dropping it cancels the call.
pub(crate) struct Awaited {
    outcome: oneshot::Receiver<Outcome>,
    _running: Running,
}

impl Awaited {
    /// Its outcome.
    pub(crate) async fn outcome(self) -> Outcome {
        self.outcome.await.unwrap_or_else(|_| {
            let message = "the host ends, and the call with it";
            let failure = CallFailure::refused(Status::Unavailable, message);
            Err(CallFailure { not_executed: false, ..failure })
        })
    }
}

/// A call after its first poll.
enum Started {
    Ended(EndedCall),
    Unfinished(Unfinished),
    Waits(Held),
}

/// A call that did not end in its first poll.
struct Unfinished {
    call: ReusableBoxFuture<'static, Result<Bytes, InvokeError>>,
    plugin: Plugin,
    taken: Taken,
    method: Arc<ResolvedMethod>,
    arrived: Instant,
    expected: usize,
}

/// A call that ended where it began. It is counted by [`EndedCall::outcome`], once the caller has
/// read the clock.
pub(crate) struct EndedCall {
    method: Arc<ResolvedMethod>,
    arrived: Instant,
    result: Result<Bytes, InvokeError>,
}

impl EndedCall {
    /// Returns its outcome, and counts the call. `now` is the time at which it ended.
    pub(crate) fn outcome(self, now: Instant) -> Outcome {
        counted(&self.method, now.duration_since(self.arrived), self.result)
    }
}

impl Invoker {
    pub(crate) fn new(shared: Arc<Shared>, caller: Caller) -> Self {
        let account = shared.held.account(caller.payer());
        let unread = shared.unread.account(caller.payer());
        Invoker::of(shared, caller, account, unread)
    }

    fn of(
        shared: Arc<Shared>,
        caller: Caller,
        account: Arc<Account>,
        unread: Arc<Account>,
    ) -> Self {
        let (finish, finished) = mpsc::unbounded_channel();
        Invoker {
            methods: Methods::new(&caller),
            connected: caller.who.connect(),
            caller,
            account,
            unread,
            shared,
            running: HashMap::new(),
            held: 0,
            finished,
            finish,
            beginning: none_begins(),
        }
    }

    /// Finds a method by its name. Returns its index for later calls, and its fingerprint. `may_hint`
    /// says whether a failure may suggest similar names, which takes time.
    ///
    /// # Errors
    /// When it does not exist, or its fingerprint is not `wanted`.
    pub(crate) fn resolve(
        &mut self,
        name: &str,
        wanted: Option<[u8; 16]>,
        may_hint: impl FnOnce() -> bool,
    ) -> Result<(u32, [u8; 16]), CallFailure> {
        self.check_caller()?;
        self.methods.resolve(&self.shared, name, wanted, may_hint)
    }

    /// Finds a method by its name, for protocols that send a name with each call. `may_hint` is as for
    /// [`Invoker::resolve`].
    ///
    /// # Errors
    /// When it does not exist, or is not callable.
    pub(crate) fn named(
        &mut self,
        name: &str,
        may_hint: impl FnOnce() -> bool,
    ) -> Result<Named, CallFailure> {
        self.check_caller()?;
        self.methods.named(&self.shared, name, may_hint)
    }

    /// The description of a service. `may_hint` is as for [`Invoker::resolve`].
    ///
    /// # Errors
    /// When the service does not exist.
    pub(crate) fn describe(&mut self, service: &str, may_hint: impl FnOnce() -> bool) -> Outcome {
        self.check_caller()?;
        self.methods.describe(&self.shared, service, may_hint)
    }

    /// Whoever may call nothing is told to show who it is, and whoever has too many connections to close one.
    fn check_caller(&mut self) -> Result<(), CallFailure> {
        if self.connected.is_none() {
            // Another may have ended since.
            self.connected = self.caller.who.connect();
        }
        if self.connected.is_none() {
            return Err(admission::too_many_connections(&self.caller.who));
        }
        if !self.caller.who.calls().is_nothing() {
            return Ok(());
        }
        let message = self.caller.door.how_to_show_a_token();
        Err(CallFailure::refused(Status::Unauthenticated, message))
    }

    /// Room in the host for arguments that arrive. It grows with them.
    pub(crate) fn room(&self) -> Taken {
        self.account.take_anyway(0)
    }

    /// The number of running calls, and the bytes of their large arguments.
    pub(crate) fn load(&self) -> Load {
        Load { calls: self.running.len(), held: self.held }
    }

    /// Whether no call runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Admits a call whose arguments will have `len` bytes, of which `arrived` are there. `load` is
    /// what the other calls of the connection take, and `now` the current time. The host's longest
    /// timeout can shorten the deadline.
    ///
    /// # Errors
    /// When the connection or the host has no room for it.
    pub(crate) fn admit(
        &self,
        method: u32,
        (load, len, arrived): (Load, u64, u64),
        timeout: Option<Duration>,
        trace: Option<TraceParent>,
        now: Instant,
    ) -> Result<Call, CallFailure> {
        if let Err(wait) = self.caller.who.count() {
            return Err(self.refused(method, admission::too_often(&self.caller.who, wait)));
        }
        let bounds = &self.shared.config.calls;
        admission::check(bounds, load, &self.account, (len, arrived))
            .map_err(|failure| self.refused(method, failure))?;
        let timeout = timeout.map_or(bounds.max_timeout, |timeout| timeout.min(bounds.max_timeout));
        // Checked: a peer can send any number.
        let deadline = now.checked_add(timeout).unwrap_or(now);
        let name = || self.methods.resolved(method).map_or("unknown", |method| &method.name);
        Ok(Call { method, deadline, span: trace::span(trace, name) })
    }

    /// Takes room in the host for arguments of which the first `bytes` have arrived. It grows as
    /// more of them arrive.
    ///
    /// # Errors
    /// When the method is not served now, or the host has no room.
    pub(crate) fn expect(&mut self, method: u32, bytes: u64) -> Result<Taken, CallFailure> {
        let checked = self.methods.served(method).map(|_| ());
        let taken = checked.and_then(|()| self.account.take(bytes).ok_or_else(host_is_full));
        taken.map_err(|failure| self.refused(method, failure))
    }

    /// Begins a call whose arguments have all arrived, if its reply has `room`. `now` is the current
    /// time. `taken` is the room that they took while they arrived, if any.
    ///
    /// # Errors
    /// When its method is not served now, or its reply has no room in the host.
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        (id, call): (u64, Call),
        arguments: (Bytes, Option<Taken>),
        room: Room<'_>,
        now: Instant,
    ) -> Result<Begun, CallFailure> {
        let held = large(arguments.0.len());
        Ok(match self.start(cx, call, arguments, room, now)? {
            Started::Waits(held) => Begun::Waits(held),
            Started::Ended(ended) => Begun::Ended(ended),
            Started::Unfinished(unfinished) => {
                self.held += held;
                let expected = unfinished.expected;
                let finish = Finish::Connection(id, self.finish.clone());
                let running = self.run(unfinished, finish);
                self.running.insert(id, RunningCall { running, held });
                Begun::Running(expected)
            }
        })
    }

    /// The same for a call that its caller awaits by itself. It does not count for the limits of the
    /// connection.
    ///
    /// # Errors
    /// When its method is not served now, or its reply has no room in the host.
    pub(crate) fn begin_alone(
        &mut self,
        cx: &mut Context<'_>,
        call: Call,
        arguments: (Bytes, Option<Taken>),
        now: Instant,
    ) -> Result<Alone, CallFailure> {
        let unread = self.unread.clone();
        let room = Room::new(usize::MAX, &unread);
        Ok(match self.start(cx, call, arguments, room, now)? {
            // Never: any reply has room on the connection.
            Started::Waits(_) => return Err(host_is_full()),
            Started::Ended(ended) => Alone::Ended(ended),
            Started::Unfinished(unfinished) => {
                let (sender, outcome) = oneshot::channel();
                let _running = self.run(unfinished, Finish::Alone(sender));
                Alone::Running(Awaited { outcome, _running })
            }
        })
    }

    /// Polls a call once.
    fn start(
        &mut self,
        cx: &mut Context<'_>,
        call: Call,
        (arguments, taken): (Bytes, Option<Taken>),
        room: Room<'_>,
        now: Instant,
    ) -> Result<Started, CallFailure> {
        let method = call.method;
        if call.deadline <= now {
            let message = "the deadline had passed when the call arrived";
            let failure = CallFailure::refused(Status::DeadlineExceeded, message);
            return Err(self.refused(method, failure));
        }
        let ServedMethod { method, resolved } = match self.methods.served(method) {
            Ok(served) => served,
            Err(failure) => return Err(self.refused(method, failure)),
        };
        let held = arguments.len() as u64;
        let expected = method.expected_result();
        match room.fit(expected) {
            Ok(Fit::Now) => {}
            Ok(Fit::Later) => {
                let taken = taken.unwrap_or_else(|| self.account.take_anyway(held));
                return Ok(Started::Waits(Held { call, arguments, taken, expected }));
            }
            Err(failure) => return Err(self.refused(call.method, failure)),
        }
        let Call { deadline, span, .. } = call;
        // The same for all connections of a peer, and for no other peer.
        let method = method.for_caller(Arc::as_ptr(&self.account).addr() as u64);
        let quick = method.is_quick() && held + expected as u64 <= COPIED_IN_PLACE;
        let plugin = method.plugin().clone();
        let call = method.call(arguments, now, deadline);
        let watched = !span.is_disabled();
        match watched {
            false => self.beginning.set(call),
            true => self.beginning.set(call.instrument(span)),
        }
        // A guest that computes for longer than a tick yields, so this poll is bounded. Calls of a
        // method that often takes that long do not begin here, nor do those with much to copy, which
        // nothing interrupts.
        if quick && let Poll::Ready(result) = self.beginning.poll(cx) {
            if watched {
                // Ends the call's span now, and not when the next call takes its place.
                self.beginning = none_begins();
            }
            return Ok(Started::Ended(EndedCall { method: resolved, arrived: now, result }));
        }
        let call = std::mem::replace(&mut self.beginning, none_begins());
        // Arguments that came in one piece were checked by `admit`. They count from now on.
        let taken = taken.unwrap_or_else(|| self.account.take_anyway(held));
        let (method, arrived) = (resolved, now);
        Ok(Started::Unfinished(Unfinished { call, plugin, taken, method, arrived, expected }))
    }

    /// Moves a call to the guests' threads.
    fn run(&self, unfinished: Unfinished, finish: Finish) -> Running {
        let Unfinished { call, plugin, taken, method, arrived, .. } = unfinished;
        let answer = Answer::new(method, arrived, finish, self.shared.running.clone());
        plugin.spawn(async move {
            let _taken = taken;
            let result = call.await;
            let outcome = counted(answer.method(), arrived.elapsed(), result);
            answer.give(outcome);
        })
    }

    /// Returns the next call that has finished.
    pub(crate) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Outcome)> {
        loop {
            match self.finished.poll_recv(cx) {
                Poll::Ready(Some((id, outcome))) => {
                    // A call that was cancelled while it finished is not answered.
                    if self.forget(id).is_some() {
                        return Poll::Ready((id, outcome));
                    }
                }
                // This invoker holds a sender, so the channel is never closed.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Cancels a call. Its guest is stopped and its instance dropped. Returns whether it ran.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        self.forget(id).is_some()
    }

    /// Counts a call that was cancelled while its arguments arrived.
    pub(crate) fn cancelled(&self, call: &Call) {
        if let Some(method) = self.methods.resolved(call.method) {
            method.metrics.answered(Status::Cancelled, Duration::ZERO);
        }
    }

    /// Cancels all calls.
    pub(crate) fn cancel_all(&mut self) {
        let (account, unread) = (self.account.clone(), self.unread.clone());
        *self = Invoker::of(self.shared.clone(), self.caller.clone(), account, unread);
    }

    fn forget(&mut self, id: u64) -> Option<Running> {
        let RunningCall { running, held } = self.running.remove(&id)?;
        self.held -= held;
        Some(running)
    }

    /// Counts a call that did not begin.
    pub(crate) fn refused(&self, method: u32, failure: CallFailure) -> CallFailure {
        if let Some(method) = self.methods.resolved(method) {
            method.metrics.answered(failure.status, Duration::ZERO);
        }
        failure
    }
}

/// What arguments take of a connection's room for large ones. Small ones always have room, and are
/// bounded by the number of calls.
fn large(len: usize) -> u64 {
    if len > limits::largest_whole(limits::CHUNK) { len as u64 } else { 0 }
}

/// A placeholder that takes no memory. The next call that is set in its place allocates a block.
fn none_begins() -> ReusableBoxFuture<'static, Result<Bytes, InvokeError>> {
    ReusableBoxFuture::new(std::future::pending())
}

/// Counts a call, and returns its outcome.
fn counted(method: &ResolvedMethod, took: Duration, result: Result<Bytes, InvokeError>) -> Outcome {
    let outcome = result.map_err(|error| {
        if error.is_trap() {
            method.metrics.trapped();
        }
        CallFailure::of_call(&method.name, &error)
    });
    let status = outcome.as_ref().map_or_else(|failure| failure.status, |_| Status::Ok);
    method.metrics.answered(status, took);
    outcome
}
