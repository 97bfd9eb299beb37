//! Asks another server by HTTP/1, on a connection that is there.

use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// A path or host that cannot be sent.
    #[error("the request cannot be written: {0}")]
    Unsendable(#[from] http::Error),
    /// The connection broke, or something else than HTTP came.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// The server closed the connection without an answer.
    #[error("the connection ended without an answer")]
    Ended,
}

/// The status of the answer to a GET. Redirects are not followed, and the body is not read. Cancel-safe: the
/// connection is closed when this is dropped.
///
/// # Errors
/// When there is no answer.
pub async fn status_of(
    stream: TcpStream,
    host: &str,
    path: &str,
    agent: &str,
) -> Result<StatusCode, AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, agent)
        .body(Empty::<Bytes>::new())?;
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status()),
        ended = connection.as_mut() => Err(ended.err().map_or(AskError::Ended, AskError::Broken)),
    }
}
