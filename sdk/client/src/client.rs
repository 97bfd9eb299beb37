//! The client, as programs use it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
#[cfg(feature = "discovery")]
use serde_json::Value;
use tokio::runtime::Handle;
#[cfg(feature = "discovery")]
use wharf_registry_api::RegistryClient;
#[cfg(feature = "discovery")]
use wharf_schema::Outcome;
use wharf_schema::{Fingerprint, MethodPath, Service, ServiceName};
use wharf_wire::TraceParent;

use crate::attempts::{Answer, Asked, Caller};
use crate::balance::Wanted;
use crate::binds::Binds;
use crate::connection::{Deadline, Question};
use crate::error::{Failure, RpcError};
use crate::named::{Named, Target};
use crate::names::Names;
#[cfg(feature = "discovery")]
use crate::net_rpc::NetRpcCalls;
use crate::observe::{Interceptor, Outgoing, append};
use crate::options::{CallOptions, PLAIN};

/// The most descriptions of services that are kept.
const MAX_DESCRIPTIONS: usize = 10_000;

/// Calls services. Clones share connections and the registry's lists.
///
/// It needs a Tokio runtime, and not always the same: when the runtime ends on which it connected, it
/// connects again on the one of the next call. Do not fork the process while it has a client.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    caller: Caller,
    defaults: Defaults,
    names: Names,
    descriptions: Mutex<HashMap<String, Arc<Service>>>,
    #[cfg(feature = "discovery")]
    net_rpc: NetRpcCalls,
    is_forked: AtomicBool,
}

/// The settings of calls that set none themselves.
pub(crate) struct Defaults {
    pub(crate) timeout: Duration,
    pub(crate) idempotent: Vec<MethodPath>,
    pub(crate) binds: Binds,
    pub(crate) wait_for_ready: bool,
    pub(crate) hedge_after: Option<Duration>,
    pub(crate) interceptors: Vec<Arc<dyn Interceptor>>,
}

/// What the client knows of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The full name of the service; empty if only the address is known.
    pub service: String,
    /// `host:port`
    pub address: String,
    /// Whether a connection is open.
    pub connected: bool,
    /// Whether it is ejected for a while, because it failed repeatedly.
    pub ejected: bool,
    /// Calls of this client that are in flight there.
    pub in_flight: u32,
    /// The expected latency: a moving average that follows peaks at once.
    pub latency: Duration,
}

impl Client {
    pub(crate) fn new(caller: Caller, defaults: Defaults) -> Self {
        Client(Arc::new(Inner {
            caller,
            defaults,
            names: Names::default(),
            descriptions: Mutex::default(),
            #[cfg(feature = "discovery")]
            net_rpc: NetRpcCalls::default(),
            is_forked: AtomicBool::new(false),
        }))
    }

    /// Calls a method: `arith.multiply`, `Arith.Multiply` or `demo:arith/arith@0.1.0.multiply`.
    ///
    /// `arguments` is the one parameter, or a tuple of several; `()` for none. `R` is what the
    /// method returns: for WIT's `result`, Rust's `Result`.
    ///
    /// # Errors
    /// [`RpcError`]: what failed, where, and whether the call may have been executed.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call. Its guest is stopped, and other calls are not
    /// affected. The call may have run.
    pub async fn call<A, R>(&self, method: &str, arguments: &A) -> Result<R, RpcError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.called(method, arguments, &PLAIN).await
    }

    /// Like [`Client::call`], with options.
    ///
    /// # Errors
    /// As for [`Client::call`].
    ///
    /// # Cancel safety
    /// As for [`Client::call`].
    pub async fn call_with<A, R>(
        &self,
        method: &str,
        arguments: &A,
        options: CallOptions,
    ) -> Result<R, RpcError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.called(method, arguments, &options).await
    }

    async fn called<A, R>(
        &self,
        method: &str,
        arguments: &A,
        options: &CallOptions,
    ) -> Result<R, RpcError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let arguments = encode(method, arguments)?;
        let named = self.named(method, options)?;
        let deadline = self.deadline(options);
        let asked = self.asked(&named, arguments, options, options.fingerprint, deadline)?;
        decode(method, &self.ask(&asked).await?)
    }

    /// Calls a method with encoded arguments. Returns its encoded result.
    ///
    /// # Errors
    /// As for [`Client::call`].
    ///
    /// # Cancel safety
    /// As for [`Client::call`].
    pub async fn call_bytes(
        &self,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Bytes, RpcError> {
        let named = self.named(method, &options)?;
        let deadline = self.deadline(&options);
        let asked = self.asked(&named, arguments, &options, options.fingerprint, deadline)?;
        Ok(self.ask(&asked).await?.bytes)
    }

    /// A service's description, as one of its hosts serves it now.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub async fn describe(&self, service: &str) -> Result<Arc<Service>, RpcError> {
        let mut name = ServiceName::parse(service)
            .map_err(|error| RpcError::local(service, Failure::Name(error)))?;
        self.0.defaults.binds.complete(&mut name);
        let deadline = self.deadline(&CallOptions::default());
        let wanted = Wanted { service: name, fingerprint: None };
        Ok(self.description(&wanted, deadline, true).await?.0)
    }

    /// The registry that the client uses, if it uses one.
    #[cfg(feature = "discovery")]
    #[must_use]
    pub fn registry(&self) -> Option<&RegistryClient> {
        match &self.0.caller.target {
            Target::Registry(discovery) => Some(discovery.registry()),
            Target::Direct(_) => None,
        }
    }

    /// Completes when the lists of all services that were called are saved on disk. A program that ends
    /// after a few calls may wait for it, so that the next run begins with these lists.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    #[cfg(feature = "discovery")]
    pub async fn lists_saved(&self) {
        if let Target::Registry(discovery) = &self.0.caller.target {
            discovery.saved().await;
        }
    }

    /// What the client knows of the endpoints of all services that it follows.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let nodes: Vec<_> = match &self.0.caller.target {
            Target::Direct(selection) => selection.nodes().to_vec(),
            #[cfg(feature = "discovery")]
            Target::Registry(discovery) => {
                discovery.lists().iter().flat_map(|list| list.nodes.clone()).collect()
            }
        };
        let now = Instant::now();
        let status = |node: &Arc<crate::balance::Node>| {
            let (in_flight, latency) = node.load(now);
            let direct = node.name.interface.is_empty();
            EndpointStatus {
                service: if direct { String::new() } else { node.name.to_string() },
                address: node.endpoint.address().to_string(),
                connected: node.endpoint.is_connected(),
                ejected: node.is_ejected(now),
                in_flight,
                latency,
            }
        };
        nodes.iter().map(status).collect()
    }

    /// A service's description, and whether it was cached.
    pub(crate) async fn description(
        &self,
        wanted: &Wanted,
        deadline: Deadline,
        refresh: bool,
    ) -> Result<(Arc<Service>, bool), RpcError> {
        let key = wanted.service.to_string();
        if !refresh && let Some(known) = lock(&self.0.descriptions).get(&key) {
            return Ok((known.clone(), true));
        }
        let named = Named::new(wanted.clone(), None, &[]);
        let question = Question::Describe { service: named.canonical().clone() };
        let (named, hedge_after) = (&named, None);
        let waits = self.0.defaults.wait_for_ready;
        let (idempotent, is_patient) = (true, waits);
        let asked = Asked { named, question, deadline, idempotent, waits, is_patient, hedge_after };
        let answer = self.ask(&asked).await?;
        let service = Service::from_document(&answer.bytes)
            .map_err(|error| answer.unusable(named.canonical(), error.into()))?;
        let service = Arc::new(service);
        let mut descriptions = lock(&self.0.descriptions);
        if descriptions.len() >= MAX_DESCRIPTIONS {
            descriptions.clear();
        }
        descriptions.insert(key, service.clone());
        Ok((service, false))
    }

    /// Makes attempts until one is answered, or until a retry would be unsafe or useless.
    pub(crate) async fn ask(&self, asked: &Asked<'_>) -> Result<Answer, RpcError> {
        self.can_run().map_err(|failure| RpcError::local(asked.named.canonical(), failure))?;
        self.0.caller.ask(asked).await
    }

    /// Whether calls can be made here at all.
    fn can_run(&self) -> Result<(), Failure> {
        if self.0.is_forked.load(Ordering::Relaxed) {
            return Err(Failure::Forked);
        }
        // Timers and sockets would panic.
        Handle::try_current().map(drop).map_err(|_| Failure::NoRuntime)
    }

    /// From now on all calls fail: the process is a child that was forked.
    pub(crate) fn forked(&self) {
        self.0.is_forked.store(true, Ordering::Relaxed);
    }

    /// Whether a service of Go's net/rpc is listed that a method could be called of.
    #[cfg(feature = "discovery")]
    pub(crate) async fn has_net_rpc(&self, named: &Named, deadline: Deadline) -> bool {
        let nodes = named.net_rpc_nodes(&self.0.caller.target, deadline.at).await;
        nodes.is_ok_and(|nodes| !nodes.is_empty())
    }

    /// Calls a method of a service of Go's net/rpc. `spelled` is its name as the caller spelled it.
    #[cfg(feature = "discovery")]
    pub(crate) async fn ask_net_rpc(
        &self,
        (named, spelled): (&Named, &str),
        argument: Value,
        deadline: Deadline,
    ) -> Result<Outcome, RpcError> {
        self.can_run().map_err(|failure| RpcError::local(spelled, failure))?;
        let nodes = named.net_rpc_nodes(&self.0.caller.target, deadline.at).await;
        let nodes = nodes.map_err(|failure| RpcError::local(spelled, failure))?;
        let observers = &self.0.caller.observers;
        self.0.net_rpc.call((named, spelled), &nodes, argument, deadline, observers).await
    }

    /// A call of a method with encoded arguments. Its settings come from its options, the client's
    /// defaults and the interceptors.
    pub(crate) fn asked<'n>(
        &self,
        named: &'n Named,
        arguments: Bytes,
        options: &CallOptions,
        fingerprint: Option<Fingerprint>,
        deadline: Deadline,
    ) -> Result<Asked<'n>, RpcError> {
        let metadata = self
            .metadata(named, options, deadline)
            .map_err(|failure| RpcError::local(named.canonical(), failure))?;
        let method = named.resolved_as(fingerprint);
        let idempotent = options.idempotent || named.is_idempotent();
        let waits = options.wait_for_ready || self.0.defaults.wait_for_ready;
        Ok(Asked {
            named,
            question: Question::Call { method, arguments, metadata },
            deadline,
            idempotent,
            waits,
            is_patient: idempotent || waits,
            hedge_after: options.hedge_after.or(self.0.defaults.hedge_after),
        })
    }

    /// The call's own metadata, and those that interceptors add.
    fn metadata(
        &self,
        named: &Named,
        options: &CallOptions,
        deadline: Deadline,
    ) -> Result<Bytes, Failure> {
        let mut metadata = Vec::new();
        if let Some(trace_parent) = options.trace_parent {
            append(&mut metadata, TraceParent::KEY, &trace_parent.to_string())?;
        }
        for (key, value) in &options.metadata {
            append(&mut metadata, key, value)?;
        }
        for interceptor in &self.0.defaults.interceptors {
            let mut call = Outgoing::new(named, deadline.timeout, &mut metadata);
            interceptor.outgoing(&mut call).map_err(Failure::Intercepted)?;
        }
        Ok(metadata.into())
    }

    pub(crate) fn deadline(&self, options: &CallOptions) -> Deadline {
        let timeout = options.timeout.unwrap_or(self.0.defaults.timeout);
        let now = Instant::now();
        // A timeout beyond the range of the clock counts as one of 136 years.
        let none = Duration::from_secs(u32::MAX.into());
        Deadline { begun: now, at: now.checked_add(timeout).unwrap_or(now + none), timeout }
    }

    /// A method of a service.
    pub(crate) fn name(&self, wanted: Wanted, method: String) -> Named {
        Named::new(wanted, Some(method), &self.0.defaults.idempotent)
    }

    /// A method by its name, parsed once.
    pub(crate) fn named(
        &self,
        method: &str,
        options: &CallOptions,
    ) -> Result<Arc<Named>, RpcError> {
        let key = match &options.version {
            None => {
                if let Some(named) = self.0.names.get(method) {
                    return Ok(named);
                }
                method.to_owned()
            }
            Some(requirement) => {
                let key = format!("{method} {requirement}");
                if let Some(named) = self.0.names.get(&key) {
                    return Ok(named);
                }
                key
            }
        };
        let Defaults { idempotent, binds, .. } = &self.0.defaults;
        let named = Named::parse(method, options.version.clone(), idempotent, binds)
            .map_err(|error| RpcError::local(method, Failure::Name(error)))?;
        let named = Arc::new(named);
        self.0.names.insert(key, named.clone());
        Ok(named)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Client");
        match &self.0.caller.target {
            #[cfg(feature = "discovery")]
            Target::Registry(discovery) => debug.field("registry", &discovery.registry().address()),
            Target::Direct(_) => debug.field("endpoints", &self.endpoints()),
        };
        debug.finish_non_exhaustive()
    }
}

/// Bytes that most arguments fit into.
const SMALL: usize = 64;

/// Encodes arguments for the wire.
pub(crate) fn encode<A: Serialize + ?Sized>(
    method: &str,
    arguments: &A,
) -> Result<Bytes, RpcError> {
    match postcard::to_extend(arguments, Vec::with_capacity(SMALL)) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(RpcError::local(method, Failure::Encode(error))),
    }
}

/// Decodes a result. It must take up the whole answer.
pub(crate) fn decode<R: DeserializeOwned>(method: &str, answer: &Answer) -> Result<R, RpcError> {
    match postcard::take_from_bytes(&answer.bytes) {
        Ok((result, [])) => Ok(result),
        Ok(_) => {
            let left_over = postcard::Error::DeserializeBadEncoding;
            Err(answer.unusable(method, Failure::Decode(left_over)))
        }
        Err(error) => Err(answer.unusable(method, Failure::Decode(error))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
