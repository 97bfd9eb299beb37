//! Which hosts are dropped, and when. Delays of the registry itself never count.

use std::time::{Duration, Instant};

use serde_json::json;
use wharf_tests::{Process, RegistryProcess, eventually, installed, plugin};

/// Where Debian puts libfaketime.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[tokio::test]
async fn an_hour_more_or_less_on_the_wall_clock_evicts_nobody() {
    if installed("faketime", "Debian: faketime").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let environment = [
        ("LD_PRELOAD", FAKETIME),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let registry =
        RegistryProcess::start_with("127.0.0.1:0", &["--ttl", "3s"], &environment).await.unwrap();
    let (_, declared) = registry.declare("h", 1, &["arith"]).await;
    let time =
        async || registry.get("/services").await.1["Arith"]["Time"].as_str().unwrap().to_owned();
    let before = time().await;
    for (moved, hours) in [("+3600s", 1), ("-3600s", -1)] {
        std::fs::write(&clock, moved).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            assert_eq!(registry.beat("h", 1, &declared["digest"]).await.0, 200);
            assert_eq!(registry.hosts("arith").await, ["h"]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The clock that the process sees was really moved.
        let hour = |text: &str| text[11..13].parse::<i32>().unwrap();
        let difference = (hour(&time().await) - hour(&before)).rem_euclid(24);
        let expected = i32::rem_euclid(hours, 24);
        assert!(difference == expected || difference == expected + 1, "{difference}");
    }
    assert_eq!(registry.metric("wharf_registry_evictions_total").await, Some(0.0));
}

#[tokio::test]
async fn after_the_registry_was_stopped_nobody_is_dropped_before_another_ttl() {
    let ttl = Duration::from_secs(3);
    let registry = RegistryProcess::start(&["--ttl", "3s"]).await.unwrap();
    registry.declare("h", 1, &["arith"]).await;
    registry.process.signal("STOP").unwrap();
    tokio::time::sleep(2 * ttl).await;
    let continued = Instant::now();
    registry.process.signal("CONT").unwrap();
    eventually("it is dropped in the end", async || {
        registry.hosts("arith").await.is_empty().then_some(())
    })
    .await
    .unwrap();
    let lived = continued.elapsed();
    assert!(lived >= ttl, "dropped {lived:?} after the registry came back");
    let (_, log) = registry.process.terminate().await.unwrap();
    assert!(log.contains("every host gets a full time to live again"), "{log}");
}

#[tokio::test]
async fn a_host_that_was_stopped_is_evicted_once_and_declares_itself_again() {
    let registry = RegistryProcess::start(&["--ttl", "1s"]).await.unwrap();
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let folder = plugins.path().to_str().unwrap();
    let mut host = Process::start(&[
        "host",
        "--plugins",
        folder,
        "--registry",
        &registry.url,
        "--name",
        "h",
        "--listen",
        "127.0.0.1:0",
    ])
    .unwrap();
    host.announced("host").await.unwrap();
    let there = async |count: usize| {
        eventually("the host is there, or not", async || {
            (registry.hosts("arith").await.len() == count).then_some(())
        })
        .await
        .unwrap();
    };
    there(1).await;
    host.signal("STOP").unwrap();
    let stopped = Instant::now();
    there(0).await;
    while stopped.elapsed() < Duration::from_secs(2) {
        assert!(registry.hosts("arith").await.is_empty());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    host.signal("CONT").unwrap();
    there(1).await;
    assert_eq!(registry.metric("wharf_registry_evictions_total").await, Some(1.0));
    let late = "wharf_registry_requests_total{path=\"/v1/hosts/{host}/heartbeat\",status=\"404\"}";
    assert_eq!(registry.metric(late).await, Some(1.0), "its late heartbeat");
    let (_, log) = host.terminate().await.unwrap();
    assert!(log.contains("declaring it again"), "{log}");
}

#[tokio::test]
async fn an_old_session_neither_withdraws_nor_drains_its_successor() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    registry.declare("h", 2, &["arith"]).await;
    registry.declare("h", 3, &["arith"]).await;
    let delete = registry.send(reqwest::Method::DELETE, "/v1/hosts/h?session=2", None).await;
    assert_eq!((delete.0.as_u16(), &delete.1["code"]), (409, &json!("superseded")));
    let drain = json!({"session": 2, "state": "draining"});
    let drain = registry.send(reqwest::Method::PUT, "/v1/hosts/h/state", Some(drain)).await;
    assert_eq!(drain.0, 409);
    let (_, list) = registry.get("/v1/services/arith/endpoints?passing=1").await;
    assert_eq!(list["endpoints"].as_array().unwrap().len(), 1);
}
