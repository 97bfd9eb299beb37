//! DNS: `SERVICE.service.wharf`, over UDP and TCP, for programs that can only look up names.
//!
//! DNS knows nobody: everybody who reaches the port may read. `answer` decides what is answered; here are
//! the sockets and their bounds.

mod answer;
mod rate;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use wharf_net::Stream;
use wharf_net::listener::Bounds;

use self::answer::{Transport, answer};
use self::rate::Rates;
use self::zone::Zone;
use crate::directory::Directory;

/// Connections that may be open at once.
const CONNECTIONS: usize = 256;

/// How long a connection may be silent, and how long a peer may take to read an answer.
const IDLE: Duration = Duration::from_secs(10);

/// The largest question, in bytes: a name has at most 255, and options follow it.
const LARGEST: usize = 4096;

/// Where a registry answers DNS, and for which names.
#[derive(Debug)]
pub struct Dns {
    /// For questions in datagrams.
    pub datagrams: UdpSocket,
    /// For questions whose answers are too large for a datagram. Usually at the same address.
    pub connections: TcpListener,
    /// The domains under which services are found, without dots at the ends: `wharf`.
    pub domains: Vec<String>,
}

/// Answers until `stopped`.
pub(crate) async fn serve(dns: Dns, directory: Arc<Directory>, stopped: watch::Receiver<bool>) {
    let Dns { datagrams, connections, domains } = dns;
    let zone = Arc::new(Zone::new(directory, &domains));
    let rates = Arc::new(Rates::default());
    let by_datagrams = answer_datagrams(&datagrams, &zone, &rates, stopped.clone());
    let bounds = Bounds::new(CONNECTIONS, Duration::ZERO);
    let by_connections = wharf_net::listener::serve(connections, &bounds, stopped, {
        let (zone, rates) = (zone.clone(), rates.clone());
        move |stream, peer| {
            let (zone, rates) = (zone.clone(), rates.clone());
            async move { answer_connection(stream, peer, &zone, &rates).await }
        }
    });
    tokio::join!(by_datagrams, by_connections);
}

async fn answer_datagrams(
    socket: &UdpSocket,
    zone: &Zone,
    rates: &Rates,
    mut stopped: watch::Receiver<bool>,
) {
    let mut question = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut question) => received,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let (length, peer) = match received {
            Ok(received) => received,
            Err(error) => {
                // That a peer of an earlier answer is gone is told here too.
                tracing::debug!(%error, "a datagram was not received");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if !rates.takes(peer.ip()) {
            continue;
        }
        if let Some(answer) = answer(&question[..length], zone, Transport::Datagram)
            && let Err(error) = socket.send_to(&answer, peer).await
        {
            tracing::debug!(%peer, %error, "an answer was not sent");
        }
    }
}

/// Answers one question after the other, each behind its length (RFC 7766).
async fn answer_connection(mut stream: Stream, peer: SocketAddr, zone: &Zone, rates: &Rates) {
    let mut question = Vec::new();
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if length > LARGEST {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            question.resize(length, 0);
            stream.read_exact(&mut question).await
        };
        match tokio::time::timeout(IDLE, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        if !rates.takes(peer.ip()) {
            return;
        }
        let Some(answer) = answer(&question, zone, Transport::Connection) else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        let written = async {
            stream.write_all(&framed).await?;
            stream.flush().await
        };
        if !matches!(tokio::time::timeout(IDLE, written).await, Ok(Ok(()))) {
            return;
        }
    }
}
