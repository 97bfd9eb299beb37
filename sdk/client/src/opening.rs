//! How a connection opens, on the caller's side.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_net::Socket;
use wharf_wire::{Header, Hello, Inbound, MAGIC, Negotiated, Outbound, limits, negotiate};

use crate::error::ConnectError;
use crate::security::Doubt;
use crate::settings::Settings;

/// An open connection after the exchange of Hellos.
pub(crate) struct Opened {
    pub(crate) stream: Socket<TcpStream>,
    /// Whether the host is still believed.
    pub(crate) doubt: Doubt,
    pub(crate) inbound: Inbound,
    pub(crate) negotiated: Negotiated,
}

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;

/// How long an address is tried alone before the next one is tried beside it.
/// <https://www.rfc-editor.org/rfc/rfc8305>
const STAGGER: Duration = Duration::from_millis(250);

/// Connects and exchanges Hellos, within a timeout. All addresses of a name are tried.
pub(crate) async fn open(
    (address, host): (&str, &str),
    settings: &Settings,
    timeout: Duration,
) -> Result<Opened, ConnectError> {
    let opening = async {
        let found = tokio::net::lookup_host(address).await.map_err(ConnectError::Io)?;
        race(in_turn(found.take(MAX_ADDRESSES)), host, settings).await
    };
    tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::TimedOut(timeout))?
}

/// IPv6 and IPv4 in turn, beginning with what the system names first.
fn in_turn(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<SocketAddr> = addresses.collect();
    let first_is_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        all.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::new();
    while let Some(next) = one.pop_front().or_else(|| other.pop_front()) {
        turns.push(next);
        turns.extend(other.pop_front());
    }
    turns
}

/// The first address that answers. Each next one begins when the one before has failed or is slow, and
/// the Hello belongs to it: a host may be silent.
async fn race(
    addresses: Vec<SocketAddr>,
    host: &str,
    settings: &Settings,
) -> Result<Opened, ConnectError> {
    let (mut left, mut running) = (addresses.into_iter(), FuturesUnordered::new());
    let mut failed = None;
    loop {
        if let Some(address) = left.next() {
            running.push(open_one(address, host, settings));
        }
        let is_last = left.len() == 0;
        let ended = match is_last {
            true => running.next().await,
            // Slow: the next one begins beside it.
            false => match tokio::time::timeout(STAGGER, running.next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(opened)) => return Ok(opened),
            // The first failure is that of the address which the system prefers.
            Some(Err(error)) => failed = failed.or(Some(error)),
            None if is_last => {
                let nothing = || std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
                return Err(failed.unwrap_or_else(|| ConnectError::Io(nothing())));
            }
            None => {}
        }
    }
}

async fn open_one(
    address: SocketAddr,
    host: &str,
    settings: &Settings,
) -> Result<Opened, ConnectError> {
    let socket = TcpStream::connect(address).await.map_err(ConnectError::Io)?;
    socket.set_nodelay(true).map_err(ConnectError::Io)?;
    wharf_net::limit_unsent(&socket).map_err(ConnectError::Io)?;
    let (mut stream, doubt) = settings.security.secure(socket, host).await?;
    let mut outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
    outbound.push_raw(&MAGIC);
    // A client serves nothing, so it accepts no calls.
    outbound.push(&Header::Hello(Hello { max_calls: 0, token: &settings.token, ..Hello::ours() }));
    stream.write_all_buf(&mut outbound).await.map_err(ConnectError::Io)?;
    stream.flush().await.map_err(ConnectError::Io)?;
    let mut inbound = Inbound::new();
    let hello = next(&mut stream, &mut inbound).await?;
    let (Header::Hello(hello), _) = hello.parse()? else {
        return Err(ConnectError::Refused("its first frame is not a Hello".into()));
    };
    let negotiated = negotiate(&hello)?;
    inbound.accept_frames(limits::MAX_FRAME);
    Ok(Opened { stream, doubt, inbound, negotiated })
}

async fn next(
    stream: &mut Socket<TcpStream>,
    inbound: &mut Inbound,
) -> Result<wharf_wire::Frame, ConnectError> {
    loop {
        if let Some(frame) = inbound.next_frame()? {
            return Ok(frame);
        }
        let read = stream.read_buf(inbound.buffer()).await;
        match read {
            Ok(0) => {
                let why = "it closed the connection without a reason";
                return Err(ConnectError::Refused(why.into()));
            }
            Ok(_) => {}
            // With TLS 1.3 a server says only here what it thinks of the client's certificate.
            Err(error) if stream.is_encrypted() => return Err(ended(error)),
            Err(error) => return Err(ConnectError::Io(error)),
        }
    }
}

#[cfg(feature = "tls")]
fn ended(error: std::io::Error) -> ConnectError {
    ConnectError::Refused(wharf_net::tls::in_words(error).to_string())
}

#[cfg(not(feature = "tls"))]
fn ended(error: std::io::Error) -> ConnectError {
    ConnectError::Io(error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn both_kinds_of_addresses_come_in_turn() {
        let of = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let (a, b, c) = ("[::1]:1", "[::2]:1", "[::3]:1");
        let (x, y) = ("127.0.0.1:1", "127.0.0.2:1");
        assert_eq!(in_turn(of(&[a, b, c, x, y]).into_iter()), of(&[a, x, b, y, c]));
        assert_eq!(in_turn(of(&[x, y, a]).into_iter()), of(&[x, a, y]));
        assert!(in_turn(of(&[]).into_iter()).is_empty());
    }

    /// A host that says Hello, and nothing else.
    async fn host() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
                outbound.push_raw(&MAGIC);
                outbound.push(&Header::Hello(Hello::ours()));
                stream.write_all_buf(&mut outbound).await.unwrap();
                tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        });
        address
    }

    #[tokio::test]
    async fn an_address_that_is_silent_or_refuses_does_not_keep_the_next_from_being_tried() {
        let settings = Settings::default();
        // It accepts, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refuses = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let (silent, good) = (silent.local_addr().map(|at| (silent, at)).unwrap(), host().await);
        for addresses in [
            vec![good],
            vec![silent.1, good],
            vec![refuses, good],
            vec![silent.1, refuses, silent.1, good],
        ] {
            let opened =
                tokio::time::timeout(Duration::from_secs(30), race(addresses, "", &settings)).await;
            assert!(opened.unwrap().is_ok());
        }
        let error = race(vec![refuses], "", &settings).await.err().unwrap();
        assert!(matches!(error, ConnectError::Io(_)), "{error:?}");
        assert!(matches!(race(vec![], "", &settings).await, Err(ConnectError::Io(_))));
    }
}
