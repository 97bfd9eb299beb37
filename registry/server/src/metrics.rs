//! Counters and timings for Prometheus. Label values come only from the registry's own paths, never
//! from what a request sends.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::view::Census;

/// Buckets in seconds: from a list out of memory to a write that waits for a slow disk.
const LATENCIES: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];

/// All that a registry measures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    registered: IntGaugeVec,
    denied: IntCounter,
    evictions: IntCounter,
    watchers: IntGauge,
    commits: Histogram,
    commit_failures: IntCounter,
}

/// Counts a watcher for as long as it watches.
pub(crate) struct Watching(IntGauge);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// # Errors
    /// When a name is used twice.
    pub(crate) fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        // Processor time, memory, open files: as in every program that Prometheus watches.
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help)?);
        let histogram =
            |name: &str, help: &str| HistogramOpts::new(name, help).buckets(LATENCIES.to_vec());
        let metrics = Metrics {
            requests: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("wharf_registry_requests_total", "Requests that were answered."),
                    &["path", "status"],
                )?,
            )?,
            latency: register(
                &registry,
                HistogramVec::new(
                    histogram(
                        "wharf_registry_request_duration_seconds",
                        "From the head of a request to the head of its answer; without those that wait for a change.",
                    ),
                    &["path"],
                )?,
            )?,
            registered: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "wharf_registry_registered",
                        "What is registered: hosts, classic registrations, services, endpoints. Unverified: hosts and registrations that may be gone. Silent: those that would be dropped if not so many were at once.",
                    ),
                    &["what"],
                )?,
            )?,
            denied: counter(
                "wharf_registry_unknown_tokens_total",
                "Requests with a token that is not known.",
            )?,
            evictions: counter(
                "wharf_registry_evictions_total",
                "Hosts and classic registrations that were dropped because they fell silent.",
            )?,
            watchers: register(
                &registry,
                IntGauge::new("wharf_registry_watchers", "Watches that are open.")?,
            )?,
            commits: register(
                &registry,
                Histogram::with_opts(histogram(
                    "wharf_registry_store_commit_seconds",
                    "What making changes durable took.",
                ))?,
            )?,
            commit_failures: counter(
                "wharf_registry_store_failures_total",
                "Times that changes could not be made durable.",
            )?,
            registry,
        };
        Ok(Arc::new(metrics))
    }

    pub(crate) fn answered(&self, path: &str, status: u16, took: Option<Duration>) {
        self.requests.with_label_values(&[path, &status.to_string()]).inc();
        if let Some(took) = took {
            self.latency.with_label_values(&[path]).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn denied(&self) {
        self.denied.inc();
    }

    pub(crate) fn evicted(&self) {
        self.evictions.inc();
    }

    pub(crate) fn watching(&self) -> Watching {
        self.watchers.inc();
        Watching(self.watchers.clone())
    }

    pub(crate) fn committed(&self, took: Duration, succeeded: bool) {
        self.commits.observe(took.as_secs_f64());
        if !succeeded {
            self.commit_failures.inc();
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When it cannot be encoded. Its types rule that out.
    pub(crate) fn render(&self, census: &Census) -> Result<String, prometheus::Error> {
        for (what, count) in [
            ("hosts", census.hosts),
            ("classic", census.classic),
            ("services", census.services),
            ("endpoints", census.endpoints),
            ("silent", census.silent),
            ("unverified", census.unverified),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.registered.with_label_values(&[what]).set(count);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
