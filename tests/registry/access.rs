//! Who may do what: tokens, certificates, origins, rates.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wharf_registry_api::{Code, RegistryClient, RegistryOptions, ServiceSummary, WatchEvent};
use wharf_tests::{Process, RegistryProcess, declaration, eventually, wharf, within};

const READER: &str = "reader-0123456789";
const EDGE: &str = "edge-secret-0123456789";
const ADMIN: &str = "admin-secret-0123456789";

const TOKENS: &str = r#"
[[principal]]
name = "dashboard"
secret = "reader-0123456789"
scopes = ["read"]

[[principal]]
name = "edge"
secret = "edge-secret-0123456789"
scopes = ["write"]
hosts = ["edge-*", "Arith"]

[[principal]]
name = "operator"
secret = "admin-secret-0123456789"
scopes = ["admin"]
"#;

/// A registry with these tokens, and their file.
async fn guarded(tokens: &str) -> (RegistryProcess, std::path::PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    std::fs::write(&file, tokens).unwrap();
    let registry = RegistryProcess::start(&["--principals", file.to_str().unwrap()]).await.unwrap();
    (registry, file, folder)
}

async fn ask(
    registry: &RegistryProcess,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let mut request = registry.http.request(method, format!("{}{path}", registry.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn tokens_allow_what_their_scopes_say_and_nothing_else() {
    let (registry, _, _folder) = guarded(TOKENS).await;
    let declare = || Some(declaration(1, &["arith"]));
    let state = || Some(json!({"session": 1, "state": "serving"}));
    let beat = || Some(json!({"session": 1, "digest": ""}));
    let (put, post, get, delete) = (Method::PUT, Method::POST, Method::GET, Method::DELETE);
    // The statuses for: no token, an unknown one, the reader, the edge, the operator.
    let cases: Vec<(&Method, &str, Option<Value>, [u16; 5])> = vec![
        (&get, "/v1/services", None, [401, 401, 200, 403, 200]),
        (&get, "/v1/services/arith/endpoints", None, [401, 401, 200, 403, 200]),
        (&get, "/v1/services?index=bad", None, [401, 401, 400, 403, 400]),
        (&get, "/v1/agent/self", None, [401, 401, 200, 403, 200]),
        (&get, "/v1/watch?index=bad", None, [401, 401, 400, 403, 400]),
        (&get, "/services", None, [401, 401, 200, 403, 200]),
        (&get, "/metrics", None, [401, 401, 200, 403, 200]),
        (&put, "/v1/hosts/edge-1", declare(), [401, 401, 403, 201, 200]),
        (&put, "/v1/hosts/core-1", declare(), [401, 401, 403, 403, 201]),
        (&post, "/v1/hosts/edge-1/heartbeat", beat(), [401, 401, 403, 200, 200]),
        (&put, "/v1/hosts/edge-1/state", state(), [401, 401, 403, 200, 200]),
        (&put, "/v1/hosts/core-1/state", state(), [401, 401, 403, 403, 200]),
        (&delete, "/v1/hosts/core-1?session=1", None, [401, 401, 403, 403, 204]),
        (&get, "/register?name=Arith&addr=a:1", None, [401, 401, 403, 200, 200]),
        (&get, "/register?name=Other&addr=a:1", None, [401, 401, 403, 403, 200]),
        (&get, "/heartbeat?name=Arith", None, [401, 401, 403, 200, 200]),
        (&get, "/healthz", None, [200, 200, 200, 200, 200]),
        (&get, "/readyz", None, [200, 200, 200, 200, 200]),
        (&get, "/v1/openapi.json", None, [200, 200, 200, 200, 200]),
    ];
    let tokens = [None, Some("unknown-0123456789"), Some(READER), Some(EDGE), Some(ADMIN)];
    for (method, path, body, expected) in cases {
        for (token, expected) in tokens.iter().zip(expected) {
            let (status, answer) = ask(&registry, *token, method.clone(), path, body.clone()).await;
            assert_eq!(status, expected, "{method} {path} with {token:?}: {answer}");
            if matches!(expected, 401 | 403) {
                let code = if expected == 401 { "unauthenticated" } else { "forbidden" };
                assert_eq!(answer["code"], code, "{answer}");
            }
        }
    }
    // The body of a client that may not write at all is not even read.
    for (token, expected) in [(None, 401), (Some(READER), 403), (Some(EDGE), 400)] {
        let request = registry.http.put(format!("{}/v1/hosts/edge-1", registry.url)).body("{");
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        assert_eq!(request.send().await.unwrap().status(), expected);
    }
    // The way Consul's clients send a token. Then the whole way, from the command line.
    let consul = registry.http.get(format!("{}/v1/catalog/services", registry.url));
    assert_ne!(consul.header("x-consul-token", READER).send().await.unwrap().status(), 401);
    let listed = wharf(&["services", "--registry", &registry.url]).await.unwrap();
    assert_eq!(listed.code, Some(1));
    assert!(listed.stderr.contains("WHARF_REGISTRY_TOKEN"), "{}", listed.stderr);
    let token = ["--registry-token", READER];
    let listed =
        wharf(&[&["services", "--registry", &registry.url][..], &token].concat()).await.unwrap();
    assert!(listed.stdout.contains("arith"), "{listed:?}");
}

#[tokio::test]
async fn tokens_are_read_again_at_a_hangup_and_stay_when_the_file_is_bad() {
    let (registry, file, _folder) = guarded(TOKENS).await;
    let reads = async |token: &str| {
        ask(&registry, Some(token), Method::GET, "/v1/services", None).await.0 == 200
    };
    assert!(reads(READER).await);
    std::fs::write(&file, TOKENS.replace(READER, "another-0123456789")).unwrap();
    registry.process.signal("HUP").unwrap();
    eventually("the new token is known", async || reads("another-0123456789").await.then_some(()))
        .await
        .unwrap();
    assert!(!reads(READER).await, "the old one is not");
    std::fs::write(&file, "[[principal]]\nname = 'x'\nsecret = 'sesame'").unwrap();
    registry.process.signal("HUP").unwrap();
    // When this is answered, the registry has handled the bad file.
    std::fs::write(&file, TOKENS.replace(READER, "a-third-one-0123456789")).unwrap();
    registry.process.signal("HUP").unwrap();
    eventually("a good file is read again", async || {
        reads("a-third-one-0123456789").await.then_some(())
    })
    .await
    .unwrap();
    let (_, log) = registry.process.terminate().await.unwrap();
    assert!(!log.contains("sesame"), "{log}");
}

#[tokio::test]
async fn a_token_that_is_taken_back_ends_its_watches() {
    let (registry, file, _folder) = guarded(TOKENS).await;
    let client = |token: &str| {
        let options = RegistryOptions { token: Some(token.to_owned()), ..Default::default() };
        RegistryClient::with_options(&registry.url, options).unwrap()
    };
    let mut taken = client(READER).watch(None, None).await.unwrap();
    let mut kept = client(ADMIN).watch(None, None).await.unwrap();
    std::fs::write(&file, TOKENS.replace(READER, "another-0123456789")).unwrap();
    registry.process.signal("HUP").unwrap();
    let mut last = None;
    while let Some(event) = within("the watch ends", taken.next()).await.unwrap().unwrap() {
        last = Some(event);
    }
    assert_eq!(last, Some(WatchEvent::Goodbye));
    ask(&registry, Some(ADMIN), Method::PUT, "/v1/hosts/h", Some(declaration(1, &["arith"]))).await;
    loop {
        let event = within("an event", kept.next()).await.unwrap().unwrap().unwrap();
        if matches!(event, WatchEvent::Upsert(_)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_bad_file_of_tokens_is_refused_before_anything_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    std::fs::write(&file, "[[principal]]\nname = 'x'\nsecret = 'sesame'\nscopes = ['read']")
        .unwrap();
    let path = file.to_str().unwrap();
    let refused = wharf(&["registry", "--store", "memory", "--principals", path]).await.unwrap();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("at least 16 printable"), "{}", refused.stderr);
    assert!(refused.stderr.contains(path) && !refused.stderr.contains("sesame"));
}

#[tokio::test]
async fn a_token_that_asks_too_often_gets_a_429_and_when_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    let limited =
        TOKENS.replacen("scopes = [\"read\"]", "scopes = [\"read\"]\nrate = 1\nburst = 3", 1);
    std::fs::write(&file, limited).unwrap();
    let arguments = ["--principals", file.to_str().unwrap()];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    let url = format!("{}/v1/services", registry.url);
    let refused = eventually("too many", async || {
        let response = registry.http.get(&url).bearer_auth(READER).send().await.unwrap();
        (response.status() == 429).then_some(response)
    })
    .await
    .unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "rate-limited");
    let (status, _) = ask(&registry, Some(ADMIN), Method::GET, "/v1/services", None).await;
    assert_eq!(status, 200, "others are not held up");
}

#[tokio::test]
async fn beyond_loopback_a_registry_that_trusts_everybody_has_to_be_told_so() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let refused = wharf(&["registry", "--store", "memory", "--listen", listen]).await.unwrap();
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("could register anything"), "{}", refused.stderr);
        assert!(refused.stderr.contains("--anyone-may-write"), "{}", refused.stderr);
    }
    let told = ["registry", "--store", "memory", "--listen", "0.0.0.0:0", "--anyone-may-write"];
    let mut process = Process::start(&told).unwrap();
    process.announced("registry").await.unwrap();
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
    assert_eq!(from(register, "referer", "http://evil.example/x").await, StatusCode::FORBIDDEN);
    // A name of the page's owner, who can make it point to this machine.
    assert_eq!(from(register, "host", "evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(from("/services", "host", "evil.example").await, StatusCode::FORBIDDEN);
    for path in ["/heartbeat?name=Evil", "/v1/services", "/metrics"] {
        assert_eq!(from(path, "host", "evil.example:8500").await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(registry.get("/services").await.1, json!({}));
    assert_eq!(from("/services", "sec-fetch-site", "cross-site").await, StatusCode::OK);
    let own = registry.url.clone();
    assert_eq!(from(register, "origin", &own).await, StatusCode::OK);
}

/// A certificate authority, and certificates from it, in a folder.
pub(super) fn certificates(folder: &Path) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("authority.pem"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        std::fs::write(folder.join(format!("{name}.pem")), &certificate).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        let both = certificate + &key.serialize_pem();
        std::fs::write(folder.join(format!("{name}-both.pem")), both).unwrap();
    }
    authority
}

#[tokio::test]
async fn over_tls_only_clients_with_a_certificate_get_in_and_hosts_announce_themselves() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let stranger = tempfile::tempdir().unwrap();
    certificates(stranger.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let registry = RegistryProcess::start(&[
        "--tls-certificate",
        &file("server.pem"),
        "--tls-key",
        &file("server.key"),
        "--tls-client-authorities",
        &file("authority.pem"),
    ])
    .await
    .unwrap();
    assert!(registry.url.starts_with("https://"), "{}", registry.url);
    let client = |certificate: Option<std::path::PathBuf>| {
        let options = RegistryOptions {
            authorities: Some(std::fs::read(file("authority.pem")).unwrap()),
            certificate: certificate.map(|path| std::fs::read(path).unwrap()),
            ..RegistryOptions::default()
        };
        RegistryClient::with_options(&registry.url, options).unwrap()
    };
    let known = client(Some(folder.path().join("client-both.pem")));
    assert!(known.services().await.is_ok());
    assert!(client(None).services().await.is_err(), "without a certificate");
    assert!(client(Some(stranger.path().join("client-both.pem"))).services().await.is_err());
    let unknown_server = RegistryClient::new(&registry.url).unwrap();
    assert!(unknown_server.services().await.is_err(), "the system does not know this authority");

    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), wharf_tests::plugin("arith").unwrap())
        .unwrap();
    let mut host = Process::start(&[
        "host",
        "--plugins",
        plugins.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &registry.url,
        "--registry-authorities",
        &file("authority.pem"),
        "--registry-certificate",
        &file("client-both.pem"),
    ])
    .unwrap();
    host.announced("host").await.unwrap();
    eventually("the host is announced", async || {
        let services = known.services().await.unwrap().services;
        let serves = |s: &ServiceSummary| s.service == "arith" && s.serving > 0;
        services.iter().any(serves).then_some(())
    })
    .await
    .unwrap();
    let called = wharf(&[
        "call",
        "--registry",
        &registry.url,
        "--registry-authorities",
        &file("authority.pem"),
        "--registry-certificate",
        &file("client-both.pem"),
        "arith.multiply",
        "{\"a\":7,\"b\":8}",
    ])
    .await
    .unwrap();
    assert_eq!(called.stdout.trim(), "56", "{called:?}");

    // Certificates are replaced at run time.
    certificates(folder.path());
    registry.process.signal("HUP").unwrap();
    eventually("the new authority is the one", async || {
        client(Some(folder.path().join("client-both.pem"))).services().await.is_ok().then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_host_without_its_token_says_so_and_serves_on() {
    let (registry, _, folder) = guarded(TOKENS).await;
    let options = RegistryOptions { token: Some(READER.to_owned()), ..Default::default() };
    let reader = RegistryClient::with_options(&registry.url, options).unwrap();
    let error = reader.withdraw("edge-1", 1).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, Code::Forbidden);
    let host = |token: &'static str| {
        let folder = folder.path().to_str().unwrap().to_owned();
        let url = registry.url.clone();
        async move {
            let arguments = [
                "host",
                "--plugins",
                &folder,
                "--listen",
                "127.0.0.1:0",
                "--name",
                "edge-7",
                "--registry",
                &url,
                "--registry-token",
                token,
            ];
            let mut host = Process::start(&arguments).unwrap();
            host.announced("host").await.unwrap();
            host
        }
    };
    let refused = host(READER).await;
    eventually("it was refused", async || {
        let series = "wharf_registry_requests_total{path=\"/v1/hosts/{host}\",status=\"403\"}";
        let (_, text) = {
            let request = registry.http.get(format!("{}/metrics", registry.url)).bearer_auth(ADMIN);
            (0, request.send().await.unwrap().text().await.unwrap())
        };
        text.contains(series).then_some(())
    })
    .await
    .unwrap();
    let (_, log) = refused.terminate().await.unwrap();
    assert!(log.contains("the principal 'dashboard' does not have the scope"), "{log}");
    let _allowed = host(EDGE).await;
    eventually("it is there", async || {
        let error = reader.withdraw("edge-7", 0).await.unwrap_err();
        assert_eq!(error.problem().unwrap().code, Code::Forbidden);
        let options = RegistryOptions { token: Some(ADMIN.to_owned()), ..Default::default() };
        let admin = RegistryClient::with_options(&registry.url, options).unwrap();
        let refused = admin.withdraw("edge-7", 0).await;
        refused.is_err().then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn hosts_announce_only_the_services_that_their_principal_may_announce() {
    let announces = "hosts = [\"edge-*\", \"Arith\"]\nannounces = [\"demo:*\", \"plain\"]";
    let (registry, _, _folder) =
        guarded(&TOKENS.replace("hosts = [\"edge-*\", \"Arith\"]", announces)).await;
    let declare = async |token: &str, session: u64, services: &[(Option<&str>, &str)]| {
        let mut declared = declaration(session, &vec!["x"; services.len()]);
        for (position, (package, service)) in services.iter().enumerate() {
            let endpoint = &mut declared["endpoints"][position];
            endpoint["service"] = json!(service);
            if let Some(package) = package {
                endpoint["package"] = json!(package);
            }
        }
        ask(&registry, Some(token), Method::PUT, "/v1/hosts/edge-1", Some(declared)).await
    };
    let own = [(Some("demo:arith"), "arith"), (None, "plain")];
    assert_eq!(declare(EDGE, 1, &own).await.0, 201);
    for (package, service, named) in [
        (Some("evil:arith"), "arith", "may not announce evil:arith/arith:"),
        (None, "arith", "may not announce arith:"),
    ] {
        let all = [own[0], (package, service)];
        let (status, problem) = declare(EDGE, 1, &all).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (403, Some("forbidden")));
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
        assert_eq!(declare(ADMIN, 1, &all).await.0, 200, "an operator may");
    }
    // A classic name is written as such, and is no announcement of a host.
    let (status, _) =
        ask(&registry, Some(EDGE), Method::GET, "/register?name=Arith&addr=a:1", None).await;
    assert_eq!(status, 200);
}
