//! Wrong secrets: how many come from an address, and how long their answers are held back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many wrong secrets of an address are answered at once: somebody has mistyped, or a secret was changed.
const FREE: u32 = 5;

/// How long the next answer is held back. It doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);

/// The longest that an answer is held back. It has to come within the time that a Hello may take.
const LONGEST: Duration = Duration::from_secs(3);

/// An address without wrong secrets for so long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// The addresses that are remembered. Beyond, all new ones count as one.
const MAX_PEERS: usize = 4096;

/// How often an address is told to the log.
const LINE: Duration = Duration::from_secs(60);

/// The wrong secrets that were seen.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<IpAddr, Guessed>>);

#[derive(Debug)]
struct Guessed {
    count: u32,
    last: Instant,
    said: Option<Instant>,
}

impl Guesses {
    /// Counts a wrong secret, and tells the log. Returns how long its answer has to be held back.
    pub(super) fn note(&self, peer: IpAddr) -> Duration {
        let (delay, line) = self.count(peer, Instant::now());
        if let Some(count) = line {
            tracing::warn!(%peer, count, "an address shows secrets that belong to nobody");
        }
        delay
    }

    fn count(&self, peer: IpAddr, now: Instant) -> (Duration, Option<u32>) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peer = network(peer);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, guessed| now.duration_since(guessed.last) < FORGOTTEN);
            if peers.len() >= MAX_PEERS {
                peer = IpAddr::from([0; 16]);
            }
        }
        let guessed = peers.entry(peer).or_insert(Guessed { count: 0, last: now, said: None });
        if now.duration_since(guessed.last) >= FORGOTTEN {
            guessed.count = 0;
        }
        guessed.count = guessed.count.saturating_add(1);
        guessed.last = now;
        let is_due = guessed.said.is_none_or(|said| now.duration_since(said) >= LINE);
        if is_due {
            guessed.said = Some(now);
        }
        let beyond = guessed.count.saturating_sub(FREE);
        let delay = match beyond {
            0 => Duration::ZERO,
            _ => FIRST.saturating_mul(1 << (beyond - 1).min(10)).min(LONGEST),
        };
        (delay, is_due.then_some(guessed.count))
    }
}

/// What one person usually has: an IPv4 address, or 64 bits of an IPv6 address.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => (ip.to_bits() >> 64 << 64).to_be_bytes().into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_wrong_secrets_are_free_and_more_are_answered_later_and_later() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let peer = IpAddr::from([10, 0, 0, 7]);
        let delays: Vec<_> = (0..20).map(|_| guesses.count(peer, now).0.as_millis()).collect();
        assert_eq!(delays[..8], [0, 0, 0, 0, 0, 100, 200, 400]);
        assert_eq!(delays[19], LONGEST.as_millis());
        assert_eq!(guesses.count(IpAddr::from([10, 0, 0, 8]), now).0, Duration::ZERO);
        let later = now + FORGOTTEN;
        assert_eq!(guesses.count(peer, later), (Duration::ZERO, Some(1)));
    }

    #[test]
    fn the_log_hears_of_an_address_once_a_minute_and_of_how_many() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let peer = IpAddr::from([10, 0, 0, 7]);
        let lines: Vec<_> = (0..90)
            .filter_map(|second| guesses.count(peer, now + Duration::from_secs(second)).1)
            .collect();
        assert_eq!(lines, [1, 61]);
    }

    #[test]
    fn addresses_are_bounded_and_what_one_person_has_is_one() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for host in 0..2 * u32::try_from(MAX_PEERS).unwrap() {
            let _ = guesses.count(IpAddr::from(host.to_be_bytes()), now);
        }
        assert!(guesses.0.lock().unwrap().len() <= MAX_PEERS + 1);
        let (delay, _) = guesses.count(IpAddr::from([99, 9, 9, 9]), now);
        assert_eq!(delay, LONGEST, "it is one of too many");
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.7"), of("10.0.0.7"));
    }
}
