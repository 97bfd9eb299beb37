//! An etcd cluster with access control: users, and TLS with certificates of both sides.

use serde_json::json;
use wharf_tests::{EtcdCluster, Process, RegistryProcess, eventually};

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

#[tokio::test]
async fn over_tls_a_registry_and_its_cluster_show_each_other_certificates() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let stranger = tempfile::tempdir().unwrap();
    certificates(stranger.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let further = [
        "--cert-file",
        &file("server.pem"),
        "--key-file",
        &file("server.key"),
        "--client-cert-auth",
        "--trusted-ca-file",
        &file("authority.pem"),
    ];
    let Some(etcd) = EtcdCluster::start_with(1, "https", &further).await.unwrap() else { return };
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
