//! A TCP proxy that causes network faults on command.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// The most chunks in transit in one direction of a connection.
const ON_THE_WAY: usize = 256;

/// A proxy in front of one server. Dropping it closes all of its connections.
#[derive(Debug)]
pub struct Proxy {
    /// The address where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<String>,
    weather: watch::Sender<Weather>,
    strikes: watch::Sender<Strike>,
}

/// What happens to bytes in transit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weather {
    /// Bytes from the server are delayed by this time.
    delay: Duration,
    /// No bytes are delivered, and neither side notices.
    lost: bool,
}

/// The last fault that was caused on all open connections. The number distinguishes it from the one
/// before.
#[derive(Clone, Copy, Debug, Default)]
struct Strike {
    number: u64,
    half_open: bool,
}

impl Proxy {
    /// Starts a proxy. It needs a target before it can forward connections.
    ///
    /// # Errors
    /// When no port is available.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            weather: watch::Sender::default(),
            strikes: watch::Sender::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Proxy { address, shared, accepting })
    }

    /// Sets the server that new connections go to.
    pub fn set_target(&self, target: &str) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target.to_owned();
    }

    /// From now on, bytes from the server are delayed by this time.
    pub fn delay(&self, delay: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Whether all bytes are held back from now on. Neither side notices.
    pub fn lose(&self, lost: bool) {
        self.shared.weather.send_modify(|weather| weather.lost = lost);
    }

    /// Resets all open connections.
    pub fn reset(&self) {
        self.strike(false);
    }

    /// Closes the server's side of all open connections. The clients do not notice.
    pub fn half_open(&self) {
        self.strike(true);
    }

    fn strike(&self, half_open: bool) {
        self.shared.strikes.send_modify(|strike| {
            *strike = Strike { number: strike.number + 1, half_open };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(carry(client, shared.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Forwards one connection until it ends.
async fn carry(mut client: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut strikes = shared.strikes.subscribe();
    let target = shared.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut weather = shared.weather.subscribe();
    // If a client connects while bytes are lost, it receives nothing.
    let _ = weather.wait_for(|weather| !weather.lost).await;
    let mut server = match TcpStream::connect(target).await {
        Ok(server) => server,
        Err(error) => {
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let half_open = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            _ = pump(client_read, server_write, &shared, false) => return Ok(()),
            _ = pump(server_read, client_write, &shared, true) => return Ok(()),
            _ = strikes.changed() => strikes.borrow().half_open,
        }
    };
    if half_open {
        drop(server);
        // Read what the client sends, and discard it.
        let mut unheard = [0; 4096];
        while client.read(&mut unheard).await? > 0 {}
        return Ok(());
    }
    client.set_zero_linger()?;
    server.set_zero_linger()
}

/// Forwards one direction until it ends. Each chunk is forwarded after its delay.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    delayed: bool,
) -> std::io::Result<()> {
    let (put, mut take) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let mut weather = shared.weather.subscribe();
    let reading = async move {
        loop {
            let mut chunk = Vec::with_capacity(64 * 1024);
            if from.read_buf(&mut chunk).await? == 0 {
                return std::io::Result::Ok(());
            }
            let delay = if delayed { shared.weather.borrow().delay } else { Duration::ZERO };
            if put.send((Instant::now() + delay, chunk)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((due, chunk)) = take.recv().await {
            tokio::time::sleep_until(due).await;
            let _ = weather.wait_for(|weather| !weather.lost).await;
            to.write_all(&chunk).await?;
        }
        std::io::Result::Ok(())
    };
    // Bytes that were read before the end still arrive. If one side fails, both end.
    tokio::try_join!(reading, writing).map(drop)
}
