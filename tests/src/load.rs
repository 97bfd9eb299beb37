//! Constant load: each caller makes one call after the other, and records all failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use wharf_client::{Client, RpcError};

use crate::Args;

/// Callers of `arith.multiply` that run until they are stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<Vec<String>>>,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    calls: AtomicU64,
    /// For calls that begin from now on, a lower answer is wrong.
    at_least: AtomicU64,
}

/// The results of a load.
#[derive(Debug)]
pub struct Report {
    /// How many calls were answered.
    pub calls: u64,
    /// How long the load ran.
    pub took: Duration,
    /// All failures. A caller stops at its first failure.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts this many callers.
    #[must_use]
    pub fn start(client: &Client, callers: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let callers =
            (0..callers).map(|_| tokio::spawn(call(client.clone(), shared.clone()))).collect();
        Load { shared, callers, begun: Instant::now() }
    }

    /// How many calls were answered so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Calls that begin from now on must not be answered with less than this.
    pub fn expect_at_least(&self, answer: u64) {
        self.shared.at_least.store(answer, Ordering::SeqCst);
    }

    /// Stops all callers.
    pub async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for caller in self.callers {
            match caller.await {
                Ok(own) => failures.extend(own),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let calls = self.shared.calls.load(Ordering::SeqCst);
        Report { calls, took: self.begun.elapsed(), failures }
    }
}

impl Report {
    /// Calls per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }
}

async fn call(client: Client, shared: Arc<Shared>) -> Vec<String> {
    while !shared.stop.load(Ordering::SeqCst) {
        let at_least = shared.at_least.load(Ordering::SeqCst);
        let answer: Result<u64, RpcError> =
            client.call("arith.multiply", &Args { a: 7, b: 8 }).await.map(i64::cast_unsigned);
        match answer {
            Ok(answer) if answer < at_least => {
                return vec![format!("{answer} after {at_least} was announced")];
            }
            Ok(_) => {}
            Err(error) => return vec![format!("{error}: {error:?}")],
        }
        shared.calls.fetch_add(1, Ordering::SeqCst);
    }
    Vec::new()
}
