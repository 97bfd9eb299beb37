//! HTTP/1 on a stream, with limits on the size of a request's head and on the time for it.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tower::Service;

use crate::places::Seat;
use crate::stream::Stream;

/// How long the head of a request may take to arrive, and a connection may wait for the next one.
pub const HEAD: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;

/// Serves requests until the peer is done, or until `stopped` is true. Then the current answer is
/// the last one.
///
/// `head` shortens [`HEAD`] for a listener that has few places.
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
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let seat = stream.seat().clone();
    let service = Busy { service, seat };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head.min(HEAD))
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return served,
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    serving.await
}

/// Keeps the place of a connection while a request is answered.
#[derive(Clone)]
struct Busy<S> {
    service: S,
    seat: Arc<Seat>,
}

impl<S, R> Service<Request<R>> for Busy<S>
where
    S: Service<Request<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        self.seat.set_busy(true);
        Answering { future: Box::pin(self.service.call(request)), seat: self.seat.clone() }
    }
}

/// An answer that is being made.
struct Answering<F> {
    future: Pin<Box<F>>,
    seat: Arc<Seat>,
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(cx)
    }
}

impl<F> Drop for Answering<F> {
    fn drop(&mut self) {
        self.seat.set_busy(false);
    }
}
