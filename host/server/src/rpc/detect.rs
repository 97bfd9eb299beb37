//! What a connection speaks, by its first byte. The byte is given back to whoever serves it.

use std::io;

use wharf_net::Stream;
use wharf_wire::MAGIC;

/// What somebody who speaks HTTP to this port is told.
const NOT_HTTP: &str = "This port speaks Wharf's RPC protocol, not HTTP. Try: wharf call --direct HOST:PORT SERVICE.METHOD\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Our own frames.
    Wharf,
    /// HTTP, most likely: a method's name.
    Http,
    /// Nothing that is known here.
    Unknown,
}

impl Protocol {
    /// What begins with this byte. Wharf's magic begins with none that another protocol begins with.
    fn of(first: u8) -> Self {
        match first {
            _ if first == MAGIC[0] => Protocol::Wharf,
            b'A'..=b'Z' | b'a'..=b'z' => Protocol::Http,
            _ => Protocol::Unknown,
        }
    }
}

/// What the peer speaks; `None` if it leaves without a word.
///
/// # Errors
/// When the socket fails. Cancel-safe.
pub(super) async fn detect(stream: &mut Stream) -> io::Result<Option<Protocol>> {
    Ok(stream.first_bytes(1).await?.first().map(|first| Protocol::of(*first)))
}

/// The answer to whoever speaks HTTP.
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
