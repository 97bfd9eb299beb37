//! Consul's writing side: services that register themselves, report how they are, are checked and leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode as Answered;
use axum::routing::get;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use wharf_tests::{EtcdCluster, RegistryProcess, eventually, free_port};

async fn put(registry: &RegistryProcess, path: &str, body: Value) -> (StatusCode, Value) {
    registry.send(Method::PUT, path, Some(body)).await
}

/// A change without a body, which has to be taken.
async fn tell(registry: &RegistryProcess, path: &str) {
    let (status, answer) = registry.send(Method::PUT, path, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
}

async fn register(registry: &RegistryProcess, body: Value) {
    let (status, answer) = put(registry, "/v1/agent/service/register", body).await;
    assert_eq!((status.as_u16(), &answer), (200, &json!("")));
}

/// The checks of a service's only endpoint, but for its node's: ID, status, output.
async fn checks(registry: &RegistryProcess, service: &str) -> Vec<[String; 3]> {
    let (_, list) = registry.get(&format!("/v1/health/service/{service}")).await;
    let checks = list[0]["Checks"].as_array().cloned().unwrap_or_default();
    let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
    let of_service = checks.iter().filter(|check| check["CheckID"] != "serfHealth");
    of_service
        .map(|check| ["CheckID", "Status", "Output"].map(|field| text(check, field)))
        .collect()
}

async fn passing(registry: &RegistryProcess, service: &str) -> usize {
    let (_, list) = registry.get(&format!("/v1/health/service/{service}?passing=1")).await;
    list.as_array().unwrap().len()
}

/// State and reason of the endpoints in the registry's own list.
async fn states(registry: &RegistryProcess, service: &str) -> Vec<(String, String)> {
    let (_, list) = registry.get(&format!("/v1/services/{service}/endpoints")).await;
    let text = |endpoint: &Value, field: &str| endpoint[field].as_str().unwrap_or("").to_owned();
    let endpoints = list["endpoints"].as_array().cloned().unwrap();
    endpoints.iter().map(|e| (text(e, "state"), text(e, "reason"))).collect()
}

fn pair(state: &str, reason: &str) -> Vec<(String, String)> {
    vec![(state.to_owned(), reason.to_owned())]
}

/// A registry that lists at once what it has.
async fn durable(folder: &tempfile::TempDir) -> RegistryProcess {
    let store = folder.path().join("registry.redb");
    let arguments = ["--shortest-deregister", "1s", "--store", store.to_str().unwrap()];
    RegistryProcess::start(&arguments).await.unwrap()
}

fn web(check: &Value) -> Value {
    json!({"ID": "web-1", "Name": "my_web", "Address": "127.0.0.1", "Port": 8080,
           "Tags": ["blue"], "Meta": {"zone": "z1"}, "Check": check})
}

#[tokio::test]
async fn a_service_registers_passes_warns_fails_rests_and_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    register(&registry, web(&json!({"TTL": "60s"}))).await;
    let (_, list) = registry.get("/v1/health/service/my_web").await;
    let service = &list[0]["Service"];
    assert_eq!((&service["ID"], &service["Service"]), (&json!("web-1"), &json!("my_web")));
    assert_eq!((&service["Port"], &service["Meta"]), (&json!(8080), &json!({"zone": "z1"})));
    assert_eq!(registry.get("/v1/catalog/services").await.1, json!({"my_web": ["blue"]}));
    let id = "service:web-1";
    let one = |status: &str, output: &str| vec![[id, status, output].map(str::to_owned)];
    assert_eq!(checks(&registry, "my_web").await, one("critical", "not checked yet"));
    assert_eq!(passing(&registry, "my_web").await, 0);
    assert_eq!(states(&registry, "my-web").await[0].0, "failing");
    tell(&registry, "/v1/agent/check/pass/service:web-1?note=all+is+well").await;
    assert_eq!(checks(&registry, "my_web").await, one("passing", "all is well"));
    assert_eq!(passing(&registry, "my_web").await, 1);
    assert_eq!(states(&registry, "my-web").await, pair("serving", ""));
    tell(&registry, "/v1/agent/check/warn/service:web-1?note=slow").await;
    assert_eq!(passing(&registry, "my_web").await, 0);
    assert_eq!(states(&registry, "my-web").await, pair("serving", ""));
    tell(&registry, "/v1/agent/check/fail/service:web-1?note=no+disk").await;
    let reason = "Service 'my_web' check: no disk";
    assert_eq!(states(&registry, "my-web").await, pair("failing", reason));
    let update = json!({"Status": "passing", "Output": "again"});
    assert_eq!(put(&registry, "/v1/agent/check/update/service:web-1", update).await.0, 200);
    assert_eq!(checks(&registry, "my_web").await, one("passing", "again"));
    tell(&registry, "/v1/agent/service/maintenance/web-1?enable=true&reason=a+new+disk").await;
    assert_eq!(states(&registry, "my-web").await, pair("draining", "maintenance: a new disk"));
    let maintained = checks(&registry, "my_web").await;
    assert_eq!(maintained[1][..], ["_service_maintenance:web-1", "critical", "a new disk"]);
    tell(&registry, "/v1/agent/service/maintenance/web-1?enable=false").await;
    assert_eq!(passing(&registry, "my_web").await, 1);
    let (_, known) = registry.get("/v1/agent/services").await;
    assert_eq!(known["web-1"]["Tags"], json!(["blue"]));
    let (_, known) = registry.get("/v1/agent/checks").await;
    assert_eq!(known[id]["Type"], "ttl");
    assert_eq!(registry.get("/v1/agent/service/web-1").await.1["Service"], "my_web");
    tell(&registry, "/v1/agent/service/deregister/web-1").await;
    assert_eq!(states(&registry, "my-web").await, []);
    for (path, text) in [
        ("/v1/agent/check/pass/service:web-1", "Unknown check ID \"service:web-1\""),
        ("/v1/agent/service/deregister/web-1", "Unknown service ID \"web-1\""),
    ] {
        let (status, problem) = registry.send(Method::PUT, path, None).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 404 && detail.starts_with(text), "{status} {detail}");
    }
}

#[tokio::test]
async fn a_check_that_nobody_reports_is_critical_and_its_service_is_dropped_only_if_it_asked() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    let drops = json!({"TTL": "1s", "Status": "passing", "DeregisterCriticalServiceAfter": "2s"});
    register(&registry, web(&drops)).await;
    let stays =
        json!({"ID": "db", "Name": "db", "Port": 1, "Check": {"TTL": "1s", "Status": "passing"}});
    register(&registry, stays).await;
    assert_eq!((passing(&registry, "my_web").await, passing(&registry, "db").await), (1, 1));
    // Reports keep it alive for longer than its time to live.
    let began = std::time::Instant::now();
    eventually("three times to live", async || {
        tell(&registry, "/v1/agent/check/pass/service:db").await;
        assert_eq!(passing(&registry, "db").await, 1);
        (began.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await
    .unwrap();
    eventually("nobody reports it", async || {
        (states(&registry, "my-web").await.is_empty()).then_some(())
    })
    .await
    .unwrap();
    eventually("it is critical", async || {
        let reason = "Service 'db' check: not reported for 1s";
        (states(&registry, "db").await == pair("failing", reason)).then_some(())
    })
    .await
    .unwrap();
    tell(&registry, "/v1/agent/check/pass/service:db").await;
    assert_eq!(passing(&registry, "db").await, 1);
}

/// A backend that can be sick.
struct Backend {
    port: u16,
    well: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Backend {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let well = Arc::new(AtomicBool::new(true));
        let is_well = well.clone();
        let health = async move || match is_well.load(Ordering::Relaxed) {
            true => Answered::OK,
            false => Answered::SERVICE_UNAVAILABLE,
        };
        let router = Router::new().route("/health", get(health));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Backend { port, well, serving }
    }
}

async fn sees(registry: &RegistryProcess, service: &str, state: &str, reason: &str) {
    eventually(&format!("{service} is {state}"), async || {
        let now = states(registry, service).await;
        (now.first()?.0 == state && now[0].1.contains(reason)).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_registry_checks_what_cannot_report_itself() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    let backend = Backend::start(0).await;
    let port = backend.port;
    // As Spring registers: the check is of the same machine, by HTTP.
    let by_http = json!({"HTTP": format!("http://localhost:{port}/health"), "Interval": "1s"});
    let by_tcp = json!({"TCP": format!("127.0.0.1:{port}"), "Interval": "1s", "Timeout": "1s"});
    let service = |name: &str, check: &Value| json!({"Name": name, "Address": "127.0.0.1", "Port": port, "Check": check});
    register(&registry, service("by-http", &by_http)).await;
    register(&registry, service("by-tcp", &by_tcp)).await;
    let classic = format!("/register?name=Classic&addr=127.0.0.1:{port}&check=http:/health");
    assert_eq!(registry.get(&classic).await.0, 200);
    for service in ["by-http", "by-tcp", "classic"] {
        sees(&registry, service, "serving", "").await;
    }
    backend.well.store(false, Ordering::Relaxed);
    sees(&registry, "by-http", "failing", "/health: 503 Service Unavailable").await;
    assert_eq!(states(&registry, "by-tcp").await, pair("serving", ""));
    backend.well.store(true, Ordering::Relaxed);
    sees(&registry, "by-http", "serving", "").await;
    backend.serving.abort();
    sees(&registry, "by-http", "failing", "onnect").await;
    sees(&registry, "by-tcp", "failing", "refused").await;
    // What is there again serves again: it was not dropped.
    let backend = Backend::start(port).await;
    for service in ["by-http", "by-tcp"] {
        sees(&registry, service, "serving", "").await;
    }
    let again = json!({"HTTP": format!("http://127.0.0.1:{port}/health"), "Interval": "1s",
                       "DeregisterCriticalServiceAfter": "1s"});
    register(&registry, service("by-http", &again)).await;
    backend.serving.abort();
    eventually("it is dropped, as it asked", async || {
        states(&registry, "by-http").await.is_empty().then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_service_that_comes_again_at_another_port_replaces_itself_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    let at = |address: &str, port: u16| json!({"ID": "web-1", "Name": "web", "Address": address, "Port": port});
    for (address, port) in [("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.1", 2)] {
        register(&registry, at(address, port)).await;
    }
    let addresses = async || {
        let (_, list) = registry.get("/v1/services/web/endpoints").await;
        let endpoints = list["endpoints"].as_array().cloned().unwrap();
        endpoints.iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(addresses().await, ["10.0.0.1:2", "10.0.0.2:1"]);
    // Without a check it stays, and passes.
    assert_eq!(passing(&registry, "web").await, 2);
    // Which one is meant is not known to a caller from elsewhere.
    let (status, problem) =
        registry.send(Method::PUT, "/v1/agent/service/deregister/web-1", None).await;
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!(status, 409, "{detail}");
    assert!(detail.contains("10.0.0.1:2 and 10.0.0.2:1"), "{detail}");
    let node = json!({"Node": "web@10.0.0.2:1", "ServiceID": "web-1"});
    assert_eq!(put(&registry, "/v1/catalog/deregister", node).await.1, json!(true));
    assert_eq!(addresses().await, ["10.0.0.1:2"]);
    tell(&registry, "/v1/agent/service/deregister/web-1").await;
    assert!(addresses().await.is_empty());
}

#[tokio::test]
async fn what_was_registered_stands_as_it_stood_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    register(&registry, web(&json!({"TTL": "1h"}))).await;
    tell(&registry, "/v1/agent/check/warn/service:web-1?note=slow").await;
    register(&registry, json!({"Name": "db", "Address": "10.0.0.1", "Port": 1})).await;
    tell(&registry, "/v1/agent/service/maintenance/db?enable=true&reason=moving").await;
    let shown = async |registry: &RegistryProcess| {
        (checks(registry, "my_web").await, checks(registry, "db").await)
    };
    let before = shown(&registry).await;
    assert_eq!(before.1[0][2], "moving");
    registry.process.kill().await.unwrap();
    let registry = durable(&folder).await;
    assert_eq!(shown(&registry).await, before);
    let (_, list) = registry.get("/v1/health/service/my_web").await;
    assert_eq!(list[0]["Checks"][0]["Status"], "passing", "nobody is doubted for the restart");
    tell(&registry, "/v1/agent/check/pass/service:web-1").await;
    assert_eq!(passing(&registry, "my_web").await, 1);
}

#[tokio::test]
async fn watchers_wake_for_each_change_of_a_check_and_indices_say_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    register(&registry, web(&json!({"TTL": "1h", "Status": "passing"}))).await;
    register(&registry, json!({"Name": "db", "Address": "10.0.0.1", "Port": 1})).await;
    let ask = async |path: &str| -> (u64, Value) {
        let response = registry.http.get(format!("{}{path}", registry.url)).send().await.unwrap();
        let index = response.headers()["x-consul-index"].to_str().unwrap().parse().unwrap();
        (index, response.json().await.unwrap())
    };
    let (index, list) = ask("/v1/health/service/my_web").await;
    let (node_index, _) = ask("/v1/catalog/node/my_web@127.0.0.1:8080").await;
    let made = list[0]["Service"]["CreateIndex"].as_u64().unwrap();
    assert_eq!(list[0]["Service"]["ModifyIndex"], made);
    assert!(made > 1 && made <= index && node_index <= index);
    let waiting = format!("/v1/health/service/my_web?index={index}&wait=30s");
    let of_node = format!("/v1/catalog/node/my_web@127.0.0.1:8080?index={node_index}&wait=30s");
    let began = std::time::Instant::now();
    let ((now, list), (of_node, _), ()) = tokio::join!(ask(&waiting), ask(&of_node), async {
        // Neither a change of another service, nor a report of what is known already.
        tell(&registry, "/v1/agent/service/maintenance/db?enable=true").await;
        tell(&registry, "/v1/agent/check/pass/service:web-1?note=not+checked+yet").await;
        for path in [&waiting, &of_node] {
            let short = path.replace("wait=30s", "wait=50ms");
            assert!(ask(&short).await.0 <= index, "{path}");
        }
        tell(&registry, "/v1/agent/check/warn/service:web-1?note=slow").await;
    });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(now > index && of_node > node_index);
    assert_eq!(list[0]["Checks"][1]["Status"], "warning");
    assert_eq!(list[0]["Service"]["CreateIndex"], made);
    assert_eq!(list[0]["Service"]["ModifyIndex"], now);
}

#[tokio::test]
async fn lists_are_filtered_as_consul_would() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    for (port, zone) in [(1, "z1"), (2, "z2")] {
        let body = json!({"ID": format!("web-{port}"), "Name": "web", "Address": "10.0.0.1",
                          "Port": port, "Tags": [zone], "Meta": {"zone": zone}});
        register(&registry, body).await;
    }
    let ports = async |path: &str, filter: &str, field: &str| -> Vec<Value> {
        let url = format!("{}{path}", registry.url);
        let answer = registry.http.get(url).query(&[("filter", filter)]).send().await.unwrap();
        let list: Value = answer.json().await.unwrap();
        let entries = list
            .as_array()
            .cloned()
            .unwrap_or_else(|| list.as_object().unwrap().values().cloned().collect());
        entries.iter().map(|entry| entry.pointer(field).unwrap().clone()).collect()
    };
    let health = "/v1/health/service/web";
    assert_eq!(ports(health, r#"Service.Meta.zone == "z2""#, "/Service/Port").await, [2]);
    let service = "/v1/catalog/service/web";
    assert_eq!(ports(service, r#""z1" in ServiceTags"#, "/ServicePort").await, [1]);
    assert_eq!(ports("/v1/agent/services", "Port == 2", "/Port").await, [2]);
    let node = r#"Node matches "10.0.0.1:1$""#;
    assert_eq!(ports("/v1/catalog/nodes", node, "/Node").await, ["web@10.0.0.1:1"]);
    let check = "/v1/health/state/any";
    assert_eq!(ports(check, r#"CheckID != "serfHealth""#, "/CheckID").await, [] as [Value; 0]);
    let (status, problem) = registry.get(&format!("{health}?filter=Service.Colour==1")).await;
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!(status, 400);
    assert!(
        detail.contains("no field Service.Colour") && detail.contains("Service.Port"),
        "{detail}"
    );
}

#[tokio::test]
async fn services_of_others_are_kept_in_the_catalog_with_what_was_said_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    for (id, port) in [("search", 80), ("mail", 25)] {
        let body = json!({"Node": "rack-7", "Address": "10.0.0.7",
            "Service": {"ID": id, "Service": id, "Port": port},
            "Check": {"Node": "rack-7", "CheckID": format!("service:{id}"), "Status": "passing",
                      "Output": "seen by a monitor", "ServiceID": id}});
        assert_eq!(
            put(&registry, "/v1/catalog/register", body).await,
            (StatusCode::OK, json!(true))
        );
    }
    let (_, node) = registry.get("/v1/catalog/node/rack-7").await;
    assert_eq!(node["Node"]["Address"], "10.0.0.7");
    assert_eq!(node["Services"]["mail"]["Port"], 25);
    assert_eq!(node["Services"].as_object().unwrap().len(), 2);
    assert_eq!(registry.get("/v1/catalog/nodes").await.1.as_array().unwrap().len(), 1);
    let (_, checks) = registry.get("/v1/health/node/rack-7").await;
    assert_eq!(checks[1]["Output"], "seen by a monitor");
    assert_eq!(passing(&registry, "search").await, 1);
    let all = json!({"Node": "rack-7"});
    assert_eq!(put(&registry, "/v1/catalog/deregister", all).await.0, 200);
    assert_eq!(registry.get("/v1/catalog/services").await.1, json!({}));
    assert_eq!(registry.get("/v1/catalog/node/rack-7").await.1, Value::Null);
}

#[tokio::test]
async fn what_consul_has_and_the_registry_has_not_is_said_in_one_sentence() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    for (path, what) in [
        ("/v1/kv/config/app", "keys and values"),
        ("/v1/session/create", "sessions and locks"),
        ("/v1/event/fire/x", "events"),
        ("/v1/query", "prepared queries"),
        ("/v1/connect/intentions", "a service mesh"),
        ("/v1/acl/tokens", "file of principals"),
        ("/v1/snapshot", "wharf registry backup"),
    ] {
        let (status, problem) = registry.get(path).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!((status.as_u16(), &problem["code"]), (501, &json!("not-offered")), "{path}");
        assert!(detail.contains(what), "{detail}");
    }
}

#[tokio::test]
async fn a_principal_registers_and_reports_only_under_its_own_names() {
    let folder = tempfile::tempdir().unwrap();
    let (file, store) = (folder.path().join("principals.toml"), folder.path().join("store.redb"));
    let principals = r#"
        [[principal]]
        name = "web"
        secret = "web-secret-0123456789"
        scopes = ["read", "write"]
        hosts = ["web*"]

        [[principal]]
        name = "db"
        secret = "db-secret-0123456789"
        scopes = ["write"]
        hosts = ["db"]
    "#;
    std::fs::write(&file, principals).unwrap();
    let arguments = ["--principals", file.to_str().unwrap(), "--store", store.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    let ask = async |secret: &str, method: Method, path: &str, body: Option<Value>| {
        // As python-consul sends it: in the query.
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{mark}token={secret}-secret-0123456789");
        registry.send(method, &path, body).await.0.as_u16()
    };
    let service = |id: &str, name: &str| json!({"ID": id, "Name": name, "Address": "10.0.0.1", "Port": 1, "Check": {"TTL": "60s"}});
    let to = "/v1/agent/service/register";
    assert_eq!(ask("web", Method::PUT, to, Some(service("1", "web-a"))).await, 200);
    assert_eq!(ask("web", Method::PUT, to, Some(service("1", "db"))).await, 403);
    // Each has IDs of its own: nobody is kept out by another's, and nobody's is taken.
    assert_eq!(ask("db", Method::PUT, to, Some(service("1", "db"))).await, 200);
    for secret in ["web", "db"] {
        assert_eq!(ask(secret, Method::PUT, "/v1/agent/check/pass/service:1", None).await, 200);
    }
    assert_eq!(ask("db", Method::PUT, "/v1/agent/service/deregister/1", None).await, 200);
    assert_eq!(ask("web", Method::PUT, "/v1/agent/check/warn/service:1", None).await, 200);
    // A node is written by whoever may write its name, and checked for whoever is on it.
    let on_node = |node: &str| json!({"Node": node, "Address": "10.0.0.1", "Service": {"Service": "web-b", "Port": 2}});
    let catalog = "/v1/catalog/register";
    assert_eq!(ask("web", Method::PUT, catalog, Some(on_node("db"))).await, 403);
    assert_eq!(ask("web", Method::PUT, catalog, Some(on_node("web-node"))).await, 200);
    let spying = json!({"Name": "web-spy", "Address": "10.0.0.1", "Port": 22,
                        "Check": {"TCP": "10.0.0.1:22", "Interval": "1s"}});
    assert_eq!(ask("web", Method::PUT, to, Some(spying)).await, 403);
    let here = json!({"Name": "web-here", "Address": "127.0.0.1", "Port": 22,
                      "Check": {"TCP": "127.0.0.1:22", "Interval": "1s"}});
    assert_eq!(ask("web", Method::PUT, to, Some(here)).await, 200);
    assert_eq!(ask("db", Method::PUT, to, Some(service("2", "db"))).await, 200);
    for path in [
        "/v1/agent/check/pass/service:2",
        "/v1/agent/service/deregister/2",
        "/v1/agent/service/maintenance/2?enable=true",
        "/v1/agent/check/deregister/service:2",
    ] {
        assert_eq!(ask("web", Method::PUT, path, None).await, 403, "{path}");
    }
    assert_eq!(ask("db", Method::PUT, "/v1/agent/check/pass/service:2", None).await, 200);
    assert_eq!(ask("db", Method::GET, "/v1/health/service/db", None).await, 403, "it may not read");
    let unknown = registry.send(Method::PUT, "/v1/agent/check/pass/service:2", None).await;
    assert_eq!(unknown.0, 401);
    let wrong = "/v1/agent/check/pass/service:2?token=wrong-secret-0123456789";
    assert_eq!(registry.send(Method::PUT, wrong, None).await.0, 401);
}

#[tokio::test]
async fn registries_over_one_etcd_share_reports_and_checks_even_if_the_one_that_checks_dies() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let store = etcd.store();
    let arguments = ["--ttl", "3s", "--shortest-deregister", "1s", "--store", &store];
    let one = RegistryProcess::start(&arguments).await.unwrap();
    one.process.logged("drops silent hosts from now on").await.unwrap();
    let two = RegistryProcess::start(&arguments).await.unwrap();
    let backend = Backend::start(0).await;
    let by_http =
        json!({"HTTP": format!("http://127.0.0.1:{}/health", backend.port), "Interval": "1s"});
    let checked =
        json!({"Name": "checked", "Address": "127.0.0.1", "Port": backend.port, "Check": by_http});
    register(&two, checked).await;
    let ttl = json!({"TTL": "6s", "Status": "passing", "DeregisterCriticalServiceAfter": "2s"});
    register(&two, web(&ttl)).await;
    for registry in [&one, &two] {
        sees(registry, "checked", "serving", "").await;
        assert_eq!(passing(registry, "my_web").await, 1);
    }
    // What the elected one finds is seen at the other, and goes on when another one is elected.
    backend.well.store(false, Ordering::Relaxed);
    sees(&two, "checked", "failing", "503").await;
    one.process.kill().await.unwrap();
    backend.well.store(true, Ordering::Relaxed);
    let began = std::time::Instant::now();
    eventually("the other one checks", async || {
        tell(&two, "/v1/agent/check/pass/service:web-1").await;
        (states(&two, "checked").await == pair("serving", "")).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(passing(&two, "my_web").await, 1, "{:?}", began.elapsed());
    let three = RegistryProcess::start(&arguments).await.unwrap();
    eventually("it is dropped everywhere, as it asked", async || {
        let gone =
            states(&two, "my-web").await.is_empty() && states(&three, "my-web").await.is_empty();
        gone.then_some(())
    })
    .await
    .unwrap();
    assert_eq!(states(&three, "checked").await, pair("serving", ""));
}

/// The requests of frameworks, in their order: what their sources say, and the answers that they need.
#[tokio::test]
async fn spring_and_kratos_get_the_answers_that_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    let port = free_port().unwrap();
    // Spring Cloud Consul: looks who is there, registers with a TTL (heartbeat.enabled), passes, and follows
    // the catalog's index.
    assert_eq!(registry.get("/v1/agent/self").await.1["Member"]["Name"], "wharf-registry");
    let spring = json!({
        "ID": "orders-8080", "Name": "orders", "Tags": [], "Address": "127.0.0.1", "Port": port,
        "Meta": {"secure": "false"}, "EnableTagOverride": null,
        "Check": {"TTL": "30s", "Interval": null, "HTTP": null, "Header": {}, "Timeout": null,
                  "DeregisterCriticalServiceAfter": null, "TLSSkipVerify": null, "Status": null}
    });
    register(&registry, spring).await;
    tell(&registry, "/v1/agent/check/pass/service:orders-8080").await;
    let (_, services) = registry.get("/v1/catalog/services?wait=2s&index=0").await;
    assert_eq!(services, json!({"orders": []}));
    let (_, found) = registry.get("/v1/health/service/orders?passing=true").await;
    assert_eq!(found[0]["Service"]["Meta"]["secure"], "false");
    tell(&registry, "/v1/agent/service/deregister/orders-8080").await;
    // Kratos: registers with a connection and a TTL, updates the latter, and waits by index for 55 s.
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let kratos = json!({
        "ID": "greeter-1", "Name": "greeter", "Tags": ["version=v1"], "Meta": {"app": "greeter"},
        "TaggedAddresses": {"http": {"Address": format!("http://127.0.0.1:{port}"), "Port": port}},
        "Address": "127.0.0.1", "Port": port,
        "Checks": [
            {"TCP": format!("127.0.0.1:{port}"), "Interval": "10s", "Timeout": "5s",
             "DeregisterCriticalServiceAfter": "600s"},
            {"CheckID": "service:greeter-1", "TTL": "20s", "DeregisterCriticalServiceAfter": "600s"}
        ]
    });
    register(&registry, kratos).await;
    let pass = json!({"Status": "passing", "Output": "pass"});
    assert_eq!(put(&registry, "/v1/agent/check/update/service:greeter-1", pass).await.0, 200);
    eventually("both checks pass", async || {
        let path = "/v1/health/service/greeter?passing=1&index=1&wait=55s";
        let (_, found) = registry.get(path).await;
        (found.as_array()?.len() == 1).then_some(())
    })
    .await
    .unwrap();
    tell(&registry, "/v1/agent/service/deregister/greeter-1").await;
    drop(listener);
    assert_eq!(registry.get("/v1/catalog/services").await.1, json!({}));
}

#[tokio::test]
async fn the_checks_that_the_registry_makes_are_bounded_for_known_services_too() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(&folder).await;
    let service = |number: usize, checks: usize, interval: &str| {
        let check = |nth| json!({"CheckID": format!("{number}-{nth}"), "TCP": "127.0.0.1:9", "Interval": interval});
        let checks: Vec<Value> = (0..checks).map(check).collect();
        json!({"ID": format!("s{number}"), "Name": format!("s{number}"), "Address": "127.0.0.1",
               "Port": 9, "Checks": checks})
    };
    for number in 0..60 {
        register(&registry, service(number, 1, "1h")).await;
    }
    // Eight checks a second each, as many as there is room for.
    let path = "/v1/agent/service/register";
    let mut taken = 0;
    for number in 0..60 {
        let (status, answer) = put(&registry, path, service(number, 8, "1s")).await;
        assert!(status == 200 || answer["code"] == "full", "{status} {answer}");
        taken += usize::from(status == 200);
    }
    assert_eq!(taken, 56, "448 of 450 checks a second");
    let more =
        json!({"ServiceID": "s59", "Name": "more", "TCP": "127.0.0.1:9", "Interval": "100ms"});
    for (number, expected) in [(1, 200), (2, 503)] {
        let mut more = more.clone();
        more["ID"] = json!(format!("more-{number}"));
        let (status, answer) = put(&registry, "/v1/agent/check/register", more).await;
        assert_eq!(status, expected, "{number}: {answer}");
    }
    // Whoever asks for less makes room, and comes again whenever it wants.
    register(&registry, service(0, 8, "1h")).await;
    register(&registry, service(0, 8, "1s")).await;
    let nine = put(&registry, path, service(1, 9, "1h")).await;
    assert_eq!(nine.0, 400, "{}", nine.1);
}
