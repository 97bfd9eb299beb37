//! A client of the API over reqwest.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::{
    Declaration, Declared, EndpointList, Heartbeat, HeartbeatReply, Index, Problem, ServiceList,
    State, StateChange,
};

/// How long one request may take, beside the time that it asks the registry to wait.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer that is read, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// The first and the longest pause before a registry that did not answer is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long to pause before each further attempt to reach a registry: exponentially longer up to 5
/// seconds, each with jitter, so that those who lost it together do not come back together.
pub fn retry_pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Talks to one registry. Clones share its connections.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    http: reqwest::Client,
    base: Url,
}

/// A request that has no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Not an address of a registry.
    #[error("'{0}' is not a registry's address: write it like http://127.0.0.1:8500")]
    BadAddress(String),
    /// No answer.
    #[error(
        "the registry at {url} cannot be reached: is it running ('wharf up' or 'wharf registry')?"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The registry says no.
    #[error("the registry at {url} refused: {problem}")]
    Refused {
        /// Where.
        url: String,
        /// Its reason.
        problem: Box<Problem>,
    },
    /// An answer that is none of this API's.
    #[error("the server at {url} does not answer as a registry does: {what}")]
    Unexpected {
        /// Where.
        url: String,
        /// What came instead.
        what: String,
    },
}

/// Which endpoints to list, and whether to wait for a change first.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only versions that this requirement allows, `^0.1`.
    pub version: Option<String>,
    /// Only endpoints that take new calls.
    pub passing: bool,
    /// Answer once the list is newer than this, or the time is over.
    pub newer_than: Option<(Index, Duration)>,
}

impl RegistryClient {
    /// A client of the registry at `address`: `http://127.0.0.1:8500`, or without the scheme.
    ///
    /// # Errors
    /// When that is no such address. Nothing is sent yet.
    pub fn new(address: &str) -> Result<Self, RegistryError> {
        let bad = || RegistryError::BadAddress(address.to_owned());
        let with_scheme =
            if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let base = Url::parse(&with_scheme).map_err(|_| bad())?;
        if base.scheme() != "http" || !base.has_host() || base.cannot_be_a_base() {
            return Err(bad());
        }
        let http =
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .no_proxy()
                .build()
                .map_err(|source| RegistryError::Unreachable { url: base.to_string(), source })?;
        Ok(RegistryClient { http, base })
    }

    /// The registry's address.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
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
        let request = self.request(Method::PUT, &["v1", "hosts", host])?.json(declaration);
        self.json(request, TIMEOUT).await
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
        let request =
            self.request(Method::POST, &["v1", "hosts", host, "heartbeat"])?.json(heartbeat);
        self.json(request, TIMEOUT).await
    }

    /// Says whether a host takes new calls.
    ///
    /// # Errors
    /// As of [`RegistryClient::heartbeat`].
    pub async fn set_state(
        &self,
        host: &str,
        session: u64,
        state: State,
    ) -> Result<(), RegistryError> {
        let change = StateChange { session, state };
        let request = self.request(Method::PUT, &["v1", "hosts", host, "state"])?.json(&change);
        self.send(request, TIMEOUT).await.map(drop)
    }

    /// Withdraws a host and all its endpoints; also when it is not there.
    ///
    /// # Errors
    /// [`crate::Code::Superseded`] when a newer session owns the host.
    pub async fn withdraw(&self, host: &str, session: u64) -> Result<(), RegistryError> {
        let request = self
            .request(Method::DELETE, &["v1", "hosts", host])?
            .query(&[("session", session.to_string())]);
        self.send(request, TIMEOUT).await.map(drop)
    }

    /// All services.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn services(&self) -> Result<ServiceList, RegistryError> {
        let request = self.request(Method::GET, &["v1", "services"])?;
        self.json(request, TIMEOUT).await
    }

    /// The endpoints of a service, by its short name; `None` when the wait ended without a change.
    ///
    /// # Errors
    /// [`crate::Code::IndexGone`] when the index is of another life of the registry.
    pub async fn endpoints(
        &self,
        service: &str,
        options: &ListOptions,
    ) -> Result<Option<EndpointList>, RegistryError> {
        let mut request = self.request(Method::GET, &["v1", "services", service, "endpoints"])?;
        let mut timeout = TIMEOUT;
        if let Some(version) = &options.version {
            request = request.query(&[("version", version)]);
        }
        if options.passing {
            request = request.query(&[("passing", "1")]);
        }
        if let Some((index, wait)) = options.newer_than {
            timeout += wait;
            let wait = format!("{}ms", wait.as_millis());
            request = request.query(&[("index", index.to_string()), ("wait", wait)]);
        }
        let response = self.send(request, timeout).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.read(response).await.map(Some)
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| RegistryError::BadAddress(self.base.to_string()))?
            .pop_if_empty()
            .extend(path);
        Ok(self.http.request(method, url))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<T, RegistryError> {
        let response = self.send(request, timeout).await?;
        self.read(response).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<Response, RegistryError> {
        let response =
            request.timeout(timeout).send().await.map_err(|source| self.unreachable(source))?;
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

    /// The body, as far as the bound allows.
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

impl RegistryError {
    /// The registry's reason, if it gave one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            RegistryError::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_a_scheme() {
        for good in ["http://127.0.0.1:8500", "localhost:8500", "http://[::1]:8500/"] {
            assert!(RegistryClient::new(good).is_ok(), "{good}");
        }
        for bad in ["", "ftp://x", "http://", "::"] {
            let error = RegistryClient::new(bad).unwrap_err().to_string();
            assert!(error.contains("write it like http://127.0.0.1:8500"), "{error}");
        }
    }
}
