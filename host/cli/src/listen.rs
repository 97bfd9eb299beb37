//! Binds listeners. The errors say what to do.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Binds `address`. `flag` is the command-line flag that sets it.
pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::PermissionDenied => "this user may not listen on a port below 1024.",
            ErrorKind::AddrNotAvailable => "this machine does not have that address.",
            _ => "is another wharf running?",
        };
        let message =
            format!("cannot listen on {address}: {why} Choose another address with {flag}");
        anyhow::Error::new(error).context(message)
    })
}
