//! The client's end.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::identity::Identity;
use super::path::provider;
use super::verify::{Expected, Servers};
use super::words::in_words;
use crate::socket::{Socket, buffered};

/// What is sent as the server's name if it is no DNS name, or nobody asks for one.
const NAMELESS: &str = "wharf.invalid";

impl Identity {
    /// Encrypts a connection, and verifies that the peer is who it has to be. Nothing was sent before, and
    /// nothing is if it is somebody else.
    ///
    /// # Errors
    /// When the peer is somebody else, does not speak TLS 1.3, or the socket fails. A peer that does not
    /// accept our certificate says so only at the first read.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(
        &self,
        socket: TcpStream,
        expected: &Expected,
    ) -> io::Result<Socket<TcpStream>> {
        let asked = match expected {
            Expected::Host(name) if self.domain().is_none() => {
                ServerName::try_from(name.clone()).ok()
            }
            _ => None,
        };
        let config = self.client_config_with(expected, asked.is_some())?;
        let name = match asked {
            Some(name) => name,
            None => ServerName::try_from(NAMELESS).map_err(io::Error::other)?,
        };
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, buffered(socket));
        let stream = connecting.await.map_err(in_words)?;
        Ok(Socket::Tls(Box::new(stream.into())))
    }

    /// A client's TLS, for a library that connects by itself, to peers that have to be `expected`. It
    /// follows the changes of this identity.
    ///
    /// # Errors
    /// None in practice: when TLS 1.3 cannot be spoken.
    pub fn client_config(&self, expected: &Expected) -> io::Result<ClientConfig> {
        self.client_config_with(expected, false)
    }

    fn client_config_with(
        &self,
        expected: &Expected,
        sends_name: bool,
    ) -> io::Result<ClientConfig> {
        let verifier = Servers { identity: self.clone(), expected: expected.clone() };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(self.clone()));
        config.resumption = Resumption::disabled();
        config.enable_sni = sends_name;
        Ok(config)
    }
}
