//! What may be tried again, and how often: plain state that is handed the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use wharf_wire::Status;

use crate::error::Failure;

/// What a failed attempt leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call has failed: trying again would do harm, or no good.
    Final,
    /// Nothing left this process, or the other side never took it: another endpoint is tried, and
    /// that costs nothing.
    Free,
    /// A host had to do with it: trying another endpoint is paid for out of the budget.
    Paid,
    /// The host does not serve the method: whoever does is looked for, each endpoint asked once, which
    /// costs nothing either.
    Elsewhere,
}

impl Verdict {
    /// What an attempt's failure leads to. Only what was surely not executed is tried again, unless
    /// the method may be executed twice.
    pub(crate) fn of(failure: &Failure, idempotent: bool) -> Verdict {
        let executed = failure.may_have_executed();
        match failure {
            Failure::Connect(_) | Failure::ConnectionLost { not_executed: true, .. } => {
                Verdict::Free
            }
            Failure::ConnectionLost { .. } if idempotent => Verdict::Paid,
            Failure::Remote(remote) => match remote.status {
                Status::Unavailable if idempotent || !executed => Verdict::Paid,
                Status::Aborted if idempotent => Verdict::Paid,
                Status::ResourceExhausted if !executed => Verdict::Paid,
                Status::NotFound | Status::Unimplemented if !executed => Verdict::Elsewhere,
                // A host that serves another signature; the next may still serve this one.
                Status::FailedPrecondition if !executed => Verdict::Elsewhere,
                _ => Verdict::Final,
            },
            _ => Verdict::Final,
        }
    }
}

/// Seconds that the budget looks back.
const WINDOW: u64 = 10;

/// Further attempts allowed for a second in which nothing was called.
const FLOOR: u64 = 10;

/// One further attempt is allowed for so many calls.
const CALLS_PER_RETRY: u64 = 5;

/// Slots of a window: more than it is long, so that an old one is never taken for a new one.
const SLOTS: usize = 16;

/// How many further attempts all calls of a client may make together: one for each five calls of the
/// last ten seconds, and ten a second beside. Without it, an outage would multiply the load of those
/// that are left. As in Finagle
/// (<https://twitter.github.io/finagle/guide/Clients.html#retries>).
pub(crate) struct RetryBudget {
    begun: Instant,
    calls: Window,
    retries: Window,
}

impl RetryBudget {
    pub(crate) fn new(now: Instant) -> Self {
        RetryBudget { begun: now, calls: Window::default(), retries: Window::default() }
    }

    /// A call begins.
    pub(crate) fn deposit(&self, now: Instant) {
        self.calls.add(self.second(now));
    }

    /// Takes a further attempt out of the budget, if there is one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let allowed = self.calls.sum(second) / CALLS_PER_RETRY + WINDOW * FLOOR;
        if self.retries.sum(second) >= allowed {
            return false;
        }
        self.retries.add(second);
        true
    }

    fn second(&self, now: Instant) -> u32 {
        // A client that lives for 136 years counts anew.
        u32::try_from(now.saturating_duration_since(self.begun).as_secs()).unwrap_or(u32::MAX)
    }
}

/// Counts of the last seconds, without a lock: each slot holds its second and its count.
#[derive(Default)]
struct Window([AtomicU64; SLOTS]);

impl Window {
    fn add(&self, second: u32) {
        let slot = &self.0[second as usize % SLOTS];
        let mut held = slot.load(Ordering::Relaxed);
        loop {
            let (of, count) = ((held >> 32) as u32, held & u64::from(u32::MAX));
            let count = if of == second { (count + 1).min(u32::MAX.into()) } else { 1 };
            let next = u64::from(second) << 32 | count;
            match slot.compare_exchange_weak(held, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => held = other,
            }
        }
    }

    fn sum(&self, second: u32) -> u64 {
        let counts = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = counts.filter(|held| {
            let age = u64::from(second).wrapping_sub(held >> 32);
            age < WINDOW
        });
        recent.map(|held| held & u64::from(u32::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Remote;
    use std::time::Duration;

    #[test]
    fn a_fifth_of_the_calls_and_ten_a_second_may_be_tried_again() {
        let begun = Instant::now();
        let budget = RetryBudget::new(begun);
        let withdraw_all = |now| (0..).take_while(|_| budget.withdraw(now)).count();
        assert_eq!(withdraw_all(begun), 100, "ten seconds' worth at the beginning");
        let later = begun + Duration::from_secs(3);
        for _ in 0..1000 {
            budget.deposit(later);
        }
        assert_eq!(withdraw_all(later), 200);
        assert_eq!(withdraw_all(begun + Duration::from_secs(10)), 100, "the first hundred expired");
        assert_eq!(withdraw_all(begun + Duration::from_secs(100)), 100, "nothing is left over");
    }

    #[test]
    fn what_may_have_been_executed_is_tried_again_only_where_that_does_no_harm() {
        let lost = |not_executed| Failure::ConnectionLost { reason: String::new(), not_executed };
        assert_eq!(Verdict::of(&lost(true), false), Verdict::Free);
        assert_eq!(Verdict::of(&lost(false), false), Verdict::Final);
        assert_eq!(Verdict::of(&lost(false), true), Verdict::Paid);
        let remote = |status, not_executed| {
            let message = String::new();
            let (retry_after, served_wit) = (None, None);
            Failure::Remote(Box::new(Remote {
                status,
                message,
                not_executed,
                retry_after,
                served_wit,
            }))
        };
        for status in [Status::Unavailable, Status::ResourceExhausted] {
            assert_eq!(Verdict::of(&remote(status, true), false), Verdict::Paid);
            assert_eq!(Verdict::of(&remote(status, false), false), Verdict::Final);
        }
        assert_eq!(Verdict::of(&remote(Status::Unavailable, false), true), Verdict::Paid);
        assert_eq!(Verdict::of(&remote(Status::NotFound, true), false), Verdict::Elsewhere);
        // A guest that traps does so everywhere; wrong arguments stay wrong; time that is over is over.
        for status in [Status::Internal, Status::InvalidArgument, Status::DeadlineExceeded] {
            assert_eq!(Verdict::of(&remote(status, false), true), Verdict::Final);
        }
    }
}
