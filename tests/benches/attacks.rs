//! What an attack on a host costs another caller of it: the 99th percentile of that caller's calls while
//! the attack goes on, as a ratio to the same without it, and the host's memory.
//!
//! Each attack has a host of its own, in a process. Quiet and disturbed rounds alternate, and medians
//! count, because machines are noisy. Real attackers have processors of their own; these have what the
//! host and the other caller leave, by the lowest priority. With a word as argument, only attacks with
//! this word are made.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

mod one_caller;

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use wharf_tests::{Wharf, component, hard_to_compile, hostile, plugin};
use wharf_wire::{Body, Header, Hello, MAGIC, Metadata, Timeout, encode};

use one_caller::{median, p99};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

/// How long a call runs before its caller gives it up.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(10);

/// Attackers that run at the same time.
type Attackers = JoinSet<()>;

/// Begins an attack, which ends when what it returns is dropped.
type Attack = fn(&Wharf) -> Attackers;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only checks that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let (rounds, round) = if quick { (1, Duration::from_millis(100)) } else { (ROUNDS, ROUND) };
    println!("attack                                      quiet p99   attacked    ratio   memory");
    let attacks: [(&str, Attack); 11] = [
        ("nothing (two quiet rounds)", |_| JoinSet::new()),
        ("64 connections announce 4 GiB of arguments", announce),
        ("16 connections ask for unknown names", ask_for_nothing),
        ("a thousand silent connections, again and again", be_silent),
        ("40 connections do not read replies of 1 MiB", read_nothing),
        ("8 connections cancel all that they call", cancel),
        ("a client gives up 10 calls a second", |wharf| give_up(wharf, 10)),
        ("a client gives up 10,000 calls a second", |wharf| give_up(wharf, 10_000)),
        ("one caller fills the queue of another plugin", fill_a_queue),
        ("half-sent requests on the HTTP side", send_half),
        ("files that are hard to compile, again and again", drop_hard_files),
    ];
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only));
    for (name, attack) in attacks.into_iter().filter(|(name, _)| is_wanted(name)) {
        let (arith, hostile) = (plugin("arith").unwrap(), hostile().unwrap());
        let generous = generous();
        let plugins = [
            ("arith.wasm", &arith[..]),
            ("hostile.wasm", &hostile[..]),
            ("generous.wasm", &generous[..]),
        ];
        let wharf = Wharf::up(&plugins, &["--compile-memory", "1GiB"]).await.unwrap();
        let client = wharf.direct();
        let before = wharf.process.resident().unwrap();
        let (mut quiet, mut attacked, mut most) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            quiet.push(p99(&client, round).await);
            let attackers = attack(&wharf);
            tokio::time::sleep(round / 4).await;
            attacked.push(p99(&client, round).await);
            most = most.max(wharf.process.resident().unwrap());
            drop(attackers);
            tokio::time::sleep(round / 4).await;
        }
        let (quiet, attacked) = (median(quiet), median(attacked));
        println!(
            "{name:<44} {:>6} us {:>7} us {:>8.2} {:>4} MiB more",
            quiet.as_micros(),
            attacked.as_micros(),
            attacked.as_secs_f64() / quiet.as_secs_f64(),
            most.saturating_sub(before) >> 20,
        );
    }
}

/// Returns a mebibyte.
fn generous() -> Vec<u8> {
    component(
        "package test:generous@1.0.0;
         interface generous { f: func() -> list<u8>; }
         world plugin { export generous; }",
        r#"(module
            (memory (export "memory") 18)
            (func (export "test:generous/generous@1.0.0#f") (result i32)
                (i32.store (i32.const 0) (i32.const 65536))
                (i32.store (i32.const 4) (i32.const 1048576))
                (i32.const 0)))"#,
    )
    .unwrap()
}

/// A connection that sends raw frames. Its first method is resolved, with index 0.
struct Raw {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Raw {
    async fn open(address: &str, method: &str) -> std::io::Result<Self> {
        let mut raw = Raw { stream: TcpStream::connect(address).await?, bytes: BytesMut::new() };
        raw.bytes.extend_from_slice(&MAGIC);
        raw.put(&Header::Hello(Hello::ours()), b"");
        raw.put(&Header::Resolve { id: 1, name: method, fingerprint: None }, b"");
        raw.flush().await?;
        Ok(raw)
    }

    fn put(&mut self, header: &Header<'_>, payload: &[u8]) {
        encode(header, payload, &mut self.bytes);
    }

    fn call(&mut self, id: u64, body: Body, payload: &[u8]) {
        let timeout = Timeout::after(Duration::from_secs(10));
        let metadata = Metadata::default();
        self.put(&Header::Call { id, method: 0, timeout, metadata, body }, payload);
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        let bytes = self.bytes.split();
        self.stream.write_all(&bytes).await
    }

    /// Waits until the host closes the connection.
    async fn linger(mut self) {
        let mut some = [0; 65536];
        while self.stream.read(&mut some).await.is_ok_and(|count| count > 0) {}
    }
}

/// Threads that run only when nothing else does.
fn leftovers() -> &'static Handle {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let nice = || {
            let _ = rustix::process::setpriority_process(None, 19);
        };
        builder.worker_threads(2).enable_all().on_thread_start(nice).build().unwrap()
    });
    RUNTIME.handle()
}

/// Runs an attack on so many connections, each again as soon as it has ended.
fn each<F>(count: usize, address: &str, attack: impl Fn(String) -> F) -> Attackers
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let mut attackers = JoinSet::new();
    for _ in 0..count {
        attackers.spawn_on(again(attack(address.to_owned())), leftovers());
    }
    attackers
}

async fn again(attack: impl Future<Output = std::io::Result<()>>) {
    let _ = attack.await;
}

fn announce(wharf: &Wharf) -> Attackers {
    each(64, &wharf.host, async |address: String| {
        loop {
            let mut raw = Raw::open(&address, "arith.multiply").await?;
            for id in 2..6 {
                raw.call(id, Body::Chunked(16 << 20), b"x");
            }
            raw.flush().await?;
            raw.linger().await;
        }
    })
}

fn ask_for_nothing(wharf: &Wharf) -> Attackers {
    each(16, &wharf.host, async |address: String| {
        loop {
            let mut raw = Raw::open(&address, "arith.multiply").await?;
            for lot in 0..1000u64 {
                for id in 0..100 {
                    let name = "nobody:has/this@1.0.0.method";
                    raw.put(
                        &Header::Resolve { id: 2 + lot * 100 + id, name, fingerprint: None },
                        b"",
                    );
                }
                if raw.flush().await.is_err() {
                    break;
                }
                let mut some = [0; 65536];
                if !raw.stream.read(&mut some).await.is_ok_and(|count| count > 0) {
                    break;
                }
            }
        }
    })
}

fn be_silent(wharf: &Wharf) -> Attackers {
    each(1000, &wharf.host, async |address: String| {
        loop {
            let mut stream = TcpStream::connect(&address).await?;
            let _ = stream.read(&mut [0; 1]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

fn read_nothing(wharf: &Wharf) -> Attackers {
    each(40, &wharf.host, async |address: String| {
        loop {
            let mut raw = Raw::open(&address, "generous.f").await?;
            for id in 2..66 {
                raw.call(id, Body::Whole, b"");
            }
            raw.flush().await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    })
}

fn cancel(wharf: &Wharf) -> Attackers {
    each(8, &wharf.host, async |address: String| {
        loop {
            let mut raw = Raw::open(&address, "hostile.spin").await?;
            for id in 2..10_000 {
                raw.call(id, Body::Whole, b"");
                raw.put(&Header::Cancel { id }, b"");
                if id % 50 == 0 && raw.flush().await.is_err() {
                    break;
                }
            }
        }
    })
}

/// Calls a guest that never returns, by the client, and drops each call's future a little later.
fn give_up(wharf: &Wharf, per_second: u32) -> Attackers {
    let client = wharf.direct();
    let mut attackers = JoinSet::new();
    let begin_and_drop = async move {
        let began = Instant::now();
        let mut sent = 0;
        let mut running = VecDeque::new();
        loop {
            let due = began.elapsed().as_micros() * u128::from(per_second) / 1_000_000;
            let mut lot = JoinSet::new();
            while sent < due {
                sent += 1;
                let client = client.clone();
                lot.spawn(async move { client.call::<_, ()>("hostile.spin", &()).await });
            }
            running.push_back((Instant::now(), lot));
            while running.front().is_some_and(|(begun, _)| begun.elapsed() > GIVEN_UP_AFTER) {
                running.pop_front();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    attackers.spawn_on(begin_and_drop, leftovers());
    attackers
}

fn fill_a_queue(wharf: &Wharf) -> Attackers {
    each(1, &wharf.host, async |address: String| {
        loop {
            let mut raw = Raw::open(&address, "hostile.spin").await?;
            for id in 2..4000 {
                raw.call(id, Body::Whole, b"");
            }
            raw.flush().await?;
            raw.linger().await;
        }
    })
}

fn send_half(wharf: &Wharf) -> Attackers {
    each(200, wharf.http.trim_start_matches("http://"), async |address: String| {
        loop {
            let mut stream = TcpStream::connect(&address).await?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: ").await?;
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
}

fn drop_hard_files(wharf: &Wharf) -> Attackers {
    let mut attackers = JoinSet::new();
    for number in 0..4u32 {
        let file = wharf.file(&format!("hard-{number}.wasm"));
        let bytes = hard_to_compile(1000 + number, 1000).unwrap();
        let dropping = async move {
            loop {
                let _ = std::fs::write(&file, &bytes);
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = std::fs::remove_file(&file);
            }
        };
        attackers.spawn_on(dropping, leftovers());
    }
    attackers
}
