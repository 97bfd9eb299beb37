//! Decides whether there is room for another call. The limits are a number of calls and a number of
//! bytes, for its connection and for the host.

use std::time::Duration;

use wharf_net::budget::Account;
use wharf_net::principals::Principal;
use wharf_wire::{Status, limits};

use super::CallFailure;
use crate::config::CallBounds;

/// The most bytes of large arguments that the unanswered calls of one connection may hold. Arguments that
/// are still arriving are included. Our Hello announces it.
pub(crate) const HELD_MAX: u64 = limits::WINDOW;

/// What the calls of one connection take. Calls whose arguments are still arriving are included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Their number.
    pub(crate) calls: usize,
    /// Bytes of their large arguments.
    pub(crate) held: u64,
}

/// Checks whether a call has room whose arguments will have `len` bytes, of which `arrived` are there.
/// `load` is what its connection already takes, and `held` what its peer takes of the host. Bytes that
/// are only announced take nothing of the host.
pub(super) fn check(
    bounds: &CallBounds,
    load: Load,
    held: &Account,
    (len, arrived): (u64, u64),
) -> Result<(), CallFailure> {
    // If no other call holds bytes, a call of any allowed size has room; and small ones always have.
    let is_large = len > limits::largest_whole(limits::CHUNK) as u64;
    if is_large && load.held > 0 && load.held.saturating_add(len) > HELD_MAX {
        let message = format!(
            "the arguments of this connection's calls in flight would exceed {HELD_MAX} bytes: retry later"
        );
        return Err(CallFailure::refused(Status::ResourceExhausted, message).retry_after(50));
    }
    if !held.has_room(arrived) {
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

/// The failure of a call of a principal that calls too often.
pub(super) fn too_often(who: &Principal, wait: Duration) -> CallFailure {
    let milliseconds = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
    let message =
        format!("'{}' calls more often than it may: retry in {milliseconds} ms", who.name());
    CallFailure::refused(Status::ResourceExhausted, message).retry_after(milliseconds)
}

/// The failure of what is asked for on a connection that is one too many.
pub(super) fn too_many_connections(who: &Principal) -> CallFailure {
    let message = format!(
        "'{}' has as many connections to this host as it may: close one, or call over those",
        who.name()
    );
    CallFailure::refused(Status::ResourceExhausted, message)
}

/// The failure of a call that the host has no room for.
pub(crate) fn host_is_full() -> CallFailure {
    let message =
        "the arguments of all calls in flight would take too much memory of this host: retry later";
    CallFailure::refused(Status::ResourceExhausted, message).retry_after(100)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use wharf_net::budget::Budget;

    use super::*;

    #[test]
    fn each_bound_refuses_with_its_own_words_and_a_time_to_come_back() {
        let bounds = CallBounds { max_calls: 2, ..CallBounds::default() };
        let load = |calls, held| Load { calls, held };
        let account = Budget::new(1000, 10).account(IpAddr::from(Ipv4Addr::LOCALHOST));
        assert!(check(&bounds, load(1, 10), &account, (990, 0)).is_ok());
        let whole = (u64::MAX, u64::MAX);
        assert!(check(&bounds, load(0, 0), &account, whole).is_ok(), "the only call has room");
        assert!(
            check(&bounds, load(1, HELD_MAX), &account, (900, 0)).is_ok(),
            "small ones have room"
        );
        let _held = account.take(900);
        for (load, len, words) in [
            (load(1, 1 << 20), (HELD_MAX, 0), "this connection's calls"),
            (load(1, 10), (991, 991), "all calls in flight"),
            (load(2, 0), (1, 0), "2 calls are in flight"),
        ] {
            let failure = check(&bounds, load, &account, len).unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
            assert!(failure.not_executed && failure.retry_after_ms.is_some());
        }
    }

    #[test]
    fn bytes_that_are_only_announced_take_no_room_of_the_host() {
        let bounds = CallBounds::default();
        let account = Budget::new(1000, 10).account(IpAddr::from(Ipv4Addr::LOCALHOST));
        let _held = account.take(1000);
        assert!(check(&bounds, Load::default(), &account, (16 << 20, 0)).is_ok());
        assert!(check(&bounds, Load::default(), &account, (16 << 20, 100)).is_err());
    }
}
