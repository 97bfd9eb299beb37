//! What a caller uses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wharf_registry_api::{RegistryClient, RegistryError};
use wharf_schema::{
    Fingerprint, MethodPath, Outcome, Service, ServiceName, Signature, arguments_from_json,
    result_to_json,
};

use wharf_wire::TraceParent;

use crate::connection::{Deadline, Question};
use crate::discovery::Discovery;
use crate::endpoints::Endpoints;
use crate::error::{CallError, Failure};
use crate::methods::Method;

/// How long a call may take unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Names of methods that are kept parsed.
const MAX_NAMES: usize = 10_000;

/// Calls services. Clones share connections and what is known of the registry.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    target: Target,
    endpoints: Endpoints,
    timeout: Duration,
    names: Mutex<HashMap<String, Arc<Named>>>,
    descriptions: Mutex<HashMap<String, Arc<Service>>>,
    turn: AtomicUsize,
}

enum Target {
    Registry(Discovery),
    Direct(Arc<str>),
}

/// A method's name, parsed once.
struct Named {
    path: MethodPath,
    canonical: Arc<str>,
    /// The signature that this client's first call was answered for.
    first_seen: Arc<OnceLock<Fingerprint>>,
}

/// What an endpoint answered.
struct Answer {
    bytes: Bytes,
    endpoint: Arc<str>,
    attempts: u32,
}

impl Answer {
    /// The error of an answer that came, and is of no use.
    fn unusable(&self, method: &str, failure: Failure) -> CallError {
        let endpoint = Some(self.endpoint.to_string());
        CallError { method: method.to_owned(), endpoint, attempts: self.attempts, failure }
    }
}

/// How a client is made.
#[derive(Clone, Debug, Default)]
pub struct ClientBuilder {
    timeout: Option<Duration>,
    token: Vec<u8>,
}

/// How one call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// How long all its attempts may take together; otherwise the client's.
    pub timeout: Option<Duration>,
    /// The signature that the caller was built against: another one is refused by the host, and
    /// not guessed at.
    pub fingerprint: Option<Fingerprint>,
    /// The trace that the call belongs to.
    pub trace_parent: Option<TraceParent>,
}

impl ClientBuilder {
    /// How long a call may take that names no time of its own; 10 seconds otherwise.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        ClientBuilder { timeout: Some(timeout), ..self }
    }

    /// What to show to hosts that ask for a token.
    #[must_use]
    pub fn token(self, token: impl Into<Vec<u8>>) -> Self {
        ClientBuilder { token: token.into(), ..self }
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
        self.build(Target::Registry(Discovery::new(registry)))
    }

    /// A client that calls one host at `host:port`, without a registry.
    #[must_use]
    pub fn direct(self, address: &str) -> Client {
        self.build(Target::Direct(address.into()))
    }

    fn build(self, target: Target) -> Client {
        Client(Arc::new(Inner {
            target,
            endpoints: Endpoints::new(self.token),
            timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            names: Mutex::default(),
            descriptions: Mutex::default(),
            turn: AtomicUsize::new(0),
        }))
    }
}

impl Client {
    /// How a client is made that needs more than an address.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client that asks the registry at this address, `http://127.0.0.1:8500`.
    ///
    /// # Errors
    /// When that is no address. The registry itself need not be there yet: it is asked until it
    /// answers, and calls fail as long as it has never done so.
    #[expect(
        clippy::unused_async,
        reason = "starting to follow the registry may have to wait one day"
    )]
    pub async fn connect(registry: &str) -> Result<Self, RegistryError> {
        Self::builder().registry(registry)
    }

    /// Calls a method: `arith.multiply`, `Arith.Multiply` or `demo:arith/arith@0.1.0.multiply`.
    ///
    /// `arguments` is the one parameter, or a tuple of several; `()` for none. `R` is what the
    /// method returns: for WIT's `result`, Rust's `Result`.
    ///
    /// # Errors
    /// [`CallError`]: what failed, where, and whether the call may have been executed.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call: its guest is stopped, other calls do not notice. It
    /// may have been executed.
    pub async fn call<A, R>(&self, method: &str, arguments: &A) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_with(method, arguments, CallOptions::default()).await
    }

    /// As [`Client::call`], with options.
    ///
    /// # Errors
    /// As of [`Client::call`].
    pub async fn call_with<A, R>(
        &self,
        method: &str,
        arguments: &A,
        options: CallOptions,
    ) -> Result<R, CallError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let arguments = postcard::to_stdvec(arguments)
            .map_err(|error| local(method, Failure::Encode(error)))?;
        let named = self.named(method).map_err(|failure| local(method, failure))?;
        let deadline = self.deadline(options);
        let answer = self.ask_method(&named, arguments.into(), options, deadline).await?;
        match postcard::take_from_bytes(&answer.bytes) {
            Ok((result, [])) => Ok(result),
            Ok(_) => {
                let left_over = postcard::Error::DeserializeBadEncoding;
                Err(answer.unusable(method, Failure::Decode(left_over)))
            }
            Err(error) => Err(answer.unusable(method, Failure::Decode(error))),
        }
    }

    /// As [`Client::call`], with arguments and result as JSON: one value for each parameter.
    ///
    /// The method's types come from the host's description, which is asked for once.
    ///
    /// # Errors
    /// As of [`Client::call`]. The Err of a method's own `result` is no error here, but
    /// [`Outcome::Err`].
    pub async fn call_json(
        &self,
        method: &str,
        arguments: &[serde_json::Value],
        options: CallOptions,
    ) -> Result<Outcome, CallError> {
        let named = self.named(method).map_err(|failure| local(method, failure))?;
        let deadline = self.deadline(options);
        let mut fresh = false;
        loop {
            let (service, cached) =
                self.description(method, &named.path.service, deadline, fresh).await?;
            fresh = true;
            let failure = match encode_json(&service, &named.path.method, arguments) {
                Ok((encoded, signature)) => {
                    let fingerprint = Some(signature.fingerprint);
                    let wanted = options.fingerprint;
                    if wanted.is_none() || wanted == fingerprint {
                        let options = CallOptions { fingerprint, ..options };
                        match self.ask_method(&named, encoded.into(), options, deadline).await {
                            Ok(answer) => {
                                let result = signature.result;
                                return result_to_json(service.types(), result, &answer.bytes)
                                    .map_err(|e| answer.unusable(method, Failure::Result(e)));
                            }
                            // Nothing ran, so the arguments can be encoded anew.
                            Err(error) if error.failure.is_schema_mismatch() && cached => continue,
                            Err(error) => return Err(error),
                        }
                    }
                    let message = "the description is of another signature than the caller's";
                    Failure::Method(message.to_owned())
                }
                Err(failure) => failure,
            };
            // The plugin may have been replaced since its description was asked for.
            if !cached {
                return Err(local(method, failure));
            }
        }
    }

    /// Calls a method with encoded arguments.
    ///
    /// Endpoints that cannot be reached, or that say that nothing was executed, are passed over
    /// for the next; each is asked once.
    ///
    /// # Errors
    /// As of [`Client::call`].
    pub async fn call_bytes(
        &self,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Bytes, CallError> {
        let named = self.named(method).map_err(|failure| local(method, failure))?;
        let deadline = self.deadline(options);
        let answer = self.ask_method(&named, arguments, options, deadline).await?;
        Ok(answer.bytes)
    }

    /// A service's description, as one of its hosts has it at the moment.
    ///
    /// # Errors
    /// As of [`Client::call`].
    pub async fn describe(&self, service: &str) -> Result<Arc<Service>, CallError> {
        let name = ServiceName::parse(service).map_err(|error| local(service, error.into()))?;
        let deadline = self.deadline(CallOptions::default());
        Ok(self.description(service, &name, deadline, true).await?.0)
    }

    /// The registry that is asked, if one is.
    #[must_use]
    pub fn registry(&self) -> Option<&RegistryClient> {
        match &self.0.target {
            Target::Registry(discovery) => Some(discovery.registry()),
            Target::Direct(_) => None,
        }
    }

    /// A service's description, and whether it was known before.
    async fn description(
        &self,
        what: &str,
        name: &ServiceName,
        deadline: Deadline,
        refresh: bool,
    ) -> Result<(Arc<Service>, bool), CallError> {
        let canonical = name.to_string();
        if !refresh && let Some(known) = lock(&self.0.descriptions).get(&canonical) {
            return Ok((known.clone(), true));
        }
        let question = Question::Describe { service: canonical.as_str().into() };
        let answer = self.ask(what, name, deadline, &question).await?;
        let service = Service::from_document(&answer.bytes)
            .map_err(|error| answer.unusable(what, error.into()))?;
        let service = Arc::new(service);
        let mut descriptions = lock(&self.0.descriptions);
        if descriptions.len() >= MAX_NAMES {
            descriptions.clear();
        }
        descriptions.insert(canonical, service.clone());
        Ok((service, false))
    }

    async fn ask_method(
        &self,
        named: &Named,
        arguments: Bytes,
        options: CallOptions,
        deadline: Deadline,
    ) -> Result<Answer, CallError> {
        let method = Method {
            name: named.canonical.clone(),
            fingerprint: options.fingerprint,
            first_seen: named.first_seen.clone(),
        };
        let trace_parent = options.trace_parent;
        let question = Question::Call { method, arguments, trace_parent };
        self.ask(&named.canonical, &named.path.service, deadline, &question).await
    }

    /// Asks the endpoints of a service, one after the other, within one deadline.
    async fn ask(
        &self,
        what: &str,
        service: &ServiceName,
        deadline: Deadline,
        question: &Question,
    ) -> Result<Answer, CallError> {
        let addresses = match &self.0.target {
            Target::Direct(address) => vec![address.clone()],
            Target::Registry(discovery) => discovery
                .addresses(service, deadline.at)
                .await
                .map_err(|failure| local(what, failure))?,
        };
        let first = self.0.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
        let in_turn = addresses.iter().cycle().skip(first).take(addresses.len());
        let mut last = None;
        for (attempts, endpoint) in (1..).zip(in_turn) {
            let failure = match self.ask_endpoint(endpoint, deadline, question).await {
                Ok(bytes) => return Ok(Answer { bytes, endpoint: endpoint.clone(), attempts }),
                Err(failure) => failure,
            };
            let go_on = failure.try_elsewhere();
            last = Some(CallError {
                method: what.to_owned(),
                endpoint: Some(endpoint.to_string()),
                attempts,
                failure,
            });
            if !go_on {
                break;
            }
        }
        Err(last.unwrap_or_else(|| {
            let failure =
                Failure::NoEndpoint { service: service.to_string(), reason: String::new() };
            local(what, failure)
        }))
    }

    async fn ask_endpoint(
        &self,
        address: &Arc<str>,
        deadline: Deadline,
        question: &Question,
    ) -> Result<Bytes, Failure> {
        let mut reconnected = false;
        loop {
            let connection = match self.0.endpoints.connection(address, deadline.at).await {
                Ok(connection) => connection,
                Err(_) if Instant::now() >= deadline.at => {
                    let timeout = deadline.timeout;
                    return Err(Failure::DeadlineExceeded { timeout, not_executed: true });
                }
                Err(failure) => return Err(failure),
            };
            match connection.ask(question.clone(), deadline).await {
                // It went away before it took the call, for having been idle for example: that
                // says nothing against the endpoint.
                Err(Failure::ConnectionLost { not_executed: true, .. }) if !reconnected => {
                    reconnected = true;
                }
                answer => return answer,
            }
        }
    }

    fn deadline(&self, options: CallOptions) -> Deadline {
        let timeout = options.timeout.unwrap_or(self.0.timeout);
        let now = Instant::now();
        // A time beyond what the clock counts is as good as none.
        let none = Duration::from_secs(u32::MAX.into());
        Deadline { at: now.checked_add(timeout).unwrap_or(now + none), timeout }
    }

    fn named(&self, method: &str) -> Result<Arc<Named>, Failure> {
        let mut names = lock(&self.0.names);
        if let Some(named) = names.get(method) {
            return Ok(named.clone());
        }
        let path = MethodPath::parse(method)?;
        let canonical = path.to_string().into();
        let named = Arc::new(Named { canonical, path, first_seen: Arc::default() });
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(method.to_owned(), named.clone());
        Ok(named)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Client");
        match &self.0.target {
            Target::Registry(discovery) => debug.field("registry", &discovery.registry().address()),
            Target::Direct(address) => debug.field("direct", address),
        };
        debug.finish()
    }
}

/// The arguments of a method, encoded by its description.
fn encode_json<'s>(
    service: &'s Service,
    method: &str,
    arguments: &[serde_json::Value],
) -> Result<(Vec<u8>, &'s Signature), Failure> {
    let found = service.method(method).ok_or_else(|| {
        let known: Vec<&str> = service.methods().iter().map(|m| &m.name[..]).collect();
        let (service, known) = (service.name(), known.join(", "));
        Failure::Method(format!("the service '{service}' has no such method; it has {known}"))
    })?;
    let signature = found
        .signature
        .as_ref()
        .map_err(|reason| Failure::Method(format!("it cannot be called from outside: {reason}")))?;
    let encoded = arguments_from_json(service.types(), &signature.params, arguments)?;
    Ok((encoded, signature))
}

/// A failure that no endpoint had a part in.
fn local(method: &str, failure: Failure) -> CallError {
    CallError { method: method.to_owned(), endpoint: None, attempts: 0, failure }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
