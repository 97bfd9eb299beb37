//! What requests ask of the registry. It checks each request, and answers in the API's terms.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use wharf_registry_api::{
    Code, Declaration, Declared, EndpointList, EndpointSpec, EndpointState, HeartbeatReply, Index,
    Problem, RegistryStatus, ServiceList,
};

use crate::listing::{self, HostSnapshot};
use crate::metrics::Metrics;
use crate::record::{Key, Record, Refusal, Write};
use crate::store::{Backend, WriteError, Written};
use crate::view::{Scope, View};
use crate::{Config, Store};

/// How often silent hosts are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// After how many sweeps it is noted who is unverified, and the store looks after itself.
const LOOK: u32 = 4;

/// How long this process may take to catch up with others of its cluster.
const CATCH_UP: Duration = Duration::from_secs(10);

/// All hosts and services that the registry knows; its requests share it.
pub(crate) struct Directory {
    ttl: Duration,
    heartbeat: Duration,
    shortest_drop: Duration,
    pub(crate) view: Arc<View>,
    pub(crate) store: Backend,
    metrics: Arc<Metrics>,
    began: Instant,
    /// The store is memory: nothing outlives the process.
    forgets: bool,
    /// What the store is.
    kind: &'static str,
    /// Added to the number of an index, for clients that want an index without an epoch.
    plain_base: u64,
    stopped: watch::Receiver<bool>,
}

/// A service as the classic `/services` shows it.
pub(crate) struct ClassicEntry {
    pub(crate) addr: String,
    /// When it was heard last, if it was since the registry started.
    pub(crate) time: Option<SystemTime>,
}

impl Directory {
    pub(crate) fn new(
        config: &Config,
        store: Backend,
        metrics: Arc<Metrics>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let view = store.view().clone();
        // The epoch is in microseconds. Changes are rarer than one per microsecond, so plain
        // indices grow from one life of the registry to the next. etcd's revisions do so by
        // themselves.
        let plain_base = if store.is_swept_here() { view.epoch() } else { 0 };
        Directory {
            ttl: config.ttl,
            heartbeat: config.heartbeat,
            shortest_drop: config.shortest_drop,
            view,
            store,
            metrics,
            began: Instant::now(),
            forgets: config.store == Store::Memory,
            kind: match config.store {
                Store::Memory => "memory",
                Store::File(_) => "file",
                Store::Etcd(_) => "etcd",
            },
            plain_base,
            stopped,
        }
    }

    /// Drops silent hosts, for as long as the registry lives.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut held_back = false;
        let mut since_look = 0;
        loop {
            ticks.tick().await;
            since_look += 1;
            if since_look == LOOK {
                since_look = 0;
                self.view.mark(!self.store.is_swept_here());
                self.store.look();
            }
            if !self.store.is_swept_here() {
                // Another task looks for silent hosts, and needs a clock that is read regularly.
                self.view.read_clock();
                continue;
            }
            let evictions = self.view.sweep().into_iter().map(|key| self.evict(key));
            futures_util::future::join_all(evictions).await;
            let silent = self.view.silent();
            if silent > 0 && !held_back {
                tracing::error!(
                    silent,
                    "too many hosts fell silent together to drop them all at once: they are listed as unverified, and dropped gradually unless they send heartbeats again; check the network first"
                );
            }
            held_back = silent > 0;
        }
    }

    async fn evict(&self, key: Key) {
        match self.store.write(key.clone(), Write::Evict).await {
            Ok(Written { removed: false, visible: true, .. }) => {
                tracing::warn!(service = %key, "a service is critical: nobody reported its check in time");
            }
            Ok(Written { removed: true, .. }) => {
                self.metrics.evicted();
                tracing::warn!(host = %key, ttl = ?self.ttl, "dropped a host that fell silent");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(host = %key, %error, "a silent host could not be dropped; the registry will try again");
                self.view.keep(&key);
            }
        }
    }

    /// Completes when the store can never take a change again.
    pub(crate) async fn store_ended(&self) {
        self.store.ended().await;
    }

    pub(crate) async fn declare(
        &self,
        host: &str,
        declaration: Declaration,
    ) -> Result<(bool, Declared), Problem> {
        crate::validate::declaration(&declaration)?;
        let digest = digest(&declaration);
        let (session, endpoints) = (declaration.session, declaration.endpoints.len());
        let write = Write::Declare { declaration, digest: digest.clone() };
        let written = self.write(host, Key::host(host), write).await?;
        if written.visible {
            tracing::info!(host, session, endpoints, "a host declared its endpoints");
        }
        let declared = Declared {
            ttl_ms: millis(self.ttl),
            heartbeat_ms: millis(self.heartbeat),
            digest,
            index: self.view.index(written.number),
        };
        Ok((written.created, declared))
    }

    pub(crate) async fn heartbeat(
        &self,
        host: &str,
        session: u64,
        digest: &str,
    ) -> Result<HeartbeatReply, Problem> {
        let key = Key::host(host);
        let resync = match self.view.heartbeat(&key, session, digest) {
            Ok(resync) => resync,
            Err(_) => {
                // This process may be behind what another process has accepted.
                self.store.catch_up().await.map_err(|error| problem(host, error))?;
                let heard = self.view.heartbeat(&key, session, digest);
                heard.map_err(|refusal| refused(host, refusal))?
            }
        };
        self.store.renew(&key).await.map_err(|error| problem(host, error))?;
        Ok(HeartbeatReply { heartbeat_ms: millis(self.heartbeat), resync })
    }

    pub(crate) async fn set_state(
        &self,
        host: &str,
        session: u64,
        state: EndpointState,
    ) -> Result<(), Problem> {
        let write = Write::SetState { session, state };
        let written = self.write(host, Key::host(host), write).await?;
        if written.visible {
            tracing::info!(host, %state, "a host changed its state");
        }
        Ok(())
    }

    pub(crate) async fn withdraw(&self, host: &str, session: u64) -> Result<(), Problem> {
        let written = self.write(host, Key::host(host), Write::Withdraw { session }).await?;
        if written.removed {
            tracing::info!(host, "a host withdrew");
        }
        Ok(())
    }

    pub(crate) async fn write(
        &self,
        host: &str,
        key: Key,
        write: Write,
    ) -> Result<Written, Problem> {
        self.store.write(key, write).await.map_err(|error| problem(host, error))
    }

    pub(crate) fn services(&self) -> ServiceList {
        let (index, hosts) = self.view.hosts(None);
        ServiceList { index, services: listing::services(&hosts) }
    }

    /// The hosts of a service, and the index of its list.
    pub(crate) fn hosts(&self, service: Option<&str>) -> (Index, Vec<HostSnapshot>) {
        self.view.hosts(service)
    }

    pub(crate) fn endpoints(
        &self,
        service: &str,
        matches: impl Fn(&EndpointSpec, EndpointState) -> bool,
    ) -> EndpointList {
        let (index, hosts) = self.view.hosts(Some(service));
        EndpointList { index, endpoints: listing::endpoints(&hosts, service, matches).collect() }
    }

    /// The body of a service's whole list. It is encoded once for each change of the list.
    pub(crate) fn endpoints_body(&self, service: &str) -> Result<(Index, Bytes), Problem> {
        if let Some(kept) = self.view.body(service) {
            return Ok(kept);
        }
        let list = self.endpoints(service, |_, _| true);
        let body = serde_json::to_vec(&list).map(Bytes::from).map_err(|error| {
            Problem::new(Code::Other, format!("the list cannot be written: {error}"))
        })?;
        if !list.endpoints.is_empty() && list.endpoints.iter().all(|e| !e.unverified) {
            self.view.keep_body(service, list.index, body.clone());
        }
        Ok((list.index, body))
    }

    /// How the registry is.
    pub(crate) fn status(&self) -> RegistryStatus {
        let census = self.view.census();
        let why = self.readiness().err().map(Cow::into_owned);
        RegistryStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: self.kind.to_owned(),
            ready: why.is_none(),
            why,
            elected: self.is_checked_here(),
            uptime_ms: millis(self.began.elapsed()),
            ttl_ms: millis(self.ttl),
            heartbeat_ms: millis(self.heartbeat),
            index: self.view.index(self.view.complete()),
            hosts: census.hosts,
            registrations: census.classic,
            services: census.services,
            endpoints: census.endpoints,
            unverified: census.unverified,
            silent: census.silent,
        }
    }

    /// Writes a record of a backup, unless there is one already. Returns whether it did.
    pub(crate) async fn restore(&self, key: Key, record: Record) -> Result<bool, Problem> {
        let written = self.write(key.name(), key.clone(), Write::Restore(Box::new(record))).await?;
        Ok(written.created)
    }

    /// Refuses lists to clients that believe an empty list, for as long as a list may be empty only
    /// because the registry has just started and hosts had no time to declare themselves again.
    pub(crate) fn settled(&self) -> Result<(), Problem> {
        if self.forgets && self.began.elapsed() < 2 * self.heartbeat {
            let detail = "the registry has just started with an empty store, and hosts are still declaring themselves: retry after the time in Retry-After";
            return Err(Problem::new(Code::Warming, detail));
        }
        Ok(())
    }

    /// What a list of Consul's API is made from, and its index: a plain number, which also grows from one
    /// life of the registry to the next, and with what is known of who is alive.
    pub(crate) fn listed(&self, scope: Scope<'_>) -> (u64, Vec<HostSnapshot>) {
        let (number, mut hosts) = self.view.listed(scope);
        for host in &mut hosts {
            host.created += self.plain_base;
            host.modified += self.plain_base;
        }
        (self.plain_base + number, hosts)
    }

    /// The index of such a list.
    pub(crate) fn plain_index(&self, scope: Scope<'_>) -> u64 {
        self.plain_base + self.view.scope_number(scope)
    }

    /// Waits until a list's plain index differs from `known`, or the time is over.
    pub(crate) async fn other_than(
        &self,
        scope: Scope<'_>,
        known: u64,
        wait: Duration,
    ) -> Result<(), Problem> {
        // Do not wait for an index from another life of the registry, or from the future.
        let Some(number) = known.checked_sub(self.plain_base) else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + wait;
        let mut waiting = self.view.wait(scope.service());
        if !self.caught_up(self.view.index(number)).await {
            return Ok(());
        }
        let mut stopped = self.stopped.clone();
        while self.view.scope_number(scope) <= number {
            tokio::select! {
                () = waiting.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                _ = stopped.wait_for(|stopped| *stopped) => return Err(shutting_down()),
            }
        }
        Ok(())
    }

    /// Waits until a list is newer than `index`: the list of one service, or of all.
    ///
    /// Returns whether it became newer before the time was over. An index from another life of the
    /// registry is refused, and so is one from the future.
    pub(crate) async fn newer_than(
        &self,
        service: Option<&str>,
        index: Index,
        wait: Duration,
    ) -> Result<bool, Problem> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut stopped = self.stopped.clone();
        let mut waiting = self.view.wait(service);
        if index.epoch != self.view.epoch() {
            return Err(index_gone(index));
        }
        // Catch up even if the caller's wait is shorter: it is this process that is behind.
        if !self.caught_up(index).await {
            return Err(index_gone(index));
        }
        while self.view.number(service) <= index.number {
            tokio::select! {
                () = waiting.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(false),
                _ = stopped.wait_for(|stopped| *stopped) => return Err(shutting_down()),
            }
        }
        Ok(true)
    }

    /// Whether it answers lists and takes changes. If not, the error says why.
    pub(crate) fn readiness(&self) -> Result<(), Cow<'static, str>> {
        if *self.stopped.borrow() {
            return Err("stopping: ask another registry".into());
        }
        self.store.readiness()
    }

    /// Whether this process makes the checks of registrations.
    pub(crate) fn is_checked_here(&self) -> bool {
        self.store.is_checked_here()
    }

    /// Tells other registries of the same store that this process ends.
    pub(crate) async fn resign(&self) {
        self.store.resign().await;
    }

    /// Waits until this process has everything up to an index. Another process of its cluster may
    /// be ahead, but not for long. Returns whether it has caught up.
    pub(crate) async fn caught_up(&self, index: Index) -> bool {
        let known = self.store.completed(index.number);
        index.epoch == self.view.epoch() && tokio::time::timeout(CATCH_UP, known).await == Ok(true)
    }

    /// Completes when the registry shuts down.
    pub(crate) async fn stopped(&self) {
        // An error means that the sender, which could stop it, is gone. So it stops too.
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    /// How long a critical service stays at least.
    pub(crate) fn shortest_drop(&self) -> Duration {
        self.shortest_drop
    }

    /// One record as lists have it.
    pub(crate) fn snapshot(&self, key: &Key) -> Option<HostSnapshot> {
        let mut host = self.view.one(key)?;
        host.created += self.plain_base;
        host.modified += self.plain_base;
        Some(host)
    }

    /// How often those that are registered have to be heard, and after how long of silence they are dropped.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (self.heartbeat, self.ttl)
    }

    /// All names with one address each. What was registered through `/register` takes precedence.
    pub(crate) fn classic_services(&self) -> BTreeMap<String, ClassicEntry> {
        let (_, hosts) = self.view.hosts(None);
        let mut services = BTreeMap::new();
        for (service, host) in listing::newest(&hosts) {
            let name = heck::ToUpperCamelCase::to_upper_camel_case(service);
            services
                .insert(name, ClassicEntry { addr: host.record.address.clone(), time: host.heard });
        }
        for (name, addr, heard) in self.view.classic() {
            let entry = ClassicEntry { addr: addr.to_string(), time: heard };
            services.insert(name.to_string(), entry);
        }
        services
    }
}

/// Identifies a declaration's content, without the session.
fn digest(declaration: &Declaration) -> String {
    let content = (&declaration.address, &declaration.endpoints, &declaration.metadata);
    // It has only strings and maps with string keys, so JSON encoding cannot fail.
    let json = serde_json::to_vec(&content).unwrap_or_default();
    blake3::hash(&json).to_hex()[..32].to_owned()
}

pub(crate) fn now_in_micros() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn index_gone(index: Index) -> Problem {
    let message = format!(
        "the index {index} is not from this run of the registry, or its change has not arrived here: list again without an index"
    );
    Problem::new(Code::IndexGone, message)
}

pub(crate) fn shutting_down() -> Problem {
    Problem::new(
        Code::ShuttingDown,
        "the registry is shutting down: retry, or ask another registry",
    )
}

pub(crate) fn problem(host: &str, error: WriteError) -> Problem {
    match error {
        WriteError::Refused(refusal) => refused(host, refusal),
        WriteError::Busy => Problem::new(
            Code::Busy,
            "too many changes are waiting to be written: retry after the time in Retry-After",
        ),
        WriteError::TooLarge { .. } => Problem::new(
            Code::TooLarge,
            format!("the declaration of '{host}' is too large ({error}): declare fewer endpoints"),
        ),
        WriteError::Unavailable(why) => Problem::new(
            Code::StoreUnavailable,
            format!(
                "the registry's store cannot take the change ({why}): retry after the time in Retry-After"
            ),
        ),
    }
}

fn refused(host: &str, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unknown => Problem::new(
            Code::UnknownHost,
            format!("the host '{host}' is not registered: declare it with PUT /v1/hosts/{host}"),
        ),
        Refusal::Undeclared(known) => Problem::new(
            Code::UnknownHost,
            format!(
                "the host '{host}' was declared by the session {known}, and not by the newer one that asks: declare it with PUT /v1/hosts/{host} first"
            ),
        ),
        Refusal::Full => Problem::new(
            Code::Full,
            "the registry has no room for more hosts or endpoints: withdraw some, or retry later",
        ),
        Refusal::Superseded(session) => Problem {
            session: Some(session),
            ..Problem::new(
                Code::Superseded,
                format!(
                    "the newer session {session} owns the host '{host}': this process was replaced, or another one uses the same name"
                ),
            )
        },
    }
}
