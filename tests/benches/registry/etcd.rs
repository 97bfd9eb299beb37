//! The same heartbeats and lookups with etcd: one lease per host, one key per endpoint.

use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use wharf_registry::etcd::{
    Credentials, LeaseKeepAliveRequest, LeaseKeepAliveResponse, Member, PutRequest, RangeRequest,
};
use wharf_tests::EtcdCluster;

use super::*;

const CLIENTS: usize = 8;

pub(super) async fn measure(size: Size) -> Option<Measured> {
    let cluster = EtcdCluster::start(1).await.unwrap()?;
    let id = cluster.members[0].process.as_ref().unwrap().id().unwrap();
    let address = cluster.members[0].client.clone();
    let empty = resident(id);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (next, address) = (next.clone(), address.clone());
        workers.spawn(async move {
            let client = Member::new(&address, &Credentials::default()).unwrap();
            let mut keepers = Vec::new();
            loop {
                let host = next.fetch_add(1, Ordering::Relaxed);
                if host >= size.hosts {
                    return keepers;
                }
                let lease = client.grant(3600).await.unwrap();
                let value = declaration(Size { endpoints: 1, ..size }, host);
                for n in 0..size.endpoints {
                    let service = (host * size.endpoints + n) % size.services;
                    let key = format!("/service-{service}/h{host}");
                    let (key, value) = (key.into(), value.clone().into());
                    client.put(PutRequest { key, value, lease }).await.unwrap();
                }
                keepers.push(Keeper::new(&client, lease).await);
            }
        });
    }
    let mut keepers = Vec::new();
    while let Some(done) = workers.join_next().await {
        keepers.push(done.unwrap());
    }
    let grown = resident(id).saturating_sub(empty);
    println!(
        "etcd: {} leases, {} keys; resident {} MiB more, {} bytes an endpoint",
        size.hosts,
        size.hosts * size.endpoints,
        grown >> 20,
        grown / (size.hosts * size.endpoints) as u64
    );
    let rate = size.hosts / PERIOD;
    let before = cpu(id);
    let latencies = heartbeats(keepers, rate, size.seconds).await;
    let heartbeats = share(id, before);
    println!(
        "etcd: {rate} lease renewals/s: {heartbeats:.1} % of a core, p50 {} p99 {}",
        at(&latencies, 0.5),
        at(&latencies, 0.99)
    );
    // Also at a tenth of the rate, because etcd may not be able to answer all of it.
    let mut measured = None;
    for rate in [size.lookups, size.lookups / 10] {
        let before = cpu(id);
        let lookups = lookups(&address, Size { lookups: rate, ..size }).await;
        println!(
            "etcd: {rate} gets/s of {} keys each, no heartbeats beside: p50 {} p99 {}; {:.0} % of a core",
            size.hosts * size.endpoints / size.services,
            at(&lookups, 0.5),
            at(&lookups, 0.99),
            share(id, before)
        );
        measured = Some(Measured { heartbeats, lookups });
    }
    measured
}

/// A stream on which one lease is renewed.
struct Keeper {
    lease: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: tonic::Streaming<LeaseKeepAliveResponse>,
}

impl Keeper {
    async fn new(client: &Member, lease: i64) -> Self {
        let (requests, asked) = mpsc::channel(1);
        requests.send(LeaseKeepAliveRequest { id: lease }).await.unwrap();
        let asked = std::sync::Mutex::new(Some(asked));
        let answers = client.renewals(|| {
            let asked = asked.lock().unwrap().take().unwrap();
            stream::unfold(asked, async |mut asked: mpsc::Receiver<_>| {
                asked.recv().await.map(|request| (request, asked))
            })
        });
        let mut answers = answers.await.unwrap();
        answers.message().await.unwrap().unwrap();
        Keeper { lease, requests, answers }
    }

    async fn renew(&mut self) {
        self.requests.send(LeaseKeepAliveRequest { id: self.lease }).await.unwrap();
        self.answers.message().await.unwrap().unwrap();
    }
}

async fn heartbeats(keepers: Vec<Vec<Keeper>>, per_second: usize, seconds: u64) -> Histogram<u64> {
    let groups = u32::try_from(keepers.len()).unwrap();
    let every = Duration::from_secs(1) * groups / u32::try_from(per_second).unwrap();
    let mut workers = JoinSet::new();
    for mut group in keepers {
        workers.spawn(async move {
            let mut latencies = Histogram::<u64>::new(3).unwrap();
            let start = tokio::time::Instant::now();
            let mut ticks = tokio::time::interval_at(start, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut number = 0;
            loop {
                let due = ticks.tick().await;
                if due >= start + Duration::from_secs(seconds) {
                    return latencies;
                }
                let count = group.len();
                let keeper = &mut group[number % count];
                let since = begun(due);
                keeper.renew().await;
                latencies.record(nanoseconds(since)).unwrap();
                number += 1;
            }
        });
    }
    gather(workers).await
}

async fn lookups(address: &str, size: Size) -> Histogram<u64> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Member::new(address, &Credentials::default()).unwrap());
    }
    let every = Duration::from_secs(1) * u32::try_from(CONNECTIONS).unwrap()
        / u32::try_from(size.lookups).unwrap();
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        let client = clients[worker % CLIENTS].clone();
        workers.spawn(async move {
            let mut latencies = Histogram::<u64>::new(3).unwrap();
            let offset =
                every * u32::try_from(worker).unwrap() / u32::try_from(CONNECTIONS).unwrap();
            let start = tokio::time::Instant::now() + offset;
            let mut ticks = tokio::time::interval_at(start, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut number = worker;
            loop {
                let due = ticks.tick().await;
                if due >= start + Duration::from_secs(size.seconds) {
                    return latencies;
                }
                let service = number * 7 % size.services;
                // As the registry does: the member answers from what it knows, without asking a
                // majority.
                let prefix = format!("/service-{service}");
                let request = RangeRequest {
                    key: format!("{prefix}/").into(),
                    range_end: format!("{prefix}0").into(),
                    serializable: true,
                    ..RangeRequest::default()
                };
                let since = begun(due);
                let got = client.range(request).await;
                assert!(!got.unwrap().kvs.is_empty());
                latencies.record(nanoseconds(since)).unwrap();
                number += CONNECTIONS;
            }
        });
    }
    gather(workers).await
}

async fn gather(mut workers: JoinSet<Histogram<u64>>) -> Histogram<u64> {
    let mut all = Histogram::<u64>::new(3).unwrap();
    while let Some(done) = workers.join_next().await {
        all.add(done.unwrap()).unwrap();
    }
    all
}
