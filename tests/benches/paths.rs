//! What a call costs inside the runtime, for several kinds of arguments: with the codec that is
//! spliced into the component, and with dynamic values. Also what one copy of the largest arguments
//! costs on this machine, what a fresh instance for each call costs, and how large codecs are.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use wharf_runtime::{Candidate, Engine, Isolation, MethodIndex, Plugin, Settings};
use wharf_tests::{Args, guest, plugin};

/// The allocator of the `wharf` binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// In how many turns each kind is measured.
const TURNS: u32 = 5;

/// All figures of a run.
#[derive(Default, Serialize)]
struct Report {
    kinds: Vec<Figures>,
    copy_of_1_mib_nanoseconds: f64,
    call_with_1_mib_copies: f64,
    reused_instance_p50_nanoseconds: u64,
    fresh_instance_p50_nanoseconds: u64,
    instances_per_second: f64,
    codecs: Vec<CodecSize>,
}

#[derive(Serialize)]
struct Figures {
    kind: &'static str,
    codec_nanoseconds: f64,
    dynamic_nanoseconds: f64,
}

#[derive(Serialize)]
struct CodecSize {
    plugin: &'static str,
    methods: usize,
    bytes: usize,
}

struct Kind {
    name: &'static str,
    plugin: &'static str,
    method: &'static str,
    arguments: Vec<u8>,
}

/// A record with every kind of type, as in the guest `zoo`.
type Nested = (
    &'static str,
    &'static [u8],
    Vec<&'static [u8]>,
    Vec<(f32, f32)>,
    Option<Option<u32>>,
    (&'static str, (u8, char)),
    Result<Vec<&'static str>, ()>,
    Vec<(u64, Option<&'static str>)>,
);

fn nested() -> Nested {
    let outcome = Ok(vec!["one", "two"]);
    let pair = ("pair", (7, '✨'));
    let points = vec![(1.0, 2.0); 3];
    (
        "a name",
        b"blob",
        vec![b"blobs"; 2],
        points,
        Some(Some(7)),
        pair,
        outcome,
        vec![(1, Some("x"))],
    )
}

fn kinds() -> [Kind; 9] {
    let text = "A text of some length, with words in it. ".repeat(25);
    let seventeen: Vec<u64> = (1..=17).collect();
    let seventeen: [u64; 17] = seventeen.try_into().unwrap();
    let (most, rest) = seventeen.split_at(16);
    let most: [u64; 16] = most.try_into().unwrap();
    let list: Vec<Nested> = (0..10).map(|_| nested()).collect();
    [
        kind("record of two integers", "arith.multiply", &Args { a: 7, b: 8 }),
        kind("17 integers and a string", "zoo.sum", &(most, rest[0], "text")),
        kind("string of 1 KiB", "zoo.give-name", &text),
        kind("list of 10 records", "zoo.give-list", &list),
        kind("list of 100 strings", "textkit.join", &(vec!["part"; 100], ", ")),
        kind("bytes, 16", "textkit.echo", &vec![7u8; 16]),
        kind("bytes, 4 KiB", "textkit.echo", &vec![7u8; 4096]),
        kind("bytes, 64 KiB", "textkit.echo", &vec![7u8; 65536]),
        kind("bytes, 1 MiB", "textkit.echo", &vec![7u8; 1 << 20]),
    ]
}

fn kind(name: &'static str, method: &'static str, arguments: &impl Serialize) -> Kind {
    let (plugin, method) = method.split_once('.').unwrap();
    Kind { name, plugin, method, arguments: postcard::to_stdvec(arguments).unwrap() }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut report = Report::default();
    runtime.block_on(async {
        paths(&mut report).await;
        copies(&mut report);
        fresh_instances(&mut report).await;
        sizes(&mut report).await;
    });
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("paths.json");
    std::fs::write(&file, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    println!("\nwritten: {}", file.display());
}

fn is_quick() -> bool {
    // `cargo test --benches` only checks that it runs.
    std::env::args().any(|argument| argument == "--test")
}

fn length() -> Duration {
    Duration::from_millis(if is_quick() { 2 } else { 200 })
}

fn wasm(name: &str) -> Vec<u8> {
    plugin(name).or_else(|_| guest(name)).unwrap()
}

async fn load(name: &str, codec: bool, settings: Settings) -> Plugin {
    let candidate = Candidate::read(wasm(name)).await.unwrap();
    let candidate = if codec { candidate } else { candidate.without_codec() };
    candidate.load(&Engine::new(None).unwrap(), name, settings).await.unwrap()
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

async fn call(plugin: &Plugin, index: MethodIndex, arguments: &Bytes) {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(20);
    black_box(plugin.clone().call(index, arguments.clone(), now, deadline).await.unwrap());
}

/// Nanoseconds per call, in one turn.
async fn turn(plugin: &Plugin, index: MethodIndex, arguments: &Bytes) -> f64 {
    let (begun, mut calls, length) = (Instant::now(), 0u32, length());
    while begun.elapsed() < length {
        call(plugin, index, arguments).await;
        calls += 1;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(calls)
}

async fn paths(report: &mut Report) {
    println!("a call of                       codec, ns    dynamic, ns    codec/dynamic");
    for Kind { name, plugin, method, arguments } in kinds() {
        let codec = load(plugin, true, Settings::default()).await;
        let dynamic = load(plugin, false, Settings::default()).await;
        let (place, arguments) = (index(&codec, method), Bytes::from(arguments));
        let (mut quick, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            quick.push(turn(&codec, place, &arguments).await);
            slow.push(turn(&dynamic, place, &arguments).await);
        }
        let (quick, slow) = (median(quick), median(slow));
        println!("{name:<28} {quick:>12.0} {slow:>14.0} {:>16.3}", quick / slow);
        report.kinds.push(Figures {
            kind: name,
            codec_nanoseconds: quick,
            dynamic_nanoseconds: slow,
        });
    }
}

fn copies(report: &mut Report) {
    // A call copies from each block into a new one. So do the copies here, with five blocks in a
    // ring.
    let mut blocks: [Vec<u8>; 5] =
        std::array::from_fn(|block| vec![block.to_le_bytes()[0]; 1 << 20]);
    let mut copies = Vec::new();
    for _ in 0..TURNS {
        let (begun, mut count) = (Instant::now(), 0u32);
        while begun.elapsed() < length() {
            for at in 0..5 {
                let [from, to] = blocks.get_disjoint_mut([at, (at + 1) % 5]).unwrap();
                to.copy_from_slice(black_box(from));
                count += 1;
            }
            black_box(&mut blocks);
        }
        copies.push(begun.elapsed().as_nanos() as f64 / f64::from(count));
    }
    let copy = median(copies);
    let largest = report.kinds.last().map_or(0.0, |figures| figures.codec_nanoseconds);
    report.copy_of_1_mib_nanoseconds = copy;
    report.call_with_1_mib_copies = largest / copy;
    println!(
        "\none copy of 1 MiB: {copy:.0} ns; a call with it there and back: {:.1} copies",
        largest / copy
    );
}

/// Calls in fresh instances, and in one instance that serves all of them. Also how many instances
/// can be made per second.
async fn fresh_instances(report: &mut Report) {
    let isolation = Isolation { reuse: NonZeroU32::new(1), ..Isolation::default() };
    let fresh = load("arith", true, Settings { isolation, ..Settings::default() }).await;
    let reused = load("arith", true, Settings::default()).await;
    let place = index(&reused, "multiply");
    let arguments = Bytes::from(postcard::to_stdvec(&Args { a: 7, b: 8 }).unwrap());
    let times = || Histogram::<u64>::new(3).unwrap();
    let (mut once, mut again) = (times(), times());
    for _ in 0..if is_quick() { 50 } else { 5000 } {
        for (plugin, times) in [(&fresh, &mut once), (&reused, &mut again)] {
            // Wait for an idle instance: new ones are made in the background, many at a time.
            while plugin.pool().idle == 0 {
                tokio::task::yield_now().await;
            }
            let begun = Instant::now();
            call(plugin, place, &arguments).await;
            times.record(u64::try_from(begun.elapsed().as_nanos()).unwrap()).unwrap();
        }
    }
    let (once, again) = (once.value_at_quantile(0.5), again.value_at_quantile(0.5));
    report.fresh_instance_p50_nanoseconds = once;
    report.reused_instance_p50_nanoseconds = again;
    println!("\na call of a fresh instance, p50: {once} ns; of one that served before: {again} ns");
    println!("a fresh one costs {} ns more on the call's path", once.saturating_sub(again));
    let one_after_the_other = turn(&fresh, place, &arguments).await;
    report.instances_per_second = 1e9 / one_after_the_other;
    println!("one after the other: {:.0} fresh instances/s", report.instances_per_second);
}

async fn sizes(report: &mut Report) {
    println!("\nthe codec of             methods        bytes   bytes a method");
    for plugin in ["arith", "textkit", "zoo"] {
        let candidate = Candidate::read(wasm(plugin)).await.unwrap();
        let methods = candidate.services().iter().map(|service| service.methods().len()).sum();
        let bytes = candidate.codec_size();
        println!("{plugin:<24} {methods:>7} {bytes:>12} {:>16}", bytes / methods);
        report.codecs.push(CodecSize { plugin, methods, bytes });
    }
}
