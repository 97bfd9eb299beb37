//! Registries of several versions over one etcd cluster, one that refuses changes, and who is elected.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use wharf_tests::{EtcdCluster, RegistryProcess, eventually};

async fn registry(etcd: &EtcdCluster, ttl: &str) -> RegistryProcess {
    let store = etcd.store();
    RegistryProcess::start(&["--ttl", ttl, "--store", &store]).await.unwrap()
}

async fn put(etcd: &EtcdCluster, key: &str, value: &str) -> Value {
    let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
    let body = json!({"key": key, "value": value}).to_string();
    etcd.ask(&etcd.members[0], "kv/put", &body).await.unwrap()
}

async fn get(etcd: &EtcdCluster, key: &str) -> Value {
    let body = json!({"key": STANDARD.encode(key)}).to_string();
    let answer = etcd.ask(&etcd.members[0], "kv/range", &body).await.unwrap();
    let value = answer["kvs"][0]["value"].as_str().unwrap();
    serde_json::from_slice(&STANDARD.decode(value).unwrap()).unwrap()
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_served_and_kept_and_what_cannot_be_read_is_named() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let registry = registry(&etcd, "60s").await;
    let (status, _) = registry.declare("h", 1, &["arith"]).await;
    assert_eq!(status, 201);
    // A newer registry writes more of it.
    let mut record = get(&etcd, "/wharf/v1/spec/host/h").await;
    record["weight"] = json!(3);
    record["endpoints"][0]["zones"] = json!(["z1"]);
    record["address"] = json!("newer:1");
    put(&etcd, "/wharf/v1/spec/host/h", &record.to_string()).await;
    eventually("the change is served", async || {
        let (_, list) = registry.get("/v1/services/arith/endpoints").await;
        (list["endpoints"][0]["address"] == "newer:1").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.get("/readyz").await.0, 200);
    // This one writes it again, and leaves nothing out.
    let draining = json!({"session": 1, "state": "draining"});
    assert_eq!(registry.send(Method::PUT, "/v1/hosts/h/state", Some(draining)).await.0, 200);
    let kept = get(&etcd, "/wharf/v1/spec/host/h").await;
    assert_eq!((&kept["weight"], &kept["state"]), (&json!(3), &json!("draining")));
    assert_eq!(kept["endpoints"][0]["zones"], json!(["z1"]));
    // What it cannot read makes it unready, by name, also after a restart, and until it is gone.
    put(&etcd, "/wharf/v1/spec/host/odd", r#"{"session":1,"state":"levitating"}"#).await;
    let unready = async |registry: &RegistryProcess| {
        eventually("it says what it cannot read", async || {
            let (status, text) = registry.get("/readyz").await;
            (status == 503 && text.as_str()?.contains("the first one is 'odd'")).then_some(())
        })
        .await
        .unwrap();
    };
    unready(&registry).await;
    unready(&self::registry(&etcd, "60s").await).await;
    let key = json!({"key": STANDARD.encode("/wharf/v1/spec/host/odd")}).to_string();
    etcd.ask(&etcd.members[0], "kv/deleterange", &key).await.unwrap();
    eventually("it is ready again", async || {
        (registry.get("/readyz").await.0 == 200).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cluster_that_takes_no_changes_is_noticed_within_seconds_and_lists_go_on() {
    let quota = ["--quota-backend-bytes", "2000000"];
    let Some(etcd) = EtcdCluster::start_with(1, "http", &quota).await.unwrap() else { return };
    let registry = registry(&etcd, "60s").await;
    registry.declare("h", 1, &["arith"]).await;
    let large = "x".repeat(400_000);
    eventually("etcd has no space left", async || {
        for number in 0..8 {
            let answer = put(&etcd, &format!("/other/{number}"), &large).await;
            if answer.to_string().contains("space exceeded") {
                return Some(());
            }
        }
        None
    })
    .await
    .unwrap();
    eventually("it says why it is not ready", async || {
        let (status, text) = registry.get("/readyz").await;
        (status == 503 && text.as_str()?.contains("space exceeded")).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.hosts("arith").await, ["h"]);
    let (status, problem) = registry.declare("i", 1, &["arith"]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("store-unavailable")));
}

#[tokio::test]
async fn a_registry_that_ends_in_good_order_hands_the_election_over_at_once() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let first = registry(&etcd, "60s").await;
    first.process.logged("drops silent hosts from now on").await.unwrap();
    let second = registry(&etcd, "60s").await;
    let begun = std::time::Instant::now();
    first.process.terminate().await.unwrap();
    second.process.logged("drops silent hosts from now on").await.unwrap();
    println!("handed over after {:?}", begun.elapsed());
    // The election lasts for ten seconds after one that crashed, and others look every two.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    // It was not a look that found it: the key says who gave it up.
    let written = json!({"key": STANDARD.encode("/wharf/v1/handover")}).to_string();
    let answer = etcd.ask(&etcd.members[0], "kv/range", &written).await.unwrap();
    assert_eq!(answer["count"], "1", "{answer}");
}
