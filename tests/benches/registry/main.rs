//! A registry with ten thousand hosts, and services that registered themselves among them: the cost of
//! heartbeats, lookups, watchers (ours and Consul's) and silent hosts.
//! The same heartbeats and lookups run against etcd, on the same machine in the same run.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "its threads are its own and compute nothing beside")]

mod etcd;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The allocator of the `wharf` command: this process serves in its place.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The size of the run.
#[derive(Clone, Copy)]
struct Size {
    hosts: usize,
    /// Endpoints of each host.
    endpoints: usize,
    services: usize,
    watchers: usize,
    /// Requests a second.
    lookups: usize,
    seconds: u64,
}

const WHOLE: Size = Size {
    hosts: 10_000,
    endpoints: 10,
    services: 1_000,
    watchers: 10_000,
    lookups: 5_000,
    seconds: 10,
};
const QUICK: Size =
    Size { hosts: 100, endpoints: 10, services: 10, watchers: 20, lookups: 200, seconds: 1 };

/// Heartbeats are due every five seconds.
const PERIOD: usize = 5;
const CONNECTIONS: usize = 32;

fn main() {
    if std::env::args().any(|argument| argument == "serve") {
        return serve();
    }
    // `cargo test --benches` only checks that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let size = if quick { QUICK } else { WHOLE };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let ours = registry(size, &runtime);
    if let Some(theirs) = runtime.block_on(etcd::measure(size)) {
        let ratio = |quantile| {
            let [ours, theirs] =
                [&ours, &theirs].map(|measured| measured.lookups.value_at_quantile(quantile));
            ours as f64 / theirs as f64
        };
        println!(
            "ratios, registry : etcd   heartbeats' CPU {:.2}   lookup, with ten times the rate: p50 {:.2}   p99 {:.2}",
            ours.heartbeats / theirs.heartbeats,
            ratio(0.5),
            ratio(0.99),
        );
    }
}

/// The figures that are compared.
struct Measured {
    /// Share of a core.
    heartbeats: f64,
    /// Nanoseconds.
    lookups: Histogram<u64>,
}

#[tokio::main]
async fn serve() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = wharf_registry::Store::File(folder.path().join("registry.redb"));
    // The time to live is long, so that no host falls silent by accident. The heartbeats below come
    // as often as for a time to live of 15 seconds.
    let ttl = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(3600);
    let config = wharf_registry::Config {
        store,
        max_connections: 19_000,
        ..wharf_registry::Config::with_ttl(Duration::from_secs(ttl))
    };
    let registry = wharf_registry::Registry::open(config).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    registry.serve(listener, std::future::pending()).await.unwrap();
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(ttl: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["serve", &ttl.to_string()]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Server { process, address: address.trim().to_owned() }
    }

    fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A connection with just enough HTTP, so that measuring costs little.
struct Connection {
    stream: BufReader<std::net::TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = BufReader::with_capacity(64 * 1024, stream);
        Connection { stream, line: String::new(), body: Vec::new() }
    }

    /// Sends a request and reads its answer. Returns the status.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).unwrap();
            let line = self.line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).unwrap();
        status
    }
}

fn declaration(size: Size, host: usize) -> String {
    let endpoint = |n: usize| {
        let service = (host * size.endpoints + n) % size.services;
        format!(
            r#"{{"service":"service-{service}","package":"demo:service-{service}","version":"0.1.0","fingerprint":"{host:032x}"}}"#
        )
    };
    let endpoints: Vec<String> = (0..size.endpoints).map(endpoint).collect();
    format!(r#"{{"session":1,"address":"10.0.0.7:7400","endpoints":[{}]}}"#, endpoints.join(","))
}

/// A request by its number.
type Request<'r> = &'r (dyn Fn(usize) -> (&'static str, String, String) + Sync);

/// Sends one request for every host over some connections. Returns how long that took.
fn each_host(server: &Server, hosts: usize, request: Request<'_>) -> Duration {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = Connection::open(&server.address);
                loop {
                    let host = next.fetch_add(1, Ordering::Relaxed);
                    if host >= hosts {
                        return;
                    }
                    let (method, path, body) = request(host);
                    let status = connection.ask(method, &path, &body);
                    assert!(status < 300, "{path}: {status}");
                }
            });
        }
    });
    begun.elapsed()
}

/// Sends requests at a steady rate over some connections, whether or not the answers keep up. Each
/// connection is a thread with its own schedule. Returns the latencies. If a request is sent late
/// because the one before it was not answered, its latency counts from when it was due.
fn steadily(
    address: &str,
    per_second: usize,
    seconds: u64,
    request: Request<'_>,
) -> Histogram<u64> {
    let connections = u32::try_from(CONNECTIONS).unwrap();
    let every = Duration::from_secs(1) * connections / u32::try_from(per_second).unwrap();
    let start = Instant::now() + Duration::from_millis(100);
    std::thread::scope(|scope| {
        let worker = |worker: u32| {
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                let mut latencies = Histogram::<u64>::new(3).unwrap();
                let mut due = start + every * worker / connections;
                let mut number = worker as usize;
                while due < start + Duration::from_secs(seconds) {
                    let (method, path, body) = request(number);
                    let early = due.saturating_duration_since(Instant::now());
                    std::thread::sleep(early);
                    // If the thread slept, the system woke it late. That does not count.
                    let since = if early.is_zero() { due } else { Instant::now() };
                    let status = connection.ask(method, &path, &body);
                    assert_eq!(status, 200, "{path}");
                    latencies.record(nanoseconds(since)).unwrap();
                    number += CONNECTIONS;
                    due += every;
                }
                latencies
            })
        };
        let workers: Vec<_> = (0..connections).map(worker).collect();
        let mut all = Histogram::<u64>::new(3).unwrap();
        for worker in workers {
            all.add(worker.join().unwrap()).unwrap();
        }
        all
    })
}

fn registry(size: Size, runtime: &Runtime) -> Measured {
    let server = Server::start(3600);
    let empty = resident(server.id());
    let declare = |host: usize| ("PUT", format!("/v1/hosts/h{host}"), declaration(size, host));
    let took = each_host(&server, size.hosts, &declare);
    let endpoints = size.hosts * size.endpoints;
    let grown = resident(server.id()).saturating_sub(empty);
    println!(
        "{} hosts x {} endpoints declared durably in {took:.1?}; resident {} MiB more, {} bytes an endpoint",
        size.hosts,
        size.endpoints,
        grown >> 20,
        grown / endpoints as u64
    );

    let before = cpu(server.id());
    std::thread::sleep(Duration::from_secs(size.seconds));
    let idle = share(server.id(), before);
    println!("looking for the silent among {} hosts: {idle:.2} % of a core", size.hosts);

    let digests = digests(&server, size);
    let of_hosts = |number: usize| {
        let host = number % digests.len();
        let body = format!(r#"{{"session":1,"digest":"{}"}}"#, digests[host]);
        ("POST", format!("/v1/hosts/h{host}/heartbeat"), body)
    };
    let rate = size.hosts / PERIOD;
    let measure = |what: &str, rate: usize, beat: Request<'_>| {
        let before = cpu(server.id());
        let latencies = steadily(&server.address, rate, size.seconds, beat);
        let share = share(server.id(), before);
        println!(
            "{rate} heartbeats/s{what}: {share:.1} % of a core ({:.1} us each), p50 {} p99 {}",
            share / 100.0 / rate as f64 * 1e6,
            at(&latencies, 0.5),
            at(&latencies, 0.99)
        );
        share
    };
    let heartbeats = measure("", rate, &of_hosts);
    let others = size.hosts / 10;
    each_host(&server, 2 * others, &|number| registration(number, others));
    let beat = |number: usize| match number % 12 {
        10 => ("POST", format!("/heartbeat?name=Classic{}", number % others), String::new()),
        11 => {
            let path = format!("/v1/agent/check/pass/service:consul-{}", number % others);
            ("PUT", path, String::new())
        }
        _ => of_hosts(number),
    };
    let rate = rate * 12 / 10;
    measure(
        &format!(", {others} classic services and {others} of Consul's among them"),
        rate,
        &beat,
    );

    let lookup = |number: usize| {
        let service = number * 7 % size.services;
        ("GET", format!("/v1/services/service-{service}/endpoints"), String::new())
    };
    for beside in [false, true] {
        let before = cpu(server.id());
        let lookups = std::thread::scope(|scope| {
            if beside {
                scope.spawn(|| steadily(&server.address, rate, size.seconds, &beat));
            }
            steadily(&server.address, size.lookups, size.seconds, &lookup)
        });
        println!(
            "{} lookups/s of {} endpoints each, {} heartbeats beside: p50 {} p99 {} p99.9 {}; {:.0} % of a core in all",
            size.lookups,
            endpoints / size.services,
            if beside { "the" } else { "no" },
            at(&lookups, 0.5),
            at(&lookups, 0.99),
            at(&lookups, 0.999),
            share(server.id(), before)
        );
        if beside {
            runtime.block_on(watchers(&server, size));
            drop(server);
            let server = Server::start(3600);
            each_host(&server, size.hosts, &declare);
            runtime.block_on(blocking(&server, size));
            drop(server);
            silence(size);
            return Measured { heartbeats, lookups };
        }
    }
    unreachable!()
}

/// The digest that each host must send in its heartbeats.
fn digests(server: &Server, size: Size) -> Vec<String> {
    let mut connection = Connection::open(&server.address);
    let mut digests = Vec::new();
    for host in 0..size.hosts {
        let path = format!("/v1/hosts/h{host}");
        assert_eq!(connection.ask("PUT", &path, &declaration(size, host)), 200);
        let answer: serde_json::Value = serde_json::from_slice(&connection.body).unwrap();
        digests.push(answer["digest"].as_str().unwrap().to_owned());
    }
    digests
}

/// Opens watches of one service, and measures how long it takes until all have seen a change of it.
async fn watchers(server: &Server, size: Size) {
    let before = resident(server.id());
    let request = b"GET /v1/watch?service=service-1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut watchers = Vec::new();
    for _ in 0..size.watchers {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        watchers.push(stream);
    }
    let mut readers = JoinSet::new();
    let (snapshots, changes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for mut stream in watchers {
        let (snapshots, changes) = (snapshots.clone(), changes.clone());
        readers.spawn(async move {
            let mut text = Vec::with_capacity(4096);
            let (mut complete, mut searched) = (false, 0);
            loop {
                let wanted: &[u8] = if complete { b"draining" } else { b"bookmark" };
                let from = usize::saturating_sub(searched, wanted.len());
                if text[from..].windows(wanted.len()).any(|part| part == wanted) {
                    text.clear();
                    if complete {
                        changes.fetch_add(1, Ordering::Relaxed);
                        return stream;
                    }
                    complete = true;
                    snapshots.fetch_add(1, Ordering::Relaxed);
                }
                searched = text.len();
                assert!(stream.read_buf(&mut text).await.unwrap() > 0, "the watch ended");
            }
        });
    }
    let all = async |counter: &AtomicUsize| {
        while counter.load(Ordering::Relaxed) < size.watchers {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    all(&snapshots).await;
    let grown = resident(server.id()).saturating_sub(before);
    let mut connection = Connection::open(&server.address);
    // Any host that serves it.
    let host = (0..size.hosts).find(|h| declaration(size, *h).contains("\"service-1\"")).unwrap();
    let begun = Instant::now();
    let state = r#"{"session":1,"state":"draining"}"#;
    let status = connection.ask("PUT", &format!("/v1/hosts/h{host}/state"), state);
    assert_eq!(status, 200);
    all(&changes).await;
    println!(
        "{} watchers of one service: all have seen a change after {:.0?}; {} KiB resident each",
        size.watchers,
        begun.elapsed(),
        (grown >> 10) / size.watchers as u64
    );
}

/// A service that registers itself: by the classic call, or as a client of Consul.
fn registration(number: usize, others: usize) -> (&'static str, String, String) {
    let other = number % others;
    if number < others {
        let path = format!("/register?name=Classic{other}&addr=10.1.0.1:{}", 1_000 + other);
        return ("POST", path, String::new());
    }
    let body = format!(
        r#"{{"ID":"consul-{other}","Name":"consul-{other}","Address":"10.2.0.1","Port":{},"Check":{{"TTL":"24h","Status":"passing"}}}}"#,
        1_000 + other
    );
    ("PUT", "/v1/agent/service/register".to_owned(), body)
}

/// Opens as many of Consul's blocking queries of one service, and measures how long it takes until all have
/// the list that a change of it makes.
async fn blocking(server: &Server, size: Size) {
    let before = resident(server.id());
    let service = "/v1/health/service/service-2?passing=1";
    let head = |text: &[u8]| -> Option<(usize, u64, usize)> {
        let end = text.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&text[..end]).ok()?;
        let number = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let length = usize::try_from(number("content-length:")?).ok()?;
        Some((end, number("x-consul-index:")?, length))
    };
    let mut first = TcpStream::connect(&server.address).await.unwrap();
    let ask = |query: &str| format!("GET {service}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    first.write_all(ask("").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let (index, length) = loop {
        assert!(first.read_buf(&mut text).await.unwrap() > 0);
        if let Some((_, index, length)) = head(&text) {
            break (index, length);
        }
    };
    let mut readers = JoinSet::new();
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..size.watchers {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(ask(&format!("&index={index}&wait=10m")).as_bytes()).await.unwrap();
        let answered = answered.clone();
        readers.spawn(async move {
            let mut text = Vec::new();
            let mut read = 0;
            let (mut whole, mut piece) = (None, vec![0; 64 * 1024]);
            while whole.is_none_or(|whole| read < whole) {
                let count = stream.read(&mut piece).await.unwrap();
                assert!(count > 0, "the query ended");
                read += count;
                if whole.is_none() {
                    text.extend_from_slice(&piece[..count]);
                    whole = head(&text).map(|(end, now, length)| {
                        assert!(now > index);
                        end + length
                    });
                }
            }
            answered.fetch_add(1, Ordering::Relaxed);
            stream
        });
    }
    // All of them wait once the registry has as many connections and nothing more to do.
    let mut connection = Connection::open(&server.address);
    tokio::time::sleep(Duration::from_secs(size.seconds.min(3))).await;
    assert_eq!(answered.load(Ordering::Relaxed), 0, "they wait");
    let grown = resident(server.id()).saturating_sub(before);
    let host = (0..size.hosts).find(|h| declaration(size, *h).contains("\"service-2\"")).unwrap();
    let begun = Instant::now();
    let state = r#"{"session":1,"state":"draining"}"#;
    assert_eq!(connection.ask("PUT", &format!("/v1/hosts/h{host}/state"), state), 200);
    while answered.load(Ordering::Relaxed) < size.watchers {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    println!(
        "{} blocking queries of Consul's for one service: all have the new list ({} KiB each, {:.1} GB in all) after {took:.0?}; {} KiB resident each while they wait",
        size.watchers,
        length >> 10,
        (length * size.watchers) as f64 / 1e9,
        (grown >> 10) / size.watchers as u64
    );
}

/// How long it takes until a twentieth of the hosts, which falls silent, is dropped.
fn silence(size: Size) {
    let server = Server::start(6);
    let silent = size.hosts / 20;
    each_host(&server, silent, &|host| {
        ("PUT", format!("/v1/hosts/silent-{host}"), declaration(size, host))
    });
    let since = Instant::now();
    let living = Size { hosts: size.hosts - silent, ..size };
    each_host(&server, living.hosts, &|host| {
        ("PUT", format!("/v1/hosts/h{host}"), declaration(size, host))
    });
    let digests = digests(&server, living);
    let beat = |number: usize| {
        let host = number % digests.len();
        let body = format!(r#"{{"session":1,"digest":"{}"}}"#, digests[host]);
        ("POST", format!("/v1/hosts/h{host}/heartbeat"), body)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| steadily(&server.address, size.hosts / 3, 8, &beat));
        let mut connection = Connection::open(&server.address);
        loop {
            assert_eq!(connection.ask("GET", "/metrics", ""), 200);
            let text = String::from_utf8_lossy(&connection.body);
            let mut lines = text.lines();
            let dropped = lines.find_map(|l| l.strip_prefix("wharf_registry_evictions_total "));
            if dropped.is_some_and(|dropped| dropped.parse::<usize>().unwrap() >= silent) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!(
            "{silent} of {} hosts silent: gone {:.1?} after the last of them was heard, with a ttl of 6 s",
            size.hosts,
            since.elapsed()
        );
    });
}

/// From when the latency of a request counts that was due at `due`. A delay of up to two
/// milliseconds is the timer's, and does not count.
fn begun(due: tokio::time::Instant) -> Instant {
    let now = tokio::time::Instant::now();
    if now.duration_since(due) <= Duration::from_millis(2) { now.into() } else { due.into() }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap()
}

fn at(latencies: &Histogram<u64>, quantile: f64) -> String {
    let microseconds = latencies.value_at_quantile(quantile) / 1_000;
    if microseconds < 10_000 {
        format!("{microseconds} us")
    } else {
        format!("{} ms", microseconds / 1_000)
    }
}

/// The resident memory of a process, in bytes.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// The processor time of a process, in hundredths of a second, and when it was read.
fn cpu(id: u32) -> (u64, Instant) {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(), Instant::now())
}

/// Per cent of a core since then.
fn share(id: u32, (before, since): (u64, Instant)) -> f64 {
    let (after, now) = cpu(id);
    (after - before) as f64 / now.duration_since(since).as_secs_f64()
}
