//! Trust domains of several registries, clocks that differ, and TLS as other programs see it.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use wharf_client::Member;
use wharf_tests::{EtcdCluster, Fleet, Process, eventually, installed, wharf, within};

const PAIR: &str = "{\"a\":7,\"b\":8}";

#[tokio::test]
async fn registries_over_one_cluster_give_out_certificates_and_do_without_each_other() {
    let Some(cluster) = EtcdCluster::start(1).await.unwrap() else { return };
    let store = cluster.store();
    let shared = ["--store", &store[..], "--certificate-life", "6s"];
    let mut fleet = Fleet::start(&shared).await.unwrap();
    // A second registry joins with a token, and gets an issuer of its own.
    let token = fleet.token(&["--registry"]).await.unwrap();
    let second = fleet.path("second").unwrap();
    let base = ["registry", "--listen", "127.0.0.1:0", "--identity", &second];
    let joining = ["--join", &token, "--join-at", &fleet.url];
    let mut second = Process::start(&[&base[..], &joining, &shared].concat()).unwrap();
    let second_url = second.announced("registry").await.unwrap();
    let host = fleet.host("edge-1", &[]).await.unwrap();
    // Tokens are for the domain: another registry takes them too.
    let token = fleet.token(&["--caller", "shop"]).await.unwrap();
    let folder = fleet.path("shop").unwrap();
    let member = Member::join(Path::new(&folder), &second_url, &token, None).await.unwrap();
    let call = async |registry: &str| {
        let arguments = ["call", "--registry", registry, "--identity", &folder];
        wharf(&[&arguments[..], &["arith.multiply", PAIR]].concat()).await.unwrap().stdout
    };
    eventually("it is called", async || (call(&second_url).await == "56\n").then_some(()))
        .await
        .unwrap();
    // Each issuer's certificates are believed everywhere, and renewed by the other.
    member.renew(&fleet.url).await.unwrap();
    member.renew(&second_url).await.unwrap();
    assert_eq!(call(&fleet.url).await, "56\n");
    // Below it there are no further issuers.
    let token = fleet.token(&["--registry"]).await.unwrap();
    let third = tempfile::tempdir().unwrap();
    let refused = Member::join(&third.path().join("it"), &second_url, &token, None).await;
    let refused = wharf_net::chain(&refused.unwrap_err());
    assert!(refused.contains("this registry has joined itself"), "{refused}");
    // Nor are there tokens.
    let second_folder = fleet.path("second").unwrap();
    let token = wharf(&["identity", "token", "--caller", "x", "--identity", &second_folder]).await;
    let token = token.unwrap().stderr;
    assert!(token.contains("is the folder of a registry that joined"), "{token}");
    // While the first is away, the second goes on, also for certificates.
    fleet.lose_registry().await.unwrap();
    second.logged("the certificate is not looked after").await.unwrap();
    eventually("it is renewed", async || member.is_due().then_some(())).await.unwrap();
    member.renew(&second_url).await.unwrap();
    assert!(!member.is_due());
    host.process.terminate().await.unwrap();
}

#[tokio::test]
async fn clocks_may_differ_and_one_that_is_too_wrong_is_named() {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

    if installed("faketime", "Debian: faketime").is_none() {
        return;
    }
    let fleet = Fleet::start(&[]).await.unwrap();
    let host = fleet.host("edge-1", &[]).await.unwrap();
    fleet.caller("shop").await.unwrap();
    let folder = fleet.path("caller-shop").unwrap();
    let call = async |offset: &str| {
        let mut command = Command::new(Process::program().unwrap());
        command.args(["call", "--registry", &fleet.url, "--identity", &folder]);
        command.args(["arith.multiply", PAIR]);
        command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", offset);
        wharf_tests::run_command(&mut command).await.unwrap()
    };
    eventually("it is called", async || (call("+0").await.stdout == "56\n").then_some(()))
        .await
        .unwrap();
    for near in ["-50m", "+50m"] {
        let called = call(near).await;
        assert_eq!(called.stdout, "56\n", "{near}: {called:?}");
    }
    for (far, said) in [("-30h", "NotValidYet"), ("+10d", "Expired")] {
        let called = call(far).await;
        let says = called.stderr.contains(said)
            || called.stderr.contains("does this machine's clock go wrong?")
            || called.stderr.contains("not valid before")
            || called.stderr.contains("not valid after");
        assert!(called.code == Some(5) && says, "{far}: {called:?}");
    }
    host.process.terminate().await.unwrap();
}

/// What the openssl command line says of a server.
async fn openssl(address: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-connect", address]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    // What comes after the handshake, such as tickets, is seen before the end.
    child.stdin.take().unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let output = within("openssl ends", child.wait_with_output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn other_programs_find_tls_1_3_without_resumption_and_nothing_older() {
    if installed("openssl", "Debian: openssl").is_none() {
        return;
    }
    let fleet = Fleet::start(&[]).await.unwrap();
    let host = fleet.host("edge-1", &[]).await.unwrap();
    let side = host.http.trim_start_matches("https://").to_owned();
    fleet.caller("shop").await.unwrap();
    let folder = fleet.path("caller-shop").unwrap();
    let (roots, own) = (format!("{folder}/roots.pem"), format!("{folder}/member.pem"));
    let trusting = ["-CAfile", &roots, "-verify_return_error"];
    for address in [&host.address[..], &side, fleet.address()] {
        let said =
            openssl(address, &[&trusting[..], &["-cert", &own, "-cert_chain", &own]].concat())
                .await;
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("New, TLSv1.3"), "{said}");
        assert!(said.contains("HTTP/1"), "{said}");
        assert!(!said.contains("New Session Ticket"), "{said}");
        for old in ["-tls1_2", "-tls1_1", "-tls1"] {
            let said = openssl(address, &[&trusting[..], &[old]].concat()).await;
            assert!(!said.contains("HTTP/1") && said.contains("alert"), "{old}: {said}");
        }
        for weak in ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"] {
            let said = openssl(address, &[&trusting[..], &["-ciphersuites", weak]].concat()).await;
            assert!(said.contains("handshake failure"), "{weak}: {said}");
        }
    }
    // Programs that know no SPIFFE find a registry and a host by DNS names.
    let by_name = ["-verify_hostname", "localhost"];
    let said = openssl(fleet.address(), &[&trusting[..], &by_name].concat()).await;
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let by_name = ["-verify_hostname", "edge-1.host.test.internal"];
    let said = openssl(&host.address, &[&trusting[..], &by_name].concat()).await;
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}
