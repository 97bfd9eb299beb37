//! The memory that the guests of all plugins take together.
//!
//! Each plugin has its own limits, but their sum may exceed the machine. So whatever guests take is
//! counted against one budget too. If that is used up, idle instances of any plugin make room, those
//! unused for longest first, before a guest is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::threads::Threads;

/// How long an instance may be idle before it is given back. One of each plugin stays.
const IDLE: Duration = Duration::from_secs(60);

/// How often idle instances are looked for.
const LOOK: Duration = Duration::from_secs(15);

/// The share of the machine's memory that guests may take by default.
const SHARE: (usize, usize) = (1, 2);

/// If the system does not tell how much memory it has.
const UNKNOWN: usize = 4 * 1024 * 1024 * 1024;

/// Something that keeps idle instances.
pub(crate) trait Idle: Send + Sync {
    /// When the instance that was unused for longest was used last.
    fn oldest(&self) -> Option<Instant>;
    /// Ends the instance that was unused for longest. Returns whether there was one.
    fn end_oldest(&self) -> bool;
    /// Ends the instances that were last used before this time, except one.
    fn end_unused_since(&self, before: Instant);
}

/// The budget of all guests. Clones share it.
#[derive(Clone)]
pub(crate) struct Guests(Arc<Inner>);

struct Inner {
    limit: usize,
    taken: AtomicUsize,
    keepers: Mutex<Vec<Weak<dyn Idle>>>,
}

impl Guests {
    /// A budget of `limit` bytes, or of a share of the machine's memory.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        let machine = || machine_memory().unwrap_or(UNKNOWN) / SHARE.1 * SHARE.0;
        let limit =
            limit.map_or_else(machine, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Guests(Arc::new(Inner { limit, taken: AtomicUsize::new(0), keepers: Mutex::default() }))
    }

    /// The bytes that guests may take.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// The bytes that they have taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Takes bytes. If none are left, idle instances are ended to make room.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        loop {
            let before = self.0.taken.fetch_add(bytes, Ordering::Relaxed);
            if before.saturating_add(bytes) <= self.0.limit {
                return true;
            }
            self.give_back(bytes);
            if bytes > self.0.limit || !self.end_oldest() {
                return false;
            }
        }
    }

    /// Takes bytes that are already in use, whether or not there is room.
    pub(crate) fn take_anyway(&self, bytes: usize) {
        self.0.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// From now on, idle instances of `keeper` make room for others.
    pub(crate) fn add(&self, keeper: Weak<dyn Idle>) {
        let mut keepers = self.keepers();
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    /// Gives back what is idle for long, for as long as the budget is in use.
    pub(crate) fn watch(&self, threads: &Threads) {
        let guests = Arc::downgrade(&self.0);
        threads.spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(guests) = guests.upgrade() else { return };
                Guests(guests).end_unused_for(IDLE);
            }
        });
    }

    fn end_unused_for(&self, idle: Duration) {
        let Some(before) = Instant::now().checked_sub(idle) else { return };
        for keeper in self.living() {
            keeper.end_unused_since(before);
        }
    }

    /// Ends the instance that was unused for longest, of any plugin.
    fn end_oldest(&self) -> bool {
        let keepers = self.living();
        let ages = keepers.iter().filter_map(|keeper| Some((keeper.oldest()?, keeper)));
        let oldest = ages.min_by_key(|(used, _)| *used);
        oldest.is_some_and(|(_, keeper)| keeper.end_oldest())
    }

    /// Not under the lock: ending an instance may take a while, and drop a keeper.
    fn living(&self) -> Vec<Arc<dyn Idle>> {
        self.keepers().iter().filter_map(Weak::upgrade).collect()
    }

    fn keepers(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Idle>>> {
        self.0.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of this machine, or of the control group that this process is in, in bytes.
fn machine_memory() -> Option<usize> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = kilobytes.trim().trim_end_matches("kB").trim().parse().ok()?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|max| max.trim().parse().ok());
    Some((kilobytes * 1024).min(group.unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idle instances of ten bytes each.
    struct Kept(Guests, Mutex<Vec<Instant>>);

    impl Idle for Kept {
        fn oldest(&self) -> Option<Instant> {
            self.1.lock().unwrap().first().copied()
        }

        fn end_oldest(&self) -> bool {
            let mut kept = self.1.lock().unwrap();
            let any = !kept.is_empty();
            if any {
                kept.remove(0);
                self.0.give_back(10);
            }
            any
        }

        fn end_unused_since(&self, before: Instant) {
            while self.1.lock().unwrap().len() > 1 && self.oldest().is_some_and(|at| at < before) {
                self.end_oldest();
            }
        }
    }

    fn kept(guests: &Guests, ages: &[u64]) -> Arc<Kept> {
        let now = Instant::now();
        let used = ages.iter().map(|age| now - Duration::from_secs(*age)).collect();
        let kept = Arc::new(Kept(guests.clone(), Mutex::new(used)));
        assert!(guests.take(10 * ages.len()));
        let weak: Weak<dyn Idle> = Arc::downgrade(&(kept.clone() as Arc<dyn Idle>));
        guests.add(weak);
        kept
    }

    #[test]
    fn idle_instances_make_room_before_a_guest_is_refused() {
        let guests = Guests::new(Some(100));
        let (one, other) = (kept(&guests, &[30, 10]), kept(&guests, &[20]));
        assert!(guests.take(70));
        assert!(guests.take(15));
        assert_eq!((one.1.lock().unwrap().len(), other.1.lock().unwrap().len()), (1, 0));
        assert!(guests.take(15));
        assert!(!guests.take(1), "nothing is left, and nothing is idle");
        assert_eq!(guests.taken(), 100, "what is refused takes nothing");
        guests.give_back(100);
        assert!(!guests.take(101));
        assert_eq!(guests.taken(), 0);
    }

    #[test]
    fn what_is_idle_for_long_is_given_back_except_the_last() {
        let guests = Guests::new(Some(100));
        let (one, other) = (kept(&guests, &[300, 200, 1]), kept(&guests, &[500]));
        guests.end_unused_for(IDLE);
        assert_eq!((one.1.lock().unwrap().len(), other.1.lock().unwrap().len()), (1, 1));
        assert_eq!(guests.taken(), 20);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machines_memory_is_known() {
        assert!(machine_memory().is_some_and(|bytes| bytes > 256 << 20));
    }
}
