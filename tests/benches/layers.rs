//! Where a call's time goes: what each part costs by itself, and the processor time of both sides.
//! `ARCHITECTURE.md` has the table that this prints.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wharf_client::Client;
use wharf_host::{Advertise, Config, Host};
use wharf_runtime::{Engine, MethodIndex, Plugin, Settings};
use wharf_tests::{Args, guest, plugin};
use wharf_wire::{Header, Inbound, MAGIC, Metadata, Outbound, Timeout, limits};

/// The allocator of the `wharf` binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const IN_FLIGHT: usize = 256;

fn main() {
    // `cargo test --benches` only checks that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let length = Duration::from_millis(if quick { 5 } else { 500 });
    println!("multiply, ns of processor time a call; parts by themselves, on one thread\n");
    let (host, client) = sides(if quick { length } else { 6 * length });
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (multiply, nothing) = runtime.block_on(inside(length));
    let (host_frames, client_frames) = frames(length);
    let values = values(length);
    let row = |name: &str, nanoseconds: f64| println!("{name:<56} {nanoseconds:>8.0}");
    row("the host, all of it", host);
    row("  the runtime: pool, fiber, codec, guest", multiply);
    row("    of this, a method without arguments and result", nothing);
    row("  frames: the call's read, the answer's written", host_frames);
    row("  socket, scheduling, metrics: the rest", host - multiply - host_frames);
    row("the client, all of it", client);
    row("  frames: the call's written, the answer's read", client_frames);
    row("  arguments encoded, the result decoded", values);
    row("  socket, scheduling, timers, balancing: the rest", client - client_frames - values);
}

/// Nanoseconds per execution of `one`.
fn each(length: Duration, mut one: impl FnMut()) -> f64 {
    let (begun, mut count) = (Instant::now(), 0u32);
    while begun.elapsed() < length {
        (0..64).for_each(|_| one());
        count += 64;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(count)
}

/// The processor time per call over one connection: the host's, and the callers'.
fn sides(length: Duration) -> (f64, f64) {
    let runtime = |name: &str| -> Runtime {
        Builder::new_multi_thread().thread_name(name).enable_all().build().unwrap()
    };
    let (servers, callers) = (runtime("host"), runtime("client"));
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let (host, address) = servers.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config::new("bench", plugins.path(), Advertise::new(None, address).unwrap());
        let host = Host::start(listener, None, config).unwrap();
        host.ready().await;
        (host, address)
    });
    let client = Client::builder().direct(&address.to_string());
    let calls = |length: Duration| {
        callers.block_on(async {
            let begun = Instant::now();
            let caller = |_| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut calls = 0u32;
                    while begun.elapsed() < length {
                        for _ in 0..16 {
                            let arguments = Args { a: 7, b: 8 };
                            let product: i64 =
                                client.call("arith.multiply", &arguments).await.unwrap();
                            assert_eq!(product, 56);
                        }
                        calls += 16;
                    }
                    calls
                })
            };
            let mut calls = 0;
            for caller in (0..IN_FLIGHT).map(caller).collect::<Vec<_>>() {
                calls += caller.await.unwrap();
            }
            f64::from(calls)
        })
    };
    calls(length / 10);
    // The host's time includes the threads of the guests and of the clock.
    let times = || (processor_time(&["host", "wharf-"]), processor_time(&["client"]));
    let before = times();
    let calls = calls(length);
    let after = times();
    servers.block_on(host.drain());
    ((after.0 - before.0) / calls, (after.1 - before.1) / calls)
}

/// Nanoseconds that this process's threads with such a name prefix have run.
fn processor_time(prefixes: &[&str]) -> f64 {
    let mut all = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let thread = thread.unwrap().path();
        // A thread may end in the meantime.
        let Ok(comm) = std::fs::read_to_string(thread.join("comm")) else { continue };
        if prefixes.iter().any(|prefix| comm.starts_with(prefix)) {
            let times = std::fs::read_to_string(thread.join("schedstat")).unwrap();
            all += times.split_whitespace().next().unwrap().parse::<f64>().unwrap();
        }
    }
    all
}

/// A call inside the runtime, and one of a method without arguments and result.
async fn inside(length: Duration) -> (f64, f64) {
    let engine = Engine::new(None).unwrap();
    let arguments = Bytes::from(postcard::to_stdvec(&Args { a: 7, b: 8 }).unwrap());
    let mut figures = Vec::new();
    for (wasm, method, arguments) in [
        (plugin("arith").unwrap(), "multiply", arguments),
        (guest("zoo").unwrap(), "nothing", Bytes::new()),
    ] {
        let plugin = Plugin::load(&engine, method, wasm, Settings::default()).await.unwrap();
        let place = |(service, described): (usize, &std::sync::Arc<wharf_schema::Service>)| {
            let method = described.methods().iter().position(|m| m.name == method)?;
            Some(MethodIndex { service, method })
        };
        let index = plugin.services().iter().enumerate().find_map(place).unwrap();
        let (begun, mut calls) = (Instant::now(), 0u32);
        while begun.elapsed() < length {
            for _ in 0..64 {
                let now = Instant::now();
                let deadline = now + Duration::from_secs(20);
                let call = plugin.clone().call(index, arguments.clone(), now, deadline);
                black_box(call.await.unwrap());
            }
            calls += 64;
        }
        figures.push(begun.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    (figures[0], figures[1])
}

/// The cost of frames: for the host (it reads a call and writes an answer), and for the client.
fn frames(length: Duration) -> (f64, f64) {
    let arguments = Bytes::from(postcard::to_stdvec(&Args { a: 7, b: 8 }).unwrap());
    let result = Bytes::from(postcard::to_stdvec(&56i64).unwrap());
    let call = |outbound: &mut Outbound, id: u64| {
        outbound.push_message(id, arguments.clone(), |body| Header::Call {
            id,
            method: 0,
            timeout: Timeout::after(Duration::from_secs(30)),
            metadata: Metadata::default(),
            body,
        });
    };
    let answer = |outbound: &mut Outbound, id: u64| {
        outbound.push_message(id, result.clone(), |body| Header::Reply { id, body });
    };
    let (write_call, read_call) = frame(length, call);
    let (write_answer, read_answer) = frame(length, answer);
    (read_call + write_answer, write_call + read_answer)
}

/// The cost of writing a frame, and of reading it.
fn frame(length: Duration, push: impl Fn(&mut Outbound, u64)) -> (f64, f64) {
    let (mut outbound, mut id) = (Outbound::new(limits::CHUNK, limits::WINDOW), 0);
    let write = each(length, || {
        id += 1;
        push(&mut outbound, id);
        outbound.advance(outbound.remaining());
    });
    // As many as arrive in one read.
    (0..64).for_each(|id| push(&mut outbound, id));
    let frames = Bytes::copy_from_slice(outbound.chunk());
    let mut inbound = Inbound::new();
    inbound.buffer().extend_from_slice(&MAGIC);
    assert!(inbound.next_frame().unwrap().is_none());
    inbound.accept_frames(limits::MAX_FRAME);
    let read = each(length, || {
        inbound.make_room(64 * 1024);
        inbound.buffer().extend_from_slice(&frames);
        while let Some(frame) = inbound.next_frame().unwrap() {
            black_box(frame.parse().unwrap());
        }
    });
    (write, read / 64.0)
}

fn values(length: Duration) -> f64 {
    let result = postcard::to_stdvec(&56i64).unwrap();
    each(length, || {
        let arguments = black_box(Args { a: 7, b: 8 });
        black_box(postcard::to_extend(&arguments, Vec::with_capacity(64)).unwrap());
        black_box(postcard::from_bytes::<i64>(black_box(&result)).unwrap());
    })
}
