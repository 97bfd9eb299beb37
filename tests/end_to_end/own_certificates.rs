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
