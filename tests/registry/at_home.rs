//! The registry with what its users already have: Prometheus, and clients of Consul.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use wharf_tests::{
    Process, RegistryProcess, Wharf, eventually, free_port, get_json, installed, plugin, within,
};

#[tokio::test]
async fn prometheus_finds_the_host_by_http_sd_and_scrapes_it() {
    let Some(program) = installed("prometheus", "Debian: prometheus") else { return };
    let arith = plugin("arith").unwrap();
    let wharf = Wharf::up(&[("arith.wasm", &arith)], &["--ttl", "3s", "--metadata", "zone=z1"])
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let text = format!(
        r#"
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: hosts
    http_sd_configs: [{{url: "{url}/v1/sd/prometheus", refresh_interval: 1s}}]
    relabel_configs:
      - {{source_labels: [__meta_wharf_host], target_label: host}}
      - {{source_labels: [__meta_wharf_metadata_zone], target_label: zone}}
  - job_name: endpoints
    http_sd_configs: [{{url: "{url}/v1/sd/prometheus?service=arith", refresh_interval: 1s}}]
    relabel_configs:
      - {{source_labels: [__meta_wharf_version], target_label: version}}
"#,
        url = wharf.registry
    );
    std::fs::write(&config, text).unwrap();
    let port = free_port().unwrap();
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Process::run(command).unwrap();
    let ask = async |path: &str| get_json(&format!("http://127.0.0.1:{port}/api/v1/{path}")).await;
    eventually("Prometheus scrapes the host that it was told of", async || {
        let answer = ask("query?query=up%7Bjob%3D%22hosts%22%7D").await.ok()?;
        let found = answer["data"]["result"].as_array()?.first()?.clone();
        let metric = &found["metric"];
        let labelled = metric["host"].is_string() && metric["zone"] == "z1";
        (found["value"][1] == "1" && labelled).then_some(())
    })
    .await
    .unwrap();
    let endpoints = async || {
        let answer = ask("targets?state=active").await.ok()?;
        let targets = answer["data"]["activeTargets"].as_array()?.iter().cloned();
        Some(targets.filter(|t| t["labels"]["job"] == "endpoints").collect::<Vec<Value>>())
    };
    let found = eventually("and knows where its service is called", async || {
        endpoints().await.filter(|found| !found.is_empty())
    })
    .await
    .unwrap();
    assert_eq!(found[0]["labels"]["instance"], wharf.host.as_str());
    assert_eq!(found[0]["labels"]["version"], "0.1.0");
    std::fs::remove_file(wharf.file("arith.wasm")).unwrap();
    eventually("it goes when the service goes", async || endpoints().await.filter(Vec::is_empty))
        .await
        .unwrap();
}

/// What py-consul reads from the registry. It fails if an answer is not as Consul's.
const PY_CONSUL: &str = r#"
import consul, sys, json
host, port = sys.argv[1].split(":")
client = consul.Consul(host=host, port=int(port))
index, services = client.catalog.services()
assert services == {"arith": ["blue", "fast"], "textkit": []}, services
assert client.agent.self()["Config"]["Datacenter"] == "dc1"
index, nodes = client.health.service("arith", passing=True, tag="blue")
assert [n["Service"]["Port"] for n in nodes] == [7400], nodes
index, none = client.health.service("textkit", passing=True)
assert none == [], none
_, there = client.catalog.service("arith")
assert there[0]["ServiceAddress"] == "10.0.0.7", there
_, node = client.catalog.node("box")
assert "box/textkit" in node["Services"], node
assert [n["Node"] for n in client.catalog.nodes()[1]] == ["box"]
assert client.catalog.datacenters() == ["dc1"]
assert client.status.leader()
again, _ = client.health.service("arith", index=index, wait="100ms")
assert int(again) >= int(index)
try:
    client.health.service("arith", near="elsewhere")
    sys.exit("near was passed over")
except consul.ConsulException:
    pass
print("well")
"#;

#[tokio::test]
async fn a_client_library_of_consul_is_at_home() {
    let known = Command::new("python3").args(["-c", "import consul"]).output().await;
    if !known.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "py-consul is not installed, and CI skips nothing"
        );
        eprintln!("skipped: py-consul is not installed (PyPI: pip install py-consul)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    declare(&registry).await;
    let mut command = Command::new("python3");
    command.args(["-c", PY_CONSUL, registry.address()]).kill_on_drop(true);
    let output = within("the script ends", command.output()).await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.starts_with(b"well"), "{complaint}");
}

async fn durable(folder: &tempfile::TempDir) -> RegistryProcess {
    let store = folder.path().join("registry.redb");
    RegistryProcess::start(&["--store", store.to_str().unwrap()]).await.unwrap()
}

async fn declare(registry: &RegistryProcess) {
    let body = json!({"session": 1, "address": "10.0.0.7:7400", "metadata": {"zone": "z1", "metrics": "10.0.0.7:7401"}, "endpoints": [
        {"service": "arith", "package": "demo:arith", "version": "0.1.0", "fingerprint": "0".repeat(32), "tags": ["blue", "fast"]},
        {"service": "textkit", "fingerprint": "0".repeat(32), "condition": "refused", "reason": "no memory"},
    ]});
    let (status, _) = registry.send(reqwest::Method::PUT, "/v1/hosts/box", Some(body)).await;
    assert!(status.is_success());
}

#[tokio::test]
async fn consuls_clients_are_answered_in_consuls_words() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    declare(&registry).await;
    let get = async |path: &str| {
        let (status, body) = registry.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    assert_eq!(get("/v1/agent/self").await["Config"]["Datacenter"], "dc1");
    assert_eq!(get("/v1/catalog/datacenters").await, json!(["dc1"]));
    assert_eq!(
        get("/v1/catalog/services").await,
        json!({"arith": ["blue", "fast"], "textkit": []})
    );
    let nodes = get("/v1/catalog/nodes?node-meta=zone:z1").await;
    assert_eq!((&nodes[0]["Node"], &nodes[0]["Address"]), (&json!("box"), &json!("10.0.0.7")));
    assert_eq!(get("/v1/catalog/nodes?node-meta=zone:z2").await, json!([]));
    let service = get("/v1/catalog/service/arith?tag=blue&tag=fast").await;
    for (field, value) in [
        ("Node", json!("box")),
        ("ServiceName", json!("arith")),
        ("ServicePort", json!(7400)),
        ("ServiceAddress", json!("10.0.0.7")),
        ("ServiceTags", json!(["blue", "fast"])),
        ("ServiceID", json!("box/demo:arith/arith@0.1.0")),
    ] {
        assert_eq!(service[0][field], value, "{field}");
    }
    assert_eq!(get("/v1/catalog/service/arith?tag=slow").await, json!([]));
    let health = get("/v1/health/service/textkit").await;
    assert_eq!(health[0]["Checks"][1]["Status"], "critical");
    assert_eq!(health[0]["Checks"][1]["Output"], "refused: no memory");
    assert_eq!(get("/v1/health/service/textkit?passing=1").await, json!([]));
    let health = get("/v1/health/service/arith?passing=1").await;
    assert_eq!(health[0]["Service"]["Meta"]["version"], "0.1.0");
    assert_eq!(health[0]["Node"]["Meta"]["zone"], "z1");
    assert_eq!(get("/v1/health/service/none").await, json!([]));
    let states = async |path: &str| -> Vec<(String, String)> {
        let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
        let checks = get(path).await;
        let all = checks.as_array().unwrap().iter();
        all.map(|check| (text(check, "CheckID"), text(check, "Status"))).collect()
    };
    let expected = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect()
    };
    let arith = ("service:box/demo:arith/arith@0.1.0", "passing");
    let textkit = ("service:box/textkit", "critical");
    let all = expected(&[("serfHealth", "passing"), arith, textkit]);
    assert_eq!(states("/v1/health/state/any?near=_agent").await, all);
    assert_eq!(states("/v1/health/node/box").await, all);
    assert_eq!(states("/v1/health/state/critical").await, expected(&[textkit]));
    assert_eq!(states("/v1/health/checks/arith").await, expected(&[arith]));
    assert_eq!(states("/v1/health/state/warning").await, []);
    assert_eq!(registry.get("/v1/health/state/odd").await.0, 400);
    let node = get("/v1/catalog/node/box").await;
    assert_eq!(node["Services"]["box/textkit"]["Service"], "textkit");
    assert_eq!(get("/v1/catalog/node/none").await, Value::Null);
    for path in [
        "/v1/health/service/arith?filter=x",
        "/v1/catalog/services?near=elsewhere",
        "/v1/catalog/nodes?dc=dc2",
    ] {
        let (status, problem) = registry.get(path).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("invalid")), "{path}");
        let detail = problem["detail"].as_str().unwrap();
        let says = ["does not support Consul's parameter", "there is no field x"];
        assert!(says.iter().any(|said| detail.contains(said)), "{problem}");
    }
}

/// The index and body of an answer to one of Consul's queries.
async fn blocking(registry: &RegistryProcess, path: &str) -> (u64, Value) {
    let response = registry.http.get(format!("{}{path}", registry.url)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["x-consul-knownleader"], "true");
    assert_eq!(response.headers()["x-consul-lastcontact"], "0");
    let index = response.headers()["x-consul-index"].to_str().unwrap().parse().unwrap();
    (index, response.json().await.unwrap())
}

#[tokio::test]
async fn consuls_blocking_queries_wait_for_their_own_service_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    let (absent, list) = blocking(&registry, "/v1/health/service/arith").await;
    assert!(absent >= 1 && list == json!([]));
    let waiting = format!("/v1/health/service/arith?index={absent}&wait=20s");
    let ((there, list), ()) = tokio::join!(blocking(&registry, &waiting), async {
        registry.declare("other", 1, &["something-else"]).await;
        let short = format!("/v1/health/service/arith?index={absent}&wait=50ms");
        let (same, _) = blocking(&registry, &short).await;
        assert_eq!(same, absent, "another service's change wakes nobody");
        declare(&registry).await;
    });
    assert!(there > absent);
    assert_eq!(list[0]["Service"]["ID"], "box/demo:arith/arith@0.1.0");
    // A client that continues with its index after a restart does not wait in vain.
    registry.process.kill().await.unwrap();
    let registry = durable(&folder).await;
    let path = format!("/v1/health/service/arith?index={there}&wait=5m");
    let answer = tokio::time::timeout(Duration::from_secs(60), blocking(&registry, &path));
    let (again, list) = answer.await.expect("answered at once");
    assert!(again > there, "an index never goes back");
    assert_eq!(list[0]["Service"]["Port"], 7400);
    // Nor does it find nobody: hosts have their time to be heard again.
    let (_, list) = blocking(&registry, "/v1/health/service/arith?passing=1").await;
    assert_eq!(list[0]["Service"]["Port"], 7400);
}

#[tokio::test]
async fn http_sd_lists_hosts_with_their_metrics_and_services_with_their_endpoints() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    assert_eq!(registry.get("/v1/sd/prometheus").await.1, json!([]));
    declare(&registry).await;
    let (_, targets) = registry.get("/v1/sd/prometheus").await;
    assert_eq!(targets[0]["targets"], json!(["10.0.0.7:7401"]));
    let labels = &targets[0]["labels"];
    assert_eq!(labels["__meta_wharf_services"], ",arith,textkit,");
    assert_eq!(labels["__meta_wharf_metadata_zone"], "z1");
    assert!(labels.as_object().unwrap().values().all(Value::is_string));
    let (_, targets) = registry.get("/v1/sd/prometheus?service=Arith").await;
    assert_eq!(targets[0]["targets"], json!(["10.0.0.7:7400"]));
    assert_eq!(targets[0]["labels"]["__meta_wharf_tags"], ",blue,fast,");
}

#[tokio::test]
async fn a_registry_without_a_memory_gives_nobody_an_empty_list_that_they_would_believe() {
    let registry = RegistryProcess::start(&["--ttl", "3s"]).await.unwrap();
    for path in ["/v1/sd/prometheus", "/v1/catalog/services", "/v1/health/service/arith"] {
        let (status, problem) = registry.get(path).await;
        assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("warming")), "{path}");
    }
    eventually("it has been up for long enough", async || {
        (registry.get("/v1/sd/prometheus").await.0 == 200).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn when_most_of_a_fleet_dies_consuls_readers_are_told_that_it_may_be_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--ttl", "2s", "--store", store.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    for host in 0..40 {
        registry.declare(&format!("h{host}"), 1, &["arith"]).await;
    }
    let passing = "/v1/health/service/arith?passing=1";
    let (index, list) = blocking(&registry, passing).await;
    assert_eq!(list.as_array().unwrap().len(), 40);
    // A reader that waits is told, although nobody was dropped or has changed.
    let (mut at, mut left) = (index, 40);
    eventually("nobody passes", async || {
        let (next, list) = blocking(&registry, &format!("{passing}&index={at}&wait=10s")).await;
        assert!(next >= at);
        (at, left) = (next, list.as_array().unwrap().len());
        (left == 0).then_some(())
    })
    .await
    .unwrap();
    let (_, list) = blocking(&registry, "/v1/health/service/arith").await;
    let listed = list.as_array().unwrap();
    assert!(listed.len() > 25, "{} are still registered", listed.len());
    assert_eq!(listed[0]["Checks"][0]["Status"], "warning");
    assert_eq!(listed[0]["Checks"][1]["Output"], "serving, but not heard lately");
    // Whoever comes back passes again.
    let (_, waiting) = blocking(&registry, passing).await;
    assert_eq!(waiting, json!([]));
    let host = listed[listed.len() - 1]["Node"]["Node"].as_str().unwrap();
    registry.declare(host, 1, &["arith"]).await;
    let (_, list) = blocking(&registry, &format!("{passing}&index={at}&wait=10s")).await;
    assert_eq!(list[0]["Node"]["Node"], host);
}
