//! The server's end of a connection: plain or TLS, with a limit on stalled writes. Its first bytes
//! can be inspected to find the protocol, and are read again by the code that serves it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::places::Seat;
use crate::tls::Tls;
use crate::unsent::limit_unsent;
use crate::unstalled::Unstalled;

/// The server's end of a connection.
///
/// Writes fail with [`io::ErrorKind::TimedOut`] if the peer reads nothing for longer than the
/// listener's bounds allow.
pub struct Stream {
    socket: Socket,
    /// Bytes that were inspected but not read.
    given_back: BytesMut,
    seat: Arc<Seat>,
}

enum Socket {
    Plain(Unstalled<TcpStream>),
    Tls(Box<TlsStream<Unstalled<TcpStream>>>),
}

impl Stream {
    /// A stream over a socket; with TLS, after its handshake.
    pub(crate) async fn accept(
        socket: TcpStream,
        tls: Option<&Tls>,
        stall: Duration,
        seat: Arc<Seat>,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        limit_unsent(&socket)?;
        let socket = Unstalled::new(socket, stall);
        let socket = match tls {
            Some(tls) => Socket::Tls(Box::new(tls.accept(socket).await?)),
            None => Socket::Plain(socket),
        };
        Ok(Stream { socket, given_back: BytesMut::new(), seat })
    }

    /// Its place at the listener.
    #[must_use]
    pub fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// The first `count` bytes that are still to be read, or fewer if the peer sends no more. They
    /// are given back: the next read returns them again.
    ///
    /// # Errors
    /// When the socket fails.
    ///
    /// # Cancel safety
    /// Nothing is lost: the bytes that have arrived are given back too.
    pub async fn first_bytes(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.given_back.len() < count {
            let mut limited = (&mut self.socket).take((count - self.given_back.len()) as u64);
            if limited.read_buf(&mut self.given_back).await? == 0 {
                break;
            }
            self.seat.heard_now();
        }
        Ok(&self.given_back[..count.min(self.given_back.len())])
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given_back.has_remaining() {
            let count = buffer.remaining().min(self.given_back.len());
            buffer.put_slice(&self.given_back[..count]);
            self.given_back.advance(count);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if read.is_ready() {
            self.seat.heard_now();
        }
        read
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Socket::Tls(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
        };
        if written.is_ready() {
            self.seat.use_now();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Socket::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        };
        if written.is_ready() {
            self.seat.use_now();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(socket) => socket.is_write_vectored(),
            Socket::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, from) = listener.accept().await.unwrap();
        let seat = crate::places::Places::new(1).take(from).await.unwrap();
        (peer, Stream::accept(socket, None, Duration::from_secs(1), seat).await.unwrap())
    }

    #[tokio::test]
    async fn first_bytes_are_read_again_by_whoever_comes_next() {
        let (mut peer, mut stream) = pair().await;
        peer.write_all(b"GET / HTTP/1.1").await.unwrap();
        assert_eq!(stream.first_bytes(1).await.unwrap(), b"G");
        assert_eq!(stream.first_bytes(4).await.unwrap(), b"GET ");
        assert_eq!(stream.first_bytes(2).await.unwrap(), b"GE");
        peer.shutdown().await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1");
    }

    #[tokio::test]
    async fn a_peer_that_says_too_little_is_heard_all_the_same() {
        let (mut peer, mut stream) = pair().await;
        peer.write_all(b"hi").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(stream.first_bytes(8).await.unwrap(), b"hi");
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "hi");
    }
}
