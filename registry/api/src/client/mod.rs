//! A client of the API over reqwest.

mod operate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::operate::Backup;
use crate::error::RegistryError;
use crate::watch::Watch;
use crate::{
    CertificateOrder, Declaration, Declared, EndpointList, EndpointState, GrantedCertificate,
    Heartbeat, HeartbeatReply, Index, ServiceList, StateChange, TrustBundle,
};

/// How long one request may take, in addition to the time that it asks the registry to wait.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The same if there are several addresses. It is shorter, because a host that is stuck at one of
/// them must reach the next one in time for its heartbeat.
const TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(3);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer that is read, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Talks to a registry: to one process, or to the processes of one cluster. If one does not answer,
/// the client asks the next. Clones share the connections and the choice of process.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    http: reqwest::Client,
    bases: Arc<[Url]>,
    /// The position of the address that is asked.
    current: Arc<AtomicUsize>,
}

/// The credentials for a registry, and the authorities that verify its certificate. By default
/// there are no credentials, and a registry that serves TLS is verified by the authorities that the
/// system trusts.
#[derive(Clone, Default)]
pub struct RegistryOptions {
    /// The secret of a token.
    pub token: Option<String>,
    /// Authorities that verify the registry's certificate, in PEM. If given, no others are trusted.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate and its private key, in PEM.
    pub certificate: Option<Vec<u8>>,
    /// Speaks TLS in this way, whatever the other options say. The registry's address then is https.
    pub tls: Option<rustls::ClientConfig>,
}

impl std::fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryOptions")
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// Chooses the cryptography of TLS for this process, unless it is chosen already.
///
/// Every [`RegistryClient`] does so by itself. A program that makes reqwest clients before that
/// must call this first.
pub fn choose_cryptography() {
    // An error means that it is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A request, without the address that it will be sent to.
struct Request<'r> {
    method: Method,
    path: &'r [&'r str],
    query: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    /// How long the registry is asked to wait. `None` means for ever: the body has no time limit.
    wait: Option<Duration>,
    headers: HeaderMap,
}

impl<'r> Request<'r> {
    fn new(method: Method, path: &'r [&'r str]) -> Self {
        let wait = Some(Duration::ZERO);
        Request { method, path, query: Vec::new(), body: None, wait, headers: HeaderMap::new() }
    }

    fn json(self, body: &impl Serialize) -> Result<Self, RegistryError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| RegistryError::Unsendable(error.to_string()))?;
        Ok(Request { body: Some(body), ..self })
    }
}

/// Which endpoints to list, and whether to wait for a change first.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only versions that this requirement allows, `^0.1`.
    pub version: Option<String>,
    /// Only endpoints that take new calls.
    pub passing: bool,
    /// Answer when the list is newer than this index, or the time is over.
    pub newer_than: Option<(Index, Duration)>,
}

/// What `/services` says of one service.
#[derive(Deserialize)]
struct ClassicService {
    #[serde(rename = "Addr")]
    address: String,
}

impl RegistryClient {
    /// A client of the registry at `address`: `http://127.0.0.1:8500`, or without the scheme. For
    /// several processes of one cluster, put commas between their addresses.
    ///
    /// # Errors
    /// When an address is not valid. Nothing is sent yet.
    pub fn new(address: &str) -> Result<Self, RegistryError> {
        RegistryClient::with_options(address, RegistryOptions::default())
    }

    /// As [`RegistryClient::new`], with credentials and trusted authorities.
    ///
    /// # Errors
    /// As [`RegistryClient::new`], and when the options cannot be used.
    pub fn with_options(address: &str, options: RegistryOptions) -> Result<Self, RegistryError> {
        // An address without a scheme takes that of the first one: a token must not be sent
        // unencrypted by mistake.
        let first = address.split(',').next().and_then(|first| first.trim().split_once("://"));
        let usual = if options.tls.is_some() { "https" } else { "http" };
        let scheme = first.map_or(usual, |(scheme, _)| scheme);
        let bases: Vec<Url> =
            address.split(',').map(|address| base(address, scheme)).collect::<Result<_, _>>()?;
        choose_cryptography();
        let encrypted = bases.iter().any(|base| base.scheme() == "https");
        if encrypted && options.token.is_some() && bases.iter().any(|base| base.scheme() == "http")
        {
            return Err(RegistryError::BadIdentity {
                what: "token",
                why: "one of the addresses is not encrypted, but another one is; use https for all"
                    .to_owned(),
            });
        }
        if options.tls.is_some() && bases.iter().any(|base| base.scheme() == "http") {
            return Err(RegistryError::BadIdentity {
                what: "address",
                why: "whoever has an identity speaks to registries over https only".to_owned(),
            });
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = options.token {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            let mut bearer = bearer.map_err(|_| RegistryError::BadIdentity {
                what: "token",
                why: "it has characters that cannot be sent".to_owned(),
            })?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .default_headers(headers)
            // A registry sends nobody elsewhere, and a token belongs to nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let bad = |what| {
            move |error: reqwest::Error| RegistryError::BadIdentity { what, why: error.to_string() }
        };
        if let Some(tls) = options.tls {
            builder = builder.tls_backend_preconfigured(tls);
        } else if let Some(pem) = options.authorities.filter(|_| encrypted) {
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(bad("authorities"))?;
            builder = builder.tls_certs_only(authorities);
        } else if !encrypted {
            // Without TLS, do not read the system's authorities: that takes a while.
            builder = builder.tls_certs_only([]);
        }
        if let Some(pem) = options.certificate.filter(|_| encrypted) {
            let identity = reqwest::Identity::from_pem(&pem).map_err(bad("certificate"))?;
            builder = builder.identity(identity);
        }
        let http = builder
            .build()
            .map_err(|source| RegistryError::Unreachable { url: address.to_owned(), source })?;
        Ok(RegistryClient { http, bases: bases.into(), current: Arc::default() })
    }

    /// The registry's address. If there are several, the one that is asked now.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base(self.current.load(Ordering::Relaxed)).as_str().trim_end_matches('/')
    }

    /// All addresses that it was given.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all: Vec<&str> =
            self.bases.iter().map(|base| base.as_str().trim_end_matches('/')).collect();
        all.join(",")
    }

    fn base(&self, position: usize) -> &Url {
        &self.bases[position % self.bases.len()]
    }

    /// Declares a host's whole set of endpoints.
    ///
    /// # Errors
    /// [`crate::Code::Superseded`] when a newer session owns the host.
    pub async fn declare(
        &self,
        host: &str,
        declaration: &Declaration,
    ) -> Result<Declared, RegistryError> {
        self.json(Request::new(Method::PUT, &["v1", "hosts", host]).json(declaration)?).await
    }

    /// Keeps a host's endpoints alive.
    ///
    /// # Errors
    /// [`crate::Code::UnknownHost`] when it has to declare again.
    pub async fn heartbeat(
        &self,
        host: &str,
        heartbeat: &Heartbeat,
    ) -> Result<HeartbeatReply, RegistryError> {
        let path = ["v1", "hosts", host, "heartbeat"];
        self.json(Request::new(Method::POST, &path).json(heartbeat)?).await
    }

    /// Says whether a host takes new calls.
    ///
    /// # Errors
    /// As [`RegistryClient::heartbeat`].
    pub async fn set_state(
        &self,
        host: &str,
        session: u64,
        state: EndpointState,
    ) -> Result<(), RegistryError> {
        let path = ["v1", "hosts", host, "state"];
        let request = Request::new(Method::PUT, &path).json(&StateChange { session, state })?;
        self.send(request).await.map(drop)
    }

    /// Withdraws a host and all its endpoints. It succeeds even if the host is not registered.
    ///
    /// # Errors
    /// [`crate::Code::Superseded`] when a newer session owns the host.
    pub async fn withdraw(&self, host: &str, session: u64) -> Result<(), RegistryError> {
        let path = ["v1", "hosts", host];
        let mut request = Request::new(Method::DELETE, &path);
        request.query.push(("session", session.to_string()));
        self.send(request).await.map(drop)
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    /// [`crate::Code::Forbidden`] when the token or the earlier certificate does not allow it.
    pub async fn order_certificate(
        &self,
        order: &CertificateOrder,
    ) -> Result<GrantedCertificate, RegistryError> {
        self.json(Request::new(Method::POST, &["v1", "identity", "certificates"]).json(order)?)
            .await
    }

    /// Whom members of the trust domain believe.
    ///
    /// # Errors
    /// [`crate::Code::UnknownPath`] when the registry gives out no certificates.
    pub async fn trust_bundle(&self) -> Result<TrustBundle, RegistryError> {
        self.json(Request::new(Method::GET, &["v1", "identity", "bundle"])).await
    }

    /// All services.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn services(&self) -> Result<ServiceList, RegistryError> {
        self.json(Request::new(Method::GET, &["v1", "services"])).await
    }

    /// The services that registered themselves by the classic calls: the address of each, by name.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn classic_services(&self) -> Result<BTreeMap<String, String>, RegistryError> {
        let all: BTreeMap<String, ClassicService> =
            self.json(Request::new(Method::GET, &["services"])).await?;
        Ok(all.into_iter().map(|(name, service)| (name, service.address)).collect())
    }

    /// The endpoints of a service, by its short name; `None` when the wait ended without a change.
    ///
    /// # Errors
    /// [`crate::Code::IndexGone`] when the index is from another life of the registry.
    pub async fn endpoints(
        &self,
        service: &str,
        options: &ListOptions,
    ) -> Result<Option<EndpointList>, RegistryError> {
        let path = ["v1", "services", service, "endpoints"];
        let mut request = Request::new(Method::GET, &path);
        if let Some(version) = &options.version {
            request.query.push(("version", version.clone()));
        }
        if options.passing {
            request.query.push(("passing", "1".to_owned()));
        }
        if let Some((index, wait)) = options.newer_than {
            request.wait = Some(wait);
            request.query.push(("index", index.to_string()));
            request.query.push(("wait", format!("{}ms", wait.as_millis())));
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.read(response).await.map(Some)
    }

    /// Follows the endpoints of one service, or of all. The watch continues after the index of an
    /// earlier bookmark, or starts with a snapshot.
    ///
    /// # Errors
    /// When the registry does not answer, or refuses.
    pub async fn watch(
        &self,
        service: Option<&str>,
        after: Option<Index>,
    ) -> Result<Watch, RegistryError> {
        let mut request = Request::new(Method::GET, &["v1", "watch"]);
        request.wait = None;
        if let Some(service) = service {
            request.query.push(("service", service.to_owned()));
        }
        if let Some(after) = after.and_then(|after| HeaderValue::try_from(after.to_string()).ok()) {
            request.headers.insert("last-event-id", after);
        }
        let response = self.send(request).await?;
        Ok(Watch::new(response, self.address().to_owned()))
    }

    async fn json<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, RegistryError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    /// Sends a request to the address that answered last. If that one does not answer, or cannot
    /// serve the request, tries each of the others. Every request of the API may be repeated.
    async fn send(&self, request: Request<'_>) -> Result<Response, RegistryError> {
        let mut attempts = 1;
        loop {
            let position = self.current.load(Ordering::Relaxed);
            let error = match self.send_to(self.base(position), &request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let elsewhere = match &error {
                RegistryError::Unreachable { .. } | RegistryError::Unexpected { .. } => true,
                RegistryError::Refused { problem, .. } => problem.status == 503,
                _ => false,
            };
            if !elsewhere {
                return Err(error);
            }
            // Another request that failed at this address may have moved on already.
            let next = (position + 1) % self.bases.len();
            let order = Ordering::Relaxed;
            let _ = self.current.compare_exchange(position, next, order, order);
            if attempts >= self.bases.len() {
                return Err(error);
            }
            attempts += 1;
        }
    }

    async fn send_to(&self, base: &Url, request: &Request<'_>) -> Result<Response, RegistryError> {
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| RegistryError::BadAddress(base.to_string()))?
            .pop_if_empty()
            .extend(request.path);
        let mut builder = self.http.request(request.method.clone(), url);
        builder = builder.query(&request.query).headers(request.headers.clone());
        let timeout = if self.bases.len() > 1 { TIMEOUT_OF_SEVERAL } else { TIMEOUT };
        if let Some(wait) = request.wait {
            builder = builder.timeout(timeout + wait);
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        // The head of an answer has a time limit even if the body has none.
        let timeout = timeout + request.wait.unwrap_or_default();
        let head = tokio::time::timeout(timeout, builder.send());
        let response = match head.await {
            Ok(response) => response.map_err(|source| self.unreachable(source))?,
            Err(_) => return Err(self.unexpected("it does not answer".to_owned())),
        };
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let status = response.status();
        let body = self.body(response).await?;
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(RegistryError::Refused {
                url: self.address().to_owned(),
                problem: Box::new(problem),
            }),
            Err(_) => Err(self.unexpected(format!("it answered {status}"))),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, RegistryError> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| self.unexpected(format!("its answer cannot be read: {error}")))
    }

    /// Reads the body, up to the limit.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(e))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(self.unexpected(format!("its answer is larger than {MAX_BODY} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, source: reqwest::Error) -> RegistryError {
        // The address is in our message already.
        RegistryError::Unreachable { url: self.address().to_owned(), source: source.without_url() }
    }

    fn unexpected(&self, what: String) -> RegistryError {
        RegistryError::Unexpected { url: self.address().to_owned(), what }
    }
}

fn base(address: &str, scheme: &str) -> Result<Url, RegistryError> {
    let address = address.trim();
    let bad = || RegistryError::BadAddress(address.to_owned());
    let with_scheme =
        if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
    let mut base = Url::parse(&with_scheme).map_err(|_| bad())?;
    // Whoever writes a host alone means the usual port of a registry, and not that of the web.
    let authority = address.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, after)| !after.ends_with(']'));
    if with_scheme != address && !has_port {
        let _ = base.set_port(Some(crate::DEFAULT_PORT));
    }
    if !matches!(base.scheme(), "http" | "https") || !base.has_host() || base.cannot_be_a_base() {
        return Err(bad());
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_a_scheme() {
        let several = "http://a:1, https://b:2,c:3";
        for good in ["http://127.0.0.1:8500", "localhost:8500", "http://[::1]:8500/", several] {
            assert!(RegistryClient::new(good).is_ok(), "{good}");
        }
        assert_eq!(RegistryClient::new("localhost").unwrap().address(), "http://localhost:8500");
        assert_eq!(RegistryClient::new("http://localhost").unwrap().address(), "http://localhost");
        let several = RegistryClient::new("https://a:443,b:443,c,[::1]").unwrap();
        let ports: Vec<_> = several.bases.iter().map(Url::port_or_known_default).collect();
        assert_eq!(ports, [Some(443), Some(443), Some(8500), Some(8500)]);
        assert_eq!(RegistryClient::new("localhost:80").unwrap().address(), "http://localhost");
        let client = RegistryClient::new("https://a:1,b:2").unwrap();
        assert!(client.bases.iter().all(|base| base.scheme() == "https"));
        let options = || RegistryOptions { token: Some("secret".to_owned()), ..Default::default() };
        assert!(RegistryClient::with_options("https://a:1,b:2", options()).is_ok());
        let mixed = RegistryClient::with_options("https://a:1,http://b:2", options());
        assert!(mixed.unwrap_err().to_string().contains("is not encrypted"));
        for bad in ["", "ftp://x", "http://", "::", "http://a:1,"] {
            let error = RegistryClient::new(bad).unwrap_err().to_string();
            assert!(error.contains("write it like http://127.0.0.1:8500"), "{error}");
        }
    }
}
