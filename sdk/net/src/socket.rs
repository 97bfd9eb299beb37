//! A socket, with TLS or without.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket, with TLS or without. With TLS, bytes that were written may wait in it until it is flushed.
pub enum Socket<S> {
    /// As it is.
    Plain(S),
    /// Encrypted.
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::TlsStream<tokio::io::BufReader<S>>>),
}

/// Bytes that are read at once from an encrypted socket. rustls alone would read 4 KiB at a time.
#[cfg(feature = "tls")]
const READ: usize = 32 * 1024;

/// What an encrypted socket is read through.
#[cfg(feature = "tls")]
pub(crate) fn buffered<S: AsyncRead>(socket: S) -> tokio::io::BufReader<S> {
    tokio::io::BufReader::with_capacity(READ, socket)
}

impl<S> Socket<S> {
    /// Whether it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Socket::Plain(_))
    }
}

#[cfg(feature = "tls")]
impl<S> Socket<S> {
    /// The certificates that the peer showed, its own first; none if it showed none.
    #[must_use]
    pub fn peer(&self) -> &[rustls::pki_types::CertificateDer<'static>] {
        match self {
            Socket::Plain(_) => &[],
            Socket::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
        }
    }
}

macro_rules! on_either {
    ($socket:expr, $inner:ident => $polled:expr) => {
        match $socket.get_mut() {
            Socket::Plain($inner) => {
                let $inner = Pin::new($inner);
                $polled
            }
            #[cfg(feature = "tls")]
            Socket::Tls($inner) => {
                let $inner = Pin::new($inner);
                $polled
            }
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, socket => socket.poll_read(cx, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, socket => socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, socket => socket.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Socket::Plain(socket) => socket.is_write_vectored(),
            #[cfg(feature = "tls")]
            Socket::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, socket => socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, socket => socket.poll_shutdown(cx))
    }
}

impl<S> std::fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_encrypted() { "Socket(TLS)" } else { "Socket" })
    }
}
