//! What this process knows of the registry. All requests are answered from it.
//!
//! Stores feed it with records that they have accepted and made durable. Requests read it. One lock
//! guards all of it. It is held no longer than copying a list takes.

mod bodies;
mod patience;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use wharf_registry_api::{Index, WatchEvent};

use self::bodies::Bodies;
pub(crate) use self::patience::Patience;
pub(crate) use self::waiting::Waiting;
use crate::catalog::{Catalog, Entry, Event, Named, Probing};
use crate::clock::LivenessClock;
use crate::journal::{Cursor, Journal, Next};
use crate::listing::HostSnapshot;
use crate::liveness::Liveness;
use crate::record::{Key, Record, Records, Refusal, owned};
use crate::upkeep::Silence;

/// What this process knows.
pub(crate) struct View {
    /// If the clock is not read for this long, a heartbeat may have been missed.
    held_up: Duration,
    epoch: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    patience: Patience,
    clock: LivenessClock,
    catalog: Catalog,
    liveness: Liveness,
    journal: Journal,
    /// All changes up to this number are here. It may be beyond the last change of an endpoint.
    complete: u64,
    /// The same, for those who wait for it.
    progress: watch::Sender<u64>,
    /// Those who wait for a service's endpoints to change; `None` stands for all services.
    waiting: HashMap<Option<Arc<str>>, watch::Sender<()>>,
    /// Bodies of whole lists, until the next change of their service.
    bodies: Bodies,
}

/// A record that a store has accepted, or its removal.
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) record: Option<Arc<Record>>,
    /// The store's number for it; `None`: the next one.
    pub(crate) number: Option<u64>,
}

/// Counts of everything that is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) hosts: usize,
    pub(crate) classic: usize,
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    /// Past their time to live, and not dropped yet.
    pub(crate) silent: usize,
    pub(crate) unverified: usize,
}

/// What a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope<'s> {
    All,
    Service(&'s str),
    /// A node, in Consul's terms.
    Node(&'s str),
}

impl<'s> Scope<'s> {
    /// Whose changes wake those who wait for it.
    pub(crate) fn service(self) -> Option<&'s str> {
        match self {
            Scope::Service(service) => Some(service),
            Scope::All | Scope::Node(_) => None,
        }
    }
}

/// Encodes an event in the form that watchers get.
pub(crate) type Encode = fn(WatchEvent) -> Bytes;

impl View {
    /// # Arguments
    /// `epoch` and `number` are where this view's indices begin.
    pub(crate) fn new(patience: Patience, heartbeat: Duration, epoch: u64, number: u64) -> Self {
        let usual = patience.of(Silence::AsAll).unwrap_or(patience.ttl);
        View {
            held_up: heartbeat.max(LivenessClock::MAX_STEP),
            epoch,
            inner: Mutex::new(Inner {
                patience,
                clock: LivenessClock::new(Instant::now()),
                catalog: Catalog::new(number),
                liveness: Liveness::new(usual),
                journal: Journal::new(number),
                complete: number,
                progress: watch::Sender::new(number),
                waiting: HashMap::new(),
                bodies: Bodies::default(),
            }),
        }
    }

    /// Takes the records that a store held before the start. No watcher is told, and every host is
    /// unverified.
    pub(crate) fn load(&self, records: impl IntoIterator<Item = (Key, Arc<Record>)>) {
        let (now, mut inner) = self.lock();
        let number = inner.catalog.number();
        for (key, record) in records {
            inner.catalog.apply(&key, Some(&record), number);
            let patience = inner.patience.of(record.silence());
            inner.liveness.recall(now, &key, patience);
        }
    }

    /// Takes the changes that a store has accepted, in the store's order, and wakes those who wait
    /// for them. Returns the number up to which the view is then complete, and for each change
    /// whether any endpoint changed.
    ///
    /// A store with numbers of its own calls [`View::complete_to`] afterwards.
    pub(crate) fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        encode: Encode,
    ) -> (u64, Vec<bool>) {
        let (now, mut inner) = self.lock();
        let inner = &mut *inner;
        let visible = changes.into_iter().map(|change| inner.apply(now, change, encode)).collect();
        (inner.complete, visible)
    }

    /// Everything up to a store's number is here, even if no record changed.
    pub(crate) fn complete_to(&self, number: u64) {
        let (_, mut inner) = self.lock();
        if number > inner.complete {
            inner.complete = number;
            inner.progress.send_replace(number);
        }
    }

    /// Waits until everything up to a store's number is here.
    pub(crate) async fn completed(&self, number: u64) {
        let mut progress = self.lock().1.progress.subscribe();
        // The sender lives as long as the view.
        let _ = progress.wait_for(|complete| *complete >= number).await;
    }

    /// The store vouches that a record is alive, or no longer does.
    pub(crate) fn vouch(&self, key: &Key, lives: bool) {
        let (now, mut inner) = self.lock();
        if lives {
            inner.liveness.hold(now, key);
        } else {
            inner.liveness.release(now, key);
            inner.bodies.clear();
        }
    }

    /// Gives every host another time to live, because the registry may have been unable to hear
    /// them.
    pub(crate) fn forgive(&self) {
        let (now, mut inner) = self.lock();
        inner.forgive(now);
    }

    /// Takes note that a record is alive.
    pub(crate) fn hear(&self, key: &Key) {
        let (now, mut inner) = self.lock();
        // Once a time counts in which nobody has to be heard, that somebody is makes it no longer.
        let counts = |record: &Arc<Record>| !matches!(record.silence(), Silence::Over(_));
        if inner.catalog.record(key).is_some_and(counts) {
            inner.liveness.hear(now, key);
        }
    }

    /// Takes a host's heartbeat. Returns whether the host declared something else than what is
    /// known here.
    pub(crate) fn heartbeat(&self, key: &Key, session: u64, digest: &str) -> Result<bool, Refusal> {
        let (now, mut inner) = self.lock();
        let record = inner.catalog.record(key).ok_or(Refusal::Unknown)?;
        owned(record, session)?;
        let resync = record.session != session || record.digest != digest;
        if record.session == session {
            // A newer session that has not declared itself yet says nothing about the declared one.
            inner.liveness.hear(now, key);
        }
        Ok(resync)
    }

    /// The addresses that are registered under a classic name, in the order in which they were.
    pub(crate) fn classic_addresses(&self, name: &str) -> Vec<Arc<str>> {
        let (_, inner) = self.lock();
        inner.catalog.classic_addresses(name).into_iter().map(|(_, address)| address).collect()
    }

    pub(crate) fn record(&self, key: &Key) -> Option<Arc<Record>> {
        self.lock().1.catalog.record(key).cloned()
    }

    /// All records.
    pub(crate) fn records(&self) -> Records {
        let (_, inner) = self.lock();
        let entries = inner.catalog.entries();
        entries.map(|(key, entry)| (key.clone(), entry.record.clone())).collect()
    }

    /// Whether there is room for a record, in place of the previous one under its key.
    pub(crate) fn has_room(&self, key: &Key, record: &Record) -> bool {
        self.lock().1.catalog.has_room(key, record)
    }

    /// Lets the clock count the time until now. A long gap between two readings counts as time in
    /// which the registry was held up.
    pub(crate) fn read_clock(&self) {
        drop(self.lock());
    }

    /// Which hosts and registrations to drop now.
    pub(crate) fn sweep(&self) -> Vec<Key> {
        let (now, mut inner) = self.lock();
        inner.liveness.sweep(now)
    }

    /// A record could not be dropped.
    pub(crate) fn keep(&self, key: &Key) {
        self.lock().1.liveness.keep(key);
    }

    pub(crate) fn is_silent(&self, key: &Key) -> bool {
        self.lock().1.liveness.is_silent(key)
    }

    /// How many are silent and not dropped yet.
    pub(crate) fn silent(&self) -> usize {
        self.lock().1.liveness.silent()
    }

    pub(crate) fn census(&self) -> Census {
        let (now, inner) = self.lock();
        let [hosts, classic, services, endpoints] = inner.catalog.counts();
        Census {
            hosts,
            classic,
            services,
            endpoints,
            silent: inner.liveness.silent(),
            unverified: inner.liveness.unverified(now),
        }
    }

    /// The hosts and classic registrations of a service in order, or all of them, and the index of what they serve.
    pub(crate) fn hosts(&self, service: Option<&str>) -> (Index, Vec<HostSnapshot>) {
        let (now, inner) = self.lock();
        match service {
            Some(service) => {
                let hosts = inner.snapshots(now, inner.catalog.records_of(service));
                (self.index(inner.catalog.service_number(service)), hosts)
            }
            None => {
                let hosts = inner.snapshots(now, inner.catalog.entries());
                (self.index(inner.catalog.number()), hosts)
            }
        }
    }

    /// What a list of Consul's API is made from, and its number.
    pub(crate) fn listed(&self, scope: Scope<'_>) -> (u64, Vec<HostSnapshot>) {
        let (now, inner) = self.lock();
        let hosts = match scope {
            Scope::All => inner.snapshots(now, inner.catalog.entries()),
            Scope::Service(service) => inner.snapshots(now, inner.catalog.records_of(service)),
            Scope::Node(node) => inner.snapshots(now, inner.catalog.of_node(node)),
        };
        (inner.scope_number(scope), hosts)
    }

    /// The number of the last change of such a list.
    pub(crate) fn scope_number(&self, scope: Scope<'_>) -> u64 {
        self.lock().1.scope_number(scope)
    }

    /// One record as lists have it.
    pub(crate) fn one(&self, key: &Key) -> Option<HostSnapshot> {
        let (now, inner) = self.lock();
        inner.snapshots(now, inner.catalog.entry(key).into_iter()).pop()
    }

    /// The registrations with a name of Consul's.
    pub(crate) fn named(&self, name: &Named) -> Records {
        let (_, inner) = self.lock();
        let named = inner.catalog.named(name);
        named.map(|(key, entry)| (key.clone(), entry.record.clone())).collect()
    }

    /// The records with checks that this registry makes, if any changed after a number; and the number of
    /// the last change.
    pub(crate) fn probed(&self, later_than: Option<u64>) -> Option<(u64, Records)> {
        self.lock().1.catalog.probed(later_than)
    }

    /// How many checks the registry has to make, for a record and in all.
    pub(crate) fn probing(&self, key: &Key) -> Probing {
        self.lock().1.catalog.probing(key)
    }

    /// Finds out who fell silent, and notes whom doubt has befallen or left, so that the numbers of
    /// [`View::scope_number`] say so.
    ///
    /// # Arguments
    /// `numbered` says that a store has numbers of its own. A mark then gets the last one, and so waits
    /// until there is a new one.
    pub(crate) fn mark(&self, numbered: bool) {
        let (now, mut inner) = self.lock();
        let inner = &mut *inner;
        inner.liveness.look(now);
        if numbered && inner.complete <= inner.catalog.marked_number(None) {
            return;
        }
        let keys = inner.liveness.turned();
        if keys.is_empty() {
            return;
        }
        let number = if numbered { inner.complete } else { inner.complete + 1 };
        let marked = inner.catalog.mark(keys, number);
        if marked.is_empty() {
            return;
        }
        if !numbered {
            inner.complete = number;
            inner.progress.send_replace(number);
        }
        for service in marked {
            inner.wake(&Some(service));
        }
        inner.wake(&None);
    }

    /// The kept body of a service's whole list, if it is still valid.
    ///
    /// `None` if a host in it is unverified, or if no body is kept. The caller then makes one, and
    /// keeps it with [`View::keep_body`].
    pub(crate) fn body(&self, service: &str) -> Option<(Index, Bytes)> {
        let (now, mut inner) = self.lock();
        let Inner { catalog, liveness, bodies, .. } = &mut *inner;
        let body = bodies.get(service, now, || sure_until(catalog, liveness, service))?;
        Some((self.index(catalog.service_number(service)), body))
    }

    /// Keeps the body of a list in which no host is unverified, if `index` is still the list's
    /// index.
    pub(crate) fn keep_body(&self, service: &str, index: Index, body: Bytes) {
        let (_, mut inner) = self.lock();
        if self.index(inner.catalog.service_number(service)) == index {
            let sure_until = sure_until(&inner.catalog, &inner.liveness, service);
            inner.bodies.keep(service, body, sure_until);
        }
    }

    /// The classic names, each with the address that was heard last and when.
    pub(crate) fn classic(&self) -> Vec<(Arc<str>, Arc<str>, Option<SystemTime>)> {
        let (now, inner) = self.lock();
        let wall = SystemTime::now();
        let newest = |name: &Arc<str>| {
            let (_, address) = inner.catalog.classic_addresses(name).pop()?;
            let key = Key::Classic { name: name.clone(), address: address.clone() };
            let at = inner.liveness.heard(&key);
            let at = at.and_then(|at| wall.checked_sub(now.saturating_sub(at)));
            Some((name.clone(), address, at))
        };
        inner.catalog.classic().keys().filter_map(newest).collect()
    }

    pub(crate) fn index(&self, number: u64) -> Index {
        Index { epoch: self.epoch, number }
    }

    /// The number up to which all changes are here.
    pub(crate) fn complete(&self) -> u64 {
        self.lock().1.complete
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A place among those who wait for the next change of a service, or of any. A caller that
    /// first takes the place and then looks misses no change.
    pub(crate) fn wait(self: &Arc<Self>, service: Option<&str>) -> Waiting {
        let (_, mut inner) = self.lock();
        let key = service.map(Arc::from);
        let sender = inner.waiting.entry(key.clone()).or_insert_with(|| watch::channel(()).0);
        let changed = Some(sender.subscribe());
        Waiting { view: self.clone(), key, changed }
    }

    /// The number of the last change: of one service, or of all.
    pub(crate) fn number(&self, service: Option<&str>) -> u64 {
        let (_, inner) = self.lock();
        service.map_or(inner.catalog.number(), |service| inner.catalog.service_number(service))
    }

    /// The position in the journal from which a watch resumes if it has seen everything up to
    /// `number`.
    pub(crate) fn resume(&self, number: u64) -> Option<Cursor> {
        let (_, inner) = self.lock();
        // A watch cannot have seen what is not here yet.
        inner.journal.after(number).filter(|_| number <= inner.complete)
    }

    /// The next events from a cursor on, and the number up to which a watcher is complete once it
    /// has read all of them.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        service: Option<&str>,
        max: usize,
    ) -> (Next, u64) {
        let (_, inner) = self.lock();
        (inner.journal.read(cursor, service, max), inner.complete)
    }

    /// All services, or only the given one, and the position in the journal where a watch continues
    /// after it has listed their endpoints.
    pub(crate) fn snapshot(&self, service: Option<&str>) -> (Vec<Arc<str>>, Cursor) {
        let (_, inner) = self.lock();
        let services = match service {
            Some(service) => vec![service.into()],
            None => inner.catalog.service_names().cloned().collect(),
        };
        (services, inner.journal.end())
    }

    fn lock(&self) -> (Duration, MutexGuard<'_, Inner>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = inner.clock.read(Instant::now());
        if reading.gap >= self.held_up {
            tracing::warn!(
                gap = ?reading.gap,
                "the registry's process was delayed; every host gets a full time to live again"
            );
            inner.forgive(reading.now);
        }
        (reading.now, inner)
    }
}

/// The time until which no host of a service can become unverified.
fn sure_until(catalog: &Catalog, liveness: &Liveness, service: &str) -> Duration {
    let sure = |(key, _): (&Key, _)| liveness.sure_until(key);
    catalog.records_of(service).map(sure).min().unwrap_or_default()
}

impl Inner {
    fn snapshots<'e>(
        &self,
        now: Duration,
        entries: impl Iterator<Item = (&'e Key, &'e Entry)>,
    ) -> Vec<HostSnapshot> {
        let wall = SystemTime::now();
        let ago = |at| wall.checked_sub(now.saturating_sub(at));
        let snapshot = |(key, entry): (&Key, &Entry)| HostSnapshot {
            record: entry.record.clone(),
            unverified: self.liveness.is_unverified(now, key),
            doubted: self.liveness.is_doubted(now, key),
            heard: self.liveness.heard(key).and_then(ago),
            name: key.host_name(),
            is_classic: matches!(key, Key::Classic { .. }),
            registered: match (key, &entry.record.upkeep) {
                (Key::Classic { name, .. }, Some(upkeep)) if upkeep.id.is_some() => {
                    Some(name.clone())
                }
                _ => None,
            },
            key: key.clone(),
            created: entry.created,
            modified: entry.modified,
        };
        entries.map(snapshot).collect()
    }

    fn scope_number(&self, scope: Scope<'_>) -> u64 {
        match scope {
            Scope::All => self.catalog.marked_number(None),
            Scope::Service(service) => self.catalog.marked_number(Some(service)),
            Scope::Node(node) => self.catalog.node_number(node),
        }
    }

    /// No host is known to be alive any more, and every host gets another time to live.
    fn forgive(&mut self, now: Duration) {
        self.liveness.forgive(now);
        self.bodies.clear();
    }

    /// Takes one change. Returns whether any endpoint changed.
    fn apply(&mut self, now: Duration, change: Change, encode: Encode) -> bool {
        let Change { key, record, number } = change;
        match &record {
            Some(record) => {
                let patience = self.patience.of(record.silence());
                self.liveness.admit(now, &key, patience);
            }
            None => self.liveness.remove(&key),
        }
        let next = number.unwrap_or(self.complete + 1);
        let events = self.catalog.apply(&key, record.as_ref(), next);
        if events.is_empty() {
            return false;
        }
        if number.is_none() {
            self.complete = next;
        }
        let mut last: Option<String> = None;
        for event in events {
            let service = event.service().to_owned();
            let frame = encode(match event {
                Event::Upsert(endpoint) => WatchEvent::Upsert(endpoint),
                Event::Delete(id) => WatchEvent::Delete(id),
            });
            self.journal.push(next, &service, frame);
            self.bodies.forget(&service);
            if last.as_ref() != Some(&service) {
                self.wake(&Some(service.as_str().into()));
                last = Some(service);
            }
        }
        self.wake(&None);
        true
    }

    fn wake(&self, key: &Option<Arc<str>>) {
        if let Some(waiting) = self.waiting.get(key) {
            waiting.send_replace(());
        }
    }
}
