//! A TCP proxy in the middle of things: what networks do to connections, it does on command.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Chunks on their way in one direction of a connection.
const ON_THE_WAY: usize = 256;

/// A proxy before one server. Dropped, it is gone, with all of its connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
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

/// What happens to what is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weather {
    /// Answers come so much later.
    delay: Duration,
    /// Nothing comes through, and nobody is told.
    lost: bool,
}

/// What happened last to the connections of that moment, and a number to tell it from the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Strike {
    number: u64,
    half_open: bool,
}

impl Proxy {
    /// Starts one; it needs a target before anything comes through.
    ///
    /// # Errors
    /// When the system has no port.
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

    /// Where new connections go from now on.
    pub fn set_target(&self, target: &str) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target.to_owned();
    }

    /// From now on, answers come so much later.
    pub fn delay(&self, delay: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Whether everything is lost on its way from now on, without a word to anybody.
    pub fn lose(&self, lost: bool) {
        self.shared.weather.send_modify(|weather| weather.lost = lost);
    }

    /// Resets all connections of this moment.
    pub fn reset(&self) {
        self.strike(false);
    }

    /// The server's sides of all connections of this moment are closed, and nobody tells the clients.
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
    // Ended with this task.
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

/// Carries one connection to its end.
async fn carry(mut client: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut strikes = shared.strikes.subscribe();
    let target = shared.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut weather = shared.weather.subscribe();
    // A client that connects while all is lost hears nothing.
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
        // The client's words are taken, and nobody hears them.
        let mut unheard = [0; 4096];
        while client.read(&mut unheard).await? > 0 {}
        return Ok(());
    }
    client.set_zero_linger()?;
    server.set_zero_linger()
}

/// Carries one direction to its end, each chunk when its time has come.
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
    // What was read before the end still arrives; once one side fails, that is the end.
    tokio::try_join!(reading, writing).map(drop)
}
