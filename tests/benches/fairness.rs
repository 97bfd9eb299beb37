//! What a small call waits for when large payloads go both ways: on their connection, and on a connection
//! of its own. On a link of 200 Mbit/s between two network namespaces, and on one without limits.
//!
//! Needs root, iproute2 and nftables. Rounds of both kinds alternate, and medians count, because machines are noisy.
//! With a word as argument, only links with this word are measured.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

mod one_caller;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use wharf_client::{CallOptions, Client};
use wharf_tests::{Link, plugin};

use one_caller::{median, p99};

const ROUNDS: usize = 3;

/// The large payload, and how many calls have one at the same time.
const LARGE: usize = (16 << 20) - 16;
const LARGE_CALLS: usize = 4;

const LINKS: [(&str, &str); 3] = [
    ("200 Mbit/s, queue of 10 ms", "tbf rate 200mbit burst 64kb latency 10ms"),
    ("200 Mbit/s, queue of 50 ms", "tbf rate 200mbit burst 64kb latency 50ms"),
    ("no limit", "pfifo limit 1000"),
];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let (rounds, round) =
        if quick { (1, Duration::from_millis(300)) } else { (ROUNDS, Duration::from_secs(4)) };
    println!("link                          alone    own connection     shared    ratio   large");
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only));
    for (name, discipline) in LINKS.into_iter().filter(|(name, _)| is_wanted(name)) {
        let Some(link) = Link::if_possible() else { return };
        link.shape(discipline).unwrap();
        link.inside(|| measure(&link, name, rounds, round)).unwrap();
    }
}

async fn measure(link: &Link, name: &str, rounds: usize, round: Duration) {
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    let wharf =
        link.far_wharf(&[("arith.wasm", &arith), ("textkit.wasm", &textkit)]).await.unwrap();
    let client = || Client::builder().timeout(Duration::from_secs(600)).direct(&wharf.host);
    let (shared, own) = (client(), client());
    let (mut alone, mut apart, mut together, mut bytes) = (vec![], vec![], vec![], 0.0);
    for _ in 0..rounds {
        alone.push(p99(&own, round / 4).await);
        let begun = Instant::now();
        let large = large_calls(&shared);
        // Until the queues of the link are full.
        tokio::time::sleep(round / 10).await;
        apart.push(p99(&own, round).await);
        together.push(p99(&shared, round).await);
        bytes += stop(large).await as f64 / begun.elapsed().as_secs_f64();
    }
    let (alone, apart, together) = (median(alone), median(apart), median(together));
    println!(
        "{name:<28} {:>6.2} ms {:>12.2} ms {:>8.2} ms {:>8.2} {:>4.0} MB/s each way",
        alone.as_secs_f64() * 1e3,
        apart.as_secs_f64() * 1e3,
        together.as_secs_f64() * 1e3,
        together.as_secs_f64() / apart.as_secs_f64(),
        bytes / rounds as f64 / 1e6,
    );
}

/// Calls with large arguments and large replies, over and over. Each returns how many bytes went.
fn large_calls(client: &Client) -> (JoinSet<()>, Arc<AtomicUsize>) {
    let argument = Bytes::from(postcard::to_stdvec(&vec![7u8; LARGE]).unwrap());
    let (mut calls, sent) = (JoinSet::new(), Arc::default());
    for _ in 0..LARGE_CALLS {
        let (client, argument) = (client.clone(), argument.clone());
        let sent: Arc<AtomicUsize> = Arc::clone(&sent);
        calls.spawn(async move {
            loop {
                let options = CallOptions::default();
                let reply =
                    client.call_bytes("textkit.echo", argument.clone(), options).await.unwrap();
                assert_eq!(reply.len(), argument.len());
                sent.fetch_add(reply.len(), Ordering::Relaxed);
            }
        });
    }
    (calls, sent)
}

async fn stop((mut calls, sent): (JoinSet<()>, Arc<AtomicUsize>)) -> usize {
    calls.abort_all();
    while let Some(ended) = calls.join_next().await {
        if let Err(error) = ended {
            assert!(error.is_cancelled(), "{error}");
        }
    }
    sent.load(Ordering::Relaxed)
}
