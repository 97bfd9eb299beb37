//! Bounds how often one address is answered, so that nobody uses the registry to flood others with answers.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota};

/// The most answers a second to one address.
const ANSWERS: NonZeroU32 = NonZeroU32::new(2_000).unwrap();

/// Addresses share so many counts, whichever fall together: there are more addresses than memory.
const COUNTS: usize = 1024;

/// The most answers a second to all of them, whoever says to be who.
const ALL_ANSWERS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

pub(super) struct Rates {
    all: DefaultDirectRateLimiter,
    counts: Vec<DefaultDirectRateLimiter>,
    hasher: RandomState,
}

impl Default for Rates {
    fn default() -> Self {
        let count = || DefaultDirectRateLimiter::direct(Quota::per_second(ANSWERS));
        let counts = std::iter::repeat_with(count).take(COUNTS).collect();
        let all = DefaultDirectRateLimiter::direct(Quota::per_second(ALL_ANSWERS));
        Rates { all, counts, hasher: RandomState::new() }
    }
}

impl Rates {
    /// Whether a question from this address is answered. Neighbours count together.
    pub(super) fn takes(&self, peer: IpAddr) -> bool {
        let network = match peer.to_canonical() {
            IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
            IpAddr::V6(ip) => u64::try_from(u128::from(ip) >> 64).unwrap_or_default(),
        };
        let place = usize::try_from(self.hasher.hash_one(network)).unwrap_or_default() % COUNTS;
        let own = self.counts.get(place).is_some_and(|count| count.check().is_ok());
        own && self.all.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_asks_too_often_is_not_answered_and_others_are() {
        let rates = Rates::default();
        let peer = |last: u8| IpAddr::from([192, 0, 2, last]);
        let answered = (0..10_000_u32).filter(|n| rates.takes(peer((n % 250) as u8))).count();
        assert!((2_000..4_000).contains(&answered), "{answered}");
        // Some of so many others share its count; most do not.
        let others = (0..200).filter(|n| rates.takes(IpAddr::from([198, 51, *n, 1]))).count();
        assert!(others > 190, "{others}");
    }
}
