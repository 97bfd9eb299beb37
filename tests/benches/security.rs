//! What security costs: TLS against plain, and rights against none, side by side in one run.
//!
//! - a call in flight, 64 of them, and 64 KiB there and back, over one connection;
//! - new connections, each with one call: with TLS both sides show certificates;
//! - a principal with rights to one method, against a host that asks nobody.
//!
//! Rounds alternate, and the median of the ratios counts, because machines are noisy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wharf_client::{Bytes, Client, ClientBuilder};
use wharf_host::{Advertise, Config, Host};
use wharf_net::principals::Principals;
use wharf_net::tls::{Clients, Identity, Roots, Tls};
use wharf_tests::{Args, DOMAIN, plugin};

/// The allocator of the `wharf` binary. All peers in this process use it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TOKEN: &str = "bench-secret-0123456789";

const PRINCIPALS: &str = "[[principal]]\nname = 'bench'\nsecret = 'bench-secret-0123456789'\n\
                          calls = ['arith.multiply', 'demo:textkit/*']\n";

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
    let (servers, callers) = (runtime(), runtime());
    let authority = Authority::new();
    let server = |principals, tls| servers.block_on(Server::start(principals, tls));
    let plain = server(Principals::open(), None);
    let tls = Tls::new(authority.identity("host/bench"), Clients::Asked).unwrap();
    let encrypted = server(Principals::certified(), Some(tls));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    std::fs::write(&file, PRINCIPALS).unwrap();
    let guarded = server(Principals::load(&file).unwrap(), None);

    let identity = authority.identity("caller/bench");
    let over_tls = || Client::builder().identity(&identity).host_name("bench");
    let with_token = || Client::builder().token(TOKEN);
    println!("{:<44} {:>12} {:>12} {:>8}", "", "with", "without", "ratio");
    let ends = |server: &Server, builder: ClientBuilder| builder.direct(&server.address);
    let one = ends(&plain, Client::builder());
    for (name, load) in [
        ("1 in flight", Load { in_flight: 1, bytes: 0 }),
        ("64 in flight", Load { in_flight: 64, bytes: 0 }),
        ("64 KiB there and back, 4 in flight", Load { in_flight: 4, bytes: 64 * 1024 }),
    ] {
        let rate = |client: &Client| callers.block_on(load.run(client, rounds.length));
        let other = ends(&encrypted, over_tls());
        compare(&format!("TLS: {name}"), rounds, || rate(&other), || rate(&one));
        let other = ends(&guarded, with_token());
        compare(&format!("rights: {name}"), rounds, || rate(&other), || rate(&one));
    }
    let rate = |server: &Server, builder: &dyn Fn() -> ClientBuilder| {
        connections(&callers, rounds.length, || builder().direct(&server.address))
    };
    compare(
        "TLS: connections, each with a call",
        rounds,
        || rate(&encrypted, &over_tls),
        || rate(&plain, &Client::builder),
    );
    for server in [plain, encrypted, guarded] {
        servers.block_on(server.host.drain());
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Gives out certificates of a trust domain.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn identity(&self, path: &str) -> Identity {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{DOMAIN}/{path}").try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        let identity = Identity::anonymous(Some(DOMAIN.parse().unwrap()), Roots::default());
        identity.replace_pem(&certificate, &key.serialize_pem(), &self.0.pem()).unwrap();
        identity
    }
}

/// A host with the example services.
struct Server {
    host: Host,
    address: String,
    _plugins: tempfile::TempDir,
}

impl Server {
    async fn start(principals: Principals, tls: Option<Tls>) -> Self {
        let plugins = tempfile::tempdir().unwrap();
        for name in ["arith", "textkit"] {
            let path = plugins.path().join(format!("{name}.wasm"));
            std::fs::write(path, plugin(name).unwrap()).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let advertise = Advertise::new(None, address).unwrap();
        let mut config = Config::new("bench", plugins.path(), advertise);
        config.rpc.principals = principals;
        config.rpc.tls = tls;
        let host = Host::start(listener, None, config).unwrap();
        host.ready().await;
        Server { host, address: address.to_string(), _plugins: plugins }
    }
}

/// Calls in flight on one connection. Without bytes they multiply.
#[derive(Clone, Copy)]
struct Load {
    in_flight: usize,
    bytes: usize,
}

impl Load {
    /// Calls in a second.
    async fn run(self, client: &Client, length: Duration) -> f64 {
        let (begun, calls) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let data = Bytes::from(vec![7; self.bytes]);
        let callers: Vec<_> = (0..self.in_flight)
            .map(|_| {
                let (client, calls, data) = (client.clone(), calls.clone(), data.clone());
                tokio::spawn(async move {
                    while begun.elapsed() < length {
                        if data.is_empty() {
                            let pair = Args { a: 7, b: 8 };
                            let product = client.call::<_, i64>("arith.multiply", &pair).await;
                            assert_eq!(product.unwrap(), 56);
                        } else {
                            let back = client.call::<_, Bytes>("textkit.echo", &data).await;
                            assert_eq!(back.unwrap().len(), data.len());
                        }
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        calls.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
    }
}

/// New connections in a second, each with one call.
fn connections(callers: &Runtime, length: Duration, client: impl Fn() -> Client) -> f64 {
    let begun = Instant::now();
    let mut made = 0u32;
    while begun.elapsed() < length {
        let client = client();
        callers.block_on(async {
            let product = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
            assert_eq!(product.unwrap(), 56);
        });
        made += 1;
    }
    f64::from(made) / begun.elapsed().as_secs_f64()
}

/// Measures two in turns. Each gives calls in a second.
fn compare(
    name: &str,
    rounds: Rounds,
    mut with: impl FnMut() -> f64,
    mut without: impl FnMut() -> f64,
) {
    let (mut pairs, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rounds.count {
        let (with, without) = (with(), without());
        pairs.push((with, without));
        ratios.push(with / without);
    }
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    let with = median(pairs.iter().map(|(with, _)| *with).collect());
    let without = median(pairs.iter().map(|(_, without)| *without).collect());
    println!("{name:<44} {with:>10.0}/s {without:>10.0}/s {:>8.2}", median(ratios));
}
