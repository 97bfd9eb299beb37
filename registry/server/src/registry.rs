//! The registry as its requests see it: the state behind a lock, the clock, and who waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use wharf_registry_api::{
    Code, Declaration, Declared, Endpoint, EndpointList, EndpointSpec, HeartbeatReply, Index,
    Problem, ServiceList, State,
};

use crate::Config;
use crate::catalog::{Catalog, Changed, Refusal};
use crate::classic::{self, Classic};
use crate::clock::LivenessClock;

/// How often the silent are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// One registry; its requests share it.
pub(crate) struct Registry {
    ttl: Duration,
    heartbeat: Duration,
    epoch: u64,
    inner: Mutex<Inner>,
    stopped: watch::Receiver<bool>,
}

struct Inner {
    clock: LivenessClock,
    catalog: Catalog,
    classic: Classic,
    /// Whoever waits for a service's list to change; `None` stands for the list of services.
    waiting: HashMap<Option<String>, watch::Sender<()>>,
}

/// A service as the classic `/services` shows it.
pub(crate) struct ClassicEntry {
    pub(crate) addr: String,
    pub(crate) time: SystemTime,
}

impl Registry {
    pub(crate) fn new(config: &Config, stopped: watch::Receiver<bool>) -> Arc<Self> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Only told apart from the epochs of other lives, never compared as a time.
        let epoch = since_1970.map_or(1, |time| u64::try_from(time.as_micros()).unwrap_or(1));
        Arc::new(Registry {
            ttl: config.ttl,
            heartbeat: config.heartbeat,
            epoch,
            inner: Mutex::new(Inner {
                clock: LivenessClock::new(Instant::now()),
                catalog: Catalog::new(config.ttl),
                classic: Classic::new(config.ttl),
                waiting: HashMap::new(),
            }),
            stopped,
        })
    }

    /// Drops the silent, for as long as the registry lives.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (now, mut inner) = self.lock();
            let (dropped, changed) = inner.catalog.sweep(now);
            let classic = inner.classic.sweep(now);
            inner.wake(&changed);
            drop(inner);
            for host in dropped {
                tracing::warn!(host, ttl = ?self.ttl, "dropped a host that fell silent");
            }
            if classic > 0 {
                tracing::warn!(count = classic, "dropped classic registrations that fell silent");
            }
        }
    }

    pub(crate) fn declare(
        &self,
        host: &str,
        declaration: Declaration,
    ) -> Result<(bool, Declared), Problem> {
        crate::validate::name("host's name", host)?;
        crate::validate::declaration(&declaration)?;
        let digest = digest(&declaration);
        let (session, endpoints) = (declaration.session, declaration.endpoints.len());
        let (now, mut inner) = self.lock();
        let accepted = inner
            .catalog
            .declare(now, host, declaration, digest.clone())
            .map_err(|refusal| problem(host, refusal))?;
        inner.wake(&accepted.changed);
        let index = self.index(inner.catalog.number());
        drop(inner);
        if !accepted.changed.is_empty() {
            tracing::info!(host, session, endpoints, "a host declared its endpoints");
        }
        let ttl_ms = millis(self.ttl);
        Ok((
            accepted.created,
            Declared { ttl_ms, heartbeat_ms: millis(self.heartbeat), digest, index },
        ))
    }

    pub(crate) fn heartbeat(
        &self,
        host: &str,
        session: u64,
        digest: &str,
    ) -> Result<HeartbeatReply, Problem> {
        let (now, mut inner) = self.lock();
        let resync = inner
            .catalog
            .heartbeat(now, host, session, digest)
            .map_err(|refusal| problem(host, refusal))?;
        Ok(HeartbeatReply { heartbeat_ms: millis(self.heartbeat), resync })
    }

    pub(crate) fn set_state(&self, host: &str, session: u64, state: State) -> Result<(), Problem> {
        let (now, mut inner) = self.lock();
        let changed = inner
            .catalog
            .set_state(now, host, session, state)
            .map_err(|refusal| problem(host, refusal))?;
        inner.wake(&changed);
        drop(inner);
        tracing::info!(host, %state, "a host changed its state");
        Ok(())
    }

    pub(crate) fn withdraw(&self, host: &str, session: u64) -> Result<(), Problem> {
        let (_, mut inner) = self.lock();
        let changed =
            inner.catalog.withdraw(host, session).map_err(|refusal| problem(host, refusal))?;
        inner.wake(&changed);
        drop(inner);
        tracing::info!(host, "a host withdrew");
        Ok(())
    }

    pub(crate) fn services(&self) -> ServiceList {
        let (_, inner) = self.lock();
        ServiceList {
            index: self.index(inner.catalog.number()),
            services: inner.catalog.services(),
        }
    }

    pub(crate) fn endpoints(
        &self,
        service: &str,
        matches: impl Fn(&EndpointSpec, State) -> bool,
    ) -> EndpointList {
        let (_, inner) = self.lock();
        let endpoints: Vec<Endpoint> = inner.catalog.endpoints(service, matches).collect();
        EndpointList { index: self.index(inner.catalog.service_number(service)), endpoints }
    }

    /// Waits until a list is newer than `index`: of one service, or of all of them.
    ///
    /// Whether it is, before the time is over. An index of another life of the registry is gone,
    /// and one from the future is of no life at all.
    pub(crate) async fn newer_than(
        &self,
        service: Option<&str>,
        index: Index,
        wait: Duration,
    ) -> Result<bool, Problem> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut stopped = self.stopped.clone();
        loop {
            let Some(mut waiting) = self.wait_for_newer(service, index)? else { return Ok(true) };
            tokio::select! {
                _ = waiting.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(false),
                _ = stopped.wait_for(|stopped| *stopped) => {
                    return Err(Problem::new(Code::ShuttingDown, "the registry shuts down: ask again"));
                }
            }
        }
    }

    pub(crate) fn register_classic(&self, name: &str, addr: &str) -> Result<(), Problem> {
        crate::validate::name("name", name)?;
        crate::validate::address(addr)?;
        let (now, mut inner) = self.lock();
        inner.classic.register(now, name, addr).map_err(|refusal| classic_problem(name, refusal))
    }

    pub(crate) fn heartbeat_classic(&self, name: &str, addr: Option<&str>) -> Result<(), Problem> {
        let (now, mut inner) = self.lock();
        inner.classic.heartbeat(now, name, addr).map_err(|refusal| classic_problem(name, refusal))
    }

    /// All names with one address each; what was registered over `/register` goes first.
    pub(crate) fn classic_services(&self) -> BTreeMap<String, ClassicEntry> {
        let (now, inner) = self.lock();
        let wall = SystemTime::now();
        let entry = |addr: &str, heard: Duration| ClassicEntry {
            addr: addr.to_owned(),
            time: wall.checked_sub(now.saturating_sub(heard)).unwrap_or(wall),
        };
        let mut services = BTreeMap::new();
        for (service, addr, heard) in inner.catalog.addresses() {
            let name = heck::ToUpperCamelCase::to_upper_camel_case(service);
            services.insert(name, entry(addr, heard));
        }
        for (name, addr, heard) in inner.classic.newest() {
            services.insert(name.to_owned(), entry(addr, heard));
        }
        services
    }

    fn index(&self, number: u64) -> Index {
        Index { epoch: self.epoch, number }
    }

    /// A place among those who wait for a change after `index`; `None` when there is one already.
    fn wait_for_newer(
        &self,
        service: Option<&str>,
        index: Index,
    ) -> Result<Option<Waiting<'_>>, Problem> {
        let (_, mut inner) = self.lock();
        let newest = inner.catalog.number();
        if index.epoch != self.epoch || index.number > newest {
            let message = format!(
                "the index {index} is not of this registry's life: list again without an index"
            );
            return Err(Problem::new(Code::IndexGone, message));
        }
        let number = service.map_or(newest, |service| inner.catalog.service_number(service));
        if number > index.number {
            return Ok(None);
        }
        let key = service.map(str::to_owned);
        let sender = inner.waiting.entry(key.clone()).or_insert_with(|| watch::channel(()).0);
        let changed = Some(sender.subscribe());
        Ok(Some(Waiting { registry: self, key, changed }))
    }

    fn lock(&self) -> (Duration, MutexGuard<'_, Inner>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = inner.clock.read(Instant::now());
        (now, inner)
    }
}

/// A place among those who wait for a list; given up when it is dropped, by whatever way.
struct Waiting<'r> {
    registry: &'r Registry,
    key: Option<String>,
    /// Taken only at the end, under the lock.
    changed: Option<watch::Receiver<()>>,
}

impl Waiting<'_> {
    async fn changed(&mut self) {
        if let Some(changed) = &mut self.changed {
            // The sender goes only when nobody waits, and this one does.
            let _ = changed.changed().await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (_, mut inner) = self.registry.lock();
        drop(self.changed.take());
        if inner.waiting.get(&self.key).is_some_and(|sender| sender.receiver_count() == 0) {
            inner.waiting.remove(&self.key);
        }
    }
}

impl Inner {
    fn wake(&self, changed: &Changed) {
        if changed.is_empty() {
            return;
        }
        for key in changed.iter().map(|name| Some(name.clone())).chain([None]) {
            if let Some(waiting) = self.waiting.get(&key) {
                waiting.send_replace(());
            }
        }
    }
}

/// What identifies a declaration's content; the session is beside it.
fn digest(declaration: &Declaration) -> String {
    let content = (&declaration.address, &declaration.endpoints);
    // Strings only: there is nothing in it that JSON could refuse.
    let json = serde_json::to_vec(&content).unwrap_or_default();
    blake3::hash(&json).to_hex()[..32].to_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn problem(host: &str, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unknown => Problem::new(
            Code::UnknownHost,
            format!("the host '{host}' is not registered: declare it with PUT /v1/hosts/{host}"),
        ),
        Refusal::Full => Problem::new(
            Code::Full,
            "the registry holds as many hosts or endpoints as it can: withdraw some, or ask later",
        ),
        Refusal::Superseded(session) => Problem {
            session: Some(session),
            ..Problem::new(
                Code::Superseded,
                format!(
                    "the newer session {session} owns the host '{host}': a process that replaced this one, or another with the same name"
                ),
            )
        },
    }
}

fn classic_problem(name: &str, refusal: classic::Refusal) -> Problem {
    match refusal {
        classic::Refusal::Unknown => Problem::new(
            Code::UnknownService,
            format!(
                "nothing is registered as '{name}', or it fell silent: call /register?name={name}&addr=HOST:PORT"
            ),
        ),
        classic::Refusal::Ambiguous => Problem::new(
            Code::Ambiguous,
            format!("'{name}' is registered at several addresses: add &addr=HOST:PORT"),
        ),
        classic::Refusal::Full => {
            Problem::new(Code::Full, "the registry holds as many classic registrations as it can")
        }
    }
}
