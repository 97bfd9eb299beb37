//! The accept loop: a bounded number of connections, each a task of its own.

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::stream::Stream;
use crate::tls::Tls;

/// How long accepting pauses when the system has no file descriptors left.
const REST: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Clone)]
#[non_exhaustive]
pub struct Bounds {
    /// Connections that may be open at once. More of them wait in the system's backlog.
    pub max_connections: usize,
    /// How long a TLS handshake may take; 10 seconds unless told otherwise.
    pub handshake: Duration,
    /// How long a peer may read nothing of what is sent to it; 30 seconds unless told otherwise.
    pub stall: Duration,
    /// How long connections may go on once the listener is told to stop.
    pub drain: Duration,
    /// Without it, connections are not encrypted.
    pub tls: Option<Tls>,
}

impl Bounds {
    /// Bounds for so many connections, each of which has `drain` to come to its end.
    #[must_use]
    pub fn new(max_connections: usize, drain: Duration) -> Self {
        Bounds {
            max_connections,
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            drain,
            tls: None,
        }
    }
}

/// Accepts connections and serves each in a task, until `stopped` is true or its sender is gone; then
/// waits for the connections that are open, as long as the bounds allow. The number of those that were
/// cut off.
///
/// An owned listener is closed before that wait, so that nobody connects in vain. A connection that is
/// dropped, or whose `serve` panics, ends alone.
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
    let room = Arc::new(Semaphore::new(bounds.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(listener.borrow(), &room) => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        while connections.try_join_next().is_some() {}
        let Some((socket, peer, place)) = accepted else { continue };
        let (bounds, serve) = (bounds.clone(), serve.clone());
        connections.spawn(async move {
            if let Some(stream) = open(socket, peer, &bounds).await {
                serve(stream, peer).await;
            }
            drop(place);
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // Whoever is still there is cut off below, when the set is dropped.
    let _ = tokio::time::timeout(bounds.drain, ended).await;
    connections.len()
}

/// Accepts when there is room; the system's backlog holds the rest. Cancel-safe.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let place = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, peer)) => Some((socket, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(REST).await;
            None
        }
    }
}

async fn open(socket: TcpStream, peer: SocketAddr, bounds: &Bounds) -> Option<Stream> {
    let accepting = Stream::accept(socket, bounds.tls.as_ref(), bounds.stall);
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
                // It is closed as soon as it is stopped, and the open one goes on.
                while TcpStream::connect(address).await.is_ok() {}
                assert!(echoes(&mut open).await);
                drop(open);
            }
            assert_eq!(serving.await.unwrap(), cut_off);
        }
    }
}
