//! Budgets: how much of something all peers may take together, and what is kept for those who hold
//! little of it.
//!
//! Three quarters of a budget go to whoever asks first, because many callers behind one address are
//! normal. Only when these are taken do shares matter: the last quarter is divided among the peers
//! that hold something. So one peer, with however many connections, cannot take everything, and a
//! small amount always finds room.
//!
//! The idea is that of a reserve in buffer management: see Choudhury and Hahne, *Dynamic queue
//! length thresholds for shared-memory packet switches*, 1998.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How much of something all peers may take together: connections, bytes, places.
///
/// Taking and giving back are two atomic additions each. Only opening an account takes a lock.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    /// A peer that holds less than this has a share of this at least.
    small: u64,
    taken: AtomicU64,
    /// Peers that hold something.
    holders: AtomicU64,
    accounts: Mutex<HashMap<Payer, Weak<Account>>>,
}

/// Who takes of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// Whoever comes from this address.
    Address(IpAddr),
    /// The principal of this name, wherever it comes from.
    Principal(Arc<str>),
}

impl From<IpAddr> for Payer {
    fn from(address: IpAddr) -> Self {
        Payer::Address(address)
    }
}

/// What one peer takes of a budget. All connections of a principal share an account, and all of strangers
/// from one address. On loopback, each connection of a stranger has its own.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    taken: AtomicU64,
    /// Whose it is, if it is shared.
    payer: Option<Payer>,
}

/// An amount that was taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Taken {
    account: Arc<Account>,
    amount: u64,
}

impl Budget {
    /// A budget of `max`. However many peers there are, each may hold `small` of it, as long as
    /// anything is left.
    #[must_use]
    pub fn new(max: u64, small: u64) -> Arc<Self> {
        Arc::new(Budget {
            max,
            small,
            taken: AtomicU64::new(0),
            holders: AtomicU64::new(0),
            accounts: Mutex::default(),
        })
    }

    /// How much all peers have taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How much all peers may take together.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Whether so much is taken that only those who hold less than their share get more.
    #[must_use]
    pub fn is_nearly_taken(&self) -> bool {
        self.taken() > self.open()
    }

    /// The account of a peer.
    #[must_use]
    pub fn account(self: &Arc<Self>, payer: impl Into<Payer>) -> Arc<Account> {
        let payer = match payer.into() {
            Payer::Address(address) => network(address).map(Payer::Address),
            principal @ Payer::Principal(_) => Some(principal),
        };
        let new = || {
            let (budget, payer) = (self.clone(), payer.clone());
            Arc::new(Account { budget, taken: AtomicU64::new(0), payer })
        };
        let Some(key) = payer.clone() else { return new() };
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = accounts.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let account = new();
        accounts.insert(key, Arc::downgrade(&account));
        account
    }

    /// What goes to whoever asks first.
    fn open(&self) -> u64 {
        self.max - self.max / 4
    }

    /// The share of each peer in what is kept.
    fn share(&self) -> u64 {
        let holders = self.holders.load(Ordering::Relaxed).max(1);
        (self.max / 4 / holders).max(self.small)
    }

    /// Whether a peer that holds `own` may take `amount`, when all peers hold `all`.
    fn allows(&self, all: u64, own: u64, amount: u64) -> bool {
        let after = all.saturating_add(amount);
        // If nobody holds anything, any amount has room.
        all == 0
            || amount == 0
            || after <= self.open()
            || (after <= self.max && own.saturating_add(amount) <= self.share())
    }
}

impl Account {
    /// Whether `amount` would have room now. A call that ends at once asks, and takes nothing.
    #[must_use]
    pub fn has_room(&self, amount: u64) -> bool {
        let all = self.budget.taken();
        all.saturating_add(amount) <= self.budget.open()
            || self.budget.allows(all, self.taken.load(Ordering::Relaxed), amount)
    }

    /// Takes `amount`, if there is room. There is always room for nothing, which can grow.
    #[must_use]
    pub fn take(self: &Arc<Self>, amount: u64) -> Option<Taken> {
        let mut taken = Taken { account: self.clone(), amount: 0 };
        taken.grow(amount).then_some(taken)
    }

    /// Takes `amount`, for which there was room a moment ago. Others may have taken it since.
    #[must_use]
    pub fn take_anyway(self: &Arc<Self>, amount: u64) -> Taken {
        self.add(amount);
        Taken { account: self.clone(), amount }
    }

    /// How much this peer has taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether this peer holds more than its share. It matters only if the budget is nearly taken.
    #[must_use]
    pub fn is_over_its_share(&self) -> bool {
        self.taken() > self.budget.share()
    }

    /// The budget that it belongs to.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn add(&self, amount: u64) -> (u64, u64) {
        let own = self.taken.fetch_add(amount, Ordering::Relaxed);
        if own == 0 && amount > 0 {
            self.budget.holders.fetch_add(1, Ordering::Relaxed);
        }
        (self.budget.taken.fetch_add(amount, Ordering::Relaxed), own)
    }

    fn subtract(&self, amount: u64) {
        self.budget.taken.fetch_sub(amount, Ordering::Relaxed);
        if self.taken.fetch_sub(amount, Ordering::Relaxed) == amount && amount > 0 {
            self.budget.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(payer) = &self.payer else { return };
        let mut accounts = self.budget.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // The peer may have opened another account in the meantime.
        if accounts.get(payer).is_some_and(|account| account.strong_count() == 0) {
            accounts.remove(payer);
        }
    }
}

impl Taken {
    /// Takes `amount` more. Returns whether there was room; if not, nothing changes.
    #[must_use]
    pub fn grow(&mut self, amount: u64) -> bool {
        let (all, own) = self.account.add(amount);
        let allowed = self.account.budget.allows(all, own, amount);
        if allowed {
            self.amount += amount;
        } else {
            self.account.subtract(amount);
        }
        allowed
    }

    /// Takes as much as is missing to `amount`. Returns whether there was room.
    #[must_use]
    pub fn grow_to(&mut self, amount: u64) -> bool {
        self.grow(amount.saturating_sub(self.amount))
    }

    /// Takes as much as is missing to `amount`, whether or not there is room.
    pub fn grow_anyway_to(&mut self, amount: u64) {
        let more = amount.saturating_sub(self.amount);
        self.account.add(more);
        self.amount += more;
    }

    /// Gives back everything beyond `amount`.
    pub fn shrink_to(&mut self, amount: u64) {
        if let Some(less) = self.amount.checked_sub(amount) {
            self.account.subtract(less);
            self.amount = amount;
        }
    }

    /// The account that it was taken for.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// How much it is.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.account.subtract(self.amount);
    }
}

/// The address that stands for a peer. `None` for loopback, where the address tells nothing. One
/// customer of an IPv6 network usually has 64 bits of addresses, so these count as one.
fn network(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Some(Ipv6Addr::from_bits(network).into())
        }
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_peer_gets_most_and_what_is_kept_goes_to_the_others() {
        let budget = Budget::new(1000, 10);
        let greedy = budget.account(address("10.0.0.1"));
        let mut held = greedy.take(740).unwrap();
        assert!(!budget.is_nearly_taken());
        assert!(!held.grow(20), "beyond three quarters, it is far over its share");
        assert_eq!((held.amount(), budget.taken()), (740, 740), "what is refused takes nothing");
        assert!(held.grow(10));
        let others: Vec<_> = (2..=26)
            .map(|n| budget.account(address(&format!("10.0.0.{n}"))).take(10).unwrap())
            .collect();
        assert_eq!(budget.taken(), 1000);
        assert!(budget.account(address("10.0.1.1")).take(1).is_none(), "the total holds");
        drop(others);
        drop(held);
        assert_eq!(budget.taken(), 0);
        assert_eq!(budget.holders.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn connections_of_a_principal_or_from_one_address_share_an_account_and_those_on_loopback_do_not()
     {
        let budget = Budget::new(100, 1);
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("10.0.0.1", "10.0.0.2", false),
            ("127.0.0.1", "127.0.0.1", false),
            ("::1", "::1", false),
        ] {
            let (one, other) = (budget.account(address(one)), budget.account(address(other)));
            assert_eq!(Arc::ptr_eq(&one, &other), same, "{one:?} {other:?}");
        }
        let of = |name: &str| budget.account(Payer::Principal(name.into()));
        let (shop, desk) = (of("shop"), of("desk"));
        assert!(Arc::ptr_eq(&shop, &of("shop")) && !Arc::ptr_eq(&shop, &desk));
        drop((shop, desk));
        assert!(budget.accounts.lock().unwrap().is_empty(), "they went with their connections");
    }

    #[test]
    fn a_single_amount_of_any_size_has_room_if_nobody_holds_anything() {
        let budget = Budget::new(100, 1);
        let account = budget.account(address("10.0.0.1"));
        assert!(account.has_room(1000));
        let all = account.take(1000).unwrap();
        assert!(!account.has_room(1));
        assert!(!budget.account(address("10.0.0.2")).has_room(1));
        drop(all);
        assert!(account.has_room(1));
    }

    #[test]
    fn an_amount_shrinks_as_it_is_used() {
        let budget = Budget::new(100, 1);
        let mut taken = budget.account(address("10.0.0.1")).take(60).unwrap();
        taken.shrink_to(80);
        assert_eq!(taken.amount(), 60);
        taken.shrink_to(5);
        assert_eq!((taken.amount(), budget.taken()), (5, 5));
        assert!(!taken.grow_to(500));
        taken.grow_anyway_to(500);
        assert_eq!((taken.amount(), budget.taken()), (500, 500));
    }
}
