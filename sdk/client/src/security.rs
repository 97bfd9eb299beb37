//! Whether connections to hosts are encrypted, and who the other side has to be.

use tokio::net::TcpStream;
use wharf_net::Socket;
#[cfg(feature = "tls")]
use wharf_net::tls::{Believed, Expected, Identity};

use crate::error::ConnectError;

/// Whether connections to hosts are encrypted, and who the other side has to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    #[cfg(feature = "tls")]
    identity: Option<Identity>,
}

/// Whether a host is still believed.
pub(crate) struct Doubt {
    #[cfg(feature = "tls")]
    believed: Option<Believed>,
}

#[cfg(feature = "tls")]
impl Security {
    /// All hosts have to show certificates that this identity believes.
    pub(crate) fn of(identity: Identity) -> Self {
        Security { identity: Some(identity) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.identity.is_some()
    }

    /// The connection, after its handshake. Nothing is sent to a host that is not `host`.
    pub(crate) async fn secure(
        &self,
        socket: TcpStream,
        host: &str,
    ) -> Result<(Socket<TcpStream>, Doubt), ConnectError> {
        let Some(identity) = &self.identity else {
            return Ok((Socket::Plain(socket), Doubt { believed: None }));
        };
        let socket =
            identity.connect(socket, &Expected::Host(host.to_owned())).await.map_err(|source| {
                match source.kind() {
                    std::io::ErrorKind::UnexpectedEof => ConnectError::NoTls,
                    _ => ConnectError::Unverified { host: host.to_owned(), source },
                }
            })?;
        let believed = Some(Believed::new(identity, socket.peer()));
        Ok((socket, Doubt { believed }))
    }
}

#[cfg(feature = "tls")]
impl Doubt {
    /// Completes when the host is not believed any more.
    pub(crate) async fn arises(self) {
        match self.believed {
            Some(believed) => believed.lost().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(feature = "tls"))]
impl Security {
    pub(crate) fn is_on(&self) -> bool {
        false
    }

    pub(crate) async fn secure(
        &self,
        socket: TcpStream,
        _: &str,
    ) -> Result<(Socket<TcpStream>, Doubt), ConnectError> {
        Ok((Socket::Plain(socket), Doubt {}))
    }
}

#[cfg(not(feature = "tls"))]
impl Doubt {
    pub(crate) async fn arises(self) {
        std::future::pending::<()>().await;
    }
}
