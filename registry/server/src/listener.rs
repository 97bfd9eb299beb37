//! Accepts connections and serves HTTP/1 on them, with bounds: so many of them, so large a head, so
//! much time for it, and no reader that takes nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use crate::tls::Tls;

/// How long the head of a request may take to arrive, and a connection may wait for the next one.
const HEAD: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(30);

/// Bytes that the head of a request may take.
const MAX_HEAD: usize = 16 * 1024;

/// How long accepting rests when the system has no file descriptors left.
const REST: Duration = Duration::from_millis(100);

/// How long connections may take to end at shutdown: a request that never comes to its end must not
/// hold the process.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// Serves until `stopped`; then lets the answers that are under way come to their end.
pub(crate) async fn serve(
    listener: &TcpListener,
    tls: Option<Tls>,
    routes: Router,
    max_connections: usize,
    mut stopped: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(listener, &room) => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, peer, place)) = accepted else { continue };
        let (tls, routes, stopped) = (tls.clone(), routes.clone(), stopped.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, tls, routes, stopped).await {
                tracing::debug!(%peer, %error, "a connection broke");
            }
            drop(place);
        });
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
        tracing::warn!("some answers did not come to their end");
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// Accepts while there is room; the system's backlog holds the rest. Cancel-safe.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> Option<Accepted> {
    let place = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(REST).await;
            None
        }
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    tls: Option<Tls>,
    routes: Router,
    stopped: watch::Receiver<bool>,
) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    let stream = Unstalled { stream, stalled: None };
    match tls {
        Some(tls) => {
            let accepted = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
            http(accepted, routes, stopped).await
        }
        None => http(stream, routes, stopped).await,
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Broken> {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return Ok(served?),
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    Ok(serving.await?)
}

/// A stream whose writes fail when the peer takes nothing for too long: an answer that nobody reads
/// would be held for ever.
struct Unstalled {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let until = || Box::pin(tokio::time::sleep_until(Instant::now() + STALL));
        match self.stalled.get_or_insert_with(until).as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
