//! An etcd cluster with access control: users, and TLS with certificates of both sides.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use wharf_tests::{EtcdCluster, Process, RegistryProcess, eventually, installed, run_command};

use crate::access::certificates;

#[tokio::test]
async fn a_registry_logs_in_as_a_user_and_again_when_its_token_is_not_known_any_more() {
    let Some(mut etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let ask = async |etcd: &EtcdCluster, what: &str, body: serde_json::Value| {
        let answer = etcd.ask(&etcd.members[0], what, &body.to_string()).await.unwrap();
        assert!(answer.get("error").is_none(), "{what}: {answer}");
    };
    ask(&etcd, "auth/user/add", json!({"name": "root", "password": "secret"})).await;
    ask(&etcd, "auth/user/grant", json!({"user": "root", "role": "root"})).await;
    ask(&etcd, "auth/enable", json!({})).await;
    let store = etcd.store();
    let start = async |user: &str| {
        let arguments = ["--store", &store];
        RegistryProcess::start_with("127.0.0.1:0", &arguments, &[("WHARF_ETCD_USER", user)]).await
    };
    let registry = start("root:secret").await.unwrap();
    registry.declare("one", 1, &["arith"]).await;
    assert_eq!(registry.hosts("arith").await, ["one"]);
    // A restarted member has forgotten all tokens.
    etcd.members[0].process.take().unwrap().kill().await.unwrap();
    etcd.start_member(0).unwrap();
    eventually("the registry writes again", async || {
        let body = Some(wharf_tests::declaration(1, &["arith"]));
        let declared = registry.try_send(reqwest::Method::PUT, "/v1/hosts/two", body).await.ok()?;
        declared.0.is_success().then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.hosts("arith").await, ["one", "two"]);

    let address = format!("127.0.0.1:{}", wharf_tests::free_port().unwrap());
    let refused = Process::start_with(
        &["registry", "--listen", &address, "--store", &store],
        &[("WHARF_ETCD_USER", "root:wrong")],
    );
    let refused = refused.unwrap();
    refused.logged("authentication failed, invalid user ID or password").await.unwrap();
    let lists = wharf_tests::get(&format!("http://{address}/v1/services")).await.unwrap();
    assert_eq!(lists.0, 503);
    let (_, log) = refused.terminate().await.unwrap();
    assert!(!log.contains("root:wrong") && !log.contains("\"wrong"), "{log}");
}

/// A cluster that shows the certificate in a folder, and asks for one of the same authority.
async fn encrypted(folder: &Path) -> Option<EtcdCluster> {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let further = [
        "--cert-file",
        &file("server.pem"),
        "--key-file",
        &file("server.key"),
        "--client-cert-auth",
        "--trusted-ca-file",
        &file("authority.pem"),
    ];
    EtcdCluster::start_with(1, "https", &further).await.unwrap()
}

#[tokio::test]
async fn over_tls_a_registry_and_its_cluster_show_each_other_certificates() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let stranger = tempfile::tempdir().unwrap();
    certificates(stranger.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let Some(etcd) = encrypted(folder.path()).await else { return };
    let store = etcd.store().replacen("etcd://", "etcds://", 1);
    let (authority, both) = (file("authority.pem"), file("client-both.pem"));
    let trusting = ["--store", &store, "--etcd-authorities", &authority];
    let arguments = [&trusting[..], &["--etcd-certificate", &both]].concat();
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    registry.declare("one", 1, &["arith"]).await;
    assert_eq!(registry.hosts("arith").await, ["one"]);

    let strange = stranger.path().join("authority.pem").to_str().unwrap().to_owned();
    let strange = ["--store", &store, "--etcd-authorities", &strange, "--etcd-certificate", &both];
    // Without a certificate, or with authorities that did not sign the cluster's certificate (the
    // system's did not either), nothing is stored, and the log says why.
    for arguments in [&trusting[..], &strange, &["--store", &store]] {
        let address = format!("127.0.0.1:{}", wharf_tests::free_port().unwrap());
        let process = [&["registry", "--listen", &address], arguments].concat();
        let process = Process::start(&process).unwrap();
        process.logged("etcd cannot be read; the registry tries again").await.unwrap();
        let lists = wharf_tests::get(&format!("http://{address}/v1/services")).await.unwrap();
        assert_eq!(lists.0, 503);
        process.terminate().await.unwrap();
    }
}

/// What an administrator of the cluster asks for, once it knows users.
async fn administer(etcd: &EtcdCluster, what: &str, body: Value) {
    let login = json!({"name": "root", "password": "secret"}).to_string();
    let login = etcd.ask(&etcd.members[0], "auth/authenticate", &login).await.unwrap();
    let token = login["token"].as_str().unwrap();
    let url = format!("http://{}/v3/{what}", etcd.members[0].client);
    let request = wharf_tests::http_client().unwrap().post(url).json(&body);
    let answer = request.header("Authorization", token).send().await.unwrap();
    assert!(answer.status().is_success(), "{what}: {}", answer.text().await.unwrap());
}

/// A user that may do everything below `/wharf`, and one that may do everything.
async fn users(etcd: &EtcdCluster) {
    let end = |key: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
    let all = json!({"permType": 2, "key": end("/wharf/"), "range_end": end("/wharf0")});
    for (what, body) in [
        ("auth/user/add", json!({"name": "root", "password": "secret"})),
        ("auth/user/grant", json!({"user": "root", "role": "root"})),
        ("auth/role/add", json!({"name": "registry"})),
        ("auth/role/grant", json!({"name": "registry", "perm": all})),
        ("auth/user/add", json!({"name": "wharf", "password": "secret"})),
        ("auth/user/grant", json!({"user": "wharf", "role": "registry"})),
        ("auth/enable", json!({})),
    ] {
        let answer = etcd.ask(&etcd.members[0], what, &body.to_string()).await.unwrap();
        assert!(answer.get("error").is_none(), "{what}: {answer}");
    }
}

async fn as_user(etcd: &EtcdCluster) -> RegistryProcess {
    let store = etcd.store();
    let environment = [("WHARF_ETCD_USER", "wharf:secret")];
    RegistryProcess::start_with("127.0.0.1:0", &["--store", &store], &environment).await.unwrap()
}

#[tokio::test]
async fn users_that_change_under_tokens_that_say_all_themselves_stop_no_change() {
    let Some(openssl) = installed("openssl", "Debian: openssl") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for words in [
        vec!["genrsa", "-traditional", "-out", &file("key"), "2048"],
        vec!["rsa", "-in", &file("key"), "-pubout", "-out", &file("public")],
    ] {
        let made = run_command(Command::new(&openssl).args(&words)).await.unwrap();
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    }
    let token = format!(
        "jwt,pub-key={},priv-key={},sign-method=RS256,ttl=10m",
        file("public"),
        file("key")
    );
    let further = ["--auth-token", &token];
    let Some(etcd) = EtcdCluster::start_with(1, "http", &further).await.unwrap() else { return };
    users(&etcd).await;
    let registry = as_user(&etcd).await;
    assert_eq!(registry.declare("h0", 1, &["arith"]).await.0, 201);
    for user in 1..=3 {
        administer(&etcd, "auth/user/add", json!({"name": format!("u{user}"), "password": "x"}))
            .await;
        let (status, answer) = registry.declare(&format!("h{user}"), 1, &["arith"]).await;
        assert_eq!(status, 201, "{answer}");
    }
    assert_eq!(registry.hosts("arith").await.len(), 4);
    assert_eq!(registry.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn rights_that_are_taken_away_make_a_registry_unready_and_it_goes_on_when_they_are_back() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    users(&etcd).await;
    let registry = as_user(&etcd).await;
    registry.declare("one", 1, &["arith"]).await;
    let taken = json!({"user": "wharf", "role": "registry"});
    let revoked = json!({"name": "wharf", "role": "registry"});
    administer(&etcd, "auth/user/revoke", revoked).await;
    eventually("it says why it is not ready", async || {
        let (status, why) = registry.get("/readyz").await;
        (status == 503 && why.as_str()?.contains("permission denied")).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.declare("two", 1, &["arith"]).await.0, 503);
    assert_eq!(registry.hosts("arith").await, ["one"], "lists are still served");
    administer(&etcd, "auth/user/grant", taken).await;
    eventually("it is ready again", async || {
        (registry.get("/readyz").await.0 == 200).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(registry.declare("two", 1, &["arith"]).await.0, 201);
}

#[tokio::test]
async fn certificates_for_etcd_are_exchanged_while_the_registry_runs() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let Some(mut etcd) = encrypted(folder.path()).await else { return };
    let store = etcd.store().replacen("etcd://", "etcds://", 1);
    let (authority, both) = (file("authority.pem"), file("client-both.pem"));
    let arguments =
        ["--store", &store, "--etcd-authorities", &authority, "--etcd-certificate", &both];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    assert_eq!(registry.declare("one", 1, &["arith"]).await.0, 201);
    // Everything is from another authority now, which knows nothing of the first.
    etcd.members[0].process.take().unwrap().kill().await.unwrap();
    certificates(folder.path());
    etcd.start_member(0).unwrap();
    eventually("the registry writes again", async || {
        let body = Some(wharf_tests::declaration(1, &["arith"]));
        let declared = registry.try_send(Method::PUT, "/v1/hosts/two", body).await.ok()?;
        declared.0.is_success().then_some(())
    })
    .await
    .unwrap();
    registry.process.logged("the certificates for etcd were exchanged").await.unwrap();
    eventually("and reads", async || {
        (registry.hosts("arith").await == ["one", "two"]).then_some(())
    })
    .await
    .unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn a_member_that_comes_back_with_old_data_shows_nobody_the_past() {
    let Some(mut etcd) = EtcdCluster::start(3).await.unwrap() else { return };
    // This registry asks that member first.
    let member = etcd.members[2].client.clone();
    let others = format!("{},{}", etcd.members[0].client, etcd.members[1].client);
    let store = format!("etcd://{member},{others}");
    let arguments = ["--ttl", "1h", "--store", &store];
    let registry = RegistryProcess::start(&arguments).await.unwrap();
    assert_eq!(registry.declare("early", 1, &["arith"]).await.0, 201);
    etcd.members[2].process.take().unwrap().kill().await.unwrap();
    let kept = tempfile::tempdir().unwrap();
    copy(&etcd.folder(2), kept.path());
    etcd.start_member(2).unwrap();
    let declare = async |host: &str| {
        eventually("a change is taken", async || {
            let body = Some(wharf_tests::declaration(1, &["arith"]));
            let path = format!("/v1/hosts/{host}");
            let declared = registry.try_send(Method::PUT, &path, body).await.ok()?;
            declared.0.is_success().then_some(())
        })
        .await
        .unwrap();
    };
    for host in ["a", "b", "c"] {
        declare(host).await;
    }
    etcd.members[2].process.take().unwrap().kill().await.unwrap();
    etcd.lose_data(2).unwrap();
    copy(kept.path(), &etcd.folder(2));
    etcd.start_member(2).unwrap();
    declare("late").await;
    let all = ["a", "b", "c", "early", "late"];
    assert_eq!(registry.hosts("arith").await, all);
    assert_eq!(registry.get("/readyz").await.0, 200);
    // etcd lets such a member in only if its log can be continued. A registry that asks only that one shows
    // nothing, or else everything.
    let address = format!("127.0.0.1:{}", wharf_tests::free_port().unwrap());
    let words = ["registry", "--listen", &address, "--store", &format!("etcd://{member}")];
    let other = Process::start(&words).unwrap();
    let url = format!("http://{address}/v1/services/arith/endpoints");
    eventually("it waits, or has everything", async || {
        let (status, list) = wharf_tests::get(&url).await.ok()?;
        if status == 200 {
            assert!(all.iter().all(|host| list.contains(host)), "{list}");
            return Some(());
        }
        other.has_logged("etcd cannot be read; the registry tries again").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cluster_that_keeps_all_of_its_history_is_warned_of() {
    let Some(etcd) = EtcdCluster::start(1).await.unwrap() else { return };
    let etcd = std::sync::Arc::new(etcd);
    let put = json!({"key": "YQ==", "value": "Yg=="}).to_string();
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (etcd, put) = (etcd.clone(), put.clone());
        writing.spawn(async move {
            let client = wharf_tests::http_client().unwrap();
            let url = format!("http://{}/v3/kv/put", etcd.members[0].client);
            for _ in 0..70 {
                client.post(&url).body(put.clone()).send().await.unwrap();
            }
        });
    }
    writing.join_all().await;
    let store = etcd.store();
    let says = "etcd keeps all revisions";
    let registry = RegistryProcess::start(&["--store", &store]).await.unwrap();
    registry.process.logged(says).await.unwrap();
    let compact = json!({"revision": 2_000}).to_string();
    etcd.ask(&etcd.members[0], "kv/compaction", &compact).await.unwrap();
    let registry = RegistryProcess::start(&["--store", &store]).await.unwrap();
    // What it says of its start comes before what it says of this.
    assert_eq!(registry.get("/v1/health/state/odd").await.0, 400);
    registry.process.logged("a request was refused").await.unwrap();
    assert!(!registry.process.has_logged(says));
}
