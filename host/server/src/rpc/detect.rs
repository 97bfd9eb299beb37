//! Recognizes the protocol of a connection by its first byte. The byte stays in the stream for the
//! protocol that serves the connection.

use std::io;

use wharf_net::Stream;
use wharf_wire::MAGIC;

/// The answer to an HTTP request on this port.
const NOT_HTTP: &str = "This port speaks Wharf's RPC protocol, not HTTP. Try: wharf call --direct HOST:PORT SERVICE.METHOD\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Our own frames.
    Wharf,
    /// Most likely HTTP: the byte may begin the name of an HTTP method.
    Http,
    /// No known protocol.
    Unknown,
}

impl Protocol {
    /// The protocol that begins with this byte. No other protocol begins with the first byte of
    /// Wharf's magic.
    fn of(first: u8) -> Self {
        match first {
            _ if first == MAGIC[0] => Protocol::Wharf,
            b'A'..=b'Z' | b'a'..=b'z' => Protocol::Http,
            _ => Protocol::Unknown,
        }
    }
}

/// The protocol of the peer. `None` if the peer closes the connection without sending anything.
///
/// # Errors
/// When the socket fails. Cancel-safe.
pub(super) async fn detect(stream: &mut Stream) -> io::Result<Option<Protocol>> {
    Ok(stream.first_bytes(1).await?.first().map(|first| Protocol::of(*first)))
}

/// The HTTP response to an HTTP request on this port.
pub(super) fn http_answer() -> String {
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{NOT_HTTP}", NOT_HTTP.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_what_is_spoken() {
        for (first, expected) in [
            (0x9e, Protocol::Wharf),
            (b'G', Protocol::Http),
            (b'p', Protocol::Http),
            (0x16, Protocol::Unknown),
            (b'{', Protocol::Unknown),
            (0, Protocol::Unknown),
        ] {
            assert_eq!(Protocol::of(first), expected, "{first:#x}");
        }
    }
}
