//! The server's end.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage};

use super::files::{self, TlsError};
use super::identity::{Identity, Roots};
use super::path::provider;
use super::verify::Peers;

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for one.
    Unknown,
    /// They may show one. Without it they are nobody in particular.
    Asked,
    /// Only clients with a certificate are accepted.
    Required,
}

/// The files for TLS: the server's certificate and key, and the authorities of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and the chain from it to its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Certificate authorities of clients, in PEM. With them, only clients with a certificate from
    /// one of them are accepted.
    pub client_authorities: Option<PathBuf>,
}

/// The TLS of a listener. Clones share it.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    identity: Identity,
    clients: Clients,
    files: Option<Arc<TlsFiles>>,
}

impl Tls {
    /// Shows this identity, and believes whom it believes.
    ///
    /// # Errors
    /// None in practice: when TLS 1.3 cannot be spoken.
    pub fn new(identity: Identity, clients: Clients) -> Result<Self, TlsError> {
        let config = config(&identity, clients);
        let config = Arc::new(config.map_err(|error| TlsError::unfit("TLS", &error))?);
        Ok(Tls { config, identity, clients, files: None })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or they do not fit together.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let clients = match files.client_authorities {
            Some(_) => Clients::Required,
            None => Clients::Unknown,
        };
        let identity = Identity::anonymous(None, Roots::default());
        let tls = Tls { files: Some(Arc::new(files)), ..Tls::new(identity, clients)? };
        tls.reload()?;
        Ok(tls)
    }

    /// Reads the files again, if there are any, for new connections. Open ones stay, unless their peers'
    /// authority is not believed any more.
    ///
    /// # Errors
    /// As for [`Tls::load`]. Then everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Some(files) = &self.files else { return Ok(()) };
        let chain = files::certificates("certificate", &files.certificate)?;
        let key = files::key(&files.key)?;
        let roots = match &files.client_authorities {
            Some(path) => Roots::new(files::certificates("authorities of clients", path)?)?,
            None => Roots::default(),
        };
        self.identity.replace(chain, key, roots).map_err(|error| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            why: error.to_string(),
        })
    }

    /// Whether all clients must present a certificate.
    #[must_use]
    pub fn knows_its_clients(&self) -> bool {
        self.clients == Clients::Required
    }

    /// What it shows, and whom it believes.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Lets clients choose between HTTP/1 and HTTP/2 during the handshake (ALPN).
    #[must_use]
    pub fn with_http2(&self) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols.insert(0, b"h2".to_vec());
        Tls { config: Arc::new(config), ..self.clone() }
    }
}

/// The server's side of a handshake, which only listeners need.
#[cfg(feature = "listener")]
mod handshake {
    use std::io;

    use tokio::io::{AsyncRead, AsyncWrite, BufReader};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream;

    use super::Tls;
    use crate::socket::buffered;

    impl Tls {
        pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
            &self,
            stream: S,
        ) -> io::Result<TlsStream<BufReader<S>>> {
            TlsAcceptor::from(self.config.clone()).accept(buffered(stream)).await
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.identity).finish()
    }
}

fn config(identity: &Identity, clients: Clients) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Clients::Unknown => Arc::new(NoClientAuth),
        Clients::Asked | Clients::Required => Arc::new(Peers {
            identity: identity.clone(),
            is_required: clients == Clients::Required,
        }),
    };
    let builder = builder.with_client_cert_verifier(verifier);
    let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would skip the check of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
