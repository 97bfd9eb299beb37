//! Binds listeners. The errors say what to do.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

/// Binds `address`. `flag` is the command-line flag that sets it.
pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: is another wharf running? Choose another address with {flag}")
    })
}
