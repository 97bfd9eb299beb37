//! Acknowledged changes survive whatever happens to the process. Damaged contents are not served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use wharf_tests::{Process, RegistryProcess, declaration, eventually};

/// How often the process is killed.
const KILLS: u64 = 100;

/// The sessions that a host may have; `None` stands for no host. That is the last acknowledged one
/// and, if its answer did not come, the one that was requested after it.
type Possible = Arc<Mutex<BTreeMap<String, Vec<Option<u64>>>>>;

/// Declares one host again and again in newer and newer sessions, and sometimes withdraws it, until
/// the registry is gone. Returns how many changes were acknowledged.
async fn write(
    registry: Arc<RegistryProcess>,
    host: String,
    mut session: u64,
    possible: Possible,
) -> u64 {
    let mut acknowledged = 0;
    let mut before = possible.lock().unwrap().get(&host).and_then(|known| known[0]);
    loop {
        let withdraw = before.is_some() && acknowledged % 7 == 6;
        let next = if withdraw { None } else { Some(session + 1) };
        possible.lock().unwrap().insert(host.clone(), vec![before, next]);
        let path = format!("/v1/hosts/{host}");
        let answer = if withdraw {
            let path = format!("{path}?session={session}");
            registry.try_send(Method::DELETE, &path, None).await
        } else {
            session += 1;
            let services =
                if session.is_multiple_of(2) { &["arith"][..] } else { &["arith", "textkit"] };
            registry.try_send(Method::PUT, &path, Some(declaration(session, services))).await
        };
        let Ok((status, _)) = answer else { return acknowledged };
        assert!(status.is_success(), "{status}");
        possible.lock().unwrap().insert(host.clone(), vec![next]);
        before = next;
        acknowledged += 1;
    }
}

#[tokio::test]
async fn every_acknowledged_change_survives_a_hundred_kills() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--ttl", "1h", "--store", store.to_str().unwrap()];
    let possible = Possible::default();
    let (mut acknowledged, mut in_doubt) = (0, 0);
    for kill in 0..KILLS {
        let registry = Arc::new(RegistryProcess::start(&arguments).await.unwrap());
        let expected = possible.lock().unwrap().clone();
        for (host, sessions) in expected {
            // Session 0 is always refused: by the newer session that owns the host, or because
            // there is no host.
            let (status, answer) = registry.beat(&host, 0, &json!("")).await;
            let found = (status == 409).then(|| answer["session"].as_u64().unwrap());
            assert!(
                sessions.contains(&found),
                "kill {kill}: {host} is {found:?}, not {sessions:?}"
            );
            in_doubt += u64::from(sessions.len() > 1);
            possible.lock().unwrap().insert(host, vec![found]);
        }
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (possible, session) = (possible.clone(), (kill + 1) * 1_000_000);
                tokio::spawn(write(registry.clone(), format!("h{n}"), session, possible))
            })
            .collect();
        // At another moment each time.
        tokio::time::sleep(Duration::from_millis(10 + kill * 13 % 60)).await;
        registry.process.signal("KILL").unwrap();
        for writer in writers {
            acknowledged += writer.await.unwrap();
        }
        // Its connections are gone before its files are.
        let registry = Arc::into_inner(registry).expect("no writer has it any more");
        registry.process.ended().await.unwrap();
    }
    println!("{KILLS} kills: {acknowledged} acknowledged changes, {in_doubt} cut off; none lost");
    assert!(acknowledged > 5 * KILLS && in_doubt > KILLS, "{acknowledged}, {in_doubt}");
}

#[tokio::test]
async fn a_damaged_store_is_said_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--store", store.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    registry.declare("h", 1, &["arith"]).await;
    registry.process.kill().await.unwrap();
    let whole = std::fs::read(&store).unwrap();
    let torn = &whole[..whole.len() / 2];
    std::fs::write(&store, torn).unwrap();
    let all = ["registry", "--listen", "127.0.0.1:0", arguments[0], arguments[1]];
    let (status, log) = Process::start(&all).unwrap().ended().await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("is damaged") && log.contains("nothing of it is served"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(
        std::fs::read(&store).unwrap().len(),
        torn.len(),
        "what is damaged is left as it is"
    );
}

#[tokio::test]
async fn two_registries_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--store", store.to_str().unwrap()];
    let _first = RegistryProcess::start(&arguments).await.unwrap();
    let all = ["registry", "--listen", "127.0.0.1:0", arguments[0], arguments[1]];
    let (status, log) = Process::start(&all).unwrap().ended().await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("in use by another process"), "{log}");
}

#[tokio::test]
async fn a_registry_waits_for_a_predecessor_that_is_ending() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--store", store.to_str().unwrap()];
    let predecessor = RegistryProcess::start(&arguments).await.unwrap();
    predecessor.declare("h", 1, &["arith"]).await;
    let all = ["registry", "--listen", "127.0.0.1:0", arguments[0], arguments[1]];
    let mut successor = Process::start(&all).unwrap();
    successor.logged("another process has the store open").await.unwrap();
    predecessor.process.kill().await.unwrap();
    successor.announced("registry").await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_deleted_or_replaced_while_it_is_used_is_written_anew_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("state");
    std::fs::create_dir(&inner).unwrap();
    let store = inner.join("registry.redb");
    let arguments = ["--ttl", "1h", "--store", store.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    registry.declare("h1", 1, &["arith"]).await;
    std::fs::remove_dir_all(&inner).unwrap();
    registry.process.logged("deleted or replaced while the registry uses it").await.unwrap();
    // Without any change, it is there again.
    eventually("it is written anew", async || store.exists().then_some(())).await.unwrap();
    std::fs::remove_file(&store).unwrap();
    registry.declare("h2", 1, &["arith"]).await;
    std::fs::write(inner.join("other"), "something else").unwrap();
    std::fs::rename(inner.join("other"), &store).unwrap();
    registry.declare("h3", 1, &["arith"]).await;
    registry.process.kill().await.unwrap();
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    assert_eq!(registry.hosts("arith").await, ["h1", "h2", "h3"]);
    // Where it cannot be written anew, changes are refused and it is said.
    std::fs::remove_dir_all(&inner).unwrap();
    std::fs::write(&inner, "in the way").unwrap();
    eventually("it is not ready", async || {
        let (status, why) = registry.get("/readyz").await;
        (status == 503 && why.as_str()?.contains("does not take changes")).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.declare("h4", 1, &["arith"]).await.0, 503);
    assert_eq!(registry.hosts("arith").await.len(), 3, "lists are still served");
    std::fs::remove_file(&inner).unwrap();
    eventually("it is ready again", async || {
        (registry.get("/readyz").await.0 == 200).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.declare("h4", 1, &["arith"]).await.0, 201);
    registry.process.kill().await.unwrap();
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    assert_eq!(registry.hosts("arith").await, ["h1", "h2", "h3", "h4"]);
}
