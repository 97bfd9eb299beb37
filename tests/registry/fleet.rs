//! Many hosts at once: restarts, partitions, and which hosts are dropped.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use wharf_tests::{RegistryProcess, declaration, eventually, wharf};

/// Requests in flight at once.
const PARALLEL: usize = 32;

/// What is sent for each host.
#[derive(Clone, Copy)]
enum Ask {
    Declare,
    Beat,
}

/// Sends the same request for many hosts, many at a time. The hosts all serve `arith` in session 1.
async fn each(registry: &Arc<RegistryProcess>, hosts: Range<usize>, ask: Ask) {
    let next = Arc::new(AtomicUsize::new(hosts.start));
    let mut workers = JoinSet::new();
    for _ in 0..PARALLEL {
        let (registry, next, end) = (registry.clone(), next.clone(), hosts.end);
        workers.spawn(async move {
            loop {
                let host = next.fetch_add(1, Ordering::Relaxed);
                if host >= end {
                    return;
                }
                let path = format!("/v1/hosts/h{host}");
                let (status, answer) = match ask {
                    Ask::Declare => {
                        let body = declaration(1, &["arith"]);
                        registry.send(reqwest::Method::PUT, &path, Some(body)).await
                    }
                    Ask::Beat => {
                        let body = json!({"session": 1, "digest": digest()});
                        let path = format!("{path}/heartbeat");
                        registry.send(reqwest::Method::POST, &path, Some(body)).await
                    }
                };
                assert!(status.is_success(), "h{host}: {status} {answer}");
                assert_ne!(answer["resync"], true, "h{host}: {answer}");
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
}

/// The digest of what every host declares here. The registry computes it, and it depends only on
/// the content.
fn digest() -> &'static str {
    static DIGEST: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    DIGEST.get_or_init(|| {
        let content = declaration(1, &["arith"]);
        let spec: Vec<wharf_registry_api::EndpointSpec> =
            serde_json::from_value(content["endpoints"].clone()).unwrap();
        let text = serde_json::to_vec(&("127.0.0.1:9", spec, json!({}))).unwrap();
        blake3::hash(&text).to_hex()[..32].to_owned()
    })
}

async fn listed(registry: &RegistryProcess) -> Vec<Value> {
    let (_, list) = registry.get("/v1/services/arith/endpoints").await;
    list["endpoints"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn after_a_restart_ten_thousand_hosts_are_served_and_only_the_silent_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--ttl", "12s", "--store", store.to_str().unwrap()];
    let registry = Arc::new(RegistryProcess::start(&arguments).await.unwrap());
    each(&registry, 0..10_000, Ask::Declare).await;
    Arc::into_inner(registry).unwrap().process.kill().await.unwrap();
    // Longer than any host may be silent.
    tokio::time::sleep(Duration::from_secs(13)).await;

    let registry = Arc::new(RegistryProcess::start(&arguments).await.unwrap());
    let up = Instant::now();
    let endpoints = listed(&registry).await;
    assert_eq!(endpoints.len(), 10_000, "all are served");
    assert!(endpoints.iter().all(|endpoint| endpoint["unverified"] == true), "as unverified");
    each(&registry, 100..10_000, Ask::Beat).await;
    println!("9,900 heartbeats after a restart: {:?}", up.elapsed());
    let gone = async {
        eventually("the silent ones go", async || {
            let silent = |endpoint: &Value| {
                endpoint["host"].as_str().unwrap()[1..].parse::<usize>().unwrap() < 100
            };
            (!listed(&registry).await.iter().any(silent)).then_some(())
        })
        .await
        .unwrap();
    };
    let alive = async {
        loop {
            each(&registry, 100..10_000, Ask::Beat).await;
        }
    };
    tokio::select! {
        () = gone => {}
        () = alive => unreachable!(),
    }
    let left: BTreeSet<String> = listed(&registry)
        .await
        .iter()
        .map(|endpoint| endpoint["host"].as_str().unwrap().to_owned())
        .collect();
    let expected: BTreeSet<String> = (100..10_000).map(|n| format!("h{n}")).collect();
    assert!(left == expected, "{} are left", left.len());
    assert_eq!(registry.metric("wharf_registry_evictions_total").await, Some(100.0));
}

#[tokio::test]
async fn when_all_hosts_fall_silent_a_tenth_goes_in_a_ttl_and_the_rest_is_said_to_be_unverified() {
    // The first host must not fall silent before all are declared, even if many other tests run at
    // the same time.
    let ttl = Duration::from_secs(36);
    let registry = Arc::new(RegistryProcess::start(&["--ttl", "36s"]).await.unwrap());
    let begun = Instant::now();
    each(&registry, 0..1_000, Ask::Declare).await;
    assert!(begun.elapsed() < ttl, "too slow to tell anything: {:?}", begun.elapsed());
    eventually("the silence shows", async || {
        let silent = registry.metric("wharf_registry_registered{what=\"silent\"}").await;
        let dropped = registry.metric("wharf_registry_evictions_total").await;
        (silent == Some(900.0) && dropped == Some(100.0)).then_some(())
    })
    .await
    .unwrap();
    let endpoints = listed(&registry).await;
    assert_eq!(endpoints.len(), 900);
    assert!(endpoints.iter().all(|endpoint| endpoint["unverified"] == true));
    let (_, services) = registry.get("/v1/services").await;
    assert_eq!(services["services"][0]["unverified"], 900);
    let text = wharf(&["services", "--registry", &registry.url]).await.unwrap().stdout;
    assert!(text.contains("serving, not heard lately"), "{text}");
    // The network recovers for most of them before the next tenth is dropped.
    let hosts: Vec<usize> = endpoints
        .iter()
        .map(|endpoint| endpoint["host"].as_str().unwrap()[1..].parse().unwrap())
        .collect();
    for host in &hosts[..200] {
        each(&registry, *host..host + 1, Ask::Beat).await;
    }
    let endpoints = listed(&registry).await;
    assert_eq!(endpoints.iter().filter(|e| e["unverified"] == true).count(), 700);
    assert_eq!(registry.metric("wharf_registry_evictions_total").await, Some(100.0));
}

#[tokio::test]
async fn when_one_host_in_twenty_falls_silent_it_is_gone_within_the_ttl_and_a_sweep() {
    let ttl = Duration::from_secs(6);
    let registry = Arc::new(RegistryProcess::start(&["--ttl", "6s"]).await.unwrap());
    each(&registry, 0..50, Ask::Declare).await;
    let silent_since = Instant::now();
    each(&registry, 50..1_000, Ask::Declare).await;
    let gone = async {
        eventually("the silent ones go", async || {
            (listed(&registry).await.len() <= 950).then(|| silent_since.elapsed())
        })
        .await
        .unwrap()
    };
    let alive = async {
        loop {
            each(&registry, 50..1_000, Ask::Beat).await;
        }
    };
    let took = tokio::select! {
        took = gone => took,
        () = alive => unreachable!(),
    };
    println!("50 of 1,000 silent: gone {took:?} after the last was heard, with a ttl of {ttl:?}");
    let left = listed(&registry).await;
    assert_eq!(left.len(), 950);
    assert!(left.iter().all(|e| e["host"].as_str().unwrap()[1..].parse::<usize>().unwrap() >= 50));
    // The limit is generous, because machines are busy. It only shows that no other limit delays
    // it.
    assert!(took < 2 * ttl, "{took:?}");
}
