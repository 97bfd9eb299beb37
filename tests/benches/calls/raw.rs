//! The floor: length-prefixed frames echoed over a bare socket, without any of our code.
//!
//! The server reads whatever has come at once, and writes all of it back at once. With one call in
//! flight the caller writes a frame and reads one. With more, they are pipelined: one task keeps so
//! many frames in flight, as few writes as possible, and another takes them in. So nobody waits for
//! *their* answer, which is what a library of calls has to add.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::Sides;
use crate::callers::nanoseconds;
use crate::load::{Load, Round, Work};

/// As many bytes as a call of `multiply` and its answer take, roughly.
const FRAME: usize = 16;

/// Bytes read and written at once.
const BUFFER: usize = 64 * 1024;

pub(crate) struct Peer {
    address: SocketAddr,
}

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: BufWriter<OwnedWriteHalf>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (read, write) = stream.into_split();
        let read = BufReader::with_capacity(BUFFER, read);
        Connection { read, write: BufWriter::with_capacity(BUFFER, write) }
    }
}

impl Peer {
    pub(crate) fn start(sides: &Sides) -> Self {
        sides.server.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(echo(Connection::new(stream)));
                }
            });
            Peer { address }
        })
    }

    pub(crate) async fn run(&self, load: &Load, length: Duration) -> Round {
        let frame = vec![
            7;
            match load.work {
                Work::Multiply => FRAME,
                Work::Echo(bytes) => bytes,
            }
        ];
        let mut connections = Vec::new();
        for _ in 0..load.connections {
            connections.push(Connection::new(TcpStream::connect(self.address).await.unwrap()));
        }
        let begun = Instant::now();
        let mut running = Vec::new();
        for connection in connections {
            let frame = frame.clone();
            running.push(match load.in_flight {
                1 => tokio::spawn(one_by_one(connection, frame, begun, length)),
                many => tokio::spawn(pipelined(connection, frame, many, begun, length)),
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
    mut connection: Connection,
    frame: Vec<u8>,
    begun: Instant,
    length: Duration,
) -> (u64, Option<Duration>) {
    let mut back = Vec::new();
    let mut latencies = Histogram::<u64>::new(2).unwrap();
    let mut before = Instant::now();
    while before.duration_since(begun) < length {
        write_frame(&mut connection.write, &frame).await;
        connection.write.flush().await.unwrap();
        assert!(read_frame(&mut connection.read, &mut back).await);
        let now = Instant::now();
        latencies.record(nanoseconds(now - before)).unwrap();
        before = now;
    }
    (latencies.len(), Some(Duration::from_nanos(latencies.value_at_quantile(0.5))))
}

async fn pipelined(
    Connection { mut read, mut write }: Connection,
    frame: Vec<u8>,
    in_flight: usize,
    begun: Instant,
    length: Duration,
) -> (u64, Option<Duration>) {
    // A permit is a place in flight: the reader gives it back to the writer.
    let (give, mut places) = mpsc::channel::<()>(in_flight);
    for _ in 0..in_flight {
        give.try_send(()).unwrap();
    }
    let writer = tokio::spawn(async move {
        let mut sent = 0;
        while begun.elapsed() < length {
            places.recv().await.unwrap();
            write_frame(&mut write, &frame).await;
            sent += 1;
            // Whatever else may be sent goes into the same write.
            while places.try_recv().is_ok() {
                write_frame(&mut write, &frame).await;
                sent += 1;
            }
            write.flush().await.unwrap();
        }
        // Half closed: the peer sees the end, its last answers still come.
        (sent, places)
    });
    let (mut received, mut back) = (0, Vec::new());
    while read_frame(&mut read, &mut back).await {
        received += 1;
        // The writer may have ended.
        let _ = give.try_send(());
    }
    let (sent, _places) = writer.await.unwrap();
    assert_eq!(sent, received);
    (received, None)
}

async fn echo(Connection { mut read, mut write }: Connection) {
    let mut frame = Vec::new();
    while read_frame(&mut read, &mut frame).await {
        write_frame(&mut write, &frame).await;
        if read.buffer().is_empty() {
            write.flush().await.unwrap();
        }
    }
}

async fn write_frame(write: &mut BufWriter<OwnedWriteHalf>, frame: &[u8]) {
    write.write_u32_le(u32::try_from(frame.len()).unwrap()).await.unwrap();
    write.write_all(frame).await.unwrap();
}

/// Reads a frame; `false` at the end of the connection.
async fn read_frame(read: &mut BufReader<OwnedReadHalf>, frame: &mut Vec<u8>) -> bool {
    let Ok(len) = read.read_u32_le().await else { return false };
    frame.resize(len as usize, 0);
    read.read_exact(frame).await.unwrap();
    true
}
