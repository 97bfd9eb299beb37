//! Follows the cluster: first the whole list, then each change after it. If the connection is lost,
//! it continues after the last change. If etcd has compacted the next change away, it reads the
//! list again, and reports the differences as changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wharf_registry_api::retry_pauses;

use super::cluster::{Cluster, EtcdError};
use super::layout::{Layout, Name};
use super::{Etcd, EtcdConfig, number, revision};
use crate::etcd::{Event, KeyValue, Member, RangeRequest, ResponseHeader, WatchCreateRequest};
use crate::record::{Key, Record};
use crate::store::stored;
use crate::view::Change;

/// How many keys are read per request.
const PAGE: i64 = 256;

/// The elected process writes every two seconds. So a watch that shows nothing for this long is
/// stuck.
const QUIET: Duration = Duration::from_secs(5);

/// A mirror that has heard nothing for this long may be out of date.
pub(super) const STALE: Duration = Duration::from_secs(15);

/// Older versions have bugs that were fixed since (etcd's changelogs of 3.5.8 to 3.5.33).
const RECOMMENDED: semver::Version = semver::Version::new(3, 5, 33);

/// A history of so many revisions is long: an elected registry alone writes as many within two hours.
const LONG_HISTORY: u64 = 2_000;

/// Everything at one revision.
pub(super) struct List {
    pub(super) epoch: u64,
    pub(super) revision: u64,
    specs: HashMap<Key, (Arc<Record>, i64)>,
    /// Records that cannot be read.
    unreadable: BTreeSet<Key>,
    leases: HashMap<Key, i64>,
}

/// Connects and reads everything. Retries until the cluster answers.
pub(super) async fn first_list(config: &EtcdConfig, layout: &Layout) -> (Cluster, List) {
    let mut pauses = retry_pauses();
    loop {
        let tried = async {
            let cluster = Cluster::connect(config).await?;
            let list = list(&cluster, layout).await?;
            Ok::<_, EtcdError>((cluster, list))
        };
        match tried.await {
            Ok(listed) => {
                look_at_version(&listed.0).await;
                look_at_history(&listed.0, listed.1.revision).await;
                return listed;
            }
            Err(error) => {
                tracing::error!(%error, endpoints = ?config.endpoints, "etcd cannot be read; the registry tries again");
                tokio::time::sleep(pauses.next().unwrap_or(QUIET)).await;
            }
        }
    }
}

/// Warns if the cluster's version is known to lose events or to revoke live leases.
async fn look_at_version(cluster: &Cluster) {
    let status = cluster.call(|member: Member| async move { member.status().await });
    let Ok(status) = status.await else { return };
    let known = semver::Version::parse(&status.version);
    if known.is_ok_and(|version| version < RECOMMENDED) {
        tracing::warn!(
            version = status.version,
            recommended = %RECOMMENDED,
            "this version of etcd can lose watch events and revoke leases too early: update etcd"
        );
    }
}

/// Warns if the cluster keeps all of its history, which grows until etcd takes no changes any more.
async fn look_at_history(cluster: &Cluster, now: u64) {
    if now < LONG_HISTORY {
        return;
    }
    // The first revisions can be read only if nothing was ever compacted.
    let first = RangeRequest { key: b"/".into(), revision: 2, ..RangeRequest::default() };
    let read = cluster.call(|member: Member| {
        let first = first.clone();
        async move { member.range(first).await }
    });
    if read.await.is_ok() {
        tracing::warn!(
            revisions = now,
            "etcd keeps all revisions, and takes no changes when its quota is full: start its members with --auto-compaction-mode=periodic --auto-compaction-retention=1h"
        );
    }
}

async fn list(cluster: &Cluster, layout: &Layout) -> Result<List, EtcdError> {
    let mut list = List {
        epoch: 0,
        revision: 0,
        specs: HashMap::new(),
        unreadable: BTreeSet::new(),
        leases: HashMap::new(),
    };
    let end = end_of(layout.root());
    let mut page = RangeRequest {
        key: layout.root().into(),
        range_end: end,
        limit: PAGE,
        ..RangeRequest::default()
    };
    loop {
        let answer = cluster
            .call(|member: Member| {
                let page = page.clone();
                async move { member.range(page).await }
            })
            .await?;
        if let Some(header) = answer.header.as_ref().filter(|_| page.revision == 0) {
            // All pages are read at the revision of the first one.
            page.revision = header.revision;
            list.revision = number(header.revision);
            list.epoch = header.cluster_id;
        }
        for kv in &answer.kvs {
            list.take(layout, kv);
        }
        match answer.kvs.last() {
            Some(last) if answer.more => {
                page.key.clone_from(&last.key);
                page.key.push(0);
            }
            _ => return Ok(list),
        }
    }
}

impl List {
    fn take(&mut self, layout: &Layout, kv: &KeyValue) {
        match layout.parse(&kv.key) {
            Name::Spec(key) => match record(&key, kv) {
                Some(record) => {
                    self.specs.insert(key, (Arc::new(record), kv.mod_revision));
                }
                None => drop(self.unreadable.insert(key)),
            },
            Name::Live(key) => {
                self.leases.insert(key, kv.lease);
            }
            Name::Handover | Name::Other => {}
        }
    }
}

/// The record in a key, if it can be read.
fn record(key: &Key, kv: &KeyValue) -> Option<Record> {
    stored::decode(key, &kv.value)
        .inspect_err(|error| {
            let key = String::from_utf8_lossy(&kv.key);
            tracing::error!(%key, %error, "a record in etcd cannot be read, and is left out");
        })
        .ok()
}

/// The first key after all keys with a prefix (which ends in `/`).
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn change(key: Key, record: Option<Arc<Record>>, revision: i64) -> Change {
    Change { key, record, number: Some(number(revision)) }
}

/// Why following ended.
enum Broken {
    /// The next change was compacted away.
    Compacted,
    /// It is another cluster, or an earlier state of this one.
    Replaced,
    /// Anything else: following can continue after the last change.
    Lost(String),
}

impl Etcd {
    /// Takes the first list, before any request is answered.
    pub(super) fn take_first(&self, list: List) {
        let List { specs, unreadable, leases, .. } = list;
        let records = specs.iter().map(|(key, (record, _))| (key.clone(), record.clone()));
        self.inner.view.load(records);
        leases.keys().for_each(|key| self.inner.view.vouch(key, true));
        let mut known = self.known();
        known.unreadable = unreadable;
        known.revisions = specs.into_iter().map(|(key, (_, revision))| (key, revision)).collect();
        known.leases = leases;
        known.fresh = Some(Instant::now());
        // Leases may have expired while no registry was running to renew them.
        known.troubled = Some(Instant::now());
    }

    /// Follows the cluster for as long as the process lives.
    pub(super) async fn mirror(self) {
        let mut pauses = retry_pauses();
        loop {
            let before = self.inner.view.complete();
            let broken = self.follow().await;
            self.troubled();
            if self.inner.view.complete() > before {
                pauses = retry_pauses();
            }
            let listed = match broken {
                Broken::Compacted => {
                    tracing::warn!("etcd's history was compacted: everything is read again");
                    self.list_again().await
                }
                Broken::Lost(why) => {
                    tracing::warn!(why, "the connection to etcd is lost; the registry reconnects");
                    Ok(())
                }
                Broken::Replaced => {
                    tracing::error!(
                        "the etcd cluster is not the same as before: it was restored from a backup, or replaced by another one"
                    );
                    self.inner.replaced.send_replace(true);
                    return;
                }
            };
            if let Err(error) = listed {
                tracing::warn!(%error, "etcd cannot be read; the registry tries again");
            }
            tokio::time::sleep(pauses.next().unwrap_or(QUIET)).await;
        }
    }

    /// Applies changes as they come, until something breaks.
    async fn follow(&self) -> Broken {
        let (position, member) = self.inner.cluster.current();
        let lost = |why: String| {
            self.inner.cluster.move_on(position);
            Broken::Lost(why)
        };
        match self.get(&self.inner.layout.tick()).await {
            Ok((_, Some(header))) if self.is_followed(&header) => {}
            Ok(_) => return Broken::Replaced,
            Err(error) => return Broken::Lost(error.to_string()),
        }
        let start = i64::try_from(self.inner.view.complete()).unwrap_or(i64::MAX).saturating_add(1);
        let root = self.inner.layout.root();
        let watching = member.watch(WatchCreateRequest {
            key: root.into(),
            range_end: end_of(root),
            start_revision: start,
            progress_notify: true,
        });
        let mut stream = match tokio::time::timeout(QUIET, watching).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return lost(error.to_string()),
            Err(_) => return lost("it does not answer".to_owned()),
        };
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(QUIET, stream.message()) => message,
                // A call has found out first that this member does not answer.
                () = self.inner.cluster.moved_on(position) => {
                    return Broken::Lost("its calls go to another member".to_owned());
                }
            };
            let response = match message {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => return lost("it ended the watch".to_owned()),
                Ok(Err(error)) => return lost(error.to_string()),
                Err(_) => return lost("it sends nothing".to_owned()),
            };
            if response.compact_revision > 0 {
                return Broken::Compacted;
            }
            if response.canceled {
                return lost(response.cancel_reason);
            }
            self.known().fresh = Some(Instant::now());
            let Some(newest) = response
                .events
                .iter()
                .filter_map(|event| event.kv.as_ref())
                .map(|kv| kv.mod_revision)
                .max()
            else {
                continue;
            };
            for event in &response.events {
                self.take(event);
            }
            // All events of one revision come together.
            self.inner.view.complete_to(number(newest));
        }
    }

    /// Whether an answer is from the mirrored cluster, and not older than what the mirror has.
    fn is_followed(&self, header: &ResponseHeader) -> bool {
        let view = &self.inner.view;
        header.cluster_id == view.epoch() && revision(Some(header)) >= view.complete()
    }

    fn take(&self, event: &Event) {
        let Some(kv) = &event.kv else { return };
        let revision = kv.mod_revision;
        match (self.inner.layout.parse(&kv.key), event.is_removal()) {
            (Name::Spec(key), false) => {
                let Some(record) = record(&key, kv) else {
                    self.known().unreadable.insert(key);
                    return;
                };
                self.known().unreadable.remove(&key);
                self.apply([change(key.clone(), Some(Arc::new(record)), revision)]);
                self.known().revisions.insert(key, revision);
            }
            (Name::Spec(key), true) => {
                self.known().unreadable.remove(&key);
                self.apply([change(key.clone(), None, revision)]);
                self.known().revisions.remove(&key);
            }
            (Name::Live(key), false) => {
                self.known().leases.insert(key.clone(), kv.lease);
                self.inner.view.vouch(&key, true);
            }
            (Name::Live(key), true) => {
                self.known().leases.remove(&key);
                self.inner.view.vouch(&key, false);
            }
            (Name::Handover, _) => self.inner.handover.notify_one(),
            (Name::Other, _) => {}
        }
    }

    fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        self.inner.view.commit(changes, self.inner.encode);
    }

    /// Reads everything again, and applies the differences as changes at the revision that was
    /// read. They are applied all at once: they have one number, so nobody may see only a part of
    /// them.
    async fn list_again(&self) -> Result<(), EtcdError> {
        let list = list(&self.inner.cluster, &self.inner.layout).await?;
        if list.revision < self.inner.view.complete() || list.epoch != self.inner.view.epoch() {
            // The next `follow` finds this out itself.
            return Ok(());
        }
        let revision = i64::try_from(list.revision).unwrap_or(i64::MAX);
        let before = self.known().revisions.clone();
        let gone = before.keys().filter(|key| !list.specs.contains_key(*key));
        let gone = gone.map(|key| change(key.clone(), None, revision));
        let changed =
            list.specs.iter().filter(|(key, (_, changed))| before.get(*key) != Some(changed));
        let changed =
            changed.map(|(key, (record, _))| change(key.clone(), Some(record.clone()), revision));
        self.apply(gone.chain(changed).collect::<Vec<_>>());
        self.known().unreadable = list.unreadable;
        self.known().revisions =
            list.specs.into_iter().map(|(key, (_, revision))| (key, revision)).collect();
        let vouched: Vec<Key> = self.known().leases.keys().cloned().collect();
        for key in vouched.iter().filter(|key| !list.leases.contains_key(*key)) {
            self.inner.view.vouch(key, false);
        }
        list.leases.keys().for_each(|key| self.inner.view.vouch(key, true));
        self.known().leases = list.leases;
        self.inner.view.complete_to(list.revision);
        Ok(())
    }
}
