//! What the doors cost: each against what its callers have otherwise, side by side in one run.
//!
//! - Go's net/rpc client against Wharf, and against Go's own server;
//! - wrk with 64 connections against HTTP with JSON, and against an axum handler that does the same;
//! - Wharf's own connections to a host with all doors open, and to one with only its own.
//!
//! Rounds alternate, and the median of the ratios counts, because machines are noisy. What is not
//! installed (Go, wrk) is not measured, and said.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

#[allow(dead_code, reason = "the other bench uses all of it")]
#[path = "../calls/load.rs"]
mod load;
#[path = "../calls/netrpc.rs"]
mod netrpc;

use std::process::Command;
use std::time::{Duration, Instant};

use axum::Json;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wharf_client::Client;
use wharf_host::{Advertise, Config, Door, Doors, Host};
use wharf_tests::{Args, plugin};

use self::load::{Load, Work};

/// The allocator of the `wharf` binary. All peers in this process use it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long and how often is measured.
#[derive(Clone, Copy)]
struct Rounds {
    count: usize,
    length: Duration,
}

fn main() {
    // `cargo test --benches` only checks that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let rounds = match quick {
        true => Rounds { count: 1, length: Duration::from_millis(50) },
        false => Rounds { count: 11, length: Duration::from_secs(1) },
    };
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let all = Server::start(&runtime, Doors::default());
    println!("{:<44} {:>12} {:>12} {:>8}", "", "Wharf", "peer", "ratio");
    go(rounds, &all.address);
    http(rounds, &runtime, &all.address);
    detection(rounds, &runtime, &all.address);
    runtime.block_on(all.host.drain());
}

/// A host with the example services.
struct Server {
    host: Host,
    address: String,
    _plugins: tempfile::TempDir,
}

impl Server {
    fn start(runtime: &Runtime, doors: Doors) -> Self {
        runtime.block_on(async {
            let plugins = tempfile::tempdir().unwrap();
            std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let advertise = Advertise::new(None, address).unwrap();
            let mut config = Config::new("bench", plugins.path(), advertise);
            config.rpc.doors = doors;
            let host = Host::start(listener, None, config).unwrap();
            host.ready().await;
            Server { host, address: address.to_string(), _plugins: plugins }
        })
    }
}

/// Measures two peers in turns. Each gives calls in a second.
fn compare(
    name: &str,
    rounds: Rounds,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) {
    let (mut pairs, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rounds.count {
        let (ours, theirs) = (ours(), theirs());
        pairs.push((ours, theirs));
        ratios.push(ours / theirs);
    }
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    let ours = median(pairs.iter().map(|(ours, _)| *ours).collect());
    let theirs = median(pairs.iter().map(|(_, theirs)| *theirs).collect());
    println!("{name:<44} {ours:>10.0}/s {theirs:>10.0}/s {:>8.2}", median(ratios));
}

/// Go's client, with one call and with 64 calls in flight on a connection.
fn go(rounds: Rounds, address: &str) {
    let Some(built) = netrpc::Built::build() else {
        println!("skipped: there is no Go toolchain (Debian: golang-go)");
        return;
    };
    let (mut ours, mut theirs) = (built.of(address), built.of_go());
    for in_flight in [1, 64] {
        let load = Load { connections: 1, in_flight, work: Work::Multiply };
        let rate = |peer: &mut netrpc::Peer| peer.run(&load, rounds.length).calls_per_second();
        let name = format!("Go's net/rpc client, {in_flight} in flight, against Go");
        compare(&name, rounds, || rate(&mut ours), || rate(&mut theirs));
    }
}

/// wrk against HTTP with JSON, and against a handler in axum.
fn http(rounds: Rounds, runtime: &Runtime, address: &str) {
    if Command::new("wrk").arg("--version").output().is_err() {
        println!("skipped: wrk is not installed (Debian: wrk)");
        return;
    }
    let native = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let multiply = async |Json(Args { a, b }): Json<Args>| Json(a.wrapping_mul(b));
        let router = axum::Router::new().route("/arith/multiply", post(multiply));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    });
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("post.lua");
    let lines = "wrk.method = \"POST\"\nwrk.body = '{\"a\":7,\"b\":8}'\n\
                 wrk.headers[\"Content-Type\"] = \"application/json\"\n";
    std::fs::write(&script, lines).unwrap();
    let seconds = rounds.length.as_secs().max(1);
    let rate = |address: &str| {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections", "64", "--duration"]);
        wrk.arg(format!("{seconds}s")).arg("--script").arg(&script);
        let output = wrk.arg(format!("http://{address}/arith/multiply")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("Non-2xx"), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        line.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
    };
    let name = "wrk, 64 connections, against axum";
    compare(name, rounds, || rate(address), || rate(&native));
}

/// A new connection for each call of Wharf's own protocol.
fn detection(rounds: Rounds, runtime: &Runtime, address: &str) {
    let only = Server::start(runtime, Doors::only(&[Door::Wharf]));
    let rate = |address: &str| {
        let begun = Instant::now();
        let mut calls = 0u32;
        while begun.elapsed() < rounds.length {
            runtime.block_on(async {
                let client = Client::builder().direct(address);
                let product: i64 =
                    client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
                assert_eq!(product, 56);
            });
            calls += 1;
        }
        f64::from(calls) / begun.elapsed().as_secs_f64()
    };
    let name = "Wharf's connections, against one door alone";
    compare(name, rounds, || rate(address), || rate(&only.address));
    runtime.block_on(only.host.drain());
}
