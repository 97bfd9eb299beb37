//! Counters and timings for Prometheus.
//!
//! Label values come only from what is served, never from what callers send, and their number is
//! bounded. The series of a method are looked up once, when a connection resolves it. A call then
//! touches a few counters of that method, and nothing that it shares with other methods.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use wharf_runtime::{Origin, PoolReport};
use wharf_wire::Status;

use crate::doors::Door;

/// The most methods with series of their own. The calls of all others are counted together.
const MAX_METHODS: usize = 2_000;

/// The name of the service and of the method under which those others are counted.
const OTHER: &str = "other";

/// Buckets in seconds: from a quick call to the longest that is usual.
const LATENCIES: [f64; 18] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// Buckets in seconds: from a small component to one that contains a language's interpreter.
const COMPILE_TIMES: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0];

/// All that a host measures.
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    latency: HistogramVec,
    traps: IntCounterVec,
    loads: IntCounterVec,
    compile_time: Histogram,
    swaps: IntCounter,
    connections: IntGauge,
    held: IntGauge,
    unread: IntGauge,
    guests: IntGauge,
    instances: IntGaugeVec,
    idle: IntGaugeVec,
    waiting: IntGaugeVec,
    methods: Mutex<HashMap<(Door, String, String), Arc<MethodMetrics>>>,
}

/// A connection among those that are counted as open.
pub(crate) struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The series of one method.
pub(crate) struct MethodMetrics {
    door: Door,
    service: String,
    method: String,
    calls: IntCounterVec,
    latency: Histogram,
    traps: IntCounterVec,
    /// One counter per status code, made when the code first occurs.
    by_status: [OnceLock<IntCounter>; Status::ALL.len()],
    /// Its service is no longer served. If a connection that still knows it counted a call, the
    /// series would come back, and nobody would remove it.
    forgotten: AtomicBool,
}

impl Metrics {
    /// # Errors
    /// When a name is used twice.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        // Processor time, memory, open files: as in every program that Prometheus watches.
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), &["plugin"])?)
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(name, help).buckets(buckets.to_vec())
        };
        let (calls, latency, traps) = (
            counters(
                "wharf_calls_total",
                "Calls that were answered, by the protocol of the caller and the status of the answer.",
                &["door", "service", "method", "status"],
            )?,
            register(
                &registry,
                HistogramVec::new(
                    histogram(
                        "wharf_call_duration_seconds",
                        "From the arrival of a call's arguments to its answer.",
                        &LATENCIES,
                    ),
                    &["service", "method"],
                )?,
            )?,
            counters(
                "wharf_traps_total",
                "Calls whose guest trapped, exited or broke its interface.",
                &["service", "method"],
            )?,
        );
        Ok(Metrics {
            loads: counters(
                "wharf_plugin_loads_total",
                "Files that were loaded: compiled, taken from the cache, or refused.",
                &["result"],
            )?,
            compile_time: register(
                &registry,
                Histogram::with_opts(histogram(
                    "wharf_plugin_compile_seconds",
                    "How long compiling a plugin took.",
                    &COMPILE_TIMES,
                ))?,
            )?,
            swaps: register(
                &registry,
                IntCounter::new(
                    "wharf_plugin_swaps_total",
                    "Plugins that replaced a serving version of themselves.",
                )?,
            )?,
            connections: gauge("wharf_connections", "Connections of callers that are open.")?,
            held: gauge("wharf_arguments_bytes", "Arguments of calls in flight, in bytes.")?,
            unread: gauge("wharf_unread_bytes", "Replies that callers have not read, in bytes.")?,
            guests: gauge("wharf_guest_memory_bytes", "Memory that guests take, in bytes.")?,
            instances: gauges("wharf_instances", "Instances of a plugin that exist.")?,
            idle: gauges("wharf_instances_idle", "Instances that wait for a call.")?,
            waiting: gauges("wharf_calls_waiting", "Calls that wait for an instance.")?,
            methods: Mutex::default(),
            registry,
            calls,
            latency,
            traps,
        })
    }

    /// The series of a method. Beyond [`MAX_METHODS`], methods share one set of series.
    pub(crate) fn method(&self, door: Door, service: &str, method: &str) -> Arc<MethodMetrics> {
        let mut methods = self.methods();
        let key = (door, service.to_owned(), method.to_owned());
        if let Some(known) = methods.get(&key) {
            return known.clone();
        }
        let full = methods.len() >= MAX_METHODS;
        let key = if full { (door, OTHER.to_owned(), OTHER.to_owned()) } else { key };
        let make = |(door, service, method): &(Door, String, String)| {
            Arc::new(MethodMetrics {
                door: *door,
                latency: self.latency.with_label_values(&[service, method]),
                calls: self.calls.clone(),
                traps: self.traps.clone(),
                service: service.clone(),
                method: method.clone(),
                by_status: std::array::from_fn(|_| OnceLock::new()),
                forgotten: AtomicBool::new(false),
            })
        };
        methods.entry(key).or_insert_with_key(make).clone()
    }

    /// Drops the series of services that are no longer served.
    pub(crate) fn forget(&self, services: &[String]) {
        let mut methods = self.methods();
        let gone = methods.extract_if(|(_, service, _), _| services.contains(service));
        for ((door, service, method), series) in gone {
            series.forgotten.store(true, Ordering::SeqCst);
            // Removing fails for a series that was never used, because it does not exist.
            let _ = self.latency.remove_label_values(&[&service, &method]);
            let _ = self.traps.remove_label_values(&[&service, &method]);
            for status in Status::ALL {
                let labels = [door.name(), &service, &method, status.name()];
                let _ = self.calls.remove_label_values(&labels);
            }
        }
    }

    pub(crate) fn loaded(&self, origin: Origin) {
        let result = match origin {
            Origin::Compiled(took) => {
                self.compile_time.observe(took.as_secs_f64());
                "compiled"
            }
            Origin::Cached => "cached",
        };
        self.loads.with_label_values(&[result]).inc();
    }

    pub(crate) fn refused(&self) {
        self.loads.with_label_values(&["refused"]).inc();
    }

    pub(crate) fn swapped(&self) {
        self.swaps.inc();
    }

    /// A connection is open for as long as what is returned.
    pub(crate) fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// Everything in Prometheus' text format: with each plugin's pool, by the name of its file, and
    /// the memory that is taken.
    ///
    /// # Errors
    /// When it cannot be encoded. Its types rule that out.
    pub(crate) fn render(
        &self,
        pools: impl IntoIterator<Item = (String, PoolReport)>,
        taken: Memory,
    ) -> Result<String, prometheus::Error> {
        let Memory { held, unread, guests } = taken;
        for (gauge, bytes) in [(&self.held, held), (&self.unread, unread), (&self.guests, guests)] {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        for gauges in [&self.instances, &self.idle, &self.waiting] {
            gauges.reset();
        }
        for (plugin, pool) in pools {
            for (gauges, value) in [
                (&self.instances, pool.instances),
                (&self.idle, pool.idle),
                (&self.waiting, pool.waiting),
            ] {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                // Several versions of one file may be loaded.
                gauges.with_label_values(&[&plugin]).add(value);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn methods(&self) -> MutexGuard<'_, HashMap<(Door, String, String), Arc<MethodMetrics>>> {
        self.methods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is taken of the host's budgets of memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// By the arguments of calls in flight.
    pub(crate) held: u64,
    /// By replies that callers have not read.
    pub(crate) unread: u64,
    /// By guests.
    pub(crate) guests: u64,
}

impl MethodMetrics {
    /// A call was answered.
    pub(crate) fn answered(&self, status: Status, took: Duration) {
        if self.forgotten.load(Ordering::Relaxed) {
            return;
        }
        self.latency.observe(took.as_secs_f64());
        let counter = &self.by_status[status as usize];
        let labels = || [self.door.name(), &*self.service, &*self.method, status.name()];
        counter.get_or_init(|| self.calls.with_label_values(&labels())).inc();
    }

    /// A call's guest trapped.
    pub(crate) fn trapped(&self) {
        if self.forgotten.load(Ordering::Relaxed) {
            return;
        }
        self.traps.with_label_values(&[&self.service, &self.method]).inc();
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded_and_go_with_their_service() {
        let metrics = Metrics::new().unwrap();
        for number in 0..MAX_METHODS + 10 {
            let method = metrics.method(Door::Wharf, "demo:a/a", &format!("method-{number}"));
            method.answered(Status::Ok, Duration::from_micros(20));
            method.trapped();
        }
        let text = || metrics.render([], Memory { held: 7, ..Memory::default() }).unwrap();
        let calls =
            |text: &str| text.lines().filter(|line| line.starts_with("wharf_calls_total{")).count();
        let full = text();
        assert_eq!(calls(&full), MAX_METHODS + 1);
        assert!(
            full.contains(
                "wharf_calls_total{door=\"wharf\",method=\"other\",service=\"other\",status=\"OK\"} 10\n"
            )
        );
        assert!(full.contains("wharf_arguments_bytes 7\n"));
        let known = metrics.method(Door::Wharf, "demo:a/a", "method-0");
        metrics.forget(&["demo:a/a".to_owned()]);
        // A connection that had resolved it calls once more.
        known.answered(Status::Unavailable, Duration::ZERO);
        known.trapped();
        assert_eq!(calls(&text()), 1);
    }
}
