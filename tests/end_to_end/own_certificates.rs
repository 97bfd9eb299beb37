//! TLS with certificates of one's own: files that are read again, and DNS names.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use wharf_client::{Client, Identity};
use wharf_tests::{Args, Load, Process, RegistryProcess, eventually, plugin, wharf};

const PAIR: &str = "{\"a\":7,\"b\":8}";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(folder: &Path) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, folder.display().to_string());
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("authority.pem"), authority.pem()).unwrap();
    authority
}

/// A certificate with this name, as `FILE.pem` with its key beside it, and with both in `FILE-both.pem`.
fn certify(authority: &Authority, folder: &Path, file: &str, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap().pem();
    std::fs::write(folder.join(format!("{file}.pem")), &certificate).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    let both = certificate + &key.serialize_pem();
    std::fs::write(folder.join(format!("{file}-both.pem")), both).unwrap();
}

#[tokio::test]
async fn a_host_shows_its_own_certificate_and_another_after_sighup_and_no_call_fails() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    certify(&authority, folder.path(), "server", "edge-1");
    certify(&authority, folder.path(), "shop", "shop.example");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let principals =
        "[[principal]]\nname = 'shop'\ncertificate = 'shop.example'\ncalls = ['arith']";
    std::fs::write(folder.path().join("principals.toml"), principals).unwrap();
    std::fs::create_dir(folder.path().join("plugins")).unwrap();
    std::fs::write(folder.path().join("plugins/arith.wasm"), plugin("arith").unwrap()).unwrap();
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let (roots, plugins) = (file("authority.pem"), file("plugins"));
    let rights = file("principals.toml");
    let mut host = Process::start(&[
        "host",
        "--name",
        "edge-1",
        "--listen",
        "127.0.0.1:0",
        "--plugins",
        &plugins,
        "--registry",
        &registry.url,
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
        "--tls-client-authorities",
        &roots,
        "--principals",
        &rights,
    ])
    .unwrap();
    let address = host.announced("host").await.unwrap();
    let own = file("shop-both.pem");
    let trusting = ["--host-authorities", &roots, "--host-certificate", &own];
    let call = async |more: &[&str]| {
        let arguments = [&["call"], more, &["arith.multiply", PAIR]].concat();
        wharf(&arguments).await.unwrap()
    };
    let listed = [&["--registry", &registry.url], &trusting[..]].concat();
    eventually("it is called", async || (call(&listed).await.stdout == "56\n").then_some(()))
        .await
        .unwrap();
    let direct = [&["--direct", &address], &trusting[..]].concat();
    let named = [&direct[..], &["--host-name", "edge-1"]].concat();
    assert_eq!(call(&named).await.stdout, "56\n");
    let nameless = call(&direct).await;
    assert!(nameless.stderr.contains("verified to be the host '127.0.0.1'"), "{nameless:?}");
    let without = ["--direct", &address, "--host-name", "edge-1", "--host-authorities", &roots];
    let without = call(&without).await;
    assert!(without.stderr.contains("it wants a certificate, and we have none"), "{without:?}");

    // Another certificate, with another name.
    let identity = Identity::load(roots.as_ref(), Some(own.as_ref())).unwrap();
    let client = Client::builder().identity(&identity).host_name("edge-1").direct(&address);
    let load = Load::start(&client, 4);
    eventually("calls run", async || (load.calls() > 100).then_some(())).await.unwrap();
    certify(&authority, folder.path(), "server", "edge-9");
    host.signal("HUP").unwrap();
    host.logged("the certificates were read again").await.unwrap();
    let renamed = [&direct[..], &["--host-name", "edge-9"]].concat();
    assert_eq!(call(&renamed).await.stdout, "56\n");
    let stale = call(&named).await;
    assert!(stale.stderr.contains("verified to be the host 'edge-1'"), "{stale:?}");
    let before = load.calls();
    eventually("calls run on", async || (load.calls() > before + 100).then_some(())).await.unwrap();
    assert_eq!(load.stop().await.failures, [""; 0]);
    // What cannot be used changes nothing.
    std::fs::write(&key, "nonsense").unwrap();
    host.signal("HUP").unwrap();
    host.logged("the certificates stay as they were").await.unwrap();
    assert_eq!(call(&renamed).await.stdout, "56\n");
    let product = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
    assert_eq!(product.unwrap(), 56);
}

#[tokio::test]
async fn a_large_answer_arrives_whole_at_every_door_over_tls() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use wharf_net::tls::Expected;
    use wharf_tests::{Fleet, within};

    const LEN: usize = 1_000_000;

    let fleet = Fleet::start(&[]).await.unwrap();
    let host = fleet.host("edge-1", &[]).await.unwrap();
    let member = fleet.caller("shop").await.unwrap();
    let identity = member.identity();
    let text = "a".repeat(LEN);
    let client = Client::builder().identity(identity).host_name("edge-1").direct(&host.address);
    let loud = eventually("it is called", async || {
        client.call_json("textkit.recase", serde_json::json!([text, "upper"])).await.ok()
    });
    assert_eq!(loud.await.unwrap().as_str().unwrap().len(), LEN);
    let own = std::fs::read(fleet.path("caller-shop").unwrap() + "/member.pem").unwrap();
    let side = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .identity(reqwest::Identity::from_pem(&own).unwrap())
        .build()
        .unwrap();
    let answered = async || {
        let url = format!("{}/metrics", host.http);
        let text = side.get(url).send().await.unwrap().text().await.unwrap();
        text.lines().filter(|line| line.contains("recase")).map(str::to_owned).collect::<String>()
    };
    let ask = async |said: String, ends: &str| {
        // It takes little at once, so that the host has to wait.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let socket = socket.connect(host.address.parse().unwrap()).await.unwrap();
        let expected = Expected::Host("edge-1".to_owned());
        let mut socket = identity.connect(socket, &expected).await.unwrap();
        let before = answered().await;
        socket.write_all(said.as_bytes()).await.unwrap();
        socket.flush().await.unwrap();
        // It is made before anything of it is read.
        eventually("it is answered", async || (answered().await != before).then_some(()))
            .await
            .unwrap();
        let (mut heard, mut buffer) = (0, vec![0; 4096]);
        loop {
            let count = within("more of it", socket.read(&mut buffer)).await.unwrap().unwrap();
            heard += count;
            if count == 0 || buffer[..count].ends_with(ends.as_bytes()) && heard > LEN {
                return heard;
            }
        }
    };
    let call =
        format!("{{\"method\":\"Textkit.Recase\",\"params\":[\"{text}\",\"upper\"],\"id\":1}}");
    assert!(ask(call, "}\n").await > LEN);
    let body = format!("[\"{text}\",\"upper\"]");
    let head = "POST /textkit/recase HTTP/1.1\r\nhost: h\r\nconnection: close\r\n";
    let call = format!(
        "{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(ask(call, "\"").await > LEN);
}
