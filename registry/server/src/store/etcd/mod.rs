//! A store that any number of registry processes share: an etcd cluster.
//!
//! Records are durable keys. A change is a transaction, which fails if the record is not the one
//! that the change was decided on. A host's liveness is a separate key with a lease. Every process
//! mirrors all keys, answers from its mirror, and acknowledges a change when the mirror has it. One
//! elected process drops silent hosts.

mod cluster;
mod layout;
mod mirror;
mod reaper;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::cluster::Cluster;
use self::layout::Layout;
use super::{WriteError, Written, stored};
use crate::etcd::{
    Compare, Credentials, Error, KeyValue, Member, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::metrics::Metrics;
use crate::record::{Key, Record, Refusal, Verdict, Write, decide};
use crate::upkeep::Silence;
use crate::view::{Encode, View};

/// How often a change is decided again because another change came in between.
const ATTEMPTS: usize = 8;

/// How long a change may take to arrive in the mirror.
const ARRIVAL: Duration = Duration::from_secs(5);

/// The largest record, in bytes: etcd takes requests of at most 1.5 MiB.
const MAX_RECORD: usize = 1024 * 1024;

/// A time to live below this is logged as too short.
const SHORT: Duration = Duration::from_secs(10);

/// In etcd this number means that a key has no lease.
const NO_LEASE: i64 = 0;

/// The shortest lease that etcd grants, in seconds.
const MIN_LEASE: u64 = 2;

/// An etcd cluster, and how to connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Its members, `host:port`.
    pub endpoints: Vec<String>,
    /// The prefix of all keys, `/wharf`.
    pub prefix: String,
    /// How its members and the registry authenticate each other.
    pub credentials: Credentials,
}

/// The store; clones share it.
#[derive(Clone)]
pub(crate) struct Etcd {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    layout: Layout,
    view: Arc<View>,
    encode: Encode,
    metrics: Arc<Metrics>,
    ttl: Duration,
    known: Mutex<Known>,
    /// The cluster is not the mirrored one any more.
    replaced: watch::Sender<bool>,
    /// The elected process has given up the election.
    handover: Notify,
}

/// What the mirror knows beyond the view.
#[derive(Default)]
struct Known {
    /// etcd's revision of each record.
    revisions: HashMap<Key, i64>,
    /// The lease of each live record.
    leases: HashMap<Key, i64>,
    /// When the cluster last had a problem, or was read again.
    troubled: Option<tokio::time::Instant>,
    /// When the mirror last heard from the cluster.
    fresh: Option<tokio::time::Instant>,
    /// Records that cannot be read: another version wrote them, or somebody by hand.
    unreadable: BTreeSet<Key>,
    /// Why the cluster did not take the last change.
    refusing: Option<String>,
    /// The lease of the election, while this process is elected.
    elected: Option<i64>,
    /// The process ends: it is not elected any more.
    resigned: bool,
}

/// A record, as it is in etcd.
struct Current {
    record: Option<Record>,
    /// 0 if there is no record.
    revision: i64,
    lease: Option<i64>,
}

impl Etcd {
    /// Connects, reads everything, and keeps mirroring. Waits for as long as it takes if the
    /// cluster does not answer yet.
    ///
    /// Of the `ttl`, the first part is a lease in etcd; the view counts the rest.
    pub(crate) async fn start(
        config: &EtcdConfig,
        ttl: Duration,
        make_view: impl FnOnce(u64, u64) -> Arc<View>,
        encode: Encode,
        metrics: Arc<Metrics>,
    ) -> Etcd {
        let layout = Layout::new(&config.prefix);
        let (cluster, list) = mirror::first_list(config, &layout).await;
        let view = make_view(list.epoch, list.revision);
        if ttl < SHORT {
            tracing::warn!(
                ?ttl,
                "a time to live below {SHORT:?} leaves etcd little time to elect a leader: choose a longer --ttl"
            );
        }
        let known = Mutex::default();
        let inner = Inner {
            cluster,
            layout,
            view,
            encode,
            metrics,
            ttl,
            known,
            replaced: watch::Sender::new(false),
            handover: Notify::new(),
        };
        let etcd = Etcd { inner: Arc::new(inner) };
        etcd.take_first(list);
        tokio::spawn(etcd.clone().mirror());
        tokio::spawn(etcd.clone().reap());
        etcd
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.inner.view
    }

    /// Makes a change. This is cancel-safe, but the change may still be made after its caller gave
    /// up.
    pub(crate) async fn write(&self, key: Key, write: Write) -> Result<Written, WriteError> {
        let mut current = None;
        for _ in 0..ATTEMPTS {
            // Whether `known` is what the cluster has, not only what the mirror has.
            let asked = current.is_some();
            let known = match current.take() {
                Some(current) => current,
                None => self.mirrored(&key),
            };
            let created = known.record.is_none();
            // What is restored has a time to live to be heard.
            let heard = write.is_sign_of_life() || (created && matches!(write, Write::Restore(_)));
            let verdict = match decide(&key, known.record.as_ref(), write.clone()) {
                Ok(verdict) => verdict,
                Err(refusal) => {
                    // The mirror may be behind. Ask the cluster before refusing.
                    if asked {
                        return Err(WriteError::Refused(refusal));
                    }
                    current = Some(self.read(&key).await?);
                    continue;
                }
            };
            let removed = matches!(verdict, Verdict::Remove);
            match self.transact(&key, &known, verdict, heard).await? {
                Ok(Some(revision)) => {
                    let visible = self.arrived(revision).await?;
                    return Ok(Written { created, removed, visible, number: revision });
                }
                Ok(None) => {
                    let number = self.inner.view.complete();
                    return Ok(Written { created, removed, visible: false, number });
                }
                Err(now) => current = Some(now),
            }
        }
        Err(WriteError::Busy)
    }

    /// The heartbeat of a host, or of a classic registration.
    pub(crate) async fn renew(&self, key: &Key) -> Result<(), WriteError> {
        let lease = self.known().leases.get(key).copied();
        if let Some(lease) = lease
            && self.keep_alive(lease).await?
        {
            return Ok(());
        }
        // The lease has expired, or was never seen here. The host gets a new one.
        for _ in 0..ATTEMPTS {
            let now = self.read(key).await?;
            if now.record.is_none() {
                return Err(WriteError::Refused(Refusal::Unknown));
            }
            if self.transact(key, &now, Verdict::Unchanged, true).await?.is_ok() {
                return Ok(());
            }
        }
        Err(WriteError::Busy)
    }

    /// Waits until the mirror has everything that etcd had when this was called.
    pub(crate) async fn catch_up(&self) -> Result<(), WriteError> {
        let tick = self.inner.layout.tick();
        let revision = self.put(tick).await?;
        self.arrived(revision).await.map(drop)
    }

    /// Completes when the cluster is not the mirrored one any more. It was restored from a backup,
    /// for example, and everything that this process knows may be wrong.
    pub(crate) async fn replaced(&self) {
        // The sender lives as long as `self`.
        let _ = self.inner.replaced.subscribe().wait_for(|replaced| *replaced).await;
    }

    /// Whether the mirror follows the cluster. If not, the error says why.
    pub(crate) fn readiness(&self) -> Result<(), Cow<'static, str>> {
        let known = self.known();
        if known.fresh.is_none_or(|fresh| fresh.elapsed() >= mirror::STALE) {
            let why = "etcd does not answer; the registry answers with the last known lists";
            return Err(why.into());
        }
        if let Some(why) = &known.refusing {
            return Err(format!("etcd does not take changes; lists are still served: {why}").into());
        }
        match known.unreadable.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} records in etcd cannot be read, and are not in the lists; the first one is '{first}': did a newer version write it? Update this registry",
                known.unreadable.len()
            )
            .into()),
        }
    }

    /// Whether this process is the elected one.
    pub(crate) fn is_elected(&self) -> bool {
        self.known().elected.is_some()
    }

    /// Gives up the election, if this process is elected, so that another one is at its next look.
    pub(crate) async fn resign(&self) {
        let elected = {
            let mut known = self.known();
            known.resigned = true;
            known.elected.take()
        };
        let Some(lease) = elected else { return };
        let given_up = async {
            self.call(|member: Member| async move { member.revoke(lease).await }).await?;
            // Whoever sees this stands for election at once. That the key of the election is gone would say
            // no more than that somebody is late.
            self.put(self.inner.layout.handover()).await
        };
        if let Err(error) = given_up.await {
            tracing::warn!(%error, "the election is not given up, and ends by itself");
        }
    }

    /// What the mirror has under a key. The revision is read before the record, and written after
    /// it, so it is never newer than the record. A decision on an old record therefore fails when
    /// the transaction compares the revision.
    fn mirrored(&self, key: &Key) -> Current {
        let (revision, lease) = {
            let known = self.known();
            (known.revisions.get(key).copied(), known.leases.get(key).copied())
        };
        let record = self.inner.view.record(key).map(|record| (*record).clone());
        match (revision, record) {
            (Some(revision), Some(record)) => Current { record: Some(record), revision, lease },
            _ => Current { record: None, revision: 0, lease },
        }
    }

    /// What is under a key now, according to the majority of the cluster.
    async fn read(&self, key: &Key) -> Result<Current, WriteError> {
        let (spec, live) = (self.inner.layout.spec(key), self.inner.layout.live(key));
        let success = vec![RequestOp::get(spec), RequestOp::get(live)];
        let answer = self.txn(&TxnRequest { success, ..TxnRequest::default() }).await?;
        current(key, &answer.responses)
    }

    /// Carries out what was decided on `known`, and renews its lease if its owner was heard. Returns the
    /// revision if anything was written, or what is there instead of `known`.
    async fn transact(
        &self,
        key: &Key,
        known: &Current,
        verdict: Verdict,
        heard: bool,
    ) -> Result<Result<Option<u64>, Current>, WriteError> {
        let Inner { layout, view, .. } = &*self.inner;
        let (spec, live) = (layout.spec(key), layout.live(key));
        let mut operations = Vec::new();
        let next = match &verdict {
            Verdict::Replace(record) => {
                if !view.has_room(key, record) {
                    return Err(WriteError::Refused(Refusal::Full));
                }
                let content = stored::encode(record);
                if content.len() > MAX_RECORD {
                    return Err(WriteError::TooLarge { bytes: content.len(), most: MAX_RECORD });
                }
                operations.push(RequestOp::put(spec.clone(), content, NO_LEASE));
                Some(&**record)
            }
            Verdict::Unchanged => known.record.as_ref(),
            Verdict::Remove => {
                operations.push(RequestOp::delete(spec.clone()));
                operations.push(RequestOp::delete(live.clone()));
                None
            }
        };
        if let Some(record) = next.filter(|_| heard)
            && let Some(ttl) = self.ttl_of(record.silence())
        {
            // A lease keeps the length that it was granted with.
            let fits = |known: &Record| known.silence() == record.silence();
            let fits = known.record.as_ref().is_some_and(fits);
            let lease = self.lease(known.lease.filter(|_| fits), ttl).await?;
            operations.push(RequestOp::put(live.clone(), record.session.to_string(), lease));
        }
        if let Some(record) = next.filter(|_| known.lease.is_some())
            && self.ttl_of(record.silence()).is_none()
        {
            // Nobody has to be heard any more: a lease that is left would say that somebody was.
            operations.push(RequestOp::delete(live.clone()));
        }
        let writes = !operations.is_empty();
        let compare = vec![Compare::mod_revision(spec.clone(), known.revision)];
        let failure = vec![RequestOp::get(spec), RequestOp::get(live)];
        let answer = self.txn(&TxnRequest { compare, success: operations, failure }).await?;
        if answer.succeeded {
            let revision = revision(answer.header.as_ref());
            return Ok(Ok(writes.then_some(revision)));
        }
        current(key, &answer.responses).map(Err)
    }

    /// The time to live that is counted by a lease.
    fn ttl_of(&self, silence: Silence) -> Option<Duration> {
        match silence {
            Silence::AsAll => Some(self.inner.ttl),
            Silence::Within(ttl) => Some(ttl),
            Silence::Over(_) | Silence::Never => None,
        }
    }

    /// A live lease: this one if it is alive, or else a new one for this time to live.
    async fn lease(&self, known: Option<i64>, ttl: Duration) -> Result<i64, WriteError> {
        if let Some(lease) = known
            && self.keep_alive(lease).await?
        {
            return Ok(lease);
        }
        let seconds = i64::try_from(lease(ttl).as_secs()).unwrap_or(i64::MAX);
        self.call(|member: Member| async move { member.grant(seconds).await }).await
    }

    /// Renews a lease. Returns whether it existed.
    async fn keep_alive(&self, lease: i64) -> Result<bool, WriteError> {
        // Each renewal has its own stream. One stream answers its renewals one after the other, so
        // one renewal that hangs would delay all hosts.
        self.call(|member: Member| async move { member.renew(lease).await }).await
    }

    /// Reads one key. Returns its content, and the header of the answer.
    async fn get(
        &self,
        key: &str,
    ) -> Result<(Option<KeyValue>, Option<ResponseHeader>), WriteError> {
        let answer = self.call(|member: Member| {
            let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
            async move { member.range(request).await }
        });
        let answer = answer.await?;
        Ok((answer.kvs.into_iter().next(), answer.header))
    }

    /// Writes a key without content. Returns the revision.
    async fn put(&self, key: String) -> Result<u64, WriteError> {
        let request = PutRequest { key: key.into(), ..PutRequest::default() };
        let put = self.call(|member: Member| {
            let request = request.clone();
            async move { member.put(request).await }
        });
        let put = put.await;
        self.note_change(&put);
        Ok(revision(put?.header.as_ref()))
    }

    /// Notes whether the cluster takes changes.
    fn note_change<T>(&self, made: &Result<T, WriteError>) {
        self.known().refusing = made.as_ref().err().map(ToString::to_string);
    }

    /// Waits until the mirror has a change. Returns whether any endpoint changed in the meantime.
    async fn arrived(&self, revision: u64) -> Result<bool, WriteError> {
        let before = self.inner.view.number(None);
        let arrival = tokio::time::timeout(ARRIVAL, self.inner.view.completed(revision));
        arrival.await.map_err(|_| {
            WriteError::Unavailable(
                "etcd has made it, but it did not arrive here in time".to_owned(),
            )
        })?;
        Ok(self.inner.view.number(None) > before)
    }

    async fn call<T, C>(&self, call: impl FnMut(Member) -> C) -> Result<T, WriteError>
    where
        C: Future<Output = Result<T, Error>>,
    {
        self.inner.cluster.call(call).await.map_err(|error| {
            self.troubled();
            WriteError::Unavailable(error.to_string())
        })
    }

    async fn txn(&self, txn: &TxnRequest) -> Result<TxnResponse, WriteError> {
        let made = self.call(|member: Member| {
            let txn = txn.clone();
            async move { member.txn(txn).await }
        });
        let made = made.await;
        self.note_change(&made);
        made
    }

    /// Records a problem: heartbeats may have been lost.
    fn troubled(&self) {
        self.known().troubled = Some(tokio::time::Instant::now());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a host's lease lasts without a heartbeat: two heartbeats may be lost. After it, the
/// rest of the time to live begins, in which a heartbeat still revives the host.
pub(crate) fn lease(ttl: Duration) -> Duration {
    Duration::from_secs((ttl.as_secs() * 2 / 3).max(MIN_LEASE))
}

/// A record and its lease, from the answers to two reads.
fn current(key: &Key, answers: &[ResponseOp]) -> Result<Current, WriteError> {
    let value = |place: usize| answers.get(place).and_then(ResponseOp::first);
    let (spec, live) = (value(0), value(1));
    let lease = live.map(|live| live.lease).filter(|lease| *lease != NO_LEASE);
    let Some(spec) = spec else { return Ok(Current { record: None, revision: 0, lease }) };
    let record = stored::decode(key, &spec.value).map_err(|error| {
        let key = String::from_utf8_lossy(&spec.key).into_owned();
        WriteError::Unavailable(format!("the key '{key}' in etcd has no valid record: {error}"))
    })?;
    Ok(Current { record: Some(record), revision: spec.mod_revision, lease })
}

/// etcd's revisions have a sign, but are never negative.
fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// The revision of an answer.
fn revision(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| number(header.revision))
}
