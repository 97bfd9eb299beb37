//! The real Traefik, which finds backends in the registry as if that were Consul.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use wharf_tests::{Process, RegistryProcess, eventually, free_port, tool};

/// A backend that registers itself by the classic calls, and beats.
struct Backend {
    address: SocketAddr,
    beating: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Backend {
    async fn start(registry: &str, name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(move || async move { name }));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        let beating = Arc::new(AtomicBool::new(true));
        let client = wharf_tests::http_client().unwrap();
        let call = |what: &str| format!("{registry}/{what}?name=Web&addr={address}");
        assert_eq!(client.get(call("register")).send().await.unwrap().status(), 200);
        let (beat, goes_on) = (call("heartbeat"), beating.clone());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            while goes_on.load(Ordering::Relaxed) {
                ticks.tick().await;
                let _ = client.get(&beat).send().await;
            }
        });
        Backend { address, beating, serving }
    }

    /// It is gone, as after a crash: nothing listens, and nobody beats.
    fn kill(&self) {
        self.beating.store(false, Ordering::Relaxed);
        self.serving.abort();
    }
}

#[tokio::test]
async fn traefik_notices_backends_that_come_and_go_and_sends_nobody_to_one_that_was_dropped() {
    let Some(traefik) = tool("python/bin/traefik").unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--ttl", "2s", "--store", store.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    let one = Backend::start(&registry.url, "one").await;
    let entry = free_port().unwrap();
    let mut command = Command::new(traefik);
    command.current_dir(folder.path()).args([
        // It asks nobody but the registry.
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        &format!("--entrypoints.web.address=127.0.0.1:{entry}"),
        &format!("--providers.consulcatalog.endpoint.address={}", registry.address()),
        "--providers.consulcatalog.watch=true",
        "--providers.consulcatalog.defaultrule=PathPrefix(`/`)",
    ]);
    let _traefik = Process::run(command).unwrap();
    let client = wharf_tests::http_client().unwrap();
    let url = format!("http://127.0.0.1:{entry}/");
    // Who answers, of so many requests; none if one of them fails.
    let answers = async || {
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let response = client.get(&url).send().await.ok()?;
            if response.status() != 200 {
                return None;
            }
            names.insert(response.text().await.ok()?);
        }
        Some(names.into_iter().collect::<Vec<_>>().join(" "))
    };
    let sees = async |expected: &str| {
        eventually(&format!("{expected} answers"), async || {
            (answers().await? == expected).then_some(())
        })
        .await
        .unwrap();
    };
    sees("one").await;
    let two = Backend::start(&registry.url, "two").await;
    sees("one two").await;
    one.kill();
    let listed = async || {
        let (_, list) = registry.get("/v1/services/web/endpoints").await;
        list["endpoints"].as_array().unwrap().len()
    };
    eventually("the registry drops it", async || (listed().await == 1).then_some(()))
        .await
        .unwrap();
    sees("two").await;
    for round in 0..20 {
        assert_eq!(answers().await.as_deref(), Some("two"), "{round}");
    }
    // One that comes back is there again.
    let three = Backend::start(&registry.url, "three").await;
    assert_ne!(three.address, one.address);
    sees("three two").await;
    drop(two);
}
