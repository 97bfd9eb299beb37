//! Who may do what over TLS: everybody who can come, by everything that can be asked for, cell by cell.

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_client::Client;
use wharf_net::tls::{Expected, Identity, Roots};
use wharf_tests::{Args, DOMAIN, Fleet, FleetHost, eventually, within};

const TOKEN: &str = "desk-secret-0123456789";

/// `desk` shows a token, `shop` a certificate.
const PRINCIPALS: &str = r#"
[[principal]]
name = "desk"
secret = "desk-secret-0123456789"
calls = ["*"]
scopes = ["read", "write"]
hosts = ["desk-*"]

[[principal]]
name = "shop"
certificate = "spiffe://test.internal/caller/shop"
calls = ["demo:arith/*"]
scopes = ["read"]
"#;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It was done.
    Done,
    /// It was refused, because this caller may not.
    Denied,
    /// The handshake failed.
    Refused,
    /// It was said that TLS has to be spoken.
    Told,
}

/// Somebody who comes.
struct Visitor {
    who: &'static str,
    /// `None`: it speaks no TLS.
    identity: Option<Identity>,
    token: Option<&'static str>,
}

/// A certificate, shown by somebody who believes the fleet.
fn showing(roots: &Roots, chain: &str, key: &str) -> Identity {
    let identity = Identity::anonymous(Some(DOMAIN.parse().unwrap()), roots.clone());
    let pem: String = roots.certificates().iter().map(|root| pem(root)).collect();
    identity.replace_pem(chain, key, &pem).unwrap();
    identity
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn shop() -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://{DOMAIN}/caller/shop");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}

/// A certificate of the fleet's own issuer that has ended.
fn ended(fleet: &Fleet) -> (String, String) {
    let text = std::fs::read_to_string(fleet.path("domain/issuer.pem").unwrap()).unwrap();
    let (key, chain) = text.split_at(text.find("-----BEGIN CERTIFICATE-----").unwrap());
    let issuer = rcgen::Issuer::from_ca_cert_pem(chain, KeyPair::from_pem(key).unwrap()).unwrap();
    let mut params = shop();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (certificate.pem() + chain, key.serialize_pem())
}

/// A certificate of an authority of one's own, with a name of the fleet.
fn forged() -> (String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = shop().signed_by(&key, &issuer).unwrap();
    (certificate.pem() + &issuer.pem(), key.serialize_pem())
}

/// What a member has in its folder.
fn held(fleet: &Fleet, folder: &str) -> (String, String) {
    let text = std::fs::read_to_string(fleet.path(folder).unwrap() + "/member.pem").unwrap();
    let begin = text.find("-----BEGIN").unwrap();
    let (key, chain) = text.split_at(text.find("-----BEGIN CERTIFICATE-----").unwrap());
    (chain.to_owned(), key[begin..].to_owned())
}

impl Visitor {
    /// Sends bytes to an address, and reads what comes until the other side ends or says enough.
    async fn say(&self, to: &str, expected: Expected, said: &str) -> Result<String, String> {
        let asking = async {
            let text = |error: std::io::Error| error.to_string();
            let mut socket = TcpStream::connect(to).await.map_err(text)?;
            let mut heard = String::new();
            match &self.identity {
                None => {
                    socket.write_all(said.as_bytes()).await.map_err(text)?;
                    let _ = socket.shutdown().await;
                    socket.read_to_string(&mut heard).await.map_err(text)?;
                }
                Some(identity) => {
                    let mut socket = identity.connect(socket, &expected).await.map_err(text)?;
                    socket.write_all(said.as_bytes()).await.map_err(text)?;
                    socket.flush().await.map_err(text)?;
                    let mut bytes = vec![0; 4096];
                    while !heard.contains('\n') || said.starts_with(|c: char| c.is_alphabetic()) {
                        match socket.read(&mut bytes).await {
                            Ok(0) => break,
                            Ok(count) => heard += &String::from_utf8_lossy(&bytes[..count]),
                            Err(_) if !heard.is_empty() => break,
                            Err(error) => return Err(text(error)),
                        }
                    }
                }
            }
            if heard.is_empty() { Err("it closed the connection".to_owned()) } else { Ok(heard) }
        };
        within("an answer", asking).await.unwrap()
    }

    async fn http(&self, to: &str, expected: Expected, request: &str, body: &str) -> Came {
        let token = self.token.map_or(String::new(), |t| format!("authorization: Bearer {t}\r\n"));
        let said = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{token}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let heard = self.say(to, expected, &said).await;
        match heard.as_deref().map(|heard| heard.split_whitespace().nth(1).unwrap_or_default()) {
            Ok("200" | "201") => Came::Done,
            Ok("401" | "403" | "404") => Came::Denied,
            Ok("400") if heard.as_ref().is_ok_and(|heard| heard.contains("speaks TLS")) => {
                Came::Told
            }
            Ok(_) => panic!("{}: {request}: {heard:?}", self.who),
            Err(_) => Came::Refused,
        }
    }

    async fn json(&self, host: &FleetHost) -> Came {
        let said = "{\"method\":\"Arith.Multiply\",\"params\":[{\"A\":7,\"B\":8}],\"id\":1}\n";
        let heard = self.say(&host.address, edge(), said).await;
        match heard.as_deref() {
            Ok(heard) if heard.contains("\"result\":56") => Came::Done,
            Ok(heard) if heard.contains("speaks TLS") => Came::Told,
            Ok(_) => Came::Denied,
            Err(_) => Came::Refused,
        }
    }

    async fn wharf(&self, host: &FleetHost) -> Came {
        let builder = Client::builder().token(self.token.unwrap_or_default()).host_name("edge-1");
        let builder = match &self.identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        let client = builder.direct(&host.address);
        let called = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
        let error = match called {
            Ok(product) => {
                assert_eq!(product, 56);
                return Came::Done;
            }
            Err(error) => wharf_net::chain(&error),
        };
        if error.contains("this host speaks TLS") {
            Came::Told
        } else if error.contains("the token is missing or wrong") {
            Came::Denied
        } else {
            assert!(error.contains("our certificate"), "{}: {error}", self.who);
            Came::Refused
        }
    }

    async fn all(&self, fleet: &Fleet, host: &FleetHost) -> [Came; 9] {
        let registry = fleet.address();
        let side = host.http.trim_start_matches("https://");
        let pair = "{\"a\":7,\"b\":8}";
        let declaration = format!(
            "{{\"session\":1,\"address\":\"127.0.0.1:1\",\"endpoints\":[]{}}}",
            ",\"metadata\":{}"
        );
        [
            self.wharf(host).await,
            self.http(&host.address, edge(), "POST /arith/multiply", pair).await,
            self.json(host).await,
            self.http(side, edge(), "GET /metrics", "").await,
            self.http(side, edge(), "GET /healthz", "").await,
            self.http(registry, Expected::Registry, "GET /v1/services", "").await,
            self.http(registry, Expected::Registry, "PUT /v1/hosts/desk-1", &declaration).await,
            self.http(registry, Expected::Registry, "GET /services", "").await,
            self.http(registry, Expected::Registry, "GET /v1/identity/bundle", "").await,
        ]
    }
}

fn edge() -> Expected {
    Expected::Host("edge-1".to_owned())
}

#[tokio::test]
async fn everybody_gets_what_they_may_and_nothing_else_whatever_they_ask_for() {
    use Came::{Denied, Done, Refused, Told};

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    std::fs::write(&file, PRINCIPALS).unwrap();
    let rights = ["--principals", file.to_str().unwrap()];
    let life = ["--certificate-life", "6s"];
    let fleet = Fleet::start(&[rights, life].concat()).await.unwrap();
    let host = fleet.host("edge-1", &rights).await.unwrap();
    let member = fleet.caller("shop").await.unwrap();
    let stranger = fleet.caller("stranger").await.unwrap();
    let keep = |member: &wharf_client::Member| {
        let (member, url) = (member.clone(), fleet.url.clone());
        tokio::spawn(async move { member.keep(&url).await })
    };
    let _kept = [keep(&member), keep(&stranger)];
    // A certificate that is good but for its root, which is exchanged now.
    let token = fleet.token(&["--caller", "shop"]).await.unwrap();
    let revoked = std::path::PathBuf::from(fleet.path("revoked").unwrap());
    wharf_client::Member::join(&revoked, &fleet.url, &token, None).await.unwrap();
    let revoked = held(&fleet, "revoked");
    for step in ["add", "use"] {
        fleet.identity(&["root", step]).await.unwrap();
        let renewed = host.process.count_logged("the certificate was renewed");
        eventually("the host has another certificate", async || {
            (host.process.count_logged("the certificate was renewed") > renewed + 1).then_some(())
        })
        .await
        .unwrap();
    }
    fleet.identity(&["root", "drop"]).await.unwrap();
    for identity in [member.identity(), stranger.identity()] {
        eventually("one root is believed", async || {
            (identity.roots().certificates().len() == 1).then_some(())
        })
        .await
        .unwrap();
    }
    eventually("the host believes one root", async || {
        (host.process.count_logged("other authorities are believed") == 2).then_some(())
    })
    .await
    .unwrap();
    let roots = member.identity().roots();
    let other = Fleet::start(&[]).await.unwrap();
    other.caller("shop").await.unwrap();
    let shown = |(chain, key): (String, String)| Some(showing(&roots, &chain, &key));
    let nobody = Identity::anonymous(Some(DOMAIN.parse().unwrap()), roots.clone());
    let visitor = |who, identity, token| Visitor { who, identity, token };
    let table = [
        (visitor("plain", None, None), [Told; 9]),
        (
            visitor("nobody", Some(nobody.clone()), None),
            [Denied, Denied, Denied, Denied, Done, Denied, Denied, Denied, Done],
        ),
        (
            visitor("wrong token", Some(nobody.clone()), Some("wrong-secret-0123456789")),
            [Denied, Denied, Denied, Denied, Done, Denied, Denied, Denied, Done],
        ),
        (
            visitor("right token", Some(nobody), Some(TOKEN)),
            // JSON-RPC over TCP has no place for a token.
            [Done, Done, Denied, Done, Done, Done, Done, Done, Done],
        ),
        (
            visitor("right certificate", Some(member.identity().clone()), None),
            [Done, Done, Done, Done, Done, Done, Denied, Done, Done],
        ),
        (
            visitor("certificate without rights", Some(stranger.identity().clone()), None),
            [Denied, Denied, Denied, Denied, Done, Denied, Denied, Denied, Done],
        ),
        (visitor("forged certificate", shown(forged()), Some(TOKEN)), [Refused; 9]),
        (visitor("ended certificate", shown(ended(&fleet)), Some(TOKEN)), [Refused; 9]),
        (visitor("other domain", shown(held(&other, "caller-shop")), Some(TOKEN)), [Refused; 9]),
        (visitor("revoked root", shown(revoked), Some(TOKEN)), [Refused; 9]),
    ];
    for (visitor, expected) in table {
        let came = visitor.all(&fleet, &host).await;
        assert_eq!(came, expected, "{}", visitor.who);
    }
    let log = host.process.terminate().await.unwrap().1;
    assert!(!log.contains(TOKEN), "a secret in the log");
}
