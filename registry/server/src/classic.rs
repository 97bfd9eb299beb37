//! The classic sketch's registrations: a name, an address and a heartbeat, for any TCP service.

use std::collections::BTreeMap;
use std::time::Duration;

/// What was registered over `/register`.
#[derive(Debug)]
pub(crate) struct Classic {
    ttl: Duration,
    /// Address to the time when it was heard last, by name.
    names: BTreeMap<String, BTreeMap<String, Duration>>,
    entries: usize,
}

/// Names and addresses together; one more is refused.
const MAX_ENTRIES: usize = 100_000;

/// Why a classic request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing is registered so.
    Unknown,
    /// Several addresses have this name.
    Ambiguous,
    /// No room for more.
    Full,
}

impl Classic {
    pub(crate) fn new(ttl: Duration) -> Self {
        Classic { ttl, names: BTreeMap::new(), entries: 0 }
    }

    /// Registers an address under a name, or keeps it alive.
    pub(crate) fn register(
        &mut self,
        now: Duration,
        name: &str,
        addr: &str,
    ) -> Result<(), Refusal> {
        let known = self.names.get(name).is_some_and(|addresses| addresses.contains_key(addr));
        if !known && self.entries >= MAX_ENTRIES {
            return Err(Refusal::Full);
        }
        self.entries += usize::from(!known);
        self.names.entry(name.to_owned()).or_default().insert(addr.to_owned(), now);
        Ok(())
    }

    /// Keeps an address alive. Without one, the name must have only one.
    pub(crate) fn heartbeat(
        &mut self,
        now: Duration,
        name: &str,
        addr: Option<&str>,
    ) -> Result<(), Refusal> {
        let addresses = self.names.get_mut(name).ok_or(Refusal::Unknown)?;
        let only = addresses.len() == 1;
        let heard = match addr {
            Some(addr) => addresses.get_mut(addr).ok_or(Refusal::Unknown)?,
            None if only => addresses.values_mut().next().ok_or(Refusal::Unknown)?,
            None => return Err(Refusal::Ambiguous),
        };
        *heard = now;
        Ok(())
    }

    /// Drops what was silent for the time to live; tells how many.
    pub(crate) fn sweep(&mut self, now: Duration) -> usize {
        let before = self.entries;
        self.names.retain(|_, addresses| {
            addresses.retain(|_, heard| *heard + self.ttl > now);
            !addresses.is_empty()
        });
        self.entries = self.names.values().map(BTreeMap::len).sum();
        before - self.entries
    }

    /// Each name with the address that was heard last.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&str, &str, Duration)> {
        self.names.iter().filter_map(|(name, addresses)| {
            let (addr, heard) = addresses.iter().max_by_key(|(_, heard)| **heard)?;
            Some((&name[..], &addr[..], *heard))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_name_lives_as_long_as_it_is_heard() {
        let mut classic = Classic::new(at(15));
        classic.register(at(0), "Arith", "localhost:1234").unwrap();
        classic.heartbeat(at(10), "Arith", None).unwrap();
        assert_eq!(classic.sweep(at(24)), 0);
        assert_eq!(classic.newest().collect::<Vec<_>>(), [("Arith", "localhost:1234", at(10))]);
        assert_eq!(classic.sweep(at(25)), 1);
        assert_eq!(classic.heartbeat(at(25), "Arith", None), Err(Refusal::Unknown));
    }

    #[test]
    fn a_heartbeat_without_address_needs_a_single_one() {
        let mut classic = Classic::new(at(15));
        classic.register(at(0), "Arith", "a:1").unwrap();
        classic.register(at(1), "Arith", "b:1").unwrap();
        assert_eq!(classic.heartbeat(at(2), "Arith", None), Err(Refusal::Ambiguous));
        classic.heartbeat(at(2), "Arith", Some("a:1")).unwrap();
        assert_eq!(classic.newest().next(), Some(("Arith", "a:1", at(2))));
        assert_eq!(classic.heartbeat(at(2), "Arith", Some("c:1")), Err(Refusal::Unknown));
    }
}
