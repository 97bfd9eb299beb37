//! Hosts and the registry as processes that start, stop and die.

use std::time::Duration;

use tempfile::TempDir;
use wharf_client::{Client, Failure};
use wharf_registry_api::{Endpoint, EndpointState, ListOptions, RegistryClient};
use wharf_tests::{Args, Load, Process, arith_that, eventually, hostile, plugin};

pub(crate) struct Registry {
    pub(crate) process: Process,
    pub(crate) url: String,
}

pub(crate) async fn registry(arguments: &[&str]) -> Registry {
    registry_at("127.0.0.1:0", arguments).await
}

async fn registry_at(address: &str, arguments: &[&str]) -> Registry {
    let base = ["registry", "--listen", address];
    let mut process = Process::start(&[&base, arguments].concat()).unwrap();
    let url = process.announced("registry").await.unwrap();
    Registry { process, url }
}

pub(crate) struct Host {
    pub(crate) process: Process,
    pub(crate) address: String,
    /// The URL of its HTTP side.
    pub(crate) http: String,
    _plugins: TempDir,
}

pub(crate) async fn host(registry: &str, name: &str, wasm: &[u8], arguments: &[&str]) -> Host {
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("plugin.wasm"), wasm).unwrap();
    let folder = plugins.path().to_str().unwrap();
    let base = ["host", "--plugins", folder, "--registry", registry, "--name", name];
    let mut process =
        Process::start(&[&base[..], &["--listen", "127.0.0.1:0"], arguments].concat()).unwrap();
    let address = process.announced("host").await.unwrap();
    let http = process.announced("http").await.unwrap();
    Host { process, address, http, _plugins: plugins }
}

pub(crate) async fn endpoints(registry: &str, service: &str) -> Vec<Endpoint> {
    let registry = RegistryClient::new(registry).unwrap();
    let listed = registry.endpoints(service, &ListOptions::default()).await;
    listed.ok().flatten().map(|list| list.endpoints).unwrap_or_default()
}

pub(crate) async fn number_of_endpoints(registry: &str, service: &str, count: usize) {
    let what = format!("{count} endpoints of {service}");
    let compiled = |endpoint: &&Endpoint| endpoint.state != EndpointState::Compiling;
    eventually(&what, async || {
        let listed = endpoints(registry, service).await;
        (listed.iter().filter(compiled).count() == count).then_some(())
    })
    .await
    .unwrap();
}

async fn multiply(client: &Client) -> Result<i64, wharf_client::RpcError> {
    client.call("arith.multiply", &Args { a: 7, b: 8 }).await
}

#[tokio::test]
async fn a_killed_host_is_evicted_after_its_ttl_and_calls_go_on_at_the_other() {
    let registry = registry(&["--ttl", "1s"]).await;
    let arith = plugin("arith").unwrap();
    let one = host(&registry.url, "one", &arith, &[]).await;
    let two = host(&registry.url, "two", &arith, &[]).await;
    number_of_endpoints(&registry.url, "arith", 2).await;
    let client = wharf_tests::client(&registry.url).unwrap();
    for _ in 0..4 {
        assert_eq!(multiply(&client).await.unwrap(), 56);
    }
    one.process.kill().await.unwrap();
    // From now on, calls go to the living endpoint instead of the dead one. Only a call that was in
    // flight when the process died could fail, and there was none.
    for _ in 0..20 {
        assert_eq!(multiply(&client).await.unwrap(), 56);
    }
    number_of_endpoints(&registry.url, "arith", 1).await;
    let left = endpoints(&registry.url, "arith").await;
    assert_eq!(left[0].address, two.address);
    assert_eq!(left[0].host, "two");
    assert_eq!(multiply(&client).await.unwrap(), 56);
    let (_, log) = registry.process.terminate().await.unwrap();
    assert!(log.contains("dropped a host that fell silent"), "{log}");
}

#[tokio::test]
async fn hosts_come_back_by_themselves_when_the_registry_is_restarted() {
    let first = registry(&["--ttl", "5s"]).await;
    let host = host(&first.url, "one", &plugin("arith").unwrap(), &[]).await;
    number_of_endpoints(&first.url, "arith", 1).await;
    let client = wharf_tests::client(&first.url).unwrap();
    assert_eq!(multiply(&client).await.unwrap(), 56);
    let address = first.url.trim_start_matches("http://").to_owned();
    first.process.kill().await.unwrap();
    // Meanwhile, the host still serves, and the client knows its address.
    assert_eq!(multiply(&client).await.unwrap(), 56);
    let second = registry_at(&address, &["--ttl", "5s"]).await;
    assert_eq!(second.url, first.url);
    // The new registry lists no endpoints yet. The client does not conclude that the service is
    // gone.
    assert_eq!(multiply(&client).await.unwrap(), 56);
    number_of_endpoints(&second.url, "arith", 1).await;
    assert_eq!(endpoints(&second.url, "arith").await[0].address, host.address);
    assert_eq!(multiply(&client).await.unwrap(), 56);
}

#[tokio::test]
async fn a_host_that_starts_before_its_registry_serves_and_announces_later() {
    // This port is free now, and most likely still free when the registry starts on it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let url = format!("http://{address}");
    let host = host(&url, "early", &plugin("arith").unwrap(), &[]).await;
    let direct = Client::builder().direct(&host.address);
    eventually("the host serves alone", async || multiply(&direct).await.ok()).await.unwrap();
    let registry = registry_at(&address, &[]).await;
    number_of_endpoints(&registry.url, "arith", 1).await;
}

#[tokio::test]
async fn sigterm_drains_calls_in_flight_finish_and_the_registry_forgets_the_host() {
    let registry = registry(&[]).await;
    let host = host(&registry.url, "one", &hostile().unwrap(), &["--call-timeout", "1500ms"]).await;
    number_of_endpoints(&registry.url, "hostile", 1).await;
    let client = Client::builder().direct(&host.address);
    assert_eq!(client.call::<_, u32>("hostile.count", &()).await.unwrap(), 1);
    let in_flight = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, ()>("hostile.spin", &()).await }
    });
    // Once a second call gets another instance, the first call is in flight.
    eventually("the call is in flight", async || {
        let count = client.call::<_, u32>("hostile.count", &()).await.unwrap();
        (count == 1).then_some(())
    })
    .await
    .unwrap();
    host.process.signal("TERM").unwrap();
    eventually("the registry knows that it drains, or has forgotten it", async || {
        let listed = endpoints(&registry.url, "hostile").await;
        listed.iter().all(|endpoint| endpoint.state == EndpointState::Draining).then_some(())
    })
    .await
    .unwrap();
    // The call in flight ran until its own deadline, and was answered.
    let error = in_flight.await.unwrap().unwrap_err();
    assert!(matches!(&error.failure, Failure::Remote(_)), "{error:?}");
    let (status, log) = host.process.ended().await.unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("withdrawn from the registry"), "{log}");
    assert!(endpoints(&registry.url, "hostile").await.is_empty());
    let refused = client.call::<_, u32>("hostile.count", &()).await.unwrap_err();
    assert!(!refused.failure.may_have_executed(), "{refused:?}");
}

#[tokio::test]
async fn a_hangup_ends_no_host_and_calls_that_do_not_finish_are_counted() {
    let registry = registry(&[]).await;
    let flags = ["--drain-timeout", "200ms", "--call-timeout", "1h"];
    let host = host(&registry.url, "one", &hostile().unwrap(), &flags).await;
    number_of_endpoints(&registry.url, "hostile", 1).await;
    let client = Client::builder().timeout(Duration::from_secs(3600)).direct(&host.address);
    client.call::<_, u32>("hostile.count", &()).await.unwrap();
    let spinning: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>("hostile.spin", &()).await })
        })
        .collect();
    let metrics = format!("{}/metrics", host.http);
    eventually("three calls run", async || {
        let (_, text) = wharf_tests::get(&metrics).await.unwrap();
        let value = |series: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{series}{{")))?;
            line.rsplit(' ').next()?.parse::<u32>().ok()
        };
        (value("wharf_instances")? - value("wharf_instances_idle")? >= 3).then_some(())
    })
    .await
    .unwrap();
    host.process.signal("HUP").unwrap();
    host.process.logged("no principals and no certificates to read again").await.unwrap();
    client.call::<_, u32>("hostile.count", &()).await.unwrap();
    let (status, log) = host.process.terminate().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(log.contains("calls did not finish within the drain timeout"), "{log}");
    assert!(log.contains("\"connections\":1"), "{log}");
    for call in spinning {
        call.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let registry = registry(&[]).await;
    let host = host(
        &registry.url,
        "one",
        &hostile().unwrap(),
        &["--drain-timeout", "1h", "--call-timeout", "1h"],
    )
    .await;
    number_of_endpoints(&registry.url, "hostile", 1).await;
    let client = Client::builder().timeout(Duration::from_secs(3600)).direct(&host.address);
    client.call::<_, u32>("hostile.count", &()).await.unwrap();
    let _spinning = tokio::spawn(async move { client.call::<_, ()>("hostile.spin", &()).await });
    host.process.signal("TERM").unwrap();
    eventually("it drains", async || {
        let listed = endpoints(&registry.url, "hostile").await;
        listed.iter().all(|endpoint| endpoint.state == EndpointState::Draining).then_some(())
    })
    .await
    .unwrap();
    host.process.signal("TERM").unwrap();
    host.process.ended().await.unwrap();
}

#[tokio::test]
async fn a_newer_process_of_a_name_fences_the_older_one_out() {
    let registry = registry(&["--ttl", "1s"]).await;
    let old = host(&registry.url, "same", &plugin("arith").unwrap(), &[]).await;
    number_of_endpoints(&registry.url, "arith", 1).await;
    let new = host(&registry.url, "same", &arith_that("(i64.const 1)").unwrap(), &[]).await;
    eventually("the new one is announced", async || {
        let listed = endpoints(&registry.url, "arith").await;
        (listed.len() == 1 && listed[0].address == new.address).then_some(())
    })
    .await
    .unwrap();
    // The late withdrawal of the old process must not remove the endpoints of the new one.
    let (status, log) = old.process.terminate().await.unwrap();
    assert!(status.success());
    assert!(
        log.contains("another process announces itself under this host's name")
            || log.contains("not withdrawn"),
        "{log}"
    );
    assert_eq!(endpoints(&registry.url, "arith").await.len(), 1);
}

#[tokio::test]
async fn the_address_that_is_named_is_announced_and_one_that_leads_nowhere_is_refused() {
    let registry = registry(&[]).await;
    let arguments = ["--advertise", "wharf.example:4321"];
    let _host = host(&registry.url, "one", &plugin("arith").unwrap(), &arguments).await;
    number_of_endpoints(&registry.url, "arith", 1).await;
    assert_eq!(endpoints(&registry.url, "arith").await[0].address, "wharf.example:4321");
    for arguments in [
        &["host", "--listen", "0.0.0.0:0"][..],
        &["up", "--listen", "0.0.0.0:0"],
        &["host", "--listen", "127.0.0.1:0", "--advertise", "0.0.0.0:7400"],
    ] {
        let finished = wharf_tests::wharf(arguments).await.unwrap();
        assert_eq!(finished.code, Some(1), "{arguments:?}");
        assert!(finished.stderr.contains("with --advertise HOST:PORT"), "{}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarting_one_of_two_hosts_under_load_loses_no_call() {
    let registry = registry(&[]).await;
    let arith = plugin("arith").unwrap();
    let mut one = host(&registry.url, "one", &arith, &[]).await;
    let _two = host(&registry.url, "two", &arith, &[]).await;
    number_of_endpoints(&registry.url, "arith", 2).await;
    let client = wharf_tests::client(&registry.url).unwrap();
    let load = Load::start(&client, 16);
    let went_on = async || {
        let before = load.calls();
        eventually("calls go on", async || (load.calls() > before + 500).then_some(()))
            .await
            .unwrap();
    };
    for _ in 0..3 {
        went_on().await;
        let (status, log) = one.process.terminate().await.unwrap();
        assert!(status.success(), "{log}");
        went_on().await;
        number_of_endpoints(&registry.url, "arith", 1).await;
        one = host(&registry.url, "one", &arith, &[]).await;
        number_of_endpoints(&registry.url, "arith", 2).await;
    }
    went_on().await;
    let report = load.stop().await;
    assert_eq!(report.failures, Vec::<String>::new());
}

#[tokio::test]
async fn a_graceful_restart_of_the_only_host_fails_no_idempotent_call_that_can_wait() {
    let registry = registry(&[]).await;
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let listen = format!("127.0.0.1:{}", wharf_tests::free_port().unwrap());
    let start = async || {
        let folder = plugins.path().to_str().unwrap();
        let arguments =
            ["host", "--plugins", folder, "--registry", &registry.url, "--listen", &listen];
        let mut process = Process::start(&arguments).unwrap();
        process.announced("host").await.unwrap();
        process
    };
    let mut process = start().await;
    number_of_endpoints(&registry.url, "arith", 1).await;
    let client = wharf_client::Client::builder().without_lists().timeout(Duration::from_secs(60));
    let client = client.idempotent("arith.multiply").unwrap().registry(&registry.url).unwrap();
    let direct = wharf_client::Client::builder().timeout(Duration::from_secs(60));
    let direct = direct.idempotent("arith.multiply").unwrap().direct(&listen);
    let answered = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let callers: Vec<_> = [client, direct]
        .iter()
        .flat_map(|client| (0..8).map(|_| client.clone()))
        .map(|client| {
            let answered = answered.clone();
            tokio::spawn(async move {
                loop {
                    let product: i64 =
                        client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
                    assert_eq!(product, 56);
                    answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    let goes_on = async || {
        let before = answered.load(std::sync::atomic::Ordering::Relaxed);
        eventually("calls are answered, or one has failed", async || {
            let now = answered.load(std::sync::atomic::Ordering::Relaxed);
            let has_failed = callers.iter().any(tokio::task::JoinHandle::is_finished);
            (now > before + 2000 || has_failed).then_some(())
        })
        .await
        .unwrap();
    };
    goes_on().await;
    for _ in 0..3 {
        process.terminate().await.unwrap();
        process = start().await;
        goes_on().await;
    }
    for caller in callers {
        assert!(!caller.is_finished(), "{:?}", caller.await);
        caller.abort();
    }
}

#[tokio::test]
async fn a_call_that_waits_for_ready_is_answered_by_a_host_that_comes_later() {
    let registry = registry(&[]).await;
    let client = Client::builder().without_lists().registry(&registry.url).unwrap();
    let options = wharf_client::CallOptions {
        wait_for_ready: true,
        timeout: Some(Duration::from_secs(60)),
        ..Default::default()
    };
    // Without the option it fails at once, and so does an idempotent one: there was no endpoint yet.
    let at_once = wharf_client::CallOptions { idempotent: true, ..Default::default() };
    for options in [wharf_client::CallOptions::default(), at_once] {
        let call = client.call_with::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }, options);
        let error = call.await.unwrap_err();
        assert!(matches!(error.failure, Failure::NoEndpoint { .. }), "{error}");
    }
    let waiting = tokio::spawn(async move {
        client.call_with::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }, options).await
    });
    let _host = host(&registry.url, "late", &plugin("arith").unwrap(), &[]).await;
    let product = wharf_tests::within("an answer", waiting).await.unwrap().unwrap();
    assert_eq!(product.unwrap(), 56);
}
