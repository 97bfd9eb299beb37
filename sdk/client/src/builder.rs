//! How a client is made.

use std::num::NonZeroUsize;
#[cfg(feature = "discovery")]
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use wharf_net::tls::Identity;
#[cfg(feature = "discovery")]
use wharf_registry_api::{RegistryClient, RegistryError};
use wharf_schema::{MethodPath, NameError};

use crate::attempts::Caller;
use crate::balance;
use crate::binds::{BindError, Binds};
use crate::client::{Client, Defaults};
#[cfg(feature = "discovery")]
use crate::discovery::{Discovery, Lists, default_folder};
use crate::endpoints::Endpoints;
use crate::named::Target;
use crate::observe::{Interceptor, Observer};
use crate::retry::RetryBudget;
use crate::security::Security;
use crate::settings::{KeepAlive, Settings};

/// The default timeout of a call.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds a [`Client`].
#[derive(Clone)]
pub struct ClientBuilder {
    timeout: Duration,
    token: Vec<u8>,
    connections: NonZeroUsize,
    keep_alive: KeepAlive,
    security: Security,
    host_name: Option<String>,
    #[cfg(feature = "discovery")]
    lists: Option<PathBuf>,
    #[cfg(feature = "discovery")]
    doubts: bool,
    idempotent: Vec<MethodPath>,
    binds: Binds,
    wait_for_ready: bool,
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
            security: Security::default(),
            host_name: None,
            #[cfg(feature = "discovery")]
            lists: default_folder(),
            #[cfg(feature = "discovery")]
            doubts: true,
            idempotent: Vec::new(),
            binds: Binds::default(),
            wait_for_ready: false,
            hedge_after: None,
            interceptors: Vec::new(),
            observers: Vec::new(),
        }
    }
}

impl Client {
    /// A builder, for a client that needs more than an address.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client that uses the registry at this address, `http://127.0.0.1:8500`. For a cluster,
    /// list the addresses of its processes, separated by commas.
    ///
    /// # Errors
    /// When the address is invalid. The registry itself need not run yet: the client retries until
    /// it answers. Until then calls use the list that an earlier run saved, or fail if there is
    /// none.
    #[cfg(feature = "discovery")]
    #[expect(
        clippy::unused_async,
        reason = "starting to follow the registry may have to wait one day"
    )]
    pub async fn connect(registry: &str) -> Result<Self, RegistryError> {
        Self::builder().registry(registry)
    }
}

impl ClientBuilder {
    /// The timeout of calls that set none; 10 seconds by default.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        ClientBuilder { timeout, ..self }
    }

    /// The token for hosts that require one.
    #[must_use]
    pub fn token(self, token: impl Into<Vec<u8>>) -> Self {
        ClientBuilder { token: token.into(), ..self }
    }

    /// Encrypts connections to hosts, and calls only hosts that prove their name: the one that the registry has
    /// for them. With a member of a trust domain, hand its registry client over too
    /// ([`Member::registry`](crate::Member::registry)).
    #[must_use]
    #[cfg(feature = "tls")]
    pub fn identity(self, identity: &Identity) -> Self {
        ClientBuilder { security: Security::of(identity.clone()), ..self }
    }

    /// The name that a host has to prove which is called directly. By default it is the address without its
    /// port.
    #[must_use]
    #[cfg(feature = "tls")]
    pub fn host_name(self, name: impl Into<String>) -> Self {
        ClientBuilder { host_name: Some(name.into()), ..self }
    }

    /// How many connections to keep to each endpoint; 1 by default, which carries many calls at
    /// once. More help only if one core cannot read as much as arrives.
    #[must_use]
    pub fn connections(self, connections: NonZeroUsize) -> Self {
        ClientBuilder { connections, ..self }
    }

    /// How dead peers are detected.
    #[must_use]
    pub fn keep_alive(self, keep_alive: KeepAlive) -> Self {
        ClientBuilder { keep_alive, ..self }
    }

    /// The folder for the last list of each service's endpoints, used if the client starts while
    /// the registry is down. By default it is below `XDG_CACHE_HOME` or `~/.cache`. Make sure that
    /// only you can write to it.
    #[must_use]
    #[cfg(feature = "discovery")]
    pub fn lists_in(self, folder: impl Into<PathBuf>) -> Self {
        ClientBuilder { lists: Some(folder.into()), ..self }
    }

    /// Saves no lists on disk.
    #[must_use]
    #[cfg(feature = "discovery")]
    pub fn without_lists(self) -> Self {
        ClientBuilder { lists: None, ..self }
    }

    /// Believes a registry at once that says that a service has no endpoints any more, although there
    /// was a list of them. By default that is doubted for a while, because the registry may have lost
    /// sight of all hosts. For programs that run for a moment.
    #[must_use]
    #[cfg(feature = "discovery")]
    pub fn without_doubt(self) -> Self {
        ClientBuilder { doubts: false, ..self }
    }

    /// Marks a method as idempotent, for example `arith.multiply`, for all calls of it; see
    /// [`CallOptions::idempotent`](crate::CallOptions::idempotent).
    ///
    /// # Errors
    /// When this is not the name of a method.
    pub fn idempotent(mut self, method: &str) -> Result<Self, NameError> {
        self.idempotent.push(MethodPath::parse(method)?);
        Ok(self)
    }

    /// Binds a short name to one service: `bind("arith", "demo:arith/arith@^0.1")`. Then `arith` means
    /// that service, even if other packages have an interface of that name. Without it, such a name is
    /// ambiguous, and its calls fail: whoever may announce a service could take them over.
    ///
    /// # Errors
    /// When the second name has no package, or another interface.
    pub fn bind(mut self, short: &str, full: &str) -> Result<Self, BindError> {
        self.binds.add(short, full)?;
        Ok(self)
    }

    /// Lets all calls wait until their deadline for an endpoint that can be reached; see
    /// [`CallOptions::wait_for_ready`](crate::CallOptions::wait_for_ready).
    #[must_use]
    pub fn wait_for_ready(self) -> Self {
        ClientBuilder { wait_for_ready: true, ..self }
    }

    /// After how long calls of idempotent methods are hedged, unless they set it themselves; see
    /// [`CallOptions::hedge_after`](crate::CallOptions::hedge_after). By default they are not
    /// hedged.
    #[must_use]
    pub fn hedge_after(self, after: Duration) -> Self {
        ClientBuilder { hedge_after: Some(after), ..self }
    }

    /// Adds an interceptor, which sees every call before it is sent. Interceptors run in the order
    /// in which they are added.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Adds an observer, which learns how every call ended.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// A client that uses the registry at this address, or the cluster at these addresses,
    /// separated by commas.
    ///
    /// # Errors
    /// When the address is invalid. The registry itself need not run yet.
    #[cfg(feature = "discovery")]
    pub fn registry(self, address: &str) -> Result<Client, RegistryError> {
        Ok(self.registry_client(RegistryClient::new(address)?))
    }

    /// A client that uses this registry client: with a token, or over TLS with certificates.
    #[must_use]
    #[cfg(feature = "discovery")]
    pub fn registry_client(self, registry: RegistryClient) -> Client {
        let lists = Lists { folder: self.lists.clone(), doubts: self.doubts };
        self.build(|endpoints| {
            Target::Registry(Box::new(Discovery::new(registry, endpoints.clone(), lists)))
        })
    }

    /// A client that calls one host at `host:port`, without a registry.
    #[must_use]
    pub fn direct(self, address: &str) -> Client {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let host = self.host_name.clone().unwrap_or(host);
        self.build(|endpoints| Target::Direct(Arc::new(balance::direct(endpoints, address, &host))))
    }

    fn build(self, target: impl FnOnce(&Arc<Endpoints>) -> Target) -> Client {
        let ClientBuilder { token, connections, keep_alive, security, .. } = self;
        let settings = Settings { token, connections, keep_alive, security };
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
            binds: self.binds,
            wait_for_ready: self.wait_for_ready,
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
            .field("idempotent", &self.idempotent)
            .field("hedge_after", &self.hedge_after)
            .finish_non_exhaustive()
    }
}
