//! Which calls may be retried, and how often. This is plain state: the time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use wharf_wire::Status;

use crate::error::Failure;

/// What a failed attempt leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call has failed: a retry would be unsafe or useless.
    Final,
    /// The call was not sent, or the host did not take it. It is retried elsewhere, and that costs
    /// no budget.
    Free,
    /// A host was involved. A retry costs budget.
    Paid,
    /// The host does not serve the method. The other endpoints are tried once each, and that costs
    /// no budget.
    Elsewhere,
}

impl Verdict {
    /// What an attempt's failure leads to. A call that may have run is retried only if its method
    /// is idempotent.
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
                // This host serves another signature. The next one may still serve the right one.
                Status::FailedPrecondition if !executed => Verdict::Elsewhere,
                _ => Verdict::Final,
            },
            _ => Verdict::Final,
        }
    }
}

/// The seconds that the budget looks back.
const WINDOW: u64 = 10;

/// The retries that are allowed per second even without calls.
const FLOOR: u64 = 10;

/// This many calls allow one retry.
const CALLS_PER_RETRY: u64 = 5;

/// The slots of a window. There are more than its seconds, so that an old slot is never taken for a
/// new one.
const SLOTS: usize = 16;

/// Limits the retries of all calls of a client together: one for each five calls of the last ten
/// seconds, plus ten a second. Without this limit, an outage would multiply the load on the
/// remaining endpoints. As in Finagle
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

    /// Takes a retry out of the budget, if one is left.
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
        // The count of seconds stops after 136 years.
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
        // A guest traps at every host, wrong arguments stay wrong, and a passed deadline stays
        // passed.
        for status in [Status::Internal, Status::InvalidArgument, Status::DeadlineExceeded] {
            assert_eq!(Verdict::of(&remote(status, false), true), Verdict::Final);
        }
    }
}
