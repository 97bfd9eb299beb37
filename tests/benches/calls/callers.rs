//! Callers. Each is a task that waits for its answer before it calls again.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::load::{Load, Round};

/// Calls each of the `clients` for this long, with as many callers as the load has in flight. Each
/// client has its own connection.
pub(crate) async fn drive<C, F>(
    clients: &[C],
    load: &Load,
    length: Duration,
    call: impl Fn(C) -> F + Clone + Send + 'static,
) -> Round
where
    C: Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let mut callers = Vec::new();
    for client in clients {
        for _ in 0..load.in_flight {
            let (client, call) = (client.clone(), call.clone());
            // If many calls are in flight, reading the clock costs a part of what is measured. So
            // only one call in 16 is timed.
            let timed_of = if load.in_flight == 1 { 1 } else { 16 };
            callers.push(tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(2).unwrap();
                let mut before = Instant::now();
                while before.duration_since(begun) < length {
                    call(client.clone()).await;
                    let after = Instant::now();
                    latencies.record(nanoseconds(after - before)).unwrap();
                    for _ in 1..timed_of {
                        call(client.clone()).await;
                    }
                    before = if timed_of == 1 { after } else { Instant::now() };
                }
                (latencies, timed_of)
            }));
        }
    }
    let (mut calls, mut latencies) = (0, Histogram::<u64>::new(2).unwrap());
    for caller in callers {
        let (timed, timed_of) = caller.await.unwrap();
        calls += timed.len() * timed_of;
        latencies.add(timed).unwrap();
    }
    let p50 = Some(Duration::from_nanos(latencies.value_at_quantile(0.5)));
    Round { calls, took: begun.elapsed(), p50 }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}
