//! How long to wait for a peer that does not answer.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The first and the longest pause of the backoff after a registry did not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The pauses between attempts to reach a registry: exponential backoff up to 5 seconds, with
/// jitter, so that clients that lost it together do not come back together.
pub fn retry_pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .without_max_times()
        .with_jitter()
        .build()
        // The builder adds jitter on top of its longest pause.
        .map(|pause| pause.min(PAUSES.1))
}
