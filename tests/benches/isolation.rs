//! How plugins affect each other's latency, and what isolating calls costs.
//!
//! Each figure is compared with another one of the same run. Rounds alternate, and the median
//! counts.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::net::TcpListener;
use wharf_client::{CallOptions, Client};
use wharf_host::{Advertise, Config, Host};
use wharf_runtime::{Engine, Isolation, MethodIndex, Plugin, Settings};
use wharf_tests::{Args, hostile, plugin};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(1500);

/// Callers of a guest that loops until its deadline.
const LOOPERS: usize = 32;

/// How long each of its calls loops.
const LOOP: Duration = Duration::from_millis(500);

fn main() {
    // `cargo test --benches` only checks that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let (rounds, round) = if quick { (1, Duration::from_millis(50)) } else { (ROUNDS, ROUND) };
    // The host and its callers have separate runtimes, as in two processes.
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (host, callers) = (runtime(), runtime());
    let (address, running, _plugins) = host.block_on(start(""));
    callers.block_on(fairness(&address, rounds, round));
    host.block_on(running.drain());
    host.block_on(fresh_instances(if quick { 50 } else { 5000 }));
    let cancels = if quick { 5 } else { 200 };
    host.block_on(cancelling(cancels));
    let (address, running, _plugins) = host.block_on(start("[limits]\ninstances = 1\n"));
    callers.block_on(giving_up(&address, cancels));
    host.block_on(running.drain());
}

/// Starts a host. `hostile` has this sidecar.
async fn start(sidecar: &str) -> (String, Host, tempfile::TempDir) {
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    std::fs::write(plugins.path().join("hostile.wasm"), hostile().unwrap()).unwrap();
    std::fs::write(plugins.path().join("hostile.toml"), sidecar).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let advertise = Advertise::new(None, address).unwrap();
    let config = Config::new("bench", plugins.path(), advertise);
    let host = Host::start(listener, None, config).unwrap();
    host.ready().await;
    (address.to_string(), host, plugins)
}

/// The 99th percentile of one plugin's calls, without and with another plugin that only loops.
async fn fairness(address: &str, rounds: usize, round: Duration) {
    println!(
        "multiply, p50 / p99 in us               alone      beside {LOOPERS} loops     p99 ratio"
    );
    for in_flight in [1, 16] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            alone.push(latency(address, in_flight, round).await);
            let stop = Arc::new(AtomicBool::new(false));
            let loopers = loopers(address, &stop);
            // A first round of calls lets the loops take all the time that they can get.
            latency(address, in_flight, round / 4).await;
            beside.push(latency(address, in_flight, round).await);
            stop.store(true, Ordering::Relaxed);
            for looper in loopers {
                looper.await.unwrap();
            }
        }
        let median = |figures: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
            middle(figures.iter().map(pick).collect())
        };
        let (a50, a99) = (median(&alone, |f| f.0), median(&alone, |f| f.1));
        let (b50, b99) = (median(&beside, |f| f.0), median(&beside, |f| f.1));
        println!(
            "{in_flight:>4} in flight              {a50:>8.1} / {a99:>8.1}   {b50:>8.1} / {b99:>8.1}        {:>5.2}",
            b99 / a99
        );
    }
}

fn loopers(address: &str, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let client = Client::builder().direct(address);
    let looper = |_| {
        let (client, stop) = (client.clone(), stop.clone());
        tokio::spawn(async move {
            let options = CallOptions { timeout: Some(LOOP), ..CallOptions::default() };
            while !stop.load(Ordering::Relaxed) {
                // It always ends at its deadline.
                let _ = client.call_with::<_, ()>("hostile.spin", &(), options.clone()).await;
            }
        })
    };
    (0..LOOPERS).map(looper).collect()
}

/// p50 and p99, in microseconds.
async fn latency(address: &str, in_flight: usize, round: Duration) -> (f64, f64) {
    let client = Client::builder().direct(address);
    let begun = Instant::now();
    let caller = |_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut times = times();
            while begun.elapsed() < round {
                let start = Instant::now();
                let product: i64 =
                    client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
                record(&mut times, start.elapsed());
                assert_eq!(product, 56);
            }
            times
        })
    };
    let mut all = times();
    for caller in (0..in_flight).map(caller).collect::<Vec<_>>() {
        all.add(caller.await.unwrap()).unwrap();
    }
    (quantile(&all, 0.5), quantile(&all, 0.99))
}

/// A call in an instance that has served before, and one in a fresh instance.
async fn fresh_instances(calls: usize) {
    let engine = Engine::new(None).unwrap();
    let load = async |reuse: Option<u32>| {
        let isolation =
            Isolation { reuse: reuse.and_then(std::num::NonZeroU32::new), ..Isolation::default() };
        let settings = Settings { isolation, ..Settings::default() };
        Plugin::load(&engine, "arith", plugin("arith").unwrap(), settings).await.unwrap()
    };
    let (reused, fresh) = (load(None).await, load(Some(1)).await);
    let method = MethodIndex { service: 0, method: 0 };
    let arguments = Bytes::from(postcard::to_stdvec(&Args { a: 7, b: 8 }).unwrap());
    let (mut reused_times, mut fresh_times) = (times(), times());
    for _ in 0..calls {
        for (plugin, times) in [(&reused, &mut reused_times), (&fresh, &mut fresh_times)] {
            // Wait for an idle instance: new ones are made in the background.
            while plugin.pool().idle == 0 {
                tokio::task::yield_now().await;
            }
            let start = Instant::now();
            let deadline = start + Duration::from_secs(10);
            plugin.clone().call(method, arguments.clone(), Instant::now(), deadline).await.unwrap();
            record(times, start.elapsed());
        }
    }
    println!("\nmultiply inside the runtime, us           p50        p99");
    for (name, times) in
        [("reused instance", &reused_times), ("fresh instance (reuse = 1)", &fresh_times)]
    {
        println!("{name:<34} {:>10.2} {:>10.2}", quantile(times, 0.5), quantile(times, 0.99));
    }
    let extra = quantile(&fresh_times, 0.5) - quantile(&reused_times, 0.5);
    println!("a fresh one costs {extra:.2} us more on the call's path");
}

/// The time from the cancel of a call to the end of its guest.
async fn cancelling(calls: usize) {
    struct Ended(Option<tokio::sync::oneshot::Sender<Instant>>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(Instant::now());
        }
    }
    let engine = Engine::new(None).unwrap();
    let plugin =
        Plugin::load(&engine, "hostile", hostile().unwrap(), Settings::default()).await.unwrap();
    let names = plugin.services()[0].methods();
    let method = names.iter().position(|method| method.name == "spin").unwrap();
    let method = MethodIndex { service: 0, method };
    let mut times = times();
    for _ in 0..calls {
        // Wait until nothing of the previous call is left.
        while plugin.pool().idle < plugin.pool().instances {
            tokio::task::yield_now().await;
        }
        let (send, ended) = tokio::sync::oneshot::channel();
        let call = plugin.clone().call(
            method,
            Bytes::new(),
            Instant::now(),
            Instant::now() + Duration::from_secs(30),
        );
        let running = plugin.spawn(async move {
            let _ended = Ended(Some(send));
            let _ = call.await;
        });
        while plugin.pool().idle == plugin.pool().instances {
            tokio::task::yield_now().await;
        }
        let cancelled = Instant::now();
        drop(running);
        record(&mut times, ended.await.unwrap() - cancelled);
    }
    println!("\na cancelled loop ends after, ms           p50        max");
    println!(
        "{:<34} {:>10.2} {:>10.2}",
        "",
        quantile(&times, 0.5) / 1000.0,
        quantile(&times, 1.0) / 1000.0
    );
}

/// The time from a caller's giving up of a call to the answer of the next one, which needs its
/// instance: the Cancel's way over a socket, the guest's end and the start of another instance.
async fn giving_up(address: &str, calls: usize) {
    let client = Client::builder().direct(address);
    let mut times = times();
    // Its methods are resolved by then.
    let _: u32 = client.call("hostile.count", &()).await.unwrap();
    let short = CallOptions { timeout: Some(Duration::from_millis(50)), ..CallOptions::default() };
    let _ = client.call_with::<_, ()>("hostile.spin", &(), short).await;
    for _ in 0..calls {
        let mut looping = Box::pin(client.call::<_, ()>("hostile.spin", &()));
        assert!(is_pending(&mut looping).await);
        // Calls of slow methods are passed to another thread, where they take their instance.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut waiting = Box::pin(client.call::<_, u32>("hostile.count", &()));
        assert!(is_pending(&mut waiting).await);
        let _: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
        assert!(is_pending(&mut waiting).await, "it waits for the instance");
        let given_up = Instant::now();
        drop(looping);
        waiting.await.unwrap();
        record(&mut times, given_up.elapsed());
    }
    println!(
        "\na loop that is given up has ended, and another call of its plugin has its answer, after"
    );
    println!(
        "{:<34} {:>10.2} {:>10.2}",
        "ms (p50, max)",
        quantile(&times, 0.5) / 1000.0,
        quantile(&times, 1.0) / 1000.0
    );
}

/// Polls a call once.
async fn is_pending<F: Future + Unpin>(call: &mut F) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *call).poll(cx).is_pending())).await
}

fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}

fn record(times: &mut Histogram<u64>, time: Duration) {
    times.record(u64::try_from(time.as_nanos()).unwrap()).unwrap();
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn quantile(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
