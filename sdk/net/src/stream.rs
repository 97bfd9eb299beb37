//! The server's end of a connection: plain or TLS, with a limit on stalled writes. Its first bytes
//! can be inspected to find the protocol, and are read again by the code that serves it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::places::Seat;
use crate::socket::Socket;
use crate::tls::{Believed, Names, Tls};
use crate::unsent::limit_unsent;
use crate::unstalled::Unstalled;

/// What a handshake of TLS begins with.
const HANDSHAKE: u8 = 0x16;

/// How long a peer that speaks no TLS has time to read what is wrong.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a peer is told that speaks no TLS where it has to, by its first bytes.
pub type PlainRefusal = fn(&[u8]) -> Vec<u8>;

/// The server's end of a connection.
///
/// Writes fail with [`io::ErrorKind::TimedOut`] if the peer reads nothing for longer than the
/// listener's bounds allow.
pub struct Stream {
    socket: Socket<Unstalled<TcpStream>>,
    /// The names in the peer's certificate, if it showed one.
    names: Option<Arc<Names>>,
    /// Bytes that were inspected but not read.
    given_back: BytesMut,
    believed: Option<Believed>,
    seat: Arc<Seat>,
}

impl Stream {
    /// A stream over a socket; with TLS, after its handshake. If a peer speaks no TLS where it has to, it
    /// is told so by the words for its first bytes.
    pub(crate) async fn accept(
        socket: TcpStream,
        tls: Option<&Tls>,
        (stall, refuse_plain): (Duration, PlainRefusal),
        seat: Arc<Seat>,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        limit_unsent(&socket)?;
        let mut first = [0; 4];
        if tls.is_some() {
            let heard = socket.peek(&mut first).await?;
            if heard > 0 && first[0] != HANDSHAKE {
                return Err(
                    say(Unstalled::new(socket, stall), &refuse_plain(&first[..heard])).await
                );
            }
        }
        let socket = Unstalled::new(socket, stall);
        let socket = match tls {
            Some(tls) => Socket::Tls(Box::new(tls.accept(socket).await?.into())),
            None => Socket::Plain(socket),
        };
        let names =
            socket.peer().first().and_then(Names::in_certificate).map(|names| {
                Arc::new(names.verified_in(tls.and_then(|tls| tls.identity().domain())))
            });
        let believed = tls.map(|tls| Believed::new(tls.identity(), socket.peer()));
        Ok(Stream { socket, names, given_back: BytesMut::new(), believed, seat })
    }

    /// The names in the certificate that the peer showed, which was verified; `None` if it showed none.
    #[must_use]
    pub fn names(&self) -> Option<&Arc<Names>> {
        self.names.as_ref()
    }

    /// Completes when the peer's certificate is not believed any more. The connection then has the time to end
    /// that it has when the listener stops.
    pub fn disbelieved(&self) -> impl Future<Output = ()> + Send + use<> {
        let believed = self.believed.clone();
        async move {
            match believed {
                Some(believed) => believed.lost().await,
                None => std::future::pending().await,
            }
        }
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

/// Tells a peer that speaks no TLS what is wrong, and waits until it has read that.
async fn say(mut socket: Unstalled<TcpStream>, words: &[u8]) -> io::Error {
    let saying = async {
        socket.write_all(words).await?;
        socket.shutdown().await?;
        let mut discarded = [0; 1024];
        while socket.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(LAST_WORDS, saying).await;
    io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak TLS")
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

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
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
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        if written.is_ready() {
            self.seat.use_now();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
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
        (
            peer,
            Stream::accept(socket, None, (Duration::from_secs(1), |_| Vec::new()), seat)
                .await
                .unwrap(),
        )
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
