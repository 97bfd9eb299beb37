//! Trust domains: who gets a certificate, and that it lasts.

use std::path::Path;
use std::time::Duration;

use wharf_client::Member;
use wharf_tests::{Args, DOMAIN, Fleet, Load, Process, eventually, plugin, wharf, within};

const PAIR: &str = "{\"a\":7,\"b\":8}";

/// So short that a test sees several renewals.
const SHORT: [&str; 2] = ["--certificate-life", "6s"];

async fn calls(fleet: &Fleet, identity: &str) -> wharf_tests::Finished {
    let arguments = ["call", "--registry", &fleet.url, "--identity", identity];
    wharf(&[&arguments[..], &["arith.multiply", PAIR]].concat()).await.unwrap()
}

#[tokio::test]
async fn one_command_encrypts_everything_and_prints_how_to_call() {
    let state = tempfile::tempdir().unwrap();
    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let (plugins, home) = (plugins.path().to_str().unwrap(), state.path().to_str().unwrap());
    let arguments = ["up", "--secure", "--plugins", plugins, "--listen", "127.0.0.1:0"];
    let arguments = [&arguments[..], &["--registry-listen", "127.0.0.1:0"]].concat();
    let environment = [("XDG_STATE_HOME", home)];
    let mut up = Process::start_with(&arguments, &environment).unwrap();
    let registry = up.announced("registry").await.unwrap();
    assert!(registry.starts_with("https://127.0.0.1:"), "{registry}");
    let host = up.announced("host").await.unwrap();
    assert!(up.announced("http").await.unwrap().starts_with("https://"));
    let shown = up.announced("try").await.unwrap();
    let words: Vec<&str> = shown.split_whitespace().skip(1).collect();
    let listed = wharf(&words).await.unwrap();
    assert!(listed.stdout.contains("demo:arith/arith"), "{listed:?}");
    let access = &words[words.iter().position(|word| *word == "--registry").unwrap()..];
    let called = wharf(&[&["call"], access, &["Arith.Multiply", PAIR]].concat()).await.unwrap();
    assert_eq!(called.stdout, "56\n", "{called:?}");
    // Whoever speaks no TLS is told so.
    let plain = wharf(&["call", "--direct", &host, "arith.multiply", PAIR]).await.unwrap();
    assert_eq!(plain.code, Some(5));
    assert!(plain.stderr.contains("this host speaks TLS"), "{}", plain.stderr);
    // Everything that was made is for its owner only.
    let mut left = vec![state.path().join("wharf")];
    while let Some(path) = left.pop() {
        use std::os::unix::fs::PermissionsExt;

        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    // The next start takes what is there.
    up.terminate().await.unwrap();
    let mut up = Process::start_with(&arguments, &environment).unwrap();
    up.announced("host").await.unwrap();
    assert!(!up.has_logged("a certificate was given out"));
}

#[tokio::test]
async fn a_fleet_joins_by_tokens_and_needs_them_once() {
    let mut fleet = Fleet::start(&[]).await.unwrap();
    let host = fleet.host("edge-1", &[]).await.unwrap();
    let shop = fleet.caller("shop").await.unwrap();
    assert_eq!(shop.id().to_string(), format!("spiffe://{DOMAIN}/caller/shop"));
    let folder = fleet.path("caller-shop").unwrap();
    eventually("it is called", async || {
        (calls(&fleet, &folder).await.stdout == "56\n").then_some(())
    })
    .await
    .unwrap();
    let shown = wharf(&["identity", "show", "--identity", &folder]).await.unwrap();
    assert!(shown.stdout.contains("/caller/shop"), "{shown:?}");
    monitoring_reads_over_https(&fleet, &folder, &host.http).await;
    // A host that starts again has what it needs, whatever became of its token.
    host.process.terminate().await.unwrap();
    let plugins = host.plugins.to_str().unwrap();
    let identity = fleet.path("host-edge-1").unwrap();
    let base = ["host", "--listen", "127.0.0.1:0", "--http-listen", "none", "--plugins", plugins];
    let again = ["--identity", &identity, "--registry", &fleet.url];
    let mut again = Process::start(&[&base[..], &again].concat()).unwrap();
    again.announced("host").await.unwrap();
    eventually("it is called", async || {
        (calls(&fleet, &folder).await.stdout == "56\n").then_some(())
    })
    .await
    .unwrap();
    // With another name it is not the host that the certificate is for.
    let renamed = ["--identity", &identity, "--registry", &fleet.url, "--name", "edge-2"];
    let renamed = wharf(&[&base[..], &renamed].concat()).await.unwrap();
    assert!(renamed.stderr.contains("the certificate is for 'edge-1'"), "{}", renamed.stderr);
    // A caller's certificate is no host's.
    let wrong = ["--identity", &folder, "--registry", &fleet.url];
    let wrong = wharf(&[&base[..], &wrong].concat()).await.unwrap();
    assert!(wrong.stderr.contains("and not for a host"), "{}", wrong.stderr);
    // A registry that comes back is the same.
    let address = fleet.address().to_owned();
    fleet.lose_registry().await.unwrap();
    fleet.start_registry(&address).await.unwrap();
    eventually("it is called", async || {
        (calls(&fleet, &folder).await.stdout == "56\n").then_some(())
    })
    .await
    .unwrap();
}

/// A program that knows no SPIFFE finds the host in the registry, and reads its metrics by its DNS name.
async fn monitoring_reads_over_https(fleet: &Fleet, folder: &str, side: &str) {
    let file = |name: &str| std::fs::read(Path::new(folder).join(name)).unwrap();
    let side = side.trim_start_matches("https://").to_owned();
    let name = format!("edge-1.host.{DOMAIN}");
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(&file("roots.pem")).unwrap())
        .identity(reqwest::Identity::from_pem(&file("member.pem")).unwrap())
        .resolve(&name, side.parse().unwrap())
        .build()
        .unwrap();
    let get = async |url: String| client.get(url).send().await.unwrap().text().await.unwrap();
    let targets = get(format!("{}/v1/sd/prometheus", fleet.url)).await;
    let targets: serde_json::Value = serde_json::from_str(&targets).unwrap();
    assert_eq!(targets[0]["targets"][0], side, "{targets}");
    assert_eq!(targets[0]["labels"]["__scheme__"], "https", "{targets}");
    let (_, port) = side.rsplit_once(':').unwrap();
    let metrics = get(format!("https://{name}:{port}/metrics")).await;
    assert!(metrics.contains("wharf_calls_total"), "{metrics}");
}

#[tokio::test]
async fn a_joiner_gets_what_its_token_names_and_nothing_else() {
    let fleet = Fleet::start(&[]).await.unwrap();
    let other = Fleet::start(&[]).await.unwrap();
    let edge = fleet.token(&["--host", "edge-*"]).await.unwrap();
    let shop = fleet.token(&["--caller", "shop"]).await.unwrap();
    let ended = fleet.token(&["--caller", "shop", "--for", "1s"]).await.unwrap();
    let elsewhere = other.token(&["--caller", "shop"]).await.unwrap();
    let damaged = {
        let at = shop.rfind('.').unwrap() + 20;
        let swapped = if shop.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{swapped}{}", &shop[..at], &shop[at + 1..])
    };
    let join = async |token: &str, name: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let joined = Member::join(&folder.path().join("it"), &fleet.url, token, name).await;
        let written = folder.path().join("it").exists();
        let joined = joined.map(|member| member.id().to_string()).map_err(|e| wharf_net::chain(&e));
        assert_eq!(written, joined.is_ok(), "{joined:?}");
        joined
    };
    eventually("the token ends", async || {
        let refused = join(&ended, None).await.err()?;
        assert!(refused.contains("the join token has ended"), "{refused}");
        Some(())
    })
    .await
    .unwrap();
    let host = |name: &str| format!("spiffe://{DOMAIN}/host/{name}");
    assert_eq!(join(&edge, Some("edge-7")).await.unwrap(), host("edge-7"));
    assert!(join(&shop, None).await.is_ok());
    for (token, name, why) in [
        (&edge, None, "say which name to take"),
        (&edge, Some("db"), "is for the host 'edge-*', and not for"),
        (&shop, Some("desk"), "is for the caller 'shop', and not for"),
        (&edge, Some("edge 1"), "cannot be a name in a certificate"),
        (&damaged, None, "not signed by this trust domain's issuer"),
        // The registry is not of the domain that the token names: it is told nothing.
        (&elsewhere, None, "UnknownIssuer"),
        (&"wharf-join.x".to_owned(), None, "this is no join token"),
    ] {
        let refused = join(token, name).await.unwrap_err();
        assert!(refused.contains(why), "{name:?}: {refused}");
    }
    // What is asked for by hand: a role, a domain, or an authority that the token does not name.
    let post = async |pem: &str| {
        let client = wharf_tests::http_client_that_trusts_all().unwrap();
        let url = format!("{}/v1/identity/certificates", fleet.url);
        let order = serde_json::json!({"request": pem, "token": shop});
        let answer = client.post(url).json(&order).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let request = |uris: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let uri = |uri: &&str| rcgen::SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    };
    let shop_id = format!("spiffe://{DOMAIN}/caller/shop");
    for (uris, status) in [
        (&[&host("shop")[..]][..], 403),
        (&[&format!("spiffe://{DOMAIN}/registry")], 403),
        (&["spiffe://other.internal/caller/shop"], 403),
        (&[&shop_id, &host("edge-1")], 400),
        (&[], 400),
    ] {
        let (answered, body) = post(&request(uris)).await;
        assert_eq!(answered, status, "{uris:?}: {body}");
    }
    // Of a request that is right, only the name and the key are taken.
    let (status, body) = post(&request(&[&shop_id])).await;
    assert_eq!(status, 200, "{body}");
    let granted: serde_json::Value = serde_json::from_str(&body).unwrap();
    let certificate = granted["certificate"].as_str().unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    assert!(!pem.parse_x509().unwrap().is_ca());
    assert_eq!(post("nonsense").await.0, 400);
}

#[tokio::test]
async fn calls_go_on_over_renewals_an_exchange_of_roots_and_a_registry_that_is_away() {
    let mut fleet = Fleet::start(&SHORT).await.unwrap();
    let one = fleet.host("edge-1", &[]).await.unwrap();
    let two = fleet.host("edge-2", &[]).await.unwrap();
    let member = fleet.caller("load").await.unwrap();
    let url = fleet.url.clone();
    let keeper = tokio::spawn({
        let member = member.clone();
        async move { member.keep(&url).await }
    });
    let client = fleet.client(&member).unwrap();
    eventually("both are called", async || {
        let _ = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
        let endpoints = client.endpoints();
        (endpoints.len() == 2 && endpoints.iter().all(|e| e.connected)).then_some(())
    })
    .await
    .unwrap();
    let load = Load::start(&client, 8);
    let renewals = |process: &Process| process.count_logged("the certificate was renewed");
    let renewed = async |when: &str, times: usize| {
        let (first, second) = (renewals(&one.process), renewals(&two.process));
        eventually(&format!("both hosts have new certificates {when}"), async || {
            let new = renewals(&one.process) >= first + times;
            (new && renewals(&two.process) >= second + times).then_some(())
        })
        .await
        .unwrap();
    };
    renewed("at first", 2).await;
    // The roots are exchanged, and all have certificates below the new one.
    fleet.identity(&["root", "add"]).await.unwrap();
    for host in [&one, &two] {
        host.process.logged("other authorities are believed").await.unwrap();
    }
    eventually("the caller believes both", async || {
        (member.identity().roots().certificates().len() == 2).then_some(())
    })
    .await
    .unwrap();
    fleet.identity(&["root", "use"]).await.unwrap();
    renewed("below the new root", 2).await;
    fleet.identity(&["root", "drop"]).await.unwrap();
    eventually("the caller believes the new one", async || {
        (member.identity().roots().certificates().len() == 1).then_some(())
    })
    .await
    .unwrap();
    renewed("while only the new root is believed", 1).await;
    // The registry is away for longer than any certificate lasts. One of the hosts is asked anew meanwhile.
    let address = fleet.address().to_owned();
    fleet.lose_registry().await.unwrap();
    for host in [&one, &two] {
        host.process.logged("the certificate is not looked after").await.unwrap();
    }
    let ended = Load::start(&client, 1);
    eventually("the caller's certificate has ended", async || {
        certificate_has_ended(&fleet).then_some(())
    })
    .await
    .unwrap();
    let direct = wharf_client::Client::builder()
        .identity(member.identity())
        .host_name("edge-1")
        .direct(&one.address);
    let product = direct.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
    assert_eq!(product.unwrap(), 56, "a new connection, while nobody can have a new certificate");
    assert_eq!(ended.stop().await.failures, [""; 0]);
    fleet.start_registry(&address).await.unwrap();
    renewed("after the registry came back", 1).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0]);
    assert!(report.calls > 1_000, "{report:?}");
    keeper.abort();
    for host in [one, two] {
        host.process.terminate().await.unwrap();
    }
}

/// Whether the certificate in the folder of the caller `load` has ended.
fn certificate_has_ended(fleet: &Fleet) -> bool {
    let path = fleet.path("caller-load").unwrap();
    let text = std::fs::read_to_string(Path::new(&path).join("member.pem")).unwrap();
    let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text.as_bytes()[begin..]).unwrap();
    !pem.parse_x509().unwrap().validity().is_valid()
}

#[tokio::test]
async fn an_identity_that_has_ended_is_renewed_without_a_token() {
    let fleet = Fleet::start(&["--certificate-life", "5s"]).await.unwrap();
    let _host = fleet.host("edge-1", &[]).await.unwrap();
    fleet.caller("load").await.unwrap();
    eventually("it has ended", async || certificate_has_ended(&fleet).then_some(())).await.unwrap();
    let folder = fleet.path("caller-load").unwrap();
    let called = calls(&fleet, &folder).await;
    assert_eq!(called.stdout, "56\n", "{called:?}");
    assert!(!certificate_has_ended(&fleet));
}

#[tokio::test]
async fn a_host_that_lies_about_its_name_is_not_called() {
    let fleet = Fleet::start(&[]).await.unwrap();
    let liar = fleet.host("edge-1", &[]).await.unwrap();
    let caller = fleet.caller("shop").await.unwrap();
    // The registry says that edge-2 is where edge-1 listens.
    let token = fleet.token(&["--host", "edge-2"]).await.unwrap();
    let folder = fleet.path("edge-2").unwrap();
    let edge_2 = Member::join(Path::new(&folder), &fleet.url, &token, None).await.unwrap();
    let declaration = serde_json::json!({
        "session": 1, "address": liar.address, "endpoints": [{
            "service": "ledger", "package": "bank:ledger", "version": "1.0.0", "fingerprint": "00000000000000000000000000000000",
            "condition": "serving",
        }],
    });
    let registry = edge_2.registry(&fleet.url).unwrap();
    let declaration = serde_json::from_value(declaration).unwrap();
    registry.declare("edge-2", &declaration).await.unwrap();
    // A host can declare what is its own, and nothing else.
    let refused = registry.declare("edge-1", &declaration).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().status, 403, "{refused}");
    let client = fleet.client(&caller).unwrap();
    let called = client.call::<_, i64>("ledger.transfer", &(1, 2));
    let error = within("an answer", called).await.unwrap().unwrap_err();
    let error = wharf_net::chain(&error);
    let expected = "is for spiffe://test.internal/host/edge-1, edge-1.host.test.internal, and not for the host edge-2";
    assert!(error.contains(expected), "{error}");
    tokio::time::timeout(Duration::from_secs(30), liar.process.terminate()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_folder_of_a_trust_domain_is_nobody_elses_identity() {
    let fleet = Fleet::start(&[]).await.unwrap();
    let domain = fleet.path("domain").unwrap();
    let issuer = || std::fs::read_to_string(Path::new(&domain).join("issuer.pem")).unwrap();
    let before = issuer();
    let token = fleet.token(&["--caller", "shop"]).await.unwrap();
    let registry = ["--registry", &fleet.url, "--identity", &domain];
    for (arguments, why) in [
        (&["services"][..], "this is the folder of a registry"),
        (&["call", "arith.multiply", PAIR], "this is the folder of a registry"),
        (&["host", "--listen", "127.0.0.1:0"], "this is the folder of a registry"),
        (&["identity", "join", &token], "there is another identity in it"),
    ] {
        let refused = wharf(&[arguments, &registry].concat()).await.unwrap();
        assert_ne!(refused.code, Some(0), "{arguments:?}");
        assert!(refused.stderr.contains(why), "{arguments:?}: {}", refused.stderr);
    }
    // Nor is it renewed by whoever opens it.
    let member = Member::open(Path::new(&domain)).unwrap();
    member.renew(&fleet.url).await.unwrap_err();
    assert_eq!(issuer(), before);
}

#[tokio::test]
async fn what_one_process_renews_another_one_shows() {
    let fleet = Fleet::start(&[]).await.unwrap();
    let one = fleet.caller("shop").await.unwrap();
    let folder = fleet.path("caller-shop").unwrap();
    let two = Member::open(Path::new(&folder)).unwrap();
    let is_shown = |member: &Member| {
        let text = std::fs::read_to_string(Path::new(&folder).join("member.pem")).unwrap();
        let chain = &text[text.find("-----BEGIN CERTIFICATE-----").unwrap()..];
        wharf_net::tls::Chain::from_pem(chain).unwrap().is_shown_by(member.identity())
    };
    one.renew(&fleet.url).await.unwrap();
    assert!(is_shown(&one) && !is_shown(&two));
    let (kept, url) = (two.clone(), fleet.url.clone());
    let keeper = tokio::spawn(async move { kept.keep(&url).await });
    eventually("the other one shows it", async || is_shown(&two).then_some(())).await.unwrap();
    keeper.abort();
}
