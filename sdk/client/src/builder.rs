//! How a client is made.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wharf_registry_api::{RegistryClient, RegistryError};
use wharf_schema::{MethodPath, NameError};

use crate::attempts::Caller;
use crate::balance;
use crate::client::{Client, Defaults};
use crate::connection::{KeepAlive, Settings};
use crate::discovery::{Discovery, default_folder};
use crate::endpoints::Endpoints;
use crate::named::Target;
use crate::observe::{Interceptor, Observer};
use crate::retry::RetryBudget;

/// How long a call may take unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a client is made.
#[derive(Clone)]
pub struct ClientBuilder {
    timeout: Duration,
    token: Vec<u8>,
    connections: NonZeroUsize,
    keep_alive: KeepAlive,
    lists: Option<PathBuf>,
    idempotent: Vec<MethodPath>,
    hedge_after: Option<Duration>,
    interceptors: Vec<Arc<dyn Interceptor>>,
    observers: Vec<Arc<dyn Observer>>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        ClientBuilder {
            timeout: DEFAULT_TIMEOUT,
            token: Vec::new(),
            connections: NonZeroUsize::MIN,
            keep_alive: KeepAlive::default(),
            lists: default_folder(),
            idempotent: Vec::new(),
            hedge_after: None,
            interceptors: Vec::new(),
            observers: Vec::new(),
        }
    }
}

impl Client {
    /// How a client is made that needs more than an address.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client that asks the registry at this address, `http://127.0.0.1:8500`, or the processes
    /// of one cluster at these, with commas between them.
    ///
    /// # Errors
    /// When that is no address. The registry itself need not be there yet: it is asked until it
    /// answers, and calls go by the last list of an earlier run until then, or fail if there is none.
    #[expect(
        clippy::unused_async,
        reason = "starting to follow the registry may have to wait one day"
    )]
    pub async fn connect(registry: &str) -> Result<Self, RegistryError> {
        Self::builder().registry(registry)
    }
}

impl ClientBuilder {
    /// How long a call may take that names no time of its own; 10 seconds otherwise.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        ClientBuilder { timeout, ..self }
    }

    /// What to show to hosts that ask for a token.
    #[must_use]
    pub fn token(self, token: impl Into<Vec<u8>>) -> Self {
        ClientBuilder { token: token.into(), ..self }
    }

    /// How many connections to keep to each endpoint; 1 otherwise, which carries all calls at once.
    /// More are of use where one core cannot read as much as arrives.
    #[must_use]
    pub fn connections(self, connections: NonZeroUsize) -> Self {
        ClientBuilder { connections, ..self }
    }

    /// How dead peers are found.
    #[must_use]
    pub fn keep_alive(self, keep_alive: KeepAlive) -> Self {
        ClientBuilder { keep_alive, ..self }
    }

    /// Where the last list of each service's endpoints is kept, for a start while the registry is
    /// away. Otherwise below `XDG_CACHE_HOME` or `~/.cache`. Nobody else may be able to write there.
    #[must_use]
    pub fn lists_in(self, folder: impl Into<PathBuf>) -> Self {
        ClientBuilder { lists: Some(folder.into()), ..self }
    }

    /// Keeps no lists on disk.
    #[must_use]
    pub fn without_lists(self) -> Self {
        ClientBuilder { lists: None, ..self }
    }

    /// A method that may be executed more than once, `arith.multiply` for example, however it is
    /// called; see [`CallOptions::idempotent`](crate::CallOptions::idempotent).
    ///
    /// # Errors
    /// When that is no name of a method.
    pub fn idempotent(mut self, method: &str) -> Result<Self, NameError> {
        self.idempotent.push(MethodPath::parse(method)?);
        Ok(self)
    }

    /// When another endpoint is asked beside the first, for calls of idempotent methods that do not
    /// say; see [`CallOptions::hedge_after`](crate::CallOptions::hedge_after). Never otherwise.
    #[must_use]
    pub fn hedge_after(self, after: Duration) -> Self {
        ClientBuilder { hedge_after: Some(after), ..self }
    }

    /// Lets something see all calls before they go out, after those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Lets something know how calls went.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// A client that asks the registry at this address, or the processes of one cluster at these,
    /// with commas between them.
    ///
    /// # Errors
    /// When that is no address. The registry itself need not be there yet.
    pub fn registry(self, address: &str) -> Result<Client, RegistryError> {
        Ok(self.registry_client(RegistryClient::new(address)?))
    }

    /// A client that asks a registry in a way of its own: with a token, over TLS with certificates.
    #[must_use]
    pub fn registry_client(self, registry: RegistryClient) -> Client {
        let lists = self.lists.clone();
        self.build(|endpoints| {
            Target::Registry(Box::new(Discovery::new(registry, endpoints.clone(), lists)))
        })
    }

    /// A client that calls one host at `host:port`, without a registry.
    #[must_use]
    pub fn direct(self, address: &str) -> Client {
        self.build(|endpoints| Target::Direct(Arc::new(balance::direct(endpoints, address))))
    }

    fn build(self, target: impl FnOnce(&Arc<Endpoints>) -> Target) -> Client {
        let ClientBuilder { token, connections, keep_alive, .. } = self;
        let settings = Settings { token, connections, keep_alive };
        let endpoints = Arc::new(Endpoints::new(settings));
        let caller = Caller {
            target: target(&endpoints),
            budget: RetryBudget::new(Instant::now()),
            ejecting: Mutex::default(),
            observers: self.observers,
        };
        let defaults = Defaults {
            timeout: self.timeout,
            idempotent: self.idempotent,
            hedge_after: self.hedge_after,
            interceptors: self.interceptors,
        };
        Client::new(caller, defaults)
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("timeout", &self.timeout)
            .field("connections", &self.connections)
            .field("keep_alive", &self.keep_alive)
            .field("lists", &self.lists)
            .field("idempotent", &self.idempotent)
            .field("hedge_after", &self.hedge_after)
            .finish_non_exhaustive()
    }
}
