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
    // Only heartbeats keep it alive for longer than its time to live.
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
async fn a_classic_registration_is_an_endpoint_in_all_lists_with_what_it_speaks() {
    let registry = RegistryProcess::start(&["--ttl", "1s"]).await.unwrap();
    for call in [
        "/register?name=WordCount&addr=10.0.0.1:1",
        "/register?name=WordCount&addr=10.0.0.2:1&proto=jsonrpc",
        "/register?name=WordCount&addr=10.0.0.1:1&proto=gob",
    ] {
        assert_eq!(registry.get(call).await.0, StatusCode::OK, "{call}");
    }
    let (_, list) = registry.get("/v1/services/word-count/endpoints").await;
    let endpoints = list["endpoints"].as_array().unwrap();
    let shown: Vec<_> = endpoints.iter().map(|e| (&e["address"], &e["metadata"])).collect();
    let speaks = |proto: &str| json!({ "net-rpc": proto, "net-rpc-name": "WordCount" });
    assert_eq!(
        shown,
        [(&json!("10.0.0.1:1"), &speaks("gob")), (&json!("10.0.0.2:1"), &speaks("jsonrpc"))]
    );
    let (_, all) = registry.get("/v1/services").await;
    let counts = (&all["services"][0]["service"], &all["services"][0]["serving"]);
    assert_eq!(counts, (&json!("word-count"), &json!(2)), "{all}");
    let (_, services) = registry.get("/services").await;
    assert_eq!(services.as_object().unwrap().len(), 1, "{services}");
    let (status, problem) = registry.get("/register?name=A&addr=a:1&proto=grpc").await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("&proto=jsonrpc"), "{detail}");
    eventually("both are dropped once they are silent", async || {
        let (_, list) = registry.get("/v1/services/word-count/endpoints").await;
        list["endpoints"].as_array().unwrap().is_empty().then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_beat_by_name_keeps_the_newest_registration_alive_and_never_fails_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let arguments = ["--ttl", "1s", "--store", store.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    let address = registry.address().to_owned();
    // It restarts on another port, as a service does whose port the system picks.
    for port in ["1111", "2222"] {
        let call = format!("/register?name=Arith&addr=localhost:{port}");
        let (status, text) = registry.get(&call).await;
        assert_eq!(status, StatusCode::OK);
        let text = text.as_str().unwrap();
        assert!(
            text.contains("every 333.333333ms") && text.contains("after 1s of silence"),
            "{text}"
        );
    }
    eventually("the old one is dropped", async || {
        let (status, text) = registry.get("/heartbeat?name=Arith").await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let (_, list) = registry.get("/v1/services/arith/endpoints").await;
        let shown = list["endpoints"].as_array().unwrap();
        (shown.len() == 1 && shown[0]["address"] == "localhost:2222").then_some(())
    })
    .await
    .unwrap();
    // One that comes back to its port is the newest, whatever their order, also after a crash.
    for port in ["3333", "1111"] {
        registry.get(&format!("/register?name=Arith&addr=localhost:{port}")).await;
    }
    registry.process.kill().await.unwrap();
    let registry = RegistryProcess::start_with(&address, &arguments, &[]).await.unwrap();
    let (_, services) = registry.get("/services").await;
    assert_eq!(services["Arith"]["Addr"], "localhost:1111");
    // It was not heard since, and no time is made up. (This is Go's zero time.)
    assert_eq!(services["Arith"]["Time"], "0001-01-01T00:00:00Z");
    registry.get("/heartbeat?name=Arith&addr=localhost:1111").await;
    let (_, services) = registry.get("/services").await;
    assert!(services["Arith"]["Time"].as_str().unwrap().starts_with("20"), "{services}");
}

#[tokio::test]
async fn a_classic_service_says_more_of_itself_and_withdraws() {
    let folder = tempfile::tempdir().unwrap();
    // A store that keeps nothing answers Consul's clients only after a while.
    let store = folder.path().join("registry.redb");
    let registry = RegistryProcess::start(&["--store", store.to_str().unwrap()]).await.unwrap();
    let more = "&version=1.2.0&tag=blue&tag=eu&meta.zone=z1";
    for port in [1, 2, 3] {
        let call = format!("/register?name=Calc&addr=a:{port}{more}");
        assert_eq!(registry.get(&call).await.0, StatusCode::OK);
    }
    let (_, list) = registry.get("/v1/services/calc/endpoints").await;
    let first = &list["endpoints"][0];
    assert_eq!((&first["version"], &first["tags"]), (&json!("1.2.0"), &json!(["blue", "eu"])));
    assert_eq!(first["metadata"]["zone"], "z1");
    let (_, tagged) = registry.get("/v1/health/service/calc?tag=eu").await;
    assert_eq!(tagged.as_array().unwrap().len(), 3);
    let shown = async || {
        let (_, list) = registry.get("/v1/services/calc/endpoints").await;
        list["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["address"].clone())
            .collect::<Vec<_>>()
    };
    let (status, _) = registry.get("/deregister?name=Calc&addr=a:2").await;
    assert_eq!((status, shown().await), (StatusCode::OK, vec![json!("a:1"), json!("a:3")]));
    assert_eq!(registry.get("/deregister?name=Calc&addr=a:2").await.0, StatusCode::NOT_FOUND);
    assert_eq!(registry.get("/deregister?name=Calc").await.0, StatusCode::OK);
    assert!(shown().await.is_empty());
    for (wrong, why) in [
        ("/register?name=Calc&addr=a:1&tags=blue", "'tags' is not known"),
        ("/register?name=Calc&addr=a:1&addr=a:2", "'addr' is there twice"),
        ("/register?name=Calc&addr=a:1&version=one", "the version 'one' is invalid"),
        ("/register?name=Calc&addr=a:1&meta.=x", "the metadata name"),
        ("/heartbeat?name=Calc&tag=blue", "'tag' is not known"),
        ("/deregister?addr=a:1", "there is no name"),
    ] {
        let (status, problem) = registry.get(wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{wrong}: {problem}");
    }
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

    let early = json!({"session": 6, "state": "serving"});
    let early = registry.send(Method::PUT, "/v1/hosts/h/state", Some(early)).await;
    assert_eq!(early.0, StatusCode::NOT_FOUND, "a successor declares itself first");
    let etag = format!("\"{}\"", list["index"].as_str().unwrap());
    let url = format!("{}/v1/services/arith/endpoints", registry.url);
    let known = registry.http.get(url).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);

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

    // A wait also works for a service that does not exist yet, and for its end.
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
            "not one that others can connect to",
        ),
        (Method::PUT, "/v1/hosts/h", Some(unknown_field), "invalid", "unknown field `extra`"),
        (Method::PUT, "/v1/hosts/h", Some(json!([1, "a:1", []])), "invalid", "a JSON object"),
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
async fn endpoints_are_chosen_by_fingerprint_state_and_tag() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let body = json!({"session": 1.0, "address": "127.0.0.1:9", "metadata": {"zone": "z1"}, "endpoints": [
        {"service": "arith", "version": "0.1.0", "fingerprint": "A".repeat(32), "tags": ["blue"]},
        {"service": "arith", "version": "0.2.0", "fingerprint": "b".repeat(32), "condition": "compiling", "metadata": {"tier": "1"}},
    ]});
    let (status, answer) = registry.send(Method::PUT, "/v1/hosts/h", Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    let (a, b, c) = ("a".repeat(32), "b".repeat(32), "c".repeat(32));
    for (query, versions) in [
        (format!("fingerprint={a}"), vec!["0.1.0"]),
        (format!("fingerprint={b}&state=compiling"), vec!["0.2.0"]),
        (format!("fingerprint={c}"), vec![]),
        ("state=serving".to_owned(), vec!["0.1.0"]),
        ("state=compiling".to_owned(), vec!["0.2.0"]),
        ("state=draining".to_owned(), vec![]),
        ("tag=blue".to_owned(), vec!["0.1.0"]),
        ("tag=green".to_owned(), vec![]),
        (String::new(), vec!["0.1.0", "0.2.0"]),
    ] {
        let (_, list) = registry.get(&format!("/v1/services/arith/endpoints?{query}")).await;
        let found: Vec<&str> = list["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["version"].as_str().unwrap())
            .collect();
        assert_eq!(found, versions, "{query}");
    }
}

#[tokio::test]
async fn what_is_declared_is_bounded_and_checked() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let spec = || json!({"service": "arith", "fingerprint": "0".repeat(32)});
    let with = |name: &str, value: Value| {
        let mut spec = spec();
        spec[name] = value;
        json!({"session": 1, "address": "a:1", "endpoints": [spec]})
    };
    let top = |name: &str, value: Value| {
        let mut body = json!({"session": 1, "address": "a:1", "endpoints": [spec()]});
        body[name] = value;
        body
    };
    let long = |bytes: usize| "x".repeat(bytes);
    let many: serde_json::Map<String, Value> =
        (0..33).map(|n| (format!("n{n}"), json!(""))).collect();
    for (body, detail) in [
        (with("service", json!("Arith")), "not in kebab-case"),
        (with("service", json!("a--b")), "not in kebab-case"),
        (with("service", json!(long(257))), "at most 256"),
        (with("version", json!("1.0")), "is invalid"),
        (with("package", json!("a b")), "white space"),
        (with("fingerprint", json!("0")), "32 hexadecimal digits"),
        (with("reason", json!(long(1025))), "one line of at most 1024"),
        (with("tags", json!(vec!["t"; 65])), "65 tags, at most 64"),
        (with("tags", json!([long(513)])), "1 to 512 bytes"),
        (
            with(
                "tags",
                json!(["a
b"]),
            ),
            "one line",
        ),
        (with("metadata", Value::Object(many)), "33 metadata entries, at most 32"),
        (with("metadata", json!({"a b": ""})), "letters, digits"),
        (with("metadata", json!({"a": long(513)})), "at most 512"),
        (top("metadata", json!({"": "x"})), "letters, digits"),
        (top("session", json!(1_u64 << 53)), "too large"),
        (top("session", json!(1.5)), "a whole number"),
        (top("session", json!(-1)), "a whole number"),
        (top("address", json!("a:65536")), "write HOST:PORT"),
        (top("endpoints", json!([spec(), spec()])), "declared twice"),
        (top("endpoints", json!(vec![spec(); 10_001])), "at most 10000"),
    ] {
        let (status, problem) = registry.send(Method::PUT, "/v1/hosts/h", Some(body)).await;
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (400, &json!("invalid")),
            "{detail}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{detail}: {problem}");
    }
    let (status, _) = registry.declare(&long(257), 1, &[]).await;
    assert_eq!(status, 400);
    assert!(registry.hosts("arith").await.is_empty());
}

/// Schemathesis generates valid and invalid requests from the document, and compares the answers
/// with it.
#[tokio::test]
async fn the_registry_answers_as_its_openapi_document_says() {
    let package = "PyPI: pip install schemathesis";
    let Some(program) = wharf_tests::installed("schemathesis", package) else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.redb");
    let registry = RegistryProcess::start(&["--store", store.to_str().unwrap()]).await.unwrap();
    registry.declare("box-1", 1, &["arith"]).await;
    let mut command = tokio::process::Command::new(program);
    command.current_dir(folder.path()).kill_on_drop(true);
    command.args(["run", &format!("{}/v1/openapi.json", registry.url)]);
    // A watch does not end. The registry may refuse requests that are valid by the schema, because
    // a schema cannot express all rules (each service only once, a valid version).
    command.args(["--exclude-path", "/v1/watch", "--exclude-checks", "positive_data_acceptance"]);
    command.args(["--max-examples", "50", "--request-timeout", "20", "--seed", "1"]);
    let output = wharf_tests::within("schemathesis ends", command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let end = text.char_indices().rev().nth(6_000).map_or(0, |(at, _)| at);
    assert!(output.status.success(), "{}", &text[end..]);
    let (status, _) = registry.get("/healthz").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn the_sketch_s_times_hold_as_written_a_beat_every_ten_seconds_and_a_minute_of_silence() {
    let registry = RegistryProcess::start(&["--ttl", "1s"]).await.unwrap();
    let (_, answer) = registry.get("/register?name=Arith&addr=127.0.0.1:1234&ttl=3s").await;
    let answer = answer.as_str().unwrap().to_owned();
    assert!(answer.contains("every 1s: after 3s of silence"), "{answer}");
    registry.get("/register?name=Short&addr=127.0.0.1:1").await;
    let began = std::time::Instant::now();
    let listed = async || registry.get("/services").await.1;
    eventually("the other one is dropped after a second", async || {
        listed().await["Short"].is_null().then_some(())
    })
    .await
    .unwrap();
    assert!(!listed().await["Arith"].is_null(), "{:?}", began.elapsed());
    eventually("and this one later", async || listed().await["Arith"].is_null().then_some(()))
        .await
        .unwrap();
    assert!(began.elapsed() >= Duration::from_secs(3));
    for (ttl, why) in
        [("500ms", "choose from 1s to 24 h"), ("2d", "choose from"), ("x", "like 60s")]
    {
        let path = format!("/register?name=Arith&addr=127.0.0.1:1234&ttl={ttl}");
        let (status, problem) = registry.get(&path).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(why), "{problem}");
    }
    let both = "/register?name=Arith&addr=127.0.0.1:1234&ttl=3s&check=tcp";
    assert_eq!(registry.get(both).await.0, 400);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_for_what_it_is() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    for address in ["256.1.1.1:1", "..:1", "a..b:1", "-a:1", "1.2.3:80"] {
        let (status, problem) = registry.get(&format!("/register?name=A&addr={address}")).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 400 && detail.contains("no valid host"), "{address}: {detail}");
    }
    registry.declare("h", 1, &["arith"]).await;
    let later = json!({"session": 7, "state": "draining"});
    let (status, problem) = registry.send(Method::PUT, "/v1/hosts/h/state", Some(later)).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 404 && detail.contains("declared by the session 1"), "{detail}");
    let url = format!("{}/v1/hosts/h", registry.url);
    for (path, encoding) in [("", "gzip"), ("/heartbeat", "br")] {
        let method = if path.is_empty() { Method::PUT } else { Method::POST };
        let request = registry.http.request(method, format!("{url}{path}"));
        let answer = request.header("content-encoding", encoding).body("x").send().await.unwrap();
        assert_eq!(answer.status(), 415);
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(encoding), "{problem}");
    }
    // Whatever is refused is in the log, with who asked and why.
    registry.process.logged("declared by the session 1").await.unwrap();
    registry.process.logged("refused").await.unwrap();
}
