//! 64 callers. Each makes one call after the other, and records how long each call took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use wharf_client::{CallOptions, Client};
use wharf_tests::Args;

const CALLERS: i64 = 64;

/// Callers that run until they are stopped.
pub(crate) struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<Call>>,
}

/// One call.
struct Call {
    begun: Instant,
    took: Duration,
    failure: Option<String>,
}

/// The results of a load.
pub(crate) struct Report {
    begun: Instant,
    calls: Vec<Call>,
}

/// Latencies of some of the calls, in microseconds.
pub(crate) struct Latencies {
    pub(crate) calls: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

impl Load {
    pub(crate) fn start(client: &Client, idempotent: bool) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(call(client.clone(), caller, idempotent, stop.clone()));
        }
        Load { begun: Instant::now(), stop, callers }
    }

    pub(crate) async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let calls = self.callers.join_all().await.into_iter().flatten().collect();
        Report { begun: self.begun, calls }
    }
}

async fn call(client: Client, caller: i64, idempotent: bool, stop: Arc<AtomicBool>) -> Vec<Call> {
    let mut calls = Vec::new();
    let options = CallOptions { idempotent, ..CallOptions::default() };
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let product: Result<i64, _> =
            client.call_with("arith.multiply", &Args { a: caller, b: n }, options.clone()).await;
        let took = begun.elapsed();
        let failure = match product {
            Ok(product) => {
                assert_eq!(product, caller * n, "nobody gets another's answer");
                None
            }
            Err(error) => Some(format!("{error} ({:?} in)", begun.elapsed())),
        };
        calls.push(Call { begun, took, failure });
    }
    calls
}

impl Report {
    /// All failures, with their times.
    pub(crate) fn failures(&self) -> Vec<String> {
        let at = |call: &Call| call.begun.duration_since(self.begun).as_secs_f32();
        self.calls
            .iter()
            .filter_map(|call| Some(format!("{:.1} s: {}", at(call), call.failure.as_ref()?)))
            .collect()
    }

    /// Latencies of the calls for whose begin `counts` returns true.
    pub(crate) fn latencies(&self, counts: impl Fn(Instant) -> bool) -> Latencies {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        for call in self.calls.iter().filter(|call| counts(call.begun)) {
            histogram.saturating_record(u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX));
        }
        Latencies {
            calls: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
        }
    }
}
