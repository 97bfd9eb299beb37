//! The ceiling: length-prefixed frames echoed over a bare socket, without any of our code.
//!
//! The server reads all bytes that have arrived, and writes all whole frames back at once, from the
//! same buffer. With one call in flight, the caller writes a frame and reads one. With more, the
//! calls are pipelined: one task keeps this many frames in flight, and sends as many as possible in
//! one write; another task reads the replies. So no caller waits for its own reply. That is what an
//! RPC library has to add.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Sides;
use crate::callers::nanoseconds;
use crate::load::{Load, Round, Work};

/// Roughly the size of a call of `multiply` with its answer.
const FRAME: usize = 16;

/// Bytes read at once.
const READ: usize = 64 * 1024;

pub(crate) struct Peer {
    address: SocketAddr,
}

impl Peer {
    pub(crate) fn start(sides: &Sides) -> Self {
        sides.server.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(echo(stream));
                }
            });
            Peer { address }
        })
    }

    pub(crate) async fn run(&self, load: &Load, length: Duration) -> Round {
        let payload = match load.work {
            Work::Multiply => FRAME,
            Work::Echo(bytes) => bytes,
        };
        let mut frame = u32::try_from(payload).unwrap().to_le_bytes().to_vec();
        frame.resize(4 + payload, 7);
        let mut streams = Vec::new();
        for _ in 0..load.connections {
            let stream = TcpStream::connect(self.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        let begun = Instant::now();
        let mut running = Vec::new();
        for stream in streams {
            let frame = frame.clone();
            running.push(match load.in_flight {
                1 => tokio::spawn(one_by_one(stream, frame, begun, length)),
                many => tokio::spawn(pipelined(stream, frame, many, begun, length)),
            });
        }
        let (mut calls, mut p50) = (0, None);
        for running in running {
            let (count, median) = running.await.unwrap();
            calls += count;
            p50 = median;
        }
        Round { calls, took: begun.elapsed(), p50 }
    }
}

async fn one_by_one(
    mut stream: TcpStream,
    frame: Vec<u8>,
    begun: Instant,
    length: Duration,
) -> (u64, Option<Duration>) {
    let mut buffer = BytesMut::with_capacity(READ);
    let mut latencies = Histogram::<u64>::new(2).unwrap();
    let mut before = Instant::now();
    while before.duration_since(begun) < length {
        stream.write_all(&frame).await.unwrap();
        while whole_frames(&buffer).0 == 0 {
            buffer.reserve(READ);
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0);
        }
        buffer.clear();
        let now = Instant::now();
        latencies.record(nanoseconds(now - before)).unwrap();
        before = now;
    }
    (latencies.len(), Some(Duration::from_nanos(latencies.value_at_quantile(0.5))))
}

async fn pipelined(
    stream: TcpStream,
    frame: Vec<u8>,
    in_flight: usize,
    begun: Instant,
    length: Duration,
) -> (u64, Option<Duration>) {
    let (mut read, mut write) = stream.into_split();
    // A permit is a place in flight. The reader returns one for each reply.
    let places = Arc::new(Semaphore::new(in_flight));
    let free = places.clone();
    let writer = tokio::spawn(async move {
        let (frames, mut sent) = (frame.repeat(in_flight), 0);
        while begun.elapsed() < length {
            // As many as there are, but at least one.
            let count = free.available_permits().max(1);
            free.acquire_many(u32::try_from(count).unwrap()).await.unwrap().forget();
            write.write_all(&frames[..count * frame.len()]).await.unwrap();
            sent += count as u64;
        }
        // Dropping it half-closes the stream: the peer sees the end, and its last replies still
        // arrive.
        sent
    });
    let (mut received, mut buffer) = (0, BytesMut::with_capacity(READ));
    loop {
        buffer.reserve(READ);
        if read.read_buf(&mut buffer).await.unwrap() == 0 {
            break;
        }
        let (count, bytes) = whole_frames(&buffer);
        buffer.advance(bytes);
        places.add_permits(count);
        received += count as u64;
    }
    assert_eq!(writer.await.unwrap(), received);
    (received, None)
}

async fn echo(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        // A caller that is done may reset the connection.
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
        let (_, bytes) = whole_frames(&buffer);
        if stream.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
        buffer.advance(bytes);
    }
}

/// How many whole frames the bytes begin with, and the length of these in bytes.
fn whole_frames(bytes: &[u8]) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    while let Some(prefix) = bytes[end..].first_chunk::<4>() {
        let next = end + 4 + u32::from_le_bytes(*prefix) as usize;
        if next > bytes.len() {
            break;
        }
        (count, end) = (count + 1, next);
    }
    (count, end)
}
