//! The accept loop. It bounds the number of connections, and serves each in its own task.

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::places::{Places, Seat};
pub use crate::stream::PlainRefusal;
use crate::stream::Stream;
use crate::tls::Tls;

/// How long accepting pauses after an error, for example when no file descriptors are left.
const REST: Duration = Duration::from_millis(100);

/// How often the time is noted by which idle connections are compared.
const TICK: Duration = Duration::from_millis(500);

/// What a listener allows.
#[derive(Clone)]
#[non_exhaustive]
pub struct Bounds {
    /// Connections that may be open at once. When nearly all are taken, one address has only a share
    /// of them, and those that are idle for longest are closed. Others wait in the system's backlog.
    pub max_connections: usize,
    /// How long a TLS handshake may take; 10 seconds by default.
    pub handshake: Duration,
    /// How long a write may wait for a peer that reads nothing; 30 seconds by default.
    pub stall: Duration,
    /// How long open connections may continue after the listener is told to stop.
    pub drain: Duration,
    /// Without it, connections are not encrypted.
    pub tls: Option<Tls>,
    /// With TLS: what a peer is told that speaks none, by its first bytes, before its connection is closed.
    pub refuse_plain: PlainRefusal,
}

/// What a peer is told that speaks no TLS: by HTTP if that is what it seems to speak.
fn refuse_plain(first: &[u8]) -> Vec<u8> {
    const WHY: &str = "this port speaks TLS: call it with https";
    let is_http = first.first().is_some_and(u8::is_ascii_alphabetic);
    let head = if is_http {
        format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            WHY.len() + 1
        )
    } else {
        String::new()
    };
    format!("{head}{WHY}\n").into_bytes()
}

impl Bounds {
    /// Bounds for this many connections, which have the time `drain` to end.
    #[must_use]
    pub fn new(max_connections: usize, drain: Duration) -> Self {
        Bounds {
            max_connections,
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            drain,
            tls: None,
            refuse_plain,
        }
    }
}

/// Accepts connections and serves each in a task, until `stopped` is true or its sender is dropped.
/// Then waits until the open connections have ended, for as long as the bounds allow. Returns how
/// many connections were cut off.
///
/// An owned listener is closed before that wait, so that new connections are refused at once. If
/// one connection is dropped, or its `serve` panics, the others continue.
///
/// # Cancel safety
/// Dropping the future cuts all connections off.
pub async fn serve<S, F>(
    listener: impl Borrow<TcpListener>,
    bounds: &Bounds,
    mut stopped: watch::Receiver<bool>,
    serve: S,
) -> usize
where
    S: Fn(Stream, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Places::new(bounds.max_connections));
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let accepted = tokio::select! {
            accepted = accept(listener.borrow(), &places) => accepted,
            _ = ticks.tick() => {
                places.tick();
                None
            }
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        while connections.try_join_next().is_some() {}
        let Some((socket, peer)) = accepted else { continue };
        // Others wait in the system's backlog while this one waits for a place.
        let seat = tokio::select! {
            seat = places.take(peer) => seat,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let Some(seat) = seat else {
            tracing::debug!(%peer, "a connection was refused: its address has more than its share");
            continue;
        };
        let (bounds, serve) = (bounds.clone(), serve.clone());
        connections.spawn(async move {
            let seat_of_stream = seat.clone();
            let served = async move {
                let Some(stream) = open(socket, peer, &bounds, seat_of_stream).await else { return };
                let disbelieved = stream.disbelieved();
                tokio::select! {
                    () = serve(stream, peer) => {}
                    () = async { disbelieved.await; tokio::time::sleep(bounds.drain).await } => {
                        tracing::debug!(%peer, "a connection was closed: its certificate is not believed any more");
                    }
                }
            };
            tokio::select! {
                () = served => {}
                () = seat.has_left() => {
                    tracing::debug!(%peer, "an idle connection was closed to make room");
                }
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // Connections that are still open are cut off when the set is dropped.
    let _ = tokio::time::timeout(bounds.drain, ended).await;
    connections.len()
}

/// Accepts a connection. After an error, it rests. Cancel-safe.
async fn accept(listener: &TcpListener, places: &Places) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            places.cannot_accept(&error);
            tokio::time::sleep(REST).await;
            None
        }
    }
}

async fn open(
    socket: TcpStream,
    peer: SocketAddr,
    bounds: &Bounds,
    seat: Arc<Seat>,
) -> Option<Stream> {
    let plain = (bounds.stall, bounds.refuse_plain);
    let accepting = Stream::accept(socket, bounds.tls.as_ref(), plain, seat);
    match tokio::time::timeout(bounds.handshake, accepting).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a connection did not open");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "a connection did not open: its TLS handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A listener that echoes, its address, and what stops it.
    async fn echo(
        bounds: Bounds,
    ) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(async move {
            serve(listener, &bounds, stopped, async |mut stream, _| {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            })
            .await
        });
        (address, stop, serving)
    }

    async fn echoes(stream: &mut TcpStream) -> bool {
        stream.write_all(b"x").await.unwrap();
        matches!(stream.read_u8().await, Ok(b'x'))
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_waits_until_another_ends() {
        let (address, _stop, _serving) = echo(Bounds::new(1, Duration::ZERO)).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(echoes(&mut first).await);
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"x").await.unwrap();
        let mut answer = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), second.read(&mut answer)).await;
        assert!(early.is_err(), "it was served beside the first");
        drop(first);
        assert_eq!(second.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_stopped_listener_lets_connections_end_and_cuts_off_those_that_do_not() {
        for (drain, cut_off) in [(Duration::from_secs(10), 0), (Duration::ZERO, 1)] {
            let (address, stop, serving) = echo(Bounds::new(8, drain)).await;
            let mut open = TcpStream::connect(address).await.unwrap();
            assert!(echoes(&mut open).await);
            stop.send_replace(true);
            if cut_off == 0 {
                // The listener closes as soon as it is stopped. The open connection continues.
                while TcpStream::connect(address).await.is_ok() {}
                assert!(echoes(&mut open).await);
                drop(open);
            }
            assert_eq!(serving.await.unwrap(), cut_off);
        }
    }
}
