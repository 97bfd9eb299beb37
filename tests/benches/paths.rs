//! What a call costs inside of the runtime, by the codec that is spliced into the component and by
//! dynamic values, for kinds of arguments; and what one copy of the largest costs on this machine.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use wharf_runtime::{Candidate, Engine, Isolation, MethodIndex, Plugin, Settings};
use wharf_tests::{Args, guest, plugin};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long each kind is measured for, in turns.
const TURNS: u32 = 5;

fn length() -> Duration {
    // `cargo test --benches` only wants to know that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    Duration::from_millis(if quick { 2 } else { 200 })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

struct Kind {
    name: &'static str,
    plugin: &'static str,
    method: &'static str,
    arguments: Vec<u8>,
}

fn kind(name: &'static str, method: &'static str, arguments: &impl Serialize) -> Kind {
    let (plugin, method) = method.split_once('.').unwrap();
    Kind { name, plugin, method, arguments: postcard::to_stdvec(arguments).unwrap() }
}

async fn load(name: &str, codec: bool, settings: Settings) -> Plugin {
    let wasm = plugin(name).or_else(|_| guest(name)).unwrap();
    let candidate = Candidate::read(wasm).await.unwrap();
    let candidate = if codec { candidate } else { candidate.without_codec() };
    candidate.load(&Engine::new(None).unwrap(), name, settings).await.unwrap()
}

/// Nanoseconds a call, in one turn.
async fn turn(plugin: &Plugin, index: MethodIndex, arguments: &Bytes) -> f64 {
    let (begun, mut calls, length) = (Instant::now(), 0u32, length());
    while begun.elapsed() < length {
        let deadline = Instant::now() + Duration::from_secs(20);
        black_box(
            plugin.clone().call(index, arguments.clone(), Instant::now(), deadline).await.unwrap(),
        );
        calls += 1;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn index(plugin: &Plugin, method: &str) -> MethodIndex {
    let services = plugin.services().iter().enumerate();
    let mut found = services.filter_map(|(service, described)| {
        let method = described.methods().iter().position(|m| m.name == method)?;
        Some(MethodIndex { service, method })
    });
    found.next().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure() {
    let text = "A text of some length, with words in it. ".repeat(25);
    let kinds = [
        kind("record of two integers", "arith.multiply", &Args { a: 7, b: 8 }),
        kind("string of 1 KiB", "zoo.give-name", &text),
        kind("tuple", "zoo.give-tuple", &(-1i8, "text")),
        kind("parts, joined", "textkit.join", &(vec!["part"; 100], ", ")),
        kind("bytes, 16", "textkit.echo", &vec![7u8; 16]),
        kind("bytes, 4 KiB", "textkit.echo", &vec![7u8; 4096]),
        kind("bytes, 64 KiB", "textkit.echo", &vec![7u8; 65536]),
        kind("bytes, 1 MiB", "textkit.echo", &vec![7u8; 1 << 20]),
    ];
    println!(
        "{:<24} {:>12} {:>14} {:>16}",
        "a call of", "codec, ns", "dynamic, ns", "codec/dynamic"
    );
    let mut largest = 0.0;
    for Kind { name, plugin, method, arguments } in kinds {
        let codec = load(plugin, true, Settings::default()).await;
        let dynamic = load(plugin, false, Settings::default()).await;
        let (place, arguments) = (index(&codec, method), Bytes::from(arguments));
        let (mut quick, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            quick.push(turn(&codec, place, &arguments).await);
            slow.push(turn(&dynamic, place, &arguments).await);
        }
        let (quick, slow) = (median(quick), median(slow));
        largest = quick;
        println!("{name:<24} {quick:>12.0} {slow:>14.0} {:>16.3}", quick / slow);
    }
    let (from, mut to) = (vec![7u8; 1 << 20], vec![0u8; 1 << 20]);
    let mut copies = Vec::new();
    for _ in 0..TURNS {
        let (begun, mut count) = (Instant::now(), 0u32);
        while begun.elapsed() < length() {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
            count += 1;
        }
        copies.push(begun.elapsed().as_nanos() as f64 / f64::from(count));
    }
    let copy = median(copies);
    println!(
        "one copy of 1 MiB: {copy:.0} ns; a call with it there and back: {:.1} copies",
        largest / copy
    );

    let isolation = Isolation { reuse: std::num::NonZeroU32::new(1), ..Isolation::default() };
    let fresh = load("arith", true, Settings { isolation, ..Settings::default() }).await;
    let kept = load("arith", true, Settings::default()).await;
    let (place, arguments) =
        (index(&kept, "multiply"), Bytes::from(postcard::to_stdvec(&Args { a: 7, b: 8 }).unwrap()));
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        one.push(turn(&fresh, place, &arguments).await);
        many.push(turn(&kept, place, &arguments).await);
    }
    println!(
        "a fresh instance for each call: {:.0} ns, {:.0} ns more",
        median(one.clone()),
        median(one) - median(many)
    );
}
