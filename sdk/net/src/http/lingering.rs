//! Ends a connection of HTTP/1 whose last answer came before its request was read.
//!
//! If a socket is closed while input is unread, or still on its way, the peer receives a reset. It may
//! then lose the answer that says why, and see only that it could not write.
//! (RFC 9112, 9.6, says to close the writing side first, and to read on.)

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tower::Service;

/// How long what still arrives is read and thrown away.
const LINGER: Duration = Duration::from_secs(10);

/// And how many bytes of it. A caller whose body is too long has most often not much more than what is
/// accepted; one that sends without end has to be stopped.
const THROWN_AWAY: usize = 32 * 1024 * 1024;

/// Whether a request on a connection was answered before its body was read.
pub(super) type Unread = Arc<AtomicBool>;

/// The body of a request, which knows whether it was read to its end.
#[derive(Debug)]
pub struct Read<B> {
    body: B,
    unread: Unread,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Read<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.unread.store(false, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notes which answers come early, and says in them that the connection ends.
#[derive(Clone)]
pub(super) struct Noting<S> {
    service: S,
    unread: Unread,
}

impl<S> Noting<S> {
    pub(super) fn new(service: S, unread: Unread) -> Self {
        Noting { service, unread }
    }
}

impl<S, R, B> Service<Request<R>> for Noting<S>
where
    S: Service<Request<Read<R>>, Response = Response<B>>,
    S::Future: Unpin,
    R: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        self.unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
        let request = request.map(|body| Read { body, unread: self.unread.clone() });
        Answering { future: self.service.call(request), unread: self.unread.clone() }
    }
}

/// An answer that is being made.
pub(super) struct Answering<F> {
    future: F,
    unread: Unread,
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut answered = std::task::ready!(Pin::new(&mut self.future).poll(cx));
        if let Ok(response) = &mut answered
            && self.unread.load(Ordering::Relaxed)
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answered)
    }
}

/// A stream whose end waits until the peer has read the last answer, if that came early.
pub(super) struct Lingering<S> {
    stream: S,
    unread: Unread,
    end: End,
}

enum End {
    Open,
    /// Our side is closed. The peer's is read until then, and so many bytes of it.
    Lingers(Pin<Box<Sleep>>, usize),
    Over,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, unread: Unread) -> Self {
        Lingering { stream, unread, end: End::Open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.end {
                End::Open => {
                    std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                    this.end = match this.unread.load(Ordering::Relaxed) {
                        true => End::Lingers(Box::pin(tokio::time::sleep(LINGER)), THROWN_AWAY),
                        false => End::Over,
                    };
                }
                End::Lingers(until, left) => {
                    let over = *left == 0 || until.as_mut().poll(cx).is_ready();
                    let mut bytes = [std::mem::MaybeUninit::uninit(); 8 * 1024];
                    let mut buffer = ReadBuf::uninit(&mut bytes);
                    let read = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
                    let more = match read {
                        Poll::Pending if !over => return Poll::Pending,
                        Poll::Ready(Ok(())) => !buffer.filled().is_empty(),
                        _ => false,
                    };
                    *left = left.saturating_sub(buffer.filled().len());
                    if over || !more {
                        this.end = End::Over;
                    }
                }
                End::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    fn pair(unread: bool) -> (Lingering<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        (Lingering::new(ours, Arc::new(AtomicBool::new(unread))), theirs)
    }

    #[tokio::test]
    async fn what_the_peer_still_sends_is_read_until_it_has_heard_the_answer() {
        let (mut ours, mut theirs) = pair(true);
        let ends = tokio::spawn(async move { ours.shutdown().await });
        for _ in 0..100 {
            theirs.write_all(&[0; 1000]).await.unwrap();
        }
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "our side is closed at once");
        assert!(!ends.is_finished());
        drop(theirs);
        ends.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_without_end_is_stopped() {
        let (mut ours, mut theirs) = pair(true);
        let sends = tokio::spawn(async move {
            let mut sent = 0;
            while let Ok(count) = theirs.write(&[0; 1000]).await {
                sent += count;
            }
            sent
        });
        let begun = tokio::time::Instant::now();
        ours.shutdown().await.unwrap();
        drop(ours);
        let sent = sends.await.unwrap();
        assert!((THROWN_AWAY..THROWN_AWAY + 16 * 1024).contains(&sent), "{sent}");
        assert!(begun.elapsed() < LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_given_up_and_one_whose_request_was_read_is_not_awaited() {
        let (mut ours, _theirs) = pair(true);
        let begun = tokio::time::Instant::now();
        ours.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LINGER.as_secs());
        let (mut ours, _theirs) = pair(false);
        let begun = tokio::time::Instant::now();
        ours.shutdown().await.unwrap();
        assert!(begun.elapsed().is_zero());
    }
}
