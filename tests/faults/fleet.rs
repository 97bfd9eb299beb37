//! Three hosts behind proxies, a registry and a client, and the data of a run.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::MutexGuard;
use wharf_client::{Client, ClientBuilder};
use wharf_tests::{Process, Proxy, RegistryProcess, eventually, get, plugin};

use crate::load::{Load, Report};

/// Only one run at a time, because its latencies are measured and its sockets are counted.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A host, and the proxy in front of it.
pub(crate) struct Host {
    pub(crate) process: Option<Process>,
    pub(crate) proxy: Proxy,
    name: String,
    pub(crate) plugins: TempDir,
    registry: String,
    metrics: String,
}

/// The hosts and the registry.
pub(crate) struct Fleet {
    pub(crate) hosts: Vec<Host>,
    pub(crate) registry: Option<RegistryProcess>,
    pub(crate) address: String,
    _alone: MutexGuard<'static, ()>,
}

/// A run: callers, and the faults that were caused.
pub(crate) struct Run {
    name: &'static str,
    load: Load,
    undisturbed: Duration,
    begun: Instant,
    pub(crate) length: Duration,
    /// When each fault was caused.
    faults: Vec<Instant>,
}

impl Host {
    pub(crate) async fn start(registry: &str, name: &str) -> Self {
        let plugins = tempfile::tempdir().unwrap();
        std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
        let proxy = Proxy::start().await.unwrap();
        let mut host = Host {
            process: None,
            proxy,
            name: name.to_owned(),
            plugins,
            registry: registry.to_owned(),
            metrics: String::new(),
        };
        host.restart().await;
        host
    }

    /// Starts its process, or starts it again.
    pub(crate) async fn restart(&mut self) {
        let folder = self.plugins.path().to_str().unwrap();
        let advertised = self.proxy.address.to_string();
        let mut process = Process::start(&[
            "host",
            "--plugins",
            folder,
            "--registry",
            &self.registry,
            "--name",
            &self.name,
            "--listen",
            "127.0.0.1:0",
            "--advertise",
            &advertised,
        ])
        .unwrap();
        self.proxy.set_target(&process.announced("host").await.unwrap());
        self.metrics = format!("{}/metrics", process.announced("http").await.unwrap());
        self.process = Some(process);
    }

    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().unwrap().signal(signal).unwrap();
    }

    /// The sum of a gauge in its metrics, over all labels.
    async fn gauge(&self, name: &str) -> f64 {
        let (_, text) = get(&self.metrics).await.unwrap();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let registry = RegistryProcess::start(&[]).await.unwrap();
        let address = registry.url.clone();
        let mut hosts = Vec::new();
        for name in ["one", "two", "three"] {
            hosts.push(Host::start(&address, name).await);
        }
        let fleet = Fleet { hosts, registry: Some(registry), address, _alone: alone };
        fleet.lists(3).await;
        fleet
    }

    /// A client that knows all hosts and has connected to them.
    pub(crate) async fn client(&self, builder: ClientBuilder) -> Client {
        let client = builder.registry(&self.address).unwrap();
        eventually("the client has connected to all hosts", async || {
            client
                .call::<_, i64>("arith.multiply", &wharf_tests::Args { a: 1, b: 1 })
                .await
                .ok()?;
            let endpoints = client.endpoints();
            (endpoints.len() == 3 && endpoints.iter().all(|e| e.connected)).then_some(())
        })
        .await
        .unwrap();
        client
    }

    /// Waits until the registry lists this many serving hosts.
    pub(crate) async fn lists(&self, count: usize) {
        let url = format!("{}/v1/services/arith/endpoints?passing=1", self.address);
        eventually("the registry lists the hosts", async || {
            let (_, text) = get(&url).await.ok()?;
            let list: serde_json::Value = serde_json::from_str(&text).ok()?;
            (list["endpoints"].as_array()?.len() == count).then_some(())
        })
        .await
        .unwrap();
    }

    /// Ends the run. No call, task or socket may be left, here or at the hosts.
    pub(crate) async fn finish(self, client: Client, run: Run, may_fail: bool) {
        let report = run.load.stop().await;
        let failures = report.failures();
        row(run.name, &report, &run.faults, run.begun, run.undisturbed, failures.len());
        if !may_fail {
            let some: Vec<&String> = failures.iter().take(5).collect();
            assert!(failures.is_empty(), "{} calls failed: {some:#?}", failures.len());
        }
        eventually("no call is in flight, as the client counts them", async || {
            client.endpoints().iter().all(|endpoint| endpoint.in_flight == 0).then_some(())
        })
        .await
        .unwrap();
        drop(client);
        for host in self.hosts.iter().filter(|host| host.process.is_some()) {
            eventually("its connections are closed and its instances idle", async || {
                let busy =
                    host.gauge("wharf_instances").await - host.gauge("wharf_instances_idle").await;
                let open = host.gauge("wharf_connections").await;
                let waiting = host.gauge("wharf_calls_waiting").await;
                (busy == 0.0 && open == 0.0 && waiting == 0.0).then_some(())
            })
            .await
            .unwrap();
        }
        // The processes and proxies have tasks and sockets too.
        drop((self.hosts, self.registry));
        eventually("no task is left", async || {
            (Handle::current().metrics().num_alive_tasks() == 0).then_some(())
        })
        .await
        .unwrap();
        eventually("no socket is left", async || (sockets() == 0).then_some(())).await.unwrap();
    }
}

impl Run {
    /// Starts the callers. For a sixth of the time, no fault is caused.
    pub(crate) async fn begin(name: &'static str, client: &Client, idempotent: bool) -> Self {
        let seconds = std::env::var("WHARF_FAULT_SECONDS").ok().and_then(|s| s.parse().ok());
        let length = Duration::from_secs(seconds.unwrap_or(12));
        let (load, begun) = (Load::start(client, idempotent), Instant::now());
        let run = Run { name, load, undisturbed: length / 6, begun, length, faults: Vec::new() };
        run.until(run.undisturbed).await;
        run
    }

    /// Waits until this much time has passed since the beginning of the run.
    pub(crate) async fn until(&self, since_begin: Duration) {
        tokio::time::sleep_until((self.begun + since_begin).into()).await;
    }

    /// `count` points in time at equal distances. The first is the end of the undisturbed part.
    pub(crate) fn times(&self, count: u32) -> impl Iterator<Item = Duration> + use<> {
        let (first, rest) = (self.undisturbed, self.length - self.undisturbed);
        (0..count).map(move |n| first + rest / count * n)
    }

    /// Records that a fault is caused now.
    pub(crate) fn fault(&mut self) {
        self.faults.push(Instant::now());
    }
}

/// Prints a row of the table.
fn row(
    name: &str,
    report: &Report,
    faults: &[Instant],
    begun: Instant,
    undisturbed: Duration,
    failed: usize,
) {
    let second = Duration::from_secs(1);
    let before = report.latencies(|at| at < begun + undisturbed);
    let in_fault = |at: Instant| faults.iter().any(|fault| *fault <= at && at < *fault + second);
    // A call that began shortly before a fault is also affected.
    let meets = |at: Instant| in_fault(at) || in_fault(at + Duration::from_millis(20));
    let outside = report.latencies(|at| at >= begun + undisturbed && !meets(at));
    let within = report.latencies(meets);
    let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    let total = before.calls + outside.calls + within.calls;
    println!(
        "| {name} | {} | {total} | {failed} | {} / {} | {} / {} | {:.2} / {:.2} | {} / {} |",
        faults.len(),
        before.p50,
        before.p99,
        outside.p50,
        outside.p99,
        ratio(outside.p50, before.p50),
        ratio(outside.p99, before.p99),
        within.p50,
        within.p99,
    );
}

/// The number of TCP sockets of this process. Other sockets do not count.
fn sockets() -> usize {
    let tcp: Vec<String> = ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|table| {
            let inode = |line: &str| line.split_whitespace().nth(9).map(str::to_owned);
            table.lines().skip(1).filter_map(inode).collect::<Vec<_>>()
        })
        .collect();
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let names = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    names
        .filter(|name| {
            let name = name.to_string_lossy();
            let inode = name.strip_prefix("socket:[").and_then(|n| n.strip_suffix(']'));
            inode.is_some_and(|inode| tcp.iter().any(|known| known == inode))
        })
        .count()
}
