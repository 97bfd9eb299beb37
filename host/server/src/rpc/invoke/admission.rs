//! Decides whether there is room for another call. The limits are a number of calls and a number of
//! bytes, for its connection and for the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_wire::Status;

use super::CallFailure;
use crate::config::CallBounds;

/// The most bytes of arguments that the unanswered calls of one connection may hold. Arguments that
/// are still arriving are included.
pub(crate) const HELD_MAX: u64 = 64 * 1024 * 1024;

/// What the calls of one connection take. Calls whose arguments are still arriving are included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Their number.
    pub(crate) calls: usize,
    /// Bytes of their arguments.
    pub(crate) held: u64,
}

/// The share of one call in the bytes that all calls of the host may hold. Dropping it gives it
/// back.
pub(crate) struct Share {
    bytes: u64,
    of: Arc<AtomicU64>,
}

impl Share {
    /// A share of `bytes`. `None` if the sum of all shares would exceed `max`.
    pub(super) fn of(all: &Arc<AtomicU64>, bytes: u64, max: u64) -> Option<Self> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { bytes, of: all.clone() };
        // If no other call holds bytes, a call of any allowed size has room.
        (before == 0 || before.saturating_add(bytes) <= max).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Checks whether a call with `len` bytes of arguments has room. `load` is what its connection
/// already takes, and `held_by_all` the bytes that all calls of the host hold.
pub(super) fn check(
    bounds: &CallBounds,
    load: Load,
    held_by_all: u64,
    len: u64,
) -> Result<(), CallFailure> {
    // If no other call holds bytes, a call of any allowed size has room.
    if load.held > 0 && load.held.saturating_add(len) > HELD_MAX {
        let message = format!(
            "the arguments of this connection's calls in flight would exceed {HELD_MAX} bytes: retry later"
        );
        return Err(CallFailure::refused(Status::ResourceExhausted, message).retry_after(50));
    }
    if held_by_all > 0 && held_by_all.saturating_add(len) > bounds.max_held {
        return Err(host_is_full());
    }
    let max = bounds.max_calls as usize;
    if load.calls >= max {
        let message =
            format!("{max} calls are in flight on this connection, its limit: retry later");
        return Err(CallFailure::refused(Status::ResourceExhausted, message).retry_after(10));
    }
    Ok(())
}

/// The failure of a call that the host has no room for.
pub(super) fn host_is_full() -> CallFailure {
    let message =
        "the arguments of all calls in flight would take too much memory of this host: retry later";
    CallFailure::refused(Status::ResourceExhausted, message).retry_after(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_and_one_call_always_has_room() {
        let all = Arc::new(AtomicU64::new(0));
        let first = Share::of(&all, 100, 10).unwrap();
        assert!(Share::of(&all, 1, 10).is_none());
        assert_eq!(all.load(Ordering::Relaxed), 100, "a share that was not given takes nothing");
        drop(first);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn each_bound_refuses_with_its_own_words_and_a_time_to_come_back() {
        let bounds = CallBounds { max_calls: 2, max_held: 1000, ..CallBounds::default() };
        let load = |calls, held| Load { calls, held };
        assert!(check(&bounds, load(1, 10), 10, 990).is_ok());
        assert!(check(&bounds, load(0, 0), 0, u64::MAX).is_ok(), "the only call has room");
        for (load, all, len, words) in [
            (load(1, 1), 1, HELD_MAX, "this connection's calls"),
            (load(1, 10), 10, 991, "all calls in flight"),
            (load(2, 0), 0, 1, "2 calls are in flight"),
        ] {
            let failure = check(&bounds, load, all, len).unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
            assert!(failure.not_executed && failure.retry_after_ms.is_some());
        }
    }
}
