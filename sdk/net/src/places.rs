//! The places for connections of one listener, and who has to leave when all are taken.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::budget::{Account, Budget, Taken};

/// A connection that did something within this time is not asked to leave.
const RECENTLY: Duration = Duration::from_secs(1);

/// The same for one that has not sent anything yet.
const SILENT: Duration = Duration::from_millis(250);

/// How often it is looked for one that was idle for long enough.
const LOOK: Duration = Duration::from_millis(50);

/// How long a connection has for its goodbye.
const GOODBYE: Duration = Duration::from_millis(100);

/// How often it is logged at most that all places are taken.
const LOGGED: Duration = Duration::from_secs(30);

/// All places of a listener.
pub(crate) struct Places {
    budget: Arc<Budget>,
    began: Instant,
    /// The time in milliseconds, as [`Places::tick`] saw it last. Connections read it instead of the
    /// clock.
    now: Arc<AtomicU64>,
    taken: Mutex<Vec<Weak<Seat>>>,
    freed: Arc<Notify>,
    logged: Mutex<Option<Instant>>,
}

/// The place of one connection. It tells when the connection was used, and when it has to leave.
#[derive(Debug)]
pub struct Seat {
    address: IpAddr,
    peer: Arc<Account>,
    /// When bytes came or went last.
    used: AtomicU64,
    now: Arc<AtomicU64>,
    /// Whether bytes ever came.
    heard: AtomicBool,
    /// Whether something is under way that must not be cut off.
    busy: AtomicBool,
    leave: watch::Sender<bool>,
    /// Whether the connection says goodbye when it has to leave.
    says_goodbye: AtomicBool,
    freed: Arc<Notify>,
    place: Option<Taken>,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Places {
            budget: Budget::new(max as u64, 1),
            began: Instant::now(),
            now: Arc::default(),
            taken: Mutex::default(),
            freed: Arc::default(),
            logged: Mutex::default(),
        }
    }

    /// Notes the time.
    pub(crate) fn tick(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now.store(now, Ordering::Relaxed);
    }

    /// A place for a connection from `peer`. If none is free, the connection that was idle for longest
    /// has to leave: of this peer, if it has more than its share, else of all. `None`: nobody can
    /// leave, and the peer has more than its share. Cancel-safe.
    pub(crate) async fn take(&self, peer: SocketAddr) -> Option<Arc<Seat>> {
        let account = self.budget.account(peer.ip());
        loop {
            let freed = self.freed.notified();
            if let Some(place) = account.take(1) {
                return Some(self.seat(peer.ip(), account, place));
            }
            self.log();
            let full = self.budget.taken() >= self.budget.max();
            let of_this_peer = !full || account.is_over_its_share();
            let idle = self.idle_longest(of_this_peer.then_some(&account));
            match idle {
                Some(seat) => {
                    seat.leave.send_replace(true);
                }
                None if of_this_peer => return None,
                None => {}
            }
            // The one that leaves, or another.
            let _ = tokio::time::timeout(LOOK, freed).await;
        }
    }

    fn seat(&self, address: IpAddr, peer: Arc<Account>, place: Taken) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            address,
            peer,
            used: AtomicU64::new(self.now.load(Ordering::Relaxed)),
            now: self.now.clone(),
            heard: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            leave: watch::channel(false).0,
            says_goodbye: AtomicBool::new(false),
            freed: self.freed.clone(),
            place: Some(place),
        });
        let mut taken = self.seats();
        if taken.len() == taken.capacity() {
            taken.retain(|seat| seat.strong_count() > 0);
        }
        taken.push(Arc::downgrade(&seat));
        seat
    }

    /// The connection that was idle for longest, of one peer or of all.
    fn idle_longest(&self, of: Option<&Arc<Account>>) -> Option<Arc<Seat>> {
        self.tick();
        let now = self.now.load(Ordering::Relaxed);
        let long_enough = |seat: &Seat| {
            let heard = seat.heard.load(Ordering::Relaxed);
            let idle = now.saturating_sub(seat.used.load(Ordering::Relaxed));
            Duration::from_millis(idle) >= if heard { RECENTLY } else { SILENT }
        };
        let seats = self.seats();
        let living = seats.iter().filter_map(Weak::upgrade);
        let idle = living.filter(|seat| {
            !seat.busy.load(Ordering::Relaxed)
                && !*seat.leave.borrow()
                && of.is_none_or(|account| Arc::ptr_eq(account, &seat.peer))
                && long_enough(seat)
        });
        idle.min_by_key(|seat| seat.used.load(Ordering::Relaxed))
    }

    /// Logs that a connection could not be accepted, for example because no files are left.
    pub(crate) fn cannot_accept(&self, error: &std::io::Error) {
        if self.may_log() {
            tracing::warn!(%error, connections = self.budget.taken(), "connections cannot be accepted");
        }
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.is_none_or(|at| at.elapsed() >= LOGGED);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }

    fn log(&self) {
        if self.may_log() {
            tracing::warn!(
                connections = self.budget.taken(),
                most = self.budget.max(),
                "nearly all connections are taken; those that are idle for longest are closed"
            );
        }
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Weak<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The peer's address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bytes came.
    pub(crate) fn heard_now(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
        self.use_now();
    }

    /// Bytes came or went.
    pub(crate) fn use_now(&self) {
        self.used.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Says whether something is under way that must not be cut off to make room, such as a call.
    pub fn set_busy(&self, busy: bool) {
        if self.busy.load(Ordering::Relaxed) != busy {
            self.busy.store(busy, Ordering::Relaxed);
        }
    }

    /// From now on, the connection says goodbye when it has to leave. It gets a moment for that.
    pub fn says_goodbye(&self) {
        self.says_goodbye.store(true, Ordering::Relaxed);
    }

    /// Completes when the connection has to leave. Cancel-safe.
    pub async fn has_to_leave(&self) {
        // The sender is in here, so it cannot be gone.
        let _ = self.leave.subscribe().wait_for(|leave| *leave).await;
    }

    /// Completes when the connection had to leave, and had a moment to say goodbye if it wants to.
    pub(crate) async fn has_left(&self) {
        self.has_to_leave().await;
        if self.says_goodbye.load(Ordering::Relaxed) {
            tokio::time::sleep(GOODBYE).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop(self.place.take());
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        format!("{text}:1").parse().unwrap()
    }

    #[tokio::test]
    async fn one_address_does_not_keep_out_others() {
        let places = Places::new(8);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(places.take(peer("10.0.0.1")).await.unwrap());
        }
        assert!(places.take(peer("10.0.0.1")).await.is_none(), "it has three quarters");
        held.push(places.take(peer("10.0.0.2")).await.unwrap());
        held.push(places.take(peer("10.0.0.3")).await.unwrap());
        drop(held);
        assert_eq!(places.budget.taken(), 0);
    }

    #[tokio::test]
    async fn when_all_are_taken_the_one_that_is_idle_for_longest_leaves() {
        let places = Arc::new(Places::new(2));
        let one = places.take(peer("127.0.0.1")).await.unwrap();
        let other = places.take(peer("127.0.0.1")).await.unwrap();
        tokio::time::sleep(RECENTLY + Duration::from_millis(50)).await;
        places.tick();
        one.use_now();
        let third = tokio::spawn({
            let places = places.clone();
            async move { places.take(peer("127.0.0.1")).await }
        });
        other.has_to_leave().await;
        drop(other);
        assert!(third.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn whoever_is_busy_stays_and_the_next_waits() {
        let places = Arc::new(Places::new(1));
        let busy = places.take(peer("127.0.0.1")).await.unwrap();
        busy.set_busy(true);
        tokio::time::sleep(RECENTLY + Duration::from_millis(50)).await;
        let mut next = tokio::spawn({
            let places = places.clone();
            async move { places.take(peer("127.0.0.1")).await }
        });
        let early = tokio::time::timeout(Duration::from_millis(100), &mut next).await;
        assert!(early.is_err(), "nobody left");
        drop(busy);
        assert!(next.await.unwrap().is_some());
    }
}
