//! The registry's HTTP API, as programs in any language use it.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wharf_tests::{RegistryProcess, Wharf, eventually, plugin};

#[tokio::test]
async fn the_classic_calls_work_exactly_as_in_the_sketch() {
    let registry = RegistryProcess::start(&["--ttl", "1s"]).await.unwrap();
    let (status, _) = registry.get("/register?name=Arith&addr=localhost:1234").await;
    assert_eq!(status, StatusCode::OK);
    let (_, services) = registry.get("/services").await;
    assert_eq!(services["Arith"]["Name"], "Arith");
    assert_eq!(services["Arith"]["Addr"], "localhost:1234");
    let time = services["Arith"]["Time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(services["Arith"].as_object().unwrap().len(), 3);
    // Kept alive for longer than its time to live by heartbeats alone.
    let start = std::time::Instant::now();
    eventually("three times to live have passed", async || {
        let (status, text) = registry.get("/heartbeat?name=Arith").await;
        assert_eq!(status, StatusCode::OK, "{text}");
        (start.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await
    .unwrap();
    eventually("dropped once it is silent", async || {
        let (_, services) = registry.get("/services").await;
        (services == json!({})).then_some(())
    })
    .await
    .unwrap();
    let (status, problem) = registry.get("/heartbeat?name=Arith").await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("unknown-service")));
    let (status, _) = registry.send(Method::POST, "/register?name=Arith&addr=[::1]:1", None).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn wharf_services_stand_among_the_classic_ones_under_their_net_rpc_name() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let services = wharf_tests::get_json(&format!("{}/services", wharf.registry)).await.unwrap();
    assert_eq!(services["Arith"]["Name"], "Arith");
    assert_eq!(services["Arith"]["Addr"], wharf.host);
}

#[tokio::test]
async fn a_host_declares_beats_drains_and_withdraws() {
    let registry = RegistryProcess::start(&["--ttl", "30s"]).await.unwrap();
    let (status, declared) = registry.declare("h", 5, &["arith"]).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(declared["ttlMs"], 30_000);
    assert_eq!(declared["heartbeatMs"], 10_000);
    let digest = declared["digest"].clone();
    assert_eq!(registry.declare("h", 5, &["arith"]).await.0, StatusCode::OK);

    let beat = async |session: u64, digest: &Value| registry.beat("h", session, digest).await;
    assert_eq!(beat(5, &digest).await.1["resync"], false);
    assert_eq!(beat(5, &json!("other")).await.1["resync"], true);
    let (status, problem) = beat(4, &digest).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("superseded")));
    assert_eq!(problem["session"], 5);
    assert_eq!(registry.declare("h", 4, &[]).await.0, StatusCode::CONFLICT);

    let (_, list) = registry.get("/v1/services/Arith/endpoints?passing=1").await;
    assert_eq!(list["endpoints"][0]["host"], "h");
    assert_eq!(list["endpoints"][0]["state"], "serving");
    let state = json!({"session": 5, "state": "draining"});
    assert_eq!(
        registry.send(Method::PUT, "/v1/hosts/h/state", Some(state)).await.0,
        StatusCode::OK
    );
    let (_, list) = registry.get("/v1/services/arith/endpoints?passing=1").await;
    assert_eq!(list["endpoints"], json!([]));
    let (_, list) = registry.get("/v1/services/arith/endpoints").await;
    assert_eq!(list["endpoints"][0]["state"], "draining");

    let withdraw = async |session: u64| {
        registry.send(Method::DELETE, &format!("/v1/hosts/h?session={session}"), None).await.0
    };
    assert_eq!(withdraw(4).await, StatusCode::CONFLICT);
    assert_eq!(withdraw(5).await, StatusCode::NO_CONTENT);
    assert_eq!(withdraw(5).await, StatusCode::NO_CONTENT, "also when it is not there");
    assert_eq!(beat(5, &digest).await.0, StatusCode::NOT_FOUND);
    assert_eq!(registry.get("/v1/services").await.1["services"], json!([]));
}

#[tokio::test]
async fn versions_are_chosen_by_requirement() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    registry.declare("h", 1, &["arith"]).await;
    for (requirement, found) in [("^0.1", 1), ("=0.1.0", 1), (">=0.2", 0)] {
        let path = format!("/v1/services/arith/endpoints?version={requirement}");
        let (_, list) = registry.get(&path).await;
        assert_eq!(list["endpoints"].as_array().unwrap().len(), found, "{requirement}");
    }
}

#[tokio::test]
async fn a_list_waits_for_its_own_change_and_for_no_other() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    registry.declare("h", 1, &["arith"]).await;
    let (_, list) = registry.get("/v1/services/arith/endpoints").await;
    let index = list["index"].as_str().unwrap().to_owned();
    let waiting = async |service: &str, index: &str, wait: &str| {
        registry.get(&format!("/v1/services/{service}/endpoints?index={index}&wait={wait}")).await
    };
    let (status, _) = waiting("arith", &index, "50ms").await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);

    let (changed, ()) = tokio::join!(waiting("arith", &index, "20s"), async {
        registry.declare("other", 1, &["something-else"]).await;
        let (status, _) = waiting("arith", &index, "50ms").await;
        assert_eq!(status, StatusCode::NOT_MODIFIED, "another service's change wakes nobody");
        registry.declare("g", 1, &["arith"]).await;
    });
    assert_eq!(changed.1["endpoints"].as_array().unwrap().len(), 2);

    // A service that is not there is waited for as well, and so is its end.
    let (status, absent) = registry.get("/v1/services/late/endpoints").await;
    assert_eq!((status, &absent["endpoints"]), (StatusCode::OK, &json!([])));
    let index = absent["index"].as_str().unwrap().to_owned();
    let (arrived, _) =
        tokio::join!(waiting("late", &index, "20s"), registry.declare("l", 1, &["late"]));
    assert_eq!(arrived.1["endpoints"].as_array().unwrap().len(), 1);
    let index = arrived.1["index"].as_str().unwrap().to_owned();
    let (gone, _) = tokio::join!(
        waiting("late", &index, "20s"),
        registry.send(Method::DELETE, "/v1/hosts/l?session=1", None)
    );
    assert_eq!(gone.1["endpoints"], json!([]));

    let (status, problem) = waiting("arith", "1.1", "1s").await;
    assert_eq!((status, &problem["code"]), (StatusCode::GONE, &json!("index-gone")));
}

#[tokio::test]
async fn a_registry_that_shuts_down_answers_whoever_waits_and_ends() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let (_, list) = registry.get("/v1/services").await;
    let path = format!("/v1/services?index={}&wait=5m", list["index"].as_str().unwrap());
    let (url, http) = (registry.url.clone(), registry.http.clone());
    let waiting = tokio::spawn(async move { http.get(format!("{url}{path}")).send().await });
    eventually("somebody waits", async || {
        let (status, _) = registry.get("/v1/services").await;
        status.is_success().then_some(())
    })
    .await
    .unwrap();
    let (status, _) = registry.process.terminate().await.unwrap();
    assert_eq!(status.code(), Some(0));
    if let Ok(response) = waiting.await.unwrap() {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }
}

#[tokio::test]
async fn errors_are_problem_documents_with_a_code_and_advice() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let bad_endpoint = json!({"session": 1, "address": "0.0.0.0:80", "endpoints": []});
    let unknown_field = json!({"session": 1, "address": "a:1", "endpoints": [], "extra": 1});
    for (method, path, body, code, detail) in [
        (Method::GET, "/nothing", None, "unknown-path", "try GET /v1/services"),
        (Method::POST, "/v1/services", None, "method-not-allowed", "see the Allow header"),
        (
            Method::PUT,
            "/v1/hosts/h",
            Some(bad_endpoint),
            "invalid",
            "nowhere that others could connect to",
        ),
        (Method::PUT, "/v1/hosts/h", Some(unknown_field), "invalid", "unknown field `extra`"),
        (
            Method::PUT,
            "/v1/hosts/a%20b",
            Some(json!({"session": 1, "address": "a:1", "endpoints": []})),
            "invalid",
            "white space",
        ),
        (
            Method::GET,
            "/v1/services/a/endpoints?verison=1",
            None,
            "invalid",
            "unknown field `verison`",
        ),
        (
            Method::GET,
            "/v1/services/a/endpoints?version=new",
            None,
            "invalid",
            "write a requirement like",
        ),
        (Method::GET, "/v1/services/a/endpoints?wait=1s", None, "invalid", "needs the index"),
        (Method::GET, "/v1/services/a/endpoints?index=zz", None, "invalid", "EPOCH.NUMBER"),
        (
            Method::GET,
            "/register?name=Arith",
            None,
            "invalid",
            "call /register?name=NAME&addr=HOST:PORT",
        ),
        (Method::GET, "/register?name=Arith&addr=nowhere", None, "invalid", "write HOST:PORT"),
        (
            Method::GET,
            "/heartbeat?name=Nobody",
            None,
            "unknown-service",
            "call /register?name=Nobody",
        ),
    ] {
        let (status, problem) = registry.send(method, path, body).await;
        assert_eq!(problem["code"], code, "{path}: {problem}");
        assert_eq!(problem["status"], status.as_u16(), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {problem}");
    }
    let huge = "x".repeat(5 * 1024 * 1024);
    let (status, _) =
        registry.send(Method::PUT, "/v1/hosts/h", Some(json!({"session": huge}))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_web_page_of_another_origin_changes_nothing() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let from = async |path: &str, header: &str, value: &str| {
        let request = registry.http.get(format!("{}{path}", registry.url)).header(header, value);
        request.send().await.unwrap().status()
    };
    let register = "/register?name=Evil&addr=evil:1";
    assert_eq!(from(register, "sec-fetch-site", "cross-site").await, StatusCode::FORBIDDEN);
    assert_eq!(from(register, "origin", "http://evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(registry.get("/services").await.1, json!({}));
    assert_eq!(from("/services", "sec-fetch-site", "cross-site").await, StatusCode::OK);
    let own = registry.url.clone();
    assert_eq!(from(register, "origin", &own).await, StatusCode::OK);
}
