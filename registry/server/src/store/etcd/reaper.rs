//! One of the processes drops silent hosts for all of them. It is elected with a leased key.
//!
//! A process that was elected before, and was stopped in the meantime, drops nothing: each removal
//! compares the key.

use std::time::Duration;

use tokio::time::Instant;

use super::{Etcd, NO_LEASE, WriteError};
use crate::etcd::{Compare, Member, RequestOp, ResponseOp, TxnRequest};
use crate::record::{Key, Verdict, Write, decide};
use crate::store::stored;

/// How often the elected process looks for silent hosts, and writes its tick.
const PERIOD: Duration = Duration::from_secs(2);

/// How long the election lasts after the elected process has stopped, in seconds.
const TERM: i64 = 10;

/// An election that was won.
struct Term {
    name: String,
    lease: i64,
}

impl Etcd {
    /// Stands for election, and drops silent hosts while elected, until the process resigns.
    pub(super) async fn reap(self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut term: Option<Term> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.inner.handover.notified() => {}
            }
            if self.known().resigned {
                return;
            }
            let done = match &term {
                None => self.stand().await.map(|won| {
                    if won.is_some() {
                        tracing::info!("this process drops silent hosts from now on");
                        // Until now, this process did not judge silence. So no host is late yet.
                        self.inner.view.forgive();
                    }
                    self.known().elected = won.as_ref().map(|term| term.lease);
                    term = won;
                }),
                Some(current) => match self.serve(current).await {
                    Ok(true) => Ok(()),
                    Ok(false) => {
                        tracing::info!("another process drops silent hosts from now on");
                        self.known().elected = None;
                        term = None;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                tracing::warn!(%error, "silent hosts are not dropped until etcd answers");
            }
        }
    }

    async fn stand(&self) -> Result<Option<Term>, WriteError> {
        let key = self.inner.layout.reaper();
        let (held, _) = self.get(&key).await?;
        if held.is_some() {
            return Ok(None);
        }
        let lease = self.call(|member: Member| async move { member.grant(TERM).await }).await?;
        let name = format!("{:016x}", fastrand::u64(..));
        let vacant = vec![Compare::create_revision(key.clone(), 0)];
        let take = vec![RequestOp::put(key, name.clone(), lease)];
        let txn = TxnRequest { compare: vacant, success: take, failure: Vec::new() };
        let won = self.txn(&txn).await?;
        Ok(won.succeeded.then_some(Term { name, lease }))
    }

    /// One period of the elected process. Returns whether it is still elected.
    async fn serve(&self, term: &Term) -> Result<bool, WriteError> {
        if !self.keep_alive(term.lease).await? {
            return Ok(false);
        }
        self.put(self.inner.layout.tick()).await?;
        // For a while after a problem, heartbeats may not have reached any registry.
        let ttl = self.inner.ttl;
        let troubled = self.known().troubled.take_if(|since| since.elapsed() >= ttl);
        if troubled.is_some() {
            self.inner.view.forgive();
        }
        if self.known().troubled.is_some_and(|since: Instant| since.elapsed() < ttl) {
            return Ok(true);
        }
        let mut renewed = Instant::now();
        let mut silent = self.inner.view.sweep().into_iter();
        while let Some(key) = silent.next() {
            // Hosts that are not dropped now must be found again later.
            let keep = |silent: std::vec::IntoIter<Key>| {
                std::iter::once(key.clone())
                    .chain(silent)
                    .for_each(|key| self.inner.view.keep(&key));
            };
            if renewed.elapsed() >= PERIOD {
                // Many removals may take longer than a term.
                renewed = Instant::now();
                match self.keep_alive(term.lease).await {
                    Ok(true) => {}
                    Ok(false) => {
                        keep(silent);
                        return Ok(false);
                    }
                    Err(error) => {
                        keep(silent);
                        return Err(error);
                    }
                }
            }
            match self.drop_silent(term, &key).await {
                Ok(Dropped::Yes) => {
                    tracing::warn!(host = %key, ?ttl, "dropped a host that fell silent");
                    self.inner.metrics.evicted();
                }
                Ok(Dropped::Critical) => {
                    tracing::warn!(service = %key, "a service is critical: nobody reported its check in time");
                }
                Ok(Dropped::Lives) => {}
                Ok(Dropped::NotElected) => {
                    keep(silent);
                    return Ok(false);
                }
                Err(error) => {
                    keep(silent);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    async fn drop_silent(&self, term: &Term, key: &Key) -> Result<Dropped, WriteError> {
        let layout = &self.inner.layout;
        let revision = self.known().revisions.get(key).copied();
        let Some((revision, record)) = revision.zip(self.inner.view.record(key)) else {
            return Ok(Dropped::Lives);
        };
        let verdict = decide(key, Some(&record), Write::Evict).unwrap_or(Verdict::Unchanged);
        let (spec, live, reaper) = (layout.spec(key), layout.live(key), layout.reaper());
        let (change, done) = match verdict {
            Verdict::Remove => (RequestOp::delete(spec.clone()), Dropped::Yes),
            Verdict::Replace(record) => {
                (RequestOp::put(spec.clone(), stored::encode(&record), NO_LEASE), Dropped::Critical)
            }
            Verdict::Unchanged => return Ok(Dropped::Lives),
        };
        let conditions = vec![
            Compare::mod_revision(spec.clone(), revision),
            Compare::create_revision(live, 0),
            Compare::value(reaper.clone(), term.name.clone()),
        ];
        let txn = TxnRequest {
            compare: conditions,
            success: vec![change],
            failure: vec![RequestOp::get(reaper)],
        };
        let answer = self.txn(&txn).await?;
        if answer.succeeded {
            return Ok(done);
        }
        let holder = answer.responses.first().and_then(ResponseOp::first);
        let elected = holder.is_some_and(|holder| holder.value == term.name.as_bytes());
        Ok(if elected { Dropped::Lives } else { Dropped::NotElected })
    }
}

/// The result of dropping a host.
enum Dropped {
    Yes,
    /// It stays, and a check of it is critical.
    Critical,
    /// It came back in the meantime, or another process removed it.
    Lives,
    NotElected,
}
