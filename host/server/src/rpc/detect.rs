//! Recognizes the protocol of a connection by its first bytes. They stay in the stream for the
//! protocol that serves the connection.

use std::io;

use wharf_net::Stream;
use wharf_wire::MAGIC;

/// What a connection of HTTP/2 begins with.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Our own frames.
    Wharf,
    /// Go's net/rpc over gob.
    Gob,
    /// The same, after a `CONNECT` of HTTP.
    GobAfterConnect,
    /// JSON-RPC.
    Json,
    /// HTTP/1, most likely: the byte may begin the name of a method.
    Http1,
    /// HTTP/2 without an upgrade.
    Http2,
    /// No known protocol.
    Unknown,
}

/// What the first bytes tell so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    This(Protocol),
    /// So many bytes would tell more.
    More(usize),
}

/// The protocol that begins with these bytes.
///
/// A gob stream begins with the length of the definition of a struct, some dozen bytes, then its
/// negative number. The second byte of that is beyond ASCII, or at its end; HTTP and JSON have none of
/// those in this place.
fn told(first: &[u8]) -> Told {
    use Protocol::{Gob, GobAfterConnect, Http1, Http2, Json, Unknown, Wharf};

    let Some(byte) = first.first() else { return Told::More(1) };
    if *byte == MAGIC[0] {
        return Told::This(Wharf);
    }
    if *byte >= 0x80 || *byte == 0x16 {
        return Told::This(Unknown);
    }
    let Some(second) = first.get(1) else { return Told::More(2) };
    if *second >= 0x7f {
        return Told::This(Gob);
    }
    match byte {
        b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' => Told::This(Json),
        b'P' => begins(first, HTTP2, Http2),
        b'C' => begins(first, super::netrpc::CONNECT, GobAfterConnect),
        b'A'..=b'Z' | b'a'..=b'z' => Told::This(Http1),
        _ => Told::This(Unknown),
    }
}

/// Whether the bytes begin with `whole`, which is HTTP/1 otherwise.
fn begins(first: &[u8], whole: &[u8], then: Protocol) -> Told {
    let common = first.iter().zip(whole).take_while(|(a, b)| a == b).count();
    match common {
        all if all == whole.len() => Told::This(then),
        part if part == first.len() => Told::More(first.len() + 1),
        _ => Told::This(Protocol::Http1),
    }
}

/// The protocol of the peer. `None` if the peer closes the connection without sending anything.
///
/// # Errors
/// When the socket fails. Cancel-safe.
pub(super) async fn detect(stream: &mut Stream) -> io::Result<Option<Protocol>> {
    let mut wanted = 1;
    loop {
        let first = stream.first_bytes(wanted).await?;
        match told(first) {
            Told::This(protocol) => return Ok(Some(protocol)),
            Told::More(more) if first.len() >= wanted => wanted = more,
            Told::More(_) if first.is_empty() => return Ok(None),
            Told::More(_) => return Ok(Some(Protocol::Unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_is_spoken() {
        let cases: [(&[u8], Protocol); 15] = [
            (&[0x9e], Protocol::Wharf),
            (b"GET", Protocol::Http1),
            (b"POST", Protocol::Http1),
            (b"PUT", Protocol::Http1),
            (b"PRI * HTTP/2.0", Protocol::Http2),
            (b"CONNECT /_goRPC_ ", Protocol::GobAfterConnect),
            (b"CONNECT /other", Protocol::Http1),
            (b"COPY", Protocol::Http1),
            (b"{\"", Protocol::Json),
            (b" {", Protocol::Json),
            (b"[{", Protocol::Json),
            // Go 1.19, a newer one, and the name of another library's struct.
            (b"\x2f\xff\x81", Protocol::Gob),
            (b"\x2e\x7f", Protocol::Gob),
            (b"\x50\xff\x81", Protocol::Gob),
            (&[0x16], Protocol::Unknown),
        ];
        for (first, expected) in cases {
            assert_eq!(told(first), Told::This(expected), "{first:x?}");
            for part in 1..first.len() {
                let Told::More(_) = told(&first[..part]) else { break };
            }
        }
        for unknown in [&[0, 0][..], &[0xff], b"1.", b"\x01\x02"] {
            assert_eq!(told(unknown), Told::This(Protocol::Unknown), "{unknown:x?}");
        }
        for more in [&b""[..], b"P", b"PRI * HTTP/2", b"C", b"CONNECT /_goRPC_", b"{", b"\x2f"] {
            assert!(matches!(told(more), Told::More(_)), "{more:x?}");
        }
    }
}
