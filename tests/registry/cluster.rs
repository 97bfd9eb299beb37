//! Several registries over one etcd cluster, and failures of either.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use wharf_registry_api::{
    Code, Condition, Declaration, Endpoint, EndpointId, EndpointSpec, Heartbeat, Index,
    ListOptions, Metadata, RegistryClient, WatchEvent,
};
use wharf_tests::{
    Args, EtcdCluster, Process, RegistryProcess, eventually, free_port, plugin, within,
};

async fn registry(etcd: &EtcdCluster, listen: &str, ttl: &str) -> RegistryProcess {
    let store = etcd.store();
    let arguments = ["--ttl", ttl, "--store", &store];
    RegistryProcess::start_with(listen, &arguments, &[]).await.unwrap()
}

#[tokio::test]
async fn registries_over_one_etcd_are_one_registry() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let one = registry(&etcd, "127.0.0.1:0", "3s").await;
    let two = registry(&etcd, "127.0.0.1:0", "3s").await;
    let (status, declared) = one.declare("h", 2, &["arith"]).await;
    assert_eq!(status, 201, "{declared}");
    assert_eq!(one.hosts("arith").await, ["h"], "whoever wrote it reads it");
    // With the index from one registry's answer, the other waits until it has caught up.
    let index = declared["index"].as_str().unwrap();
    let path = format!("/v1/services/arith/endpoints?index={index}&wait=1ms");
    let (status, _) = two.get(&path).await;
    assert_eq!(status, 304, "nothing is newer than what was just written");
    assert_eq!(two.hosts("arith").await, ["h"]);
    // Both accept heartbeats, and both refuse an old session.
    assert_eq!(two.beat("h", 2, &declared["digest"]).await.1["resync"], false);
    assert_eq!(two.beat("h", 1, &declared["digest"]).await.0, 409);
    assert_eq!(two.declare("h", 1, &["arith"]).await.0, 409);
    assert_eq!(two.send(Method::DELETE, "/v1/hosts/h?session=1", None).await.0, 409);
    assert_eq!(two.beat("nobody", 1, &json!("")).await.0, 404);
    let draining = json!({"session": 2, "state": "draining"});
    assert_eq!(two.send(Method::PUT, "/v1/hosts/h/state", Some(draining)).await.0, 200);
    let (status, newer) = two.declare("h", 3, &["arith"]).await;
    assert_eq!(status, 200, "a newer session serves again");
    // It fences out the older one wherever it is known; the index waits until it is.
    let index = newer["index"].as_str().unwrap();
    let path = format!("/v1/services/arith/endpoints?index={index}&wait=1ms");
    assert_eq!(one.get(&path).await.0, 304);
    assert_eq!(one.beat("h", 2, &declared["digest"]).await.0, 409);
    assert_eq!(one.get("/register?name=Db&addr=db:5432").await.0, 200);
    assert_eq!(two.get("/heartbeat?name=Db").await.0, 200);
    assert_eq!(two.get("/services").await.1["Db"]["Addr"], "db:5432");
    // Silent hosts are dropped everywhere, and by only one of the registries.
    eventually("the silent are gone", async || {
        let gone = one.hosts("arith").await.is_empty() && two.hosts("arith").await.is_empty();
        (gone && two.get("/services").await.1 == json!({})).then_some(())
    })
    .await
    .unwrap();
    let mut evictions = 0.0;
    for registry in [&one, &two] {
        evictions += registry.metric("wharf_registry_evictions_total").await.unwrap();
    }
    assert!((evictions - 2.0).abs() < 0.1, "{evictions}");
    assert_eq!(one.send(Method::DELETE, "/v1/hosts/h?session=3", None).await.0, 204);
}

#[tokio::test]
async fn an_outage_of_all_registries_erases_nobody() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let first = registry(&etcd, "127.0.0.1:0", "3s").await;
    let (_, declared) = first.declare("h", 1, &["arith"]).await;
    first.declare("silent", 1, &["arith"]).await;
    first.process.kill().await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let second = registry(&etcd, "127.0.0.1:0", "3s").await;
    assert_eq!(second.hosts("arith").await, ["h", "silent"]);
    let (_, list) = second.get("/v1/services/arith/endpoints").await;
    assert_eq!(list["endpoints"][0]["unverified"], true);
    eventually("only the silent one goes", async || {
        assert_eq!(second.beat("h", 1, &declared["digest"]).await.0, 200);
        (second.hosts("arith").await == ["h"]).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn hosts_and_clients_go_to_the_next_registry_when_theirs_is_gone() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let one = registry(&etcd, "127.0.0.1:0", "3s").await;
    let two = registry(&etcd, "127.0.0.1:0", "3s").await;
    let addresses = format!("{},{}", one.url, two.url);
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let folder = plugins.path().to_str().unwrap();
    let mut host = Process::start(&[
        "host",
        "--plugins",
        folder,
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &addresses,
        "--name",
        "h",
    ])
    .unwrap();
    host.announced("host").await.unwrap();
    eventually("the host is announced", async || (one.hosts("arith").await == ["h"]).then_some(()))
        .await
        .unwrap();
    let client = wharf_tests::client(&addresses).unwrap();
    let multiply = async |client: &wharf_client::Client| {
        client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await
    };
    assert_eq!(multiply(&client).await.unwrap(), 56);
    one.process.kill().await.unwrap();
    // For longer than its time to live, the host sends heartbeats to the other registry, and
    // clients find it there.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(two.hosts("arith").await, ["h"]);
        assert_eq!(multiply(&client).await.unwrap(), 56);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let new = wharf_tests::client(&addresses).unwrap();
    assert_eq!(multiply(&new).await.unwrap(), 56);
}

#[tokio::test]
async fn a_registry_waits_for_a_cluster_that_is_not_there_yet_and_says_so() {
    let Some(mut etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    etcd.members[0].process.take().unwrap().kill().await.unwrap();
    let (store, port) = (etcd.store(), free_port().unwrap().to_string());
    let listen = format!("127.0.0.1:{port}");
    let mut process =
        Process::start(&["registry", "--listen", &listen, "--store", &store]).unwrap();
    eventually("it says that it lives, and no more", async || {
        let health = wharf_tests::get(&format!("http://{listen}/healthz")).await.ok()?;
        let lists = wharf_tests::get(&format!("http://{listen}/v1/services")).await.ok()?;
        (health.0 == 200 && lists.0 == 503 && lists.1.contains("waits for its store")).then_some(())
    })
    .await
    .unwrap();
    etcd.start_member(0).unwrap();
    process.announced("registry").await.unwrap();
    assert_eq!(process.terminate().await.unwrap().0.code(), Some(0));
    for bad in ["etcd://", "etcd://nowhere", "etcds://a:b"] {
        let refused = wharf_tests::wharf(&["registry", "--store", bad]).await.unwrap();
        assert_eq!(refused.code, Some(1), "{bad}");
        assert!(refused.stderr.contains("write the cluster's members as"), "{}", refused.stderr);
    }
    let refused = wharf_tests::wharf(&["registry", "--store", "consul://a:1"]).await.unwrap();
    assert!(refused.stderr.contains("write a file, memory, or etcd://"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_registry_ends_when_its_cluster_has_become_an_earlier_one() {
    let Some(mut etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let registry = registry(&etcd, "127.0.0.1:0", "3s").await;
    for session in 1..10 {
        registry.declare("h", session, &["arith"]).await;
    }
    etcd.members[0].process.take().unwrap().kill().await.unwrap();
    assert_eq!(registry.hosts("arith").await, ["h"], "lists are answered without it");
    etcd.lose_data(0).unwrap();
    etcd.start_member(0).unwrap();
    let (status, log) = registry.process.ended().await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("restored from a backup"), "{log}");
}

#[tokio::test]
async fn what_was_compacted_while_a_registry_was_stopped_is_read_again() {
    let Some(mut etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let one = registry(&etcd, "127.0.0.1:0", "1h").await;
    let two = registry(&etcd, "127.0.0.1:0", "1h").await;
    for host in ["gone", "kept"] {
        assert_eq!(one.declare(host, 1, &["arith"]).await.0, 201);
    }
    let lists = async |hosts: &[&str]| {
        eventually("the other has it too", async || {
            (two.hosts("arith").await == hosts).then_some(())
        })
        .await
        .unwrap();
    };
    lists(&["gone", "kept"]).await;
    // Nothing of what follows can still reach it: it has no connection any more.
    two.process.signal("STOP").unwrap();
    etcd.members[0].process.take().unwrap().kill().await.unwrap();
    etcd.start_member(0).unwrap();
    eventually("the first is back", async || {
        let path = "/v1/hosts/gone?session=1";
        (one.send(Method::DELETE, path, None).await.0 == 204).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(one.declare("new", 1, &["arith"]).await.0, 201);
    let status = etcd.ask(&etcd.members[0], "maintenance/status", "{}").await.unwrap();
    let revision = status["header"]["revision"].as_str().unwrap();
    let compact = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
    etcd.ask(&etcd.members[0], "kv/compaction", &compact).await.unwrap();
    two.process.signal("CONT").unwrap();
    lists(&["kept", "new"]).await;
    let (_, log) = two.process.terminate().await.unwrap();
    assert!(log.contains("history was compacted"), "{log}");
}

/// Hosts that stay alive during the whole test.
const HOSTS: usize = 24;

/// The time to live under faults, in seconds.
const TTL: u64 = 9;

/// What the hosts were answered.
#[derive(Default)]
struct Told {
    /// The last acknowledged declaration of each.
    declared: Mutex<BTreeMap<String, Declaration>>,
    acknowledged: AtomicUsize,
    heartbeats: AtomicUsize,
    failed: AtomicUsize,
    /// Heartbeats that were answered with an unknown host.
    evicted: AtomicUsize,
}

fn declaration(round: u64) -> Declaration {
    let services = ["arith", "textkit"];
    let spec = |service: &&str| EndpointSpec {
        service: (*service).to_owned(),
        package: None,
        version: Some(format!("0.{round}.0")),
        fingerprint: "0".repeat(32),
        condition: Condition::Serving,
        reason: None,
        tags: Vec::new(),
        metadata: Metadata::new(),
    };
    Declaration {
        session: 1,
        address: "127.0.0.1:9".to_owned(),
        endpoints: services[..if round.is_multiple_of(2) { 1 } else { 2 }]
            .iter()
            .map(spec)
            .collect(),
        metadata: Metadata::new(),
    }
}

/// A live host. It sends heartbeats as often as it is told to, and declares something new every few
/// heartbeats.
async fn live(registries: String, name: String, told: Arc<Told>, stop: Arc<AtomicBool>) {
    let registry = RegistryClient::new(&registries).unwrap();
    let mut round = 0;
    let mut digest = None;
    let mut beats = 0;
    while !stop.load(Ordering::Relaxed) || digest.is_none() {
        let Some(known) = digest.clone().filter(|_| beats < 3) else {
            round += 1;
            let declaration = declaration(round);
            match registry.declare(&name, &declaration).await {
                Ok(declared) => {
                    told.acknowledged.fetch_add(1, Ordering::Relaxed);
                    told.declared.lock().unwrap().insert(name.clone(), declaration);
                    (digest, beats) = (Some(declared.digest), 0);
                }
                Err(error) => {
                    // The change may have been made. So the next one must be this one again.
                    assert!(error.problem().is_none_or(|p| p.status == 503), "{error}");
                    told.failed.fetch_add(1, Ordering::Relaxed);
                    digest = None;
                    round -= 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            continue;
        };
        tokio::time::sleep(Duration::from_millis(TTL * 1_000 / 3 / 4)).await;
        match registry.heartbeat(&name, &Heartbeat { session: 1, digest: known }).await {
            Ok(reply) => {
                assert!(!reply.resync, "{name}: what was acknowledged is not there");
                told.heartbeats.fetch_add(1, Ordering::Relaxed);
                beats += 1;
            }
            Err(error) => match error.problem() {
                Some(problem) if problem.code == Code::UnknownHost => {
                    told.evicted.fetch_add(1, Ordering::Relaxed);
                    digest = None;
                }
                problem => {
                    assert!(problem.is_none_or(|p| p.status == 503), "{error}");
                    told.failed.fetch_add(1, Ordering::Relaxed);
                }
            },
        }
    }
}

/// What a watcher has received, and up to which index.
type Held = Arc<Mutex<(BTreeMap<EndpointId, Endpoint>, Option<Index>)>>;

/// Watches until it is aborted, and comes back whenever it is cut off.
async fn watch(registries: String, held: Held) {
    let registry = RegistryClient::new(&registries).unwrap();
    let mut complete: Option<Index> = None;
    let mut consistent = BTreeMap::new();
    loop {
        let Ok(mut watch) = registry.watch(None, complete).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut endpoints: BTreeMap<EndpointId, Endpoint> = consistent.clone();
        while let Ok(Some(event)) = watch.next().await {
            match event {
                WatchEvent::Snapshot => endpoints.clear(),
                WatchEvent::Upsert(endpoint) => drop(endpoints.insert(endpoint.id(), *endpoint)),
                WatchEvent::Delete(id) => drop(endpoints.remove(&id)),
                WatchEvent::Bookmark(index) => {
                    let before = complete.replace(index);
                    assert!(
                        before.is_none_or(|before| before.number <= index.number),
                        "never older"
                    );
                    consistent.clone_from(&endpoints);
                    *held.lock().unwrap() = (endpoints.clone(), complete);
                }
                WatchEvent::Resync => {}
                WatchEvent::Goodbye => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn endpoints(url: &str) -> anyhow::Result<BTreeMap<EndpointId, Endpoint>> {
    let registry = RegistryClient::new(url)?;
    let mut all = BTreeMap::new();
    for service in ["arith", "textkit"] {
        let list = registry.endpoints(service, &ListOptions::default()).await?;
        for endpoint in list.into_iter().flat_map(|list| list.endpoints) {
            all.insert(endpoint.id(), Endpoint { unverified: false, ..endpoint });
        }
    }
    Ok(all)
}

/// Lets the traffic continue for this long after a fault, and prints how it went.
async fn go_on(told: &Told, seconds: u64, what: &str) {
    let before = told.heartbeats.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let heard = told.heartbeats.load(Ordering::Relaxed) - before;
    println!("{what}: {heard} heartbeats in {seconds} s after it");
    assert!(heard > 0, "{what}: nobody is heard any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nobody_evicted_whatever_of_registries_and_etcd_fails() {
    let Some(mut etcd) = EtcdCluster::start(3).await.unwrap() else { return };
    let listens: Vec<String> =
        (0..3).map(|_| format!("127.0.0.1:{}", free_port().unwrap())).collect();
    let ttl = format!("{TTL}s");
    let mut registries = Vec::new();
    for listen in &listens {
        registries.push(registry(&etcd, listen, &ttl).await);
    }
    let urls: Vec<String> = registries.iter().map(|registry| registry.url.clone()).collect();
    // Every client begins with another registry.
    let in_turn = |n: usize| [&urls[n % 3..], &urls[..n % 3]].concat().join(",");
    let (told, stop) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let hosts: Vec<JoinHandle<()>> = (0..HOSTS)
        .map(|n| tokio::spawn(live(in_turn(n), format!("h{n}"), told.clone(), stop.clone())))
        .collect();
    let watchers: Vec<(Held, JoinHandle<()>)> = (0..6)
        .map(|n| {
            let held = Held::default();
            (held.clone(), tokio::spawn(watch(in_turn(n), held)))
        })
        .collect();
    eventually("all hosts are there", async || {
        (told.declared.lock().unwrap().len() == HOSTS).then_some(())
    })
    .await
    .unwrap();

    registries.remove(0).process.kill().await.unwrap();
    go_on(&told, TTL + 3, "a registry is killed").await;
    registries.insert(0, registry(&etcd, &listens[0], &ttl).await);

    let leader = etcd.leader().await.unwrap();
    etcd.members[leader].process.take().unwrap().kill().await.unwrap();
    go_on(&told, TTL + 3, "etcd's leader is killed").await;
    etcd.start_member(leader).unwrap();

    let leader = etcd.leader().await.unwrap();
    for (n, what) in
        [(leader, "etcd's leader is stopped"), ((leader + 1) % 3, "a member is stopped")]
    {
        etcd.members[n].process.as_ref().unwrap().signal("STOP").unwrap();
        go_on(&told, TTL + 3, what).await;
        etcd.members[n].process.as_ref().unwrap().signal("CONT").unwrap();
    }

    // While a registry is stopped, the changes that it misses are compacted away.
    registries[1].process.signal("STOP").unwrap();
    go_on(&told, TTL + 3, "a registry is stopped").await;
    let revision = eventually("a member tells the revision", async || {
        let status = etcd.ask(&etcd.members[0], "maintenance/status", "{}").await.ok()?;
        Some(status["header"]["revision"].as_str()?.to_owned())
    })
    .await
    .unwrap();
    let compact = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
    etcd.ask(&etcd.members[0], "kv/compaction", &compact).await.unwrap();
    registries[1].process.signal("CONT").unwrap();
    go_on(&told, TTL, "history is compacted").await;

    stop.store(true, Ordering::Relaxed);
    for host in hosts {
        within("hosts end", host).await.unwrap().unwrap();
    }
    let [acknowledged, heartbeats, failed, evicted] =
        [&told.acknowledged, &told.heartbeats, &told.failed, &told.evicted]
            .map(|count| count.load(Ordering::Relaxed));
    println!(
        "{acknowledged} declarations and {heartbeats} heartbeats acknowledged, {failed} requests without an answer, {evicted} evicted"
    );
    assert_eq!(evicted, 0, "no live host is evicted");
    let expected: BTreeMap<EndpointId, Endpoint> = {
        let declared = told.declared.lock().unwrap();
        let endpoints = declared.iter().flat_map(|(host, declaration)| {
            declaration.endpoints.iter().map(|spec| Endpoint {
                spec: spec.clone(),
                host: host.clone(),
                address: declaration.address.clone(),
                state: wharf_registry_api::EndpointState::Serving,
                unverified: false,
            })
        });
        endpoints.map(|endpoint| (endpoint.id(), endpoint)).collect()
    };
    for url in &urls {
        eventually("every registry has every acknowledged declaration", async || {
            (endpoints(url).await.ok()? == expected).then_some(())
        })
        .await
        .unwrap();
    }
    for (held, task) in watchers {
        eventually("every watcher holds the list", async || {
            assert!(!task.is_finished(), "a watcher failed");
            (held.lock().unwrap().0 == expected).then_some(())
        })
        .await
        .unwrap();
        task.abort();
    }
}
