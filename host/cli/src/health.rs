//! `wharf health`: asks a server over plain HTTP, for containers that have no other program for it.

use std::io::Write;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_schema::printable;

use crate::args::Health;
use crate::exit::Exit;
use crate::values::with_port;

/// The most bytes of an answer that are read.
const MAX_ANSWER: u64 = 16 * 1024;

pub(crate) async fn run(arguments: Health) -> anyhow::Result<()> {
    let Health { address, path, timeout } = arguments;
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Exit::Usage("--path: write it like /readyz".to_owned()).into());
    }
    // As it is printed, and as it is written in a browser.
    let address = address.strip_prefix("http://").unwrap_or(&address).trim_end_matches('/');
    let address = with_port(address, wharf_host::DEFAULT_HTTP_PORT);
    let asked = tokio::time::timeout(timeout, ask(&address, &path)).await;
    let unhealthy = |reason: String| Exit::Unreachable(format!("{address}{path}: {reason}"));
    let status = match asked {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(unhealthy(wharf_net::chain(error.as_ref())).into()),
        Err(_) => return Err(unhealthy(format!("no answer within {timeout:?}")).into()),
    };
    if status.split(' ').nth(1) != Some("200") {
        return Err(unhealthy(printable(&status)).into());
    }
    writeln!(std::io::stdout().lock(), "healthy")?;
    Ok(())
}

/// The first line of the answer.
async fn ask(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await.context("it cannot be reached")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let first = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(
        first.starts_with("HTTP/"),
        "it does not speak HTTP; with TLS, this command cannot ask it"
    );
    Ok(first.to_owned())
}
