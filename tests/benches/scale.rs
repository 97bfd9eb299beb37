//! A host with very many plugins: what each plugin costs, and whether a call is slower because of
//! the others.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use wharf_client::Client;
use wharf_host::{Advertise, Config, Host};
use wharf_tests::{Args, renamed};

const PLUGINS: usize = 1000;
const CALLS: usize = 20_000;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only checks that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let (plugins, calls) = if quick { (10, 100) } else { (PLUGINS, CALLS) };
    let cache = tempfile::tempdir().unwrap();
    println!("plugins   loading    each   resident   each   idle CPU   one call (p50, two rounds)");
    for count in [1, plugins] {
        // Fill the cache first, then load from it.
        let folder = tempfile::tempdir().unwrap();
        for (index, (wasm, _)) in renamed(count).unwrap().into_iter().enumerate() {
            std::fs::write(folder.path().join(format!("{index:04}.wasm")), wasm).unwrap();
        }
        start(folder.path(), cache.path()).await.1.drain().await;
        let before = resident();
        let begun = Instant::now();
        let (address, host) = start(folder.path(), cache.path()).await;
        let loading = begun.elapsed();
        let resident = resident().saturating_sub(before);
        let idle = idle_cpu(if quick { 1 } else { 5 }).await;
        let (first, second) = (median(&address, calls).await, median(&address, calls).await);
        let each = u32::try_from(count).unwrap();
        println!(
            "{count:>7} {:>9.1?} {:>7.2?} {:>6} MiB {:>4} KiB {idle:>7.2} %   {first:.1?}, {second:.1?}",
            loading,
            loading / each,
            resident >> 20,
            (resident >> 10) / u64::from(each),
        );
        host.drain().await;
    }
}

async fn start(plugins: &Path, cache: &Path) -> (String, Host) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let advertise = Advertise::new(None, address).unwrap();
    let mut config = Config::new("bench", plugins, advertise);
    config.plugins.cache = Some(cache.to_owned());
    let host = Host::start(listener, None, config).unwrap();
    host.ready().await;
    (address.to_string(), host)
}

async fn median(address: &str, calls: usize) -> Duration {
    let client = Client::builder().direct(address);
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        let product: i64 =
            client.call("a000:arith/arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
        times.push(start.elapsed());
        assert_eq!(product, 56);
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Per cent of one core, over some idle seconds.
#[expect(clippy::cast_precision_loss, reason = "a share for people")]
async fn idle_cpu(seconds: u64) -> f64 {
    // In hundredths of a second, the unit of /proc.
    let used = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
    };
    // The engine's clock stops a second after the last guest.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = used();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    (used() - before) as f64 / seconds as f64
}
