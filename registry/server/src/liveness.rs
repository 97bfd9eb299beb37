//! Who is alive: when each member was heard, which members are silent, and how many of these may be
//! dropped now.
//!
//! Plain state. Callers pass in the time, as [`crate::clock::LivenessClock`] counts it. A heartbeat
//! costs O(1). A sweep costs O(members that are due), and each member is due once per time to live.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::record::Key;

/// One time to live may drop one in this many members. If more fall silent together, the network is
/// a likelier cause than the members (Eureka's self-preservation, but it ends by itself).
const SHARE: usize = 10;

/// This many may be dropped in any case. Otherwise a small fleet would keep dead members for long.
const AT_LEAST: usize = 5;

/// When each member was heard.
#[derive(Debug)]
pub(crate) struct Liveness {
    ttl: Duration,
    members: HashMap<Key, Member>,
    /// When to look at each member next. A heartbeat does not change it; the look itself postpones
    /// the next one.
    due: BinaryHeap<Reverse<(Duration, u64, Key)>>,
    /// Members whose time was over at their look. The longest silent come first.
    silent: VecDeque<(u64, Key)>,
    generation: u64,
    /// Silence before this time does not count, because the registry did not listen.
    listening_since: Duration,
    window: Window,
    /// Those whose answer to [`Liveness::is_doubted`] may have changed.
    turned: HashSet<Key>,
}

#[derive(Debug)]
struct Member {
    /// After how much silence its time is over; `None`: never.
    patience: Option<Duration>,
    /// `None` until the registry hears it for the first time.
    heard: Option<Duration>,
    /// When it was added, or got its patience.
    since: Duration,
    /// Distinguishes it in `due` and `silent` from an earlier member with the same key.
    generation: u64,
    silent: bool,
    /// Somebody else vouches for it. As long as that is so, it need not be heard.
    held: bool,
}

/// How many were dropped in the current time to live.
#[derive(Debug)]
struct Window {
    began: Duration,
    allowed: usize,
    dropped: usize,
}

impl Liveness {
    pub(crate) fn new(ttl: Duration) -> Self {
        Liveness {
            ttl,
            members: HashMap::new(),
            due: BinaryHeap::new(),
            silent: VecDeque::new(),
            generation: 0,
            listening_since: Duration::ZERO,
            window: Window { began: Duration::ZERO, allowed: 0, dropped: 0 },
            turned: HashSet::new(),
        }
    }

    /// Takes note that a member was heard now.
    pub(crate) fn hear(&mut self, now: Duration, key: &Key) {
        let listening_since = self.listening_since;
        if let Some(member) = self.members.get_mut(key) {
            if member.is_doubted(now, listening_since) {
                self.turned.insert(key.clone());
            }
            member.heard = Some(now);
            if std::mem::take(&mut member.silent)
                && let Some(patience) = member.patience
            {
                self.due.push(Reverse((now + patience, member.generation, key.clone())));
            }
        }
    }

    /// Adds a member that was heard now, or gives a known one another patience, which begins now: after so
    /// much silence its time is over. Without, it never is. Nothing changes for one that has this patience
    /// already, unless its time was over.
    pub(crate) fn admit(&mut self, now: Duration, key: &Key, patience: Option<Duration>) {
        let goes_on = |member: &Member| member.patience == patience && !member.silent;
        if !self.members.get(key).is_some_and(goes_on) {
            self.recall(now, key, patience);
            self.hear(now, key);
        }
    }

    /// Adds a member that is known, but that this registry has not heard yet.
    pub(crate) fn recall(&mut self, now: Duration, key: &Key, patience: Option<Duration>) {
        let known = self.members.get(key);
        if known.is_some_and(|known| known.patience == patience) {
            return;
        }
        if known.is_some_and(|known| known.is_doubted(now, self.listening_since)) {
            self.turned.insert(key.clone());
        }
        let (heard, held) = known.map_or((None, false), |known| (known.heard, known.held));
        self.generation += 1;
        let generation = self.generation;
        let member = Member { patience, heard, since: now, generation, silent: false, held };
        self.members.insert(key.clone(), member);
        if let Some(patience) = patience {
            self.due.push(Reverse((now + patience, generation, key.clone())));
        }
        self.forget_stale_looks();
    }

    /// Somebody else vouches for a member from now on, until [`Liveness::release`].
    pub(crate) fn hold(&mut self, now: Duration, key: &Key) {
        self.hear(now, key);
        if let Some(member) = self.members.get_mut(key) {
            member.held = true;
        }
    }

    /// Nobody vouches for a member any more. Its time to live begins now.
    pub(crate) fn release(&mut self, now: Duration, key: &Key) {
        if let Some(member) = self.members.get_mut(key)
            && std::mem::take(&mut member.held)
        {
            member.heard = Some(now);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.members.remove(key);
    }

    /// How many members may be gone.
    pub(crate) fn unverified(&self, now: Duration) -> usize {
        self.members.values().filter(|member| self.may_be_gone(now, member)).count()
    }

    /// When it was heard last, as far as this registry knows.
    pub(crate) fn heard(&self, key: &Key) -> Option<Duration> {
        self.members.get(key)?.heard
    }

    /// Whether it may be gone: it was not heard for one time to live, or not since the registry
    /// listens.
    pub(crate) fn is_unverified(&self, now: Duration, key: &Key) -> bool {
        self.members.get(key).is_none_or(|member| self.may_be_gone(now, member))
    }

    /// The time until which it cannot become unverified, unless it is released.
    pub(crate) fn sure_until(&self, key: &Key) -> Duration {
        match self.members.get(key) {
            Some(Member { held: true, .. } | Member { patience: None, .. }) => Duration::MAX,
            Some(Member { heard: Some(heard), patience: Some(patience), .. })
                if *heard >= self.listening_since =>
            {
                *heard + *patience
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    fn may_be_gone(&self, now: Duration, member: &Member) -> bool {
        let Some(patience) = member.patience else { return false };
        !member.held
            && member
                .heard
                .is_none_or(|heard| heard < self.listening_since || now >= heard + patience)
    }

    /// Whether it was silent for so long that it is most likely gone. Other than [`Liveness::is_unverified`],
    /// this gives everybody time to be heard after the registry began to listen.
    pub(crate) fn is_doubted(&self, now: Duration, key: &Key) -> bool {
        self.members.get(key).is_some_and(|member| member.is_doubted(now, self.listening_since))
    }

    /// Whom doubt may have befallen or left since this was asked last.
    pub(crate) fn turned(&mut self) -> HashSet<Key> {
        std::mem::take(&mut self.turned)
    }

    /// The registry did not listen until now, so every member gets another time to live.
    pub(crate) fn forgive(&mut self, now: Duration) {
        self.listening_since = now;
        for (generation, key) in std::mem::take(&mut self.silent) {
            self.turned.insert(key.clone());
            if let Some(member) = self.members.get_mut(&key)
                && member.generation == generation
                && std::mem::take(&mut member.silent)
                && let Some(patience) = member.patience
            {
                self.due.push(Reverse((now + patience, generation, key)));
            }
        }
    }

    /// Which members to drop now: the silent ones, as many as the share allows.
    ///
    /// They stay members until they are removed. If one cannot be dropped, call [`Liveness::keep`].
    pub(crate) fn sweep(&mut self, now: Duration) -> Vec<Key> {
        self.look(now);
        if self.window.allowed == 0 || now >= self.window.began + self.ttl {
            let allowed = (self.members.len() / SHARE).max(AT_LEAST);
            self.window = Window { began: now, allowed, dropped: 0 };
        }
        let mut dropped = Vec::new();
        while self.window.dropped < self.window.allowed
            && let Some((generation, key)) = self.silent.pop_front()
        {
            let member = self.members.get(&key);
            if member.is_some_and(|member| member.silent && member.generation == generation) {
                self.window.dropped += 1;
                dropped.push(key);
            }
        }
        dropped
    }

    /// Finds out whose time is over.
    pub(crate) fn look(&mut self, now: Duration) {
        while let Some(Reverse((due, ..))) = self.due.peek()
            && *due <= now
        {
            let Some(Reverse((_, generation, key))) = self.due.pop() else { break };
            let Some(member) = self.members.get_mut(&key).filter(|m| m.generation == generation)
            else {
                continue;
            };
            let Some(patience) = member.patience else { continue };
            let heard = if member.held { now } else { member.heard.unwrap_or(member.since) };
            let heard = heard.max(self.listening_since);
            if heard + patience > now {
                self.due.push(Reverse((heard + patience, generation, key)));
            } else {
                member.silent = true;
                self.turned.insert(key.clone());
                self.silent.push_back((generation, key));
            }
        }
        if self.silent.len() > 2 * self.members.len() + 64 {
            let members = &self.members;
            self.silent.retain(|(generation, key)| {
                members.get(key).is_some_and(|member| member.generation == *generation)
            });
        }
    }

    /// A member could not be dropped. The next sweep returns it again.
    pub(crate) fn keep(&mut self, key: &Key) {
        if let Some(member) = self.members.get(key)
            && member.silent
        {
            self.silent.push_back((member.generation, key.clone()));
            self.window.dropped = self.window.dropped.saturating_sub(1);
        }
    }

    /// Whether it is still silent. A member that was heard since the sweep is not.
    pub(crate) fn is_silent(&self, key: &Key) -> bool {
        self.members.get(key).is_some_and(|member| member.silent)
    }

    /// How many are silent and not dropped yet.
    pub(crate) fn silent(&self) -> usize {
        let silent = |(generation, key): &&(u64, Key)| {
            let member = self.members.get(key);
            member.is_some_and(|member| member.silent && member.generation == *generation)
        };
        self.silent.iter().filter(silent).count()
    }

    /// Members that come and go leave stale entries in `due`. This drops them before they outnumber
    /// the members.
    fn forget_stale_looks(&mut self) {
        if self.due.len() > 2 * self.members.len() + 64 {
            let members = &self.members;
            self.due.retain(|Reverse((_, generation, key))| {
                members.get(key).is_some_and(|member| member.generation == *generation)
            });
        }
    }
}

impl Member {
    fn is_doubted(&self, now: Duration, listening_since: Duration) -> bool {
        let began = self.heard.unwrap_or(self.since).max(listening_since);
        !self.held && self.patience.is_some_and(|patience| now >= began + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn host(number: usize) -> Key {
        Key::host(&format!("h{number}"))
    }

    /// As of a host that declares itself, or sends a heartbeat.
    fn heard(liveness: &mut Liveness, now: Duration, key: &Key) {
        liveness.admit(now, key, Some(TTL));
        liveness.hear(now, key);
    }

    /// Drops the members that a sweep returns, as a registry does.
    fn drop_silent(liveness: &mut Liveness, now: Duration) -> Vec<Key> {
        let dropped = liveness.sweep(now);
        dropped.iter().for_each(|key| liveness.remove(key));
        dropped
    }

    #[test]
    fn only_the_silent_are_dropped_and_only_after_the_ttl() {
        let mut liveness = Liveness::new(TTL);
        heard(&mut liveness, at(0), &host(1));
        heard(&mut liveness, at(0), &host(2));
        heard(&mut liveness, at(14), &host(2));
        assert!(drop_silent(&mut liveness, at(14)).is_empty());
        assert!(!liveness.is_unverified(at(14), &host(1)));
        assert!(liveness.is_unverified(at(15), &host(1)));
        assert_eq!(drop_silent(&mut liveness, at(15)), [host(1)]);
        assert!(drop_silent(&mut liveness, at(28)).is_empty());
        assert_eq!(drop_silent(&mut liveness, at(29)), [host(2)]);
    }

    #[test]
    fn a_member_that_came_back_is_not_dropped_for_its_earlier_life() {
        let mut liveness = Liveness::new(TTL);
        heard(&mut liveness, at(0), &host(1));
        liveness.remove(&host(1));
        heard(&mut liveness, at(10), &host(1));
        assert!(drop_silent(&mut liveness, at(24)).is_empty());
        assert_eq!(drop_silent(&mut liveness, at(25)), [host(1)]);
        assert!(liveness.due.is_empty() && liveness.silent.is_empty());
    }

    #[test]
    fn whoever_is_heard_between_the_sweep_and_its_end_is_silent_no_more() {
        let mut liveness = Liveness::new(TTL);
        heard(&mut liveness, at(0), &host(1));
        assert_eq!(liveness.sweep(at(15)), [host(1)]);
        heard(&mut liveness, at(15), &host(1));
        assert!(!liveness.is_silent(&host(1)));
        assert!(drop_silent(&mut liveness, at(29)).is_empty());
        assert_eq!(drop_silent(&mut liveness, at(30)), [host(1)]);
    }

    #[test]
    fn what_could_not_be_dropped_is_tried_again() {
        let mut liveness = Liveness::new(TTL);
        heard(&mut liveness, at(0), &host(1));
        assert_eq!(liveness.sweep(at(15)), [host(1)]);
        assert!(liveness.sweep(at(15)).is_empty(), "it is under way");
        liveness.keep(&host(1));
        assert_eq!(liveness.sweep(at(15)), [host(1)]);
    }

    #[test]
    fn members_that_come_and_go_leave_nothing_behind() {
        let mut liveness = Liveness::new(TTL);
        for _ in 0..10_000 {
            heard(&mut liveness, at(0), &host(1));
            liveness.remove(&host(1));
        }
        assert!(liveness.due.len() < 100, "{} looks", liveness.due.len());
    }

    #[test]
    fn one_in_twenty_silent_is_gone_at_the_next_sweep_and_nobody_else() {
        let mut liveness = Liveness::new(TTL);
        (0..10_000).for_each(|n| heard(&mut liveness, at(0), &host(n)));
        (500..10_000).for_each(|n| heard(&mut liveness, at(10), &host(n)));
        let dropped = drop_silent(&mut liveness, at(15));
        assert_eq!(dropped.len(), 500);
        assert_eq!(liveness.silent(), 0);
    }

    #[test]
    fn when_all_fall_silent_a_tenth_is_dropped_in_each_time_to_live() {
        let mut liveness = Liveness::new(TTL);
        (0..1_000).for_each(|n| heard(&mut liveness, at(0), &host(n)));
        assert_eq!(drop_silent(&mut liveness, at(15)).len(), 100);
        assert!(drop_silent(&mut liveness, at(20)).is_empty());
        assert_eq!(liveness.silent(), 900);
        // Members that come back in the meantime are not dropped.
        let survivors: Vec<Key> = liveness.members.keys().take(450).cloned().collect();
        survivors.iter().for_each(|key| heard(&mut liveness, at(25), key));
        assert_eq!(liveness.silent(), 450);
        let second = drop_silent(&mut liveness, at(30));
        assert_eq!(second.len(), 90);
        assert!(second.iter().all(|key| !survivors.contains(key)));
    }

    #[test]
    fn all_of_a_small_fleet_may_go() {
        let mut liveness = Liveness::new(TTL);
        (0..3).for_each(|n| heard(&mut liveness, at(0), &host(n)));
        assert_eq!(drop_silent(&mut liveness, at(15)).len(), 3);
    }

    #[test]
    fn nobody_is_dropped_for_a_time_in_which_the_registry_did_not_listen() {
        let mut liveness = Liveness::new(TTL);
        heard(&mut liveness, at(0), &host(1));
        (2..20).for_each(|n| heard(&mut liveness, at(10), &host(n)));
        liveness.forgive(at(14));
        assert!(liveness.is_unverified(at(14), &host(1)));
        assert!(drop_silent(&mut liveness, at(28)).is_empty());
        heard(&mut liveness, at(28), &host(2));
        assert!(!liveness.is_unverified(at(28), &host(2)));
        assert_eq!(drop_silent(&mut liveness, at(29)).len(), AT_LEAST);
    }

    #[test]
    fn the_silent_are_forgiven_too() {
        let mut liveness = Liveness::new(TTL);
        (0..20).for_each(|n| heard(&mut liveness, at(0), &host(n)));
        assert_eq!(drop_silent(&mut liveness, at(15)).len(), AT_LEAST);
        liveness.forgive(at(16));
        assert_eq!(liveness.silent(), 0);
        assert!(drop_silent(&mut liveness, at(30)).is_empty());
        assert_eq!(drop_silent(&mut liveness, at(31)).len(), AT_LEAST);
    }

    #[test]
    fn whoever_is_vouched_for_needs_not_be_heard() {
        let mut liveness = Liveness::new(TTL);
        liveness.recall(at(0), &host(1), Some(TTL));
        liveness.hold(at(1), &host(1));
        assert!(drop_silent(&mut liveness, at(100)).is_empty());
        assert!(!liveness.is_unverified(at(100), &host(1)));
        liveness.release(at(101), &host(1));
        assert!(drop_silent(&mut liveness, at(115)).is_empty());
        assert_eq!(drop_silent(&mut liveness, at(116)), [host(1)]);
        liveness.hold(at(117), &host(2));
        assert!(liveness.members.is_empty(), "only what is registered is vouched for");
    }

    #[test]
    fn what_is_known_from_before_is_unverified_until_it_is_heard() {
        let mut liveness = Liveness::new(TTL);
        (0..100).for_each(|n| liveness.recall(at(0), &host(n), Some(TTL)));
        assert!(liveness.is_unverified(at(0), &host(7)));
        (1..100).for_each(|n| heard(&mut liveness, at(5), &host(n)));
        assert!(!liveness.is_unverified(at(5), &host(7)));
        assert_eq!(drop_silent(&mut liveness, at(15)), [host(0)]);
    }

    #[test]
    fn each_member_has_its_own_patience_and_some_have_no_end_of_it() {
        let mut liveness = Liveness::new(TTL);
        liveness.admit(at(0), &host(1), Some(at(60)));
        liveness.admit(at(0), &host(2), None);
        heard(&mut liveness, at(0), &host(3));
        assert_eq!(drop_silent(&mut liveness, at(15)), [host(3)]);
        assert!(drop_silent(&mut liveness, at(59)).is_empty());
        assert!(!liveness.is_unverified(at(59), &host(1)));
        // One that loses its patience is looked at in time.
        liveness.admit(at(59), &host(2), Some(at(2)));
        assert_eq!(drop_silent(&mut liveness, at(61)), [host(1), host(2)]);
        // What silence has changed has its time anew, also if that is as long.
        liveness.admit(at(61), &host(5), Some(at(2)));
        assert_eq!(liveness.sweep(at(63)), [host(5)]);
        liveness.admit(at(63), &host(5), Some(at(2)));
        assert!(liveness.sweep(at(64)).is_empty());
        assert_eq!(drop_silent(&mut liveness, at(65)), [host(5)]);
        liveness.admit(at(61), &host(4), Some(at(2)));
        liveness.admit(at(62), &host(4), None);
        assert!(drop_silent(&mut liveness, at(1_000)).is_empty());
        assert!(!liveness.is_unverified(at(1_000), &host(4)));
        assert_eq!(liveness.sure_until(&host(4)), Duration::MAX);
    }

    #[test]
    fn doubt_begins_with_silence_and_not_with_the_registry_and_is_noted_once() {
        let turned = |liveness: &mut Liveness| liveness.turned().len();
        let mut liveness = Liveness::new(TTL);
        liveness.recall(at(0), &host(1), Some(TTL));
        liveness.admit(at(0), &host(2), Some(TTL));
        liveness.hear(at(1), &host(1));
        liveness.hear(at(1), &host(2));
        assert_eq!(turned(&mut liveness), 0, "nobody was doubted");
        liveness.recall(at(1), &host(3), Some(TTL));
        assert!(liveness.is_unverified(at(1), &host(3)) && !liveness.is_doubted(at(1), &host(3)));
        assert_eq!(turned(&mut liveness), 0, "nor is anybody who is new");
        liveness.look(at(16));
        assert_eq!(turned(&mut liveness), 3);
        assert!(liveness.is_doubted(at(16), &host(1)) && liveness.is_doubted(at(16), &host(3)));
        liveness.hear(at(17), &host(1));
        assert_eq!(turned(&mut liveness), 1);
        assert!(!liveness.is_doubted(at(17), &host(1)));
        // When the registry was held up, nobody is doubted for that time.
        liveness.forgive(at(18));
        assert_eq!(turned(&mut liveness), 3);
        assert!(liveness.is_unverified(at(18), &host(2)) && !liveness.is_doubted(at(18), &host(2)));
        assert!(liveness.is_doubted(at(33), &host(2)));
    }
}
