//! HTTP/1 and HTTP/2 on a stream, with limits on the size of a request's head and on the time for it.

mod asking;
mod lingering;

use std::error::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tower::Service;

pub use asking::{AskError, status_of};
pub use lingering::Read;
use lingering::{Lingering, Noting, Unread};

use crate::places::Seat;
use crate::stream::Stream;
use crate::tls::Names;

/// How long the head of a request may take to arrive, and a connection may wait for the next one.
pub const HEAD: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;

/// The most requests at once on one connection of HTTP/2.
const MAX_STREAMS: u32 = 256;

/// The most bytes of one answer that HTTP/2 keeps until the peer reads them.
const MAX_SENT: usize = 256 * 1024;

/// Serves requests until the peer is done, or until `stopped` is true. Then the current answer is
/// the last one.
///
/// The head of a request has the time `head` to arrive; so long may a connection also wait for the next
/// one. An answer that is there before its request was read to the end is the connection's last; what
/// still arrives is thrown away, so that the peer can read the answer.
///
/// # Errors
/// Why the connection broke.
pub async fn serve<S, B>(
    stream: Stream,
    service: S,
    head: Duration,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    S: Service<Request<Read<Incoming>>, Response = Response<B>> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let seat = stream.seat().clone();
    let names = stream.names().cloned();
    let unread = Unread::default();
    let stream = Lingering::new(stream, unread.clone());
    let service = Noting::new(Busy { service, open: Arc::default(), seat, names }, unread);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return served,
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    serving.await
}

/// Serves requests of HTTP/2 without an upgrade, as [`serve`] does. `quiet` is how long the peer may be
/// silent before it is asked whether it is there, and then has the same time to answer.
///
/// # Errors
/// Why the connection broke.
pub async fn serve_two<S, B>(
    stream: Stream,
    service: S,
    quiet: Duration,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let seat = stream.seat().clone();
    let names = stream.names().cloned();
    let service = Busy { service, open: Arc::default(), seat, names };
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(quiet)
        .keep_alive_timeout(quiet)
        .max_header_list_size(16 * 1024)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_SENT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return served,
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    serving.await
}

/// Whether a `Host` header names this machine. Browsers never leave it out.
///
/// With DNS rebinding, a web page's own name resolves to this machine, and the page looks like one of
/// ours except for this header. A listener on loopback that trusts whoever reaches it has to ask.
#[must_use]
pub fn names_this_machine(host: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    if let Some(rest) = host.strip_prefix('[') {
        let ip = rest.split_once(']').and_then(|(ip, _)| ip.parse::<IpAddr>().ok());
        return ip.is_some_and(|ip| ip.is_loopback());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let ip = name.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The secret of a request's bearer token (RFC 6750), if it shows one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    let secret = secret.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !secret.is_empty()).then_some(secret)
}

/// The address of the peer. Each request has it among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The names in the peer's certificate. Each request of a peer that showed one has them among its extensions.
#[derive(Clone, Debug)]
pub struct Certified(pub Arc<Names>);

/// Keeps the place of a connection while a request is answered, and tells who sent it.
#[derive(Clone)]
struct Busy<S> {
    service: S,
    /// The requests that are being answered.
    open: Arc<AtomicUsize>,
    seat: Arc<Seat>,
    names: Option<Arc<Names>>,
}

impl<S, R, B> Service<Request<R>> for Busy<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.seat.address()));
        if let Some(names) = &self.names {
            request.extensions_mut().insert(Certified(names.clone()));
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        self.seat.set_busy(true);
        let future = Box::pin(self.service.call(request));
        Answering { future, open: self.open.clone(), seat: self.seat.clone(), goes_on: false }
    }
}

/// An answer that is being made.
struct Answering<F> {
    future: Pin<Box<F>>,
    open: Arc<AtomicUsize>,
    seat: Arc<Seat>,
    /// The answer has no known end, as that of a watch: the connection stays busy.
    goes_on: bool,
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let answered = self.future.as_mut().poll(cx);
        if let Poll::Ready(Ok(response)) = &answered {
            self.goes_on = response.body().size_hint().exact().is_none();
        }
        answered
    }
}

impl<F> Drop for Answering<F> {
    fn drop(&mut self) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            // An answer that goes on keeps its place.
            self.seat.set_busy(self.goes_on);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for name in ["localhost", "LocalHost:8500", "127.0.0.1:1", "127.9.9.9", "[::1]:8500"] {
            assert!(names_this_machine(Some(name)), "{name}");
        }
        for name in
            ["evil.example", "localhost.evil.example:8500", "10.0.0.1", "[::2]:1", "[::1", ""]
        {
            assert!(!names_this_machine(Some(name)), "{name}");
        }
    }

    /// Answers each request with nothing.
    #[derive(Clone)]
    struct Silent;

    impl<B> Service<Request<B>> for Silent {
        type Response = Response<String>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Response<String>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            std::future::ready(Ok(Response::new(String::new())))
        }
    }

    #[tokio::test]
    async fn no_head_of_a_request_hangs_or_ends_the_server() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let valid =
            b"GET /services?x=1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc";
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let bounds = crate::listener::Bounds::new(8, Duration::ZERO);
        let told = stopped.clone();
        let serving = tokio::spawn(async move {
            crate::listener::serve(listener, &bounds, stopped, move |stream, _| {
                let served = serve(stream, Silent, Duration::from_secs(1), told.clone());
                async move {
                    let _ = served.await;
                }
            })
            .await
        });
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        for round in 0..300 {
            let mut bytes = valid.to_vec();
            for _ in 0..random(4) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = random(256).to_le_bytes()[0],
                    1 => bytes.insert(at, b"\r\n: \0\xff"[random(6)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            // A reset is an answer too.
            let _ =
                tokio::time::timeout(Duration::from_secs(10), read).await.unwrap_or_else(|_| {
                    panic!("round {round} hangs: {:?}", String::from_utf8_lossy(&bytes))
                });
        }
        assert!(!serving.is_finished());
        serving.abort();
    }
}
