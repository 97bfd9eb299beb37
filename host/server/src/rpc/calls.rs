//! The calls of one connection, for protocols whose callers name the method in each call and have no
//! frames of their own to cancel it.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf_net::Meter;
use wharf_net::budget::Taken;
use wharf_wire::TraceParent;

use super::invoke::{Begun, CallFailure, HELD_MAX, Invoker, Named, Outcome, Room, host_is_full};

/// How many names that do not exist are answered with similar ones in a row, and how many more at each
/// check of timeouts. To find these takes time.
const HINTS: (u32, u32) = (32, 8);

/// The calls of one connection.
pub(super) struct Calls {
    invoker: Invoker,
    max_calls: usize,
    last_id: u64,
    hints: Meter,
}

/// What became of a call that was to begin.
pub(super) enum Began {
    /// It has ended.
    Ended(Outcome),
    /// It runs, and [`Calls::poll_finished`] returns its outcome with this id.
    Running(u64),
}

impl Calls {
    pub(super) fn new(invoker: Invoker, max_calls: u32) -> Self {
        let hints = Meter::new(HINTS.0, HINTS.1);
        Calls { invoker, max_calls: max_calls as usize, last_id: 0, hints }
    }

    /// Finds a method by its name.
    ///
    /// # Errors
    /// When it does not exist, or is not callable.
    pub(super) fn named(&mut self, name: &str) -> Result<Named, CallFailure> {
        let hints = &mut self.hints;
        self.invoker.named(name, || hints.count())
    }

    /// Begins a call whose arguments have all arrived.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        named: &Named,
        arguments: Bytes,
        (timeout, trace): (Option<Duration>, Option<TraceParent>),
    ) -> Began {
        let now = Instant::now();
        let len = arguments.len() as u64;
        let invoker = &mut self.invoker;
        self.last_id += 1;
        let id = self.last_id;
        let begun = invoker
            .admit(named.index, (invoker.load(), len, len), timeout, trace, now)
            .and_then(|call| invoker.begin(cx, (id, call), (arguments, None), Room::ANY, now));
        match begun {
            Ok(Begun::Ended(ended)) => Began::Ended(ended.outcome(Instant::now())),
            Ok(Begun::Running(_)) => Began::Running(id),
            // Never: any reply has room.
            Ok(Begun::Waits(_)) => Began::Ended(Err(host_is_full())),
            Err(failure) => Began::Ended(Err(failure)),
        }
    }

    /// The next call that has finished.
    pub(super) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Outcome)> {
        self.invoker.poll_finished(cx)
    }

    /// Whether no call runs.
    pub(super) fn is_idle(&self) -> bool {
        self.invoker.is_idle()
    }

    /// Whether the calls in flight take all that a connection may take. Callers of these protocols do
    /// not know this limit, so their next call waits instead of being refused.
    pub(super) fn is_full(&self) -> bool {
        let load = self.invoker.load();
        load.calls >= self.max_calls || load.held >= HELD_MAX / 2
    }

    /// Room for bytes that arrive. It grows with them.
    pub(super) fn room(&self) -> Taken {
        self.invoker.room()
    }

    /// Cancels all calls.
    pub(super) fn cancel_all(&mut self) {
        self.invoker.cancel_all();
    }

    /// Allows some more of what is metered.
    pub(super) fn refill(&mut self) {
        self.hints.refill();
    }
}
