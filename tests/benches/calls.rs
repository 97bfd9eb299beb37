//! How near to a bare socket is a call? Side by side in one run, as ratios.
//!
//! `raw` is length-prefixed frames of the size of a call, echoed by a tokio server over one
//! connection: the floor. Both sides of both peers run in this process, on the same runtime; the
//! rounds alternate, and the median counts, since these machines are noisy.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wharf_client::Client;
use wharf_host::{Advertise, Config, Host};
use wharf_tests::{Args, plugin};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(600);

/// As many bytes as a call of `multiply` and its answer take.
const FRAME: usize = 16;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let (rounds, round) = if quick { (1, Duration::from_millis(20)) } else { (ROUNDS, ROUND) };

    let plugins = tempfile::tempdir().unwrap();
    std::fs::write(plugins.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let advertise = Advertise::new(None, address).unwrap();
    let config = Config::new("bench", plugins.path(), advertise);
    let host = Host::start(listener, None, config).unwrap();
    host.ready().await;
    let client = Client::builder().direct(&address.to_string());
    let raw = Raw::start().await;

    println!("multiply, one connection                    raw           wharf   wharf/raw");
    for in_flight in [1, 64, 256] {
        let (mut raws, mut wharfs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            raws.push(raw.calls_per_second(in_flight, round).await);
            wharfs.push(calls_per_second(&client, in_flight, round).await);
        }
        let (raw, wharf) = (median(raws), median(wharfs));
        println!(
            "{in_flight:>4} in flight                {raw:>10.0} /s   {wharf:>10.0} /s      {:>5.2}",
            wharf / raw
        );
    }
    host.drain().await;
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn calls_per_second(client: &Client, in_flight: usize, round: Duration) -> f64 {
    let start = Instant::now();
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut calls = 0u64;
                while start.elapsed() < round {
                    let arguments = Args { a: 7, b: 8 };
                    let product: i64 = client.call("arith.multiply", &arguments).await.unwrap();
                    assert_eq!(product, 56);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    per_second(calls, start.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The peer without any of our code: frames over a bare socket.
struct Raw {
    address: std::net::SocketAddr,
}

impl Raw {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        Raw { address }
    }

    async fn calls_per_second(&self, in_flight: usize, round: Duration) -> f64 {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (read, write) = stream.into_split();
        // A permit is a place in flight: the reader gives it back to the writer.
        let (give, mut places) = mpsc::channel::<()>(in_flight);
        for _ in 0..in_flight {
            give.try_send(()).unwrap();
        }
        let start = Instant::now();
        let writer = tokio::spawn(async move {
            let mut write = BufWriter::with_capacity(64 * 1024, write);
            let mut sent = 0u64;
            while start.elapsed() < round {
                places.recv().await.unwrap();
                write_frame(&mut write).await;
                sent += 1;
                // Whatever else may be sent goes into the same write.
                while places.try_recv().is_ok() {
                    write_frame(&mut write).await;
                    sent += 1;
                }
                write.flush().await.unwrap();
            }
            // Half closed: the peer sees the end, its last answers still come.
            (sent, places)
        });
        let reader = tokio::spawn(async move {
            let mut read = BufReader::with_capacity(64 * 1024, read);
            let mut received = 0u64;
            while read_frame(&mut read).await {
                received += 1;
                let _ = give.try_send(());
            }
            received
        });
        let (sent, _places) = writer.await.unwrap();
        let received = reader.await.unwrap();
        assert_eq!(sent, received);
        per_second(received, start.elapsed())
    }
}

async fn echo(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let (read, write) = stream.into_split();
    let mut read = BufReader::with_capacity(64 * 1024, read);
    let mut write = BufWriter::with_capacity(64 * 1024, write);
    while read_frame(&mut read).await {
        write_frame(&mut write).await;
        if read.buffer().is_empty() {
            write.flush().await.unwrap();
        }
    }
}

async fn write_frame(write: &mut (impl AsyncWriteExt + Unpin)) {
    write.write_u32_le(u32::try_from(FRAME).unwrap()).await.unwrap();
    write.write_all(&[7; FRAME]).await.unwrap();
}

async fn read_frame(read: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let Ok(len) = read.read_u32_le().await else { return false };
    let mut frame = [0; FRAME];
    assert_eq!(len as usize, frame.len());
    read.read_exact(&mut frame).await.is_ok()
}
