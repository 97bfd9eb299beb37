//! Room for the reply of a call, before the call is made.
//!
//! A reply that nobody has room for would be lost after its call ran. So a call whose method lately had
//! large results begins only when its reply has room.

use wharf_net::budget::Account;
use wharf_wire::Status;

use super::CallFailure;

/// The room that a call's reply has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    /// Bytes that its connection still has for replies that wait to be sent.
    left: usize,
    /// What its peer takes of the host's room for such replies.
    unread: Option<&'a Account>,
}

/// What becomes of a call, by the room for its reply.
#[derive(Debug)]
pub(super) enum Fit {
    /// It begins.
    Now,
    /// It begins once other replies of its connection were sent.
    Later,
}

impl Room<'static> {
    /// Room for any reply.
    pub(crate) const ANY: Room<'static> = Room { left: usize::MAX, unread: None };
}

impl<'a> Room<'a> {
    /// `left` bytes of a connection, and what is left to its peer of the host's.
    pub(crate) fn new(left: usize, unread: &'a Account) -> Self {
        Room { left, unread: Some(unread) }
    }

    /// Whether a reply that will have about `expected` bytes has room.
    ///
    /// # Errors
    /// When the host has none for it.
    pub(super) fn fit(self, expected: usize) -> Result<Fit, CallFailure> {
        if expected == 0 {
            return Ok(Fit::Now);
        }
        if self.unread.is_some_and(|unread| !unread.has_room(expected as u64)) {
            let message = "replies that callers do not read take too much memory of this host: \
                           read them sooner, or retry later";
            let failure = CallFailure::refused(Status::ResourceExhausted, message);
            return Err(failure.retry_after(100));
        }
        Ok(if expected > self.left { Fit::Later } else { Fit::Now })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use wharf_net::budget::Budget;

    use super::*;

    #[test]
    fn only_a_call_whose_reply_is_likely_to_be_large_waits_or_is_refused_before_it_runs() {
        let account = Budget::new(1000, 10).account(IpAddr::from(Ipv4Addr::LOCALHOST));
        let held = account.take(500);
        assert!(matches!(Room::new(0, &account).fit(0), Ok(Fit::Now)));
        assert!(matches!(Room::new(100, &account).fit(100), Ok(Fit::Now)));
        assert!(matches!(Room::new(100, &account).fit(101), Ok(Fit::Later)));
        assert!(matches!(Room::ANY.fit(usize::MAX), Ok(Fit::Now)));
        let failure = Room::new(usize::MAX, &account).fit(600).unwrap_err();
        assert!(failure.not_executed && failure.retry_after_ms.is_some(), "{failure:?}");
        assert!(failure.message.contains("do not read"), "{}", failure.message);
        drop(held);
        assert!(Room::new(usize::MAX, &account).fit(600).is_ok());
    }
}
