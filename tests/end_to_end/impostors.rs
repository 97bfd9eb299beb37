//! Somebody in the middle of a connection learns no secret, and changes nothing unnoticed.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use wharf_client::Client;
use wharf_registry_api::{RegistryClient, RegistryOptions};
use wharf_tests::{Args, DOMAIN, Fleet, Process, eventually, within};

const SECRET: &str = "a-secret-that-nobody-else-may-see";

/// What came by.
type Seen = Arc<Mutex<Vec<u8>>>;

fn seen(bytes: &Seen) -> Vec<u8> {
    bytes.lock().unwrap().clone()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Speaks TLS with a certificate of its own for somebody else's name, and keeps what it is told.
async fn impostor(name: &str) -> (String, Seen) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone(), issuer.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bytes = Seen::default();
    let kept = bytes.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, kept) = (acceptor.clone(), kept.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
            });
        }
    });
    (address, bytes)
}

/// Hands on what it gets, and keeps it. After `faithful` bytes of a direction it changes one bit.
async fn relay(to: String, faithful: [Option<usize>; 2]) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bytes = Seen::default();
    let kept = bytes.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(beyond) = TcpStream::connect(&to).await else { return };
            let (near, far) = (socket.into_split(), beyond.into_split());
            for ((mut from, mut to), faithful) in
                [((near.0, far.1), faithful[0]), ((far.0, near.1), faithful[1])]
            {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let (mut buffer, mut passed) = (vec![0; 4096], 0);
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                        if let Some(at) =
                            faithful.filter(|at| (passed..passed + count).contains(at))
                        {
                            buffer[at - passed] ^= 1;
                        }
                        passed += count;
                        if to.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    (address, bytes)
}

#[tokio::test]
async fn an_impostor_of_a_host_or_of_a_registry_is_told_nothing() {
    let fleet = Fleet::start(&[]).await.unwrap();
    let caller = fleet.caller("shop").await.unwrap();
    let host = format!("spiffe://{DOMAIN}/host/edge-1");
    let (address, told) = impostor(&host).await;
    let client = Client::builder()
        .identity(caller.identity())
        .host_name("edge-1")
        .token(SECRET)
        .direct(&address);
    let called = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 });
    let error = within("an answer", called).await.unwrap().unwrap_err();
    let error = wharf_net::chain(&error);
    assert!(error.contains("from an authority that is not believed here"), "{error}");
    assert_eq!(seen(&told), b"");

    let (address, told) = impostor(&format!("spiffe://{DOMAIN}/registry")).await;
    let url = format!("https://{address}");
    let options =
        RegistryOptions { token: Some(SECRET.to_owned()), ..caller.registry_options().unwrap() };
    let registry = RegistryClient::with_options(&url, options).unwrap();
    within("an answer", registry.services()).await.unwrap().unwrap_err();
    // Nor is it told a join token.
    let token = fleet.token(&["--caller", "desk"]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let joined = wharf_client::Member::join(folder.path(), &url, &token, None).await;
    joined.unwrap_err();
    // A host that is sent there goes on to serve, and says what is wrong.
    let plugins = tempfile::tempdir().unwrap();
    let host_token = fleet.token(&["--host", "edge-1"]).await.unwrap();
    let identity = fleet.path("host").unwrap();
    wharf_client::Member::join(std::path::Path::new(&identity), &fleet.url, &host_token, None)
        .await
        .unwrap();
    let plugins = plugins.path().to_str().unwrap();
    let base = ["host", "--listen", "127.0.0.1:0", "--http-listen", "none", "--plugins", plugins];
    let there = ["--identity", &identity, "--registry", &url, "--registry-token", SECRET];
    let host = Process::start(&[&base[..], &there].concat()).unwrap();
    host.logged("announcing failed").await.unwrap();
    host.logged("UnknownIssuer").await.unwrap();
    assert_eq!(seen(&told), b"");
}

#[tokio::test]
async fn who_listens_in_between_learns_no_secret_and_whoever_changes_a_bit_is_noticed() {
    let fleet = Fleet::start(&[]).await.unwrap();
    let host = fleet.host("edge-1", &[]).await.unwrap();
    let caller = fleet.caller("shop").await.unwrap();
    let client = |address: &str| {
        let builder = Client::builder().identity(caller.identity()).host_name("edge-1");
        builder.timeout(std::time::Duration::from_secs(3)).direct(address)
    };
    let call = async |address: &str| {
        client(address)
            .call_json("textkit.recase", serde_json::json!([SECRET, "upper"]))
            .await
            .map_err(|error| wharf_net::chain(&error))
    };
    let (address, bytes) = relay(host.address.clone(), [None, None]).await;
    eventually("it is called", async || call(&address).await.ok()).await.unwrap();
    let all = seen(&bytes);
    assert!(all.len() > 500, "{}", all.len());
    for text in [SECRET, &SECRET.to_uppercase(), "recase", "edge-1", "shop"] {
        assert!(!has(&all, text), "{text}");
    }
    // Wherever a bit is changed, a call is answered rightly or not at all.
    let whole = all.len();
    for direction in 0..2 {
        for at in (0..whole / 2).step_by(97) {
            let mut faithful = [None, None];
            faithful[direction] = Some(at);
            let (address, _) = relay(host.address.clone(), faithful).await;
            if let Ok(answer) = call(&address).await {
                assert_eq!(answer, SECRET.to_uppercase(), "{direction} {at}");
            }
        }
    }
}
