//! Runs a registry, and uses its HTTP API like a program in any language.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{Process, http_client};

/// A running registry.
#[derive(Debug)]
pub struct RegistryProcess {
    /// The process.
    pub process: Process,
    /// Its URL.
    pub url: String,
    /// The HTTP client for requests to it.
    pub http: Client,
}

impl RegistryProcess {
    /// Starts a registry on a port that the system picks.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with("127.0.0.1:0", arguments, &[]).await
    }

    /// Starts a registry on this address, with these environment variables.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_with(
        listen: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let base = ["registry", "--listen", listen];
        let mut process = Process::start_with(&[&base, arguments].concat(), environment)?;
        let url = process.announced("registry").await?;
        Ok(RegistryProcess { process, url, http: http_client()? })
    }

    /// The address where it listens, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, address)| address)
    }

    /// Sends a request. Returns the status and the body, as JSON if it is JSON and else as a
    /// string.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Like [`RegistryProcess::try_send`], but panics if there is no response.
    #[allow(clippy::unwrap_used, reason = "a test's helper fails by panicking")]
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.try_send(method, path, body).await.unwrap()
    }

    /// Sends a GET. Returns the status and the body.
    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None).await
    }

    /// Declares a host that serves these services in version 0.1.0.
    pub async fn declare(
        &self,
        host: &str,
        session: u64,
        services: &[&str],
    ) -> (StatusCode, Value) {
        let body = declaration(session, services);
        self.send(Method::PUT, &format!("/v1/hosts/{host}"), Some(body)).await
    }

    /// Sends a host's heartbeat.
    pub async fn beat(&self, host: &str, session: u64, digest: &Value) -> (StatusCode, Value) {
        let body = json!({"session": session, "digest": digest});
        self.send(Method::POST, &format!("/v1/hosts/{host}/heartbeat"), Some(body)).await
    }

    /// The names of the hosts that are listed for a service, other than those that still compile it.
    pub async fn hosts(&self, service: &str) -> Vec<String> {
        let (_, list) = self.get(&format!("/v1/services/{service}/endpoints")).await;
        let endpoints = list["endpoints"].as_array().cloned().unwrap_or_default();
        let ready = endpoints.iter().filter(|endpoint| endpoint["state"] != "compiling");
        ready.filter_map(|e| Some(e["host"].as_str()?.to_owned())).collect()
    }

    /// The value of one of its metrics. `series` is the name with its labels, as printed.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        let line = text.as_str()?.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// The body of a declaration of these services in version 0.1.0.
#[must_use]
pub fn declaration(session: u64, services: &[&str]) -> Value {
    let endpoint = |service: &&str| json!({"service": service, "version": "0.1.0", "fingerprint": "0".repeat(32)});
    let endpoints: Vec<Value> = services.iter().map(endpoint).collect();
    json!({"session": session, "address": "127.0.0.1:9", "endpoints": endpoints})
}
