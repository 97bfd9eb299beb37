//! What a caller is told that speaks no TLS where it has to: in the protocol that it seems to speak.

use bytes::Buf;
use wharf_wire::{GoAwayCode, Header, Hello, MAGIC, Outbound, limits};

use super::{http, jsonrpc};

const WHY: &str = "this host speaks TLS: give the client an identity, or the authorities of hosts";

/// The last words for a caller with these first bytes.
pub(super) fn refuse(first: &[u8]) -> Vec<u8> {
    match first {
        [byte, ..] if *byte == MAGIC[0] => {
            let mut outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
            outbound.push_raw(&MAGIC);
            outbound.push(&Header::Hello(Hello { max_calls: 0, ..Hello::ours() }));
            let code = GoAwayCode::Unauthenticated;
            outbound.push(&Header::GoAway { last_id: 0, code, message: WHY });
            outbound.copy_to_bytes(outbound.remaining()).to_vec()
        }
        [b'{' | b'[', ..] => (jsonrpc::refuse(WHY) + "\n").into_bytes(),
        [b'A'..=b'Z' | b'a'..=b'z', ..] => http::refuse("400 Bad Request", WHY).into_bytes(),
        _ => format!("{WHY}\n").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_speaks_no_tls_is_told_so_in_its_own_protocol() {
        let told = |first: &[u8]| String::from_utf8_lossy(&refuse(first)).into_owned();
        for first in [&MAGIC[..], b"{", b"GET ", b"\x2f\xff"] {
            assert!(told(first).contains(WHY), "{first:x?}");
        }
        assert!(told(b"POST").starts_with("HTTP/1.1 400 "));
        assert!(told(b"{").starts_with('{'));
        assert!(refuse(&MAGIC).starts_with(&MAGIC));
    }
}
