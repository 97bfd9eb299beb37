//! How a connection opens: magic bytes and a Hello from each side, within a bounded time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_wire::{
    FrameError, GoAwayCode, Header, Hello, HelloError, Inbound, MAGIC, Negotiated, Outbound,
    limits, negotiate,
};

use crate::Config;

/// What somebody who speaks HTTP to this port is told.
const NOT_HTTP: &str = "This port speaks Wharf's RPC protocol, not HTTP. Try: wharf call --direct HOST:PORT SERVICE.METHOD\n";

/// A connection whose two sides know each other.
pub(super) struct Opened {
    pub(super) negotiated: Negotiated,
    pub(super) agent: String,
}

/// Why a connection did not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the peer took too long to say hello")]
    Slow,
    #[error("the peer left")]
    Left,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("the first frame is not a Hello")]
    NotHello,
    #[error("the token is missing or wrong")]
    Token,
}

/// Hears the peer's Hello and answers with ours.
pub(super) async fn open(
    stream: &mut TcpStream,
    inbound: &mut Inbound,
    config: &Config,
) -> Result<Opened, OpenError> {
    let opening = async {
        let heard = hear(stream, inbound, config).await;
        let mut outbound = Outbound::new(limits::CHUNK);
        if let Err(OpenError::Frame(FrameError::Magic(_))) = &heard {
            if inbound.buffer().first().is_some_and(u8::is_ascii_alphabetic) {
                stream.write_all(http_answer().as_bytes()).await?;
            }
            return heard;
        }
        outbound.push_raw(&MAGIC);
        outbound.push(&Header::Hello(Hello {
            max_calls: config.max_calls,
            max_message: config.max_message,
            ..Hello::ours()
        }));
        if let Err(error) = &heard {
            let code = match error {
                OpenError::Hello(HelloError::Version { .. }) => GoAwayCode::Version,
                OpenError::Token => GoAwayCode::Unauthenticated,
                _ => GoAwayCode::Protocol,
            };
            outbound.push(&Header::GoAway { last_id: 0, code, message: &error.to_string() });
        }
        stream.write_all_buf(&mut outbound).await?;
        heard
    };
    tokio::time::timeout(limits::HELLO_TIMEOUT, opening).await.map_err(|_| OpenError::Slow)?
}

async fn hear(
    stream: &mut TcpStream,
    inbound: &mut Inbound,
    config: &Config,
) -> Result<Opened, OpenError> {
    let frame = loop {
        if let Some(frame) = inbound.next_frame()? {
            break frame;
        }
        // The frame's bound is the Hello's, so this reads little before it is judged.
        if stream.read_buf(inbound.buffer()).await? == 0 {
            return Err(OpenError::Left);
        }
    };
    let (Header::Hello(hello), _) = frame.parse()? else { return Err(OpenError::NotHello) };
    let negotiated = negotiate(&hello)?;
    let wanted = config.token.as_deref().unwrap_or_default();
    if !wanted.is_empty() && !equal_in_constant_time(hello.token, wanted.as_bytes()) {
        return Err(OpenError::Token);
    }
    inbound.accept_frames(limits::MAX_FRAME);
    Ok(Opened { negotiated, agent: hello.agent.to_owned() })
}

fn http_answer() -> String {
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{NOT_HTTP}", NOT_HTTP.len())
}

/// Takes as long for a nearly right token as for a wrong one.
fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |bits, (a, b)| bits | (a ^ b));
    std::hint::black_box(differing) == 0 && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_as_a_whole() {
        assert!(equal_in_constant_time(b"secret", b"secret"));
        assert!(!equal_in_constant_time(b"secret", b"secreT"));
        assert!(!equal_in_constant_time(b"secre", b"secret"));
        assert!(!equal_in_constant_time(b"", b"secret"));
    }
}
