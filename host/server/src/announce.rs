//! Tells the registry what this host serves, for as long as it serves it.
//!
//! One task talks to the registry. It declares the whole set of endpoints whenever the set changes,
//! and keeps it alive with heartbeats. It starts over when the registry does not answer or does not
//! know the host.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use wharf_net::chain;
use wharf_registry_api::{
    Code, Declaration, EndpointSpec, EndpointState, Heartbeat, Metadata, RegistryClient,
    RegistryError, retry_pauses,
};

use crate::config::AnnounceConfig;
use crate::plugins::table::Table;

/// The shortest time between heartbeats, whatever the registry asks for.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(20);

/// How long a withdrawal may take before the host ends without it.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// Announces one host.
pub(crate) struct Announcer {
    registry: RegistryClient,
    host: String,
    address: String,
    metadata: Metadata,
    table: Arc<Table>,
    session: u64,
    /// Whether the registry has accepted a declaration of this session.
    established: bool,
    /// Whether a request has succeeded since the last failure.
    went_well: bool,
    /// Whether a failure was logged that may be over now.
    failing: bool,
    /// The endpoints that the registry accepted last.
    declared: Vec<EndpointSpec>,
    /// The revision of the table that the registry accepted last.
    announced: watch::Sender<u64>,
}

/// Tells an [`Announcer`] that the host takes no new calls.
pub(crate) struct Farewell {
    /// Signals that the registry knows, or cannot be told.
    pub(crate) told: oneshot::Sender<()>,
    /// Completes when the host has finished its calls. The announcer then withdraws and ends.
    pub(crate) done: oneshot::Receiver<()>,
}

/// Why announcing ended or has to pause.
enum Interrupted {
    /// It failed; retry after a pause.
    Failed(RegistryError),
    /// A newer process with the same name took over.
    Superseded,
    /// The host is gone.
    Dropped,
}

impl Announcer {
    pub(crate) fn new(
        registry: RegistryClient,
        config: AnnounceConfig,
        metadata: Metadata,
        table: Arc<Table>,
        announced: watch::Sender<u64>,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let session = since_1970.map_or(1, |time| u64::try_from(time.as_micros()).unwrap_or(1));
        Announcer {
            registry,
            host: config.name,
            address: config.advertise.as_str().to_owned(),
            metadata,
            table,
            session,
            established: false,
            went_well: false,
            failing: false,
            declared: Vec::new(),
            announced,
        }
    }

    /// Announces until the farewell. If the farewell's sender is dropped, it ends without telling
    /// the registry.
    pub(crate) async fn run(mut self, mut farewell: oneshot::Receiver<Farewell>) {
        // Dropping a request in the middle is safe: the registry's calls can all be repeated.
        let message = tokio::select! {
            message = &mut farewell => message,
            () = self.announce() => farewell.await,
        };
        if let Ok(message) = message {
            self.leave(message).await;
        }
    }

    /// Announces, and starts over after failures. It ends only when the host is gone or a newer
    /// process took over.
    async fn announce(&mut self) {
        let mut pauses = retry_pauses();
        let mut known_failure = None;
        loop {
            self.failing = known_failure.is_some();
            match self.converse().await {
                Interrupted::Failed(error) => {
                    if std::mem::take(&mut self.went_well) {
                        // A request succeeded in between, so this is a new failure.
                        (pauses, known_failure) = (retry_pauses(), None);
                    }
                    let failure = chain(&error);
                    if known_failure.as_ref() != Some(&failure) {
                        tracing::warn!(
                            "announcing failed and is retried; the host still serves: {failure}"
                        );
                        known_failure = Some(failure);
                    }
                    if let Some(pause) = pauses.next() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Interrupted::Superseded => {
                    tracing::error!(
                        host = self.host,
                        "another process announces itself under this host's name, so this one no longer does; give each host its own --name"
                    );
                    // The registry accepts nothing more from this process: release all that wait
                    // for it.
                    self.announced.send_replace(u64::MAX);
                    return;
                }
                Interrupted::Dropped => return,
            }
        }
    }

    /// Declares, and keeps alive what was declared.
    async fn converse(&mut self) -> Interrupted {
        let mut revisions = self.table.revisions();
        loop {
            revisions.mark_unchanged();
            let (mut digest, mut pause) = match self.declare().await {
                Ok(declared) => declared,
                Err(interrupted) => return interrupted,
            };
            let mut next = Instant::now() + pause;
            loop {
                tokio::select! {
                    changed = revisions.changed() => {
                        if changed.is_err() {
                            return Interrupted::Dropped;
                        }
                        let (revision, endpoints) = self.table.endpoints();
                        if endpoints != self.declared {
                            break;
                        }
                        self.announced.send_replace(revision);
                        continue;
                    }
                    () = tokio::time::sleep_until(next) => {}
                }
                match self.heartbeat(&mut digest, &mut pause).await {
                    Ok(()) => next = Instant::now() + pause,
                    Err(Interrupted::Failed(error)) if is(&error, Code::UnknownHost) => {
                        tracing::info!(
                            "the registry no longer knows this host: declaring it again"
                        );
                        break;
                    }
                    Err(interrupted) => return interrupted,
                }
            }
        }
    }

    async fn declare(&mut self) -> Result<(String, Duration), Interrupted> {
        loop {
            let (revision, endpoints) = self.table.endpoints();
            let declaration = Declaration {
                session: self.session,
                address: self.address.clone(),
                endpoints,
                metadata: self.metadata.clone(),
            };
            match self.registry.declare(&self.host, &declaration).await {
                Ok(declared) => {
                    let count = declaration.endpoints.len();
                    tracing::debug!(host = self.host, endpoints = count, "announced");
                    (self.established, self.went_well) = (true, true);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(host = self.host, "announcing works again");
                    }
                    self.declared = declaration.endpoints;
                    self.announced.send_replace(revision);
                    return Ok((declared.digest, heartbeat_pause(declared.heartbeat_ms)));
                }
                Err(error) => self.superseded(error)?,
            }
        }
    }

    async fn heartbeat(
        &mut self,
        digest: &mut String,
        pause: &mut Duration,
    ) -> Result<(), Interrupted> {
        let heartbeat = Heartbeat { session: self.session, digest: digest.clone() };
        match self.registry.heartbeat(&self.host, &heartbeat).await {
            Ok(reply) if reply.resync => (*digest, *pause) = self.declare().await?,
            Ok(reply) => {
                self.went_well = true;
                *pause = heartbeat_pause(reply.heartbeat_ms);
            }
            Err(error) => self.superseded(error)?,
        }
        Ok(())
    }

    /// Handles an error. If a newer session owns the host, announcing ends, unless this process has
    /// only just started. Its clock may then be behind the clock from which its predecessor took
    /// its session, so it chooses a session above that one.
    fn superseded(&mut self, error: RegistryError) -> Result<(), Interrupted> {
        if !is(&error, Code::Superseded) {
            return Err(Interrupted::Failed(error));
        }
        let owner = error.problem().and_then(|problem| problem.session);
        match owner.filter(|_| !self.established) {
            Some(owner) => {
                self.session = owner.saturating_add(1);
                self.established = true;
                Ok(())
            }
            None => Err(Interrupted::Superseded),
        }
    }

    async fn leave(self, Farewell { told, done }: Farewell) {
        let drain = self.registry.set_state(&self.host, self.session, EndpointState::Draining);
        if let Err(error) = flatten(tokio::time::timeout(WITHDRAWAL, drain).await) {
            tracing::warn!("cannot tell the registry that this host is draining: {error}");
        }
        // The host may have stopped waiting.
        let _ = told.send(());
        let _ = done.await;
        let withdraw = self.registry.withdraw(&self.host, self.session);
        match flatten(tokio::time::timeout(WITHDRAWAL, withdraw).await) {
            Ok(()) => tracing::info!(host = self.host, "withdrawn from the registry"),
            Err(error) => tracing::warn!(
                "not withdrawn from the registry, which will drop the host by itself: {error}"
            ),
        }
    }
}

fn flatten(
    result: Result<Result<(), RegistryError>, tokio::time::error::Elapsed>,
) -> Result<(), String> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

fn is(error: &RegistryError, code: Code) -> bool {
    error.problem().is_some_and(|problem| problem.code == code)
}

fn heartbeat_pause(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).max(SHORTEST_HEARTBEAT)
}
