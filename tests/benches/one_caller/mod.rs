//! What one caller of a small method notices, while something else goes on.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use wharf_client::Client;
use wharf_tests::Args;

/// The 99th percentile of the calls that one caller makes in this time, one after the other.
pub(crate) async fn p99(client: &Client, length: Duration) -> Duration {
    let mut times = Histogram::<u64>::new(3).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < length {
        let start = Instant::now();
        let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
        assert_eq!(product, 56);
        times.record(u64::try_from(start.elapsed().as_nanos()).unwrap()).unwrap();
    }
    Duration::from_nanos(times.value_at_quantile(0.99))
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
