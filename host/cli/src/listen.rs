//! Binds listeners. The errors say what to do.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};
use wharf_registry::Dns;

use crate::args::Keeping;

/// The domain under which services are found by DNS.
const DOMAIN: &str = "wharf";

/// How often a port is looked for that is free for UDP and TCP.
const TRIES: usize = 16;

/// Binds what the flags say about DNS.
pub(crate) async fn bind_dns(keeping: &Keeping) -> anyhow::Result<Option<Dns>> {
    let Some(address) = keeping.dns_listen else { return Ok(None) };
    let mut tries = 1;
    let (connections, datagrams) = loop {
        let connections = bind(address, "--dns-listen").await?;
        match UdpSocket::bind(connections.local_addr()?).await {
            Ok(datagrams) => break (connections, datagrams),
            // The system picked a port that is taken for UDP.
            Err(_) if address.port() == 0 && tries < TRIES => tries += 1,
            Err(error) => return Err(not_bound(error, address, "--dns-listen")),
        }
    };
    let domains = std::iter::once(DOMAIN.to_owned()).chain(keeping.dns_domain.clone());
    Ok(Some(Dns { datagrams, connections, domains: domains.collect() }))
}

/// Binds `address`. `flag` is the command-line flag that sets it.
pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| not_bound(error, address, flag))
}

fn not_bound(error: std::io::Error, address: SocketAddr, flag: &str) -> anyhow::Error {
    let why = match error.kind() {
        ErrorKind::PermissionDenied => "this user may not listen on a port below 1024.",
        ErrorKind::AddrNotAvailable => "this machine does not have that address.",
        _ => "is another wharf running?",
    };
    let message = format!("cannot listen on {address}: {why} Choose another address with {flag}");
    anyhow::Error::new(error).context(message)
}
