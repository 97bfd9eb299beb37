//! Writing a frame: length prefix, header, payload.

use bytes::{BufMut, BytesMut};
use postcard::ser_flavors::Flavor;

use crate::Header;

/// Appends a whole frame to `out`.
///
/// The caller must respect the peer's limits. [`crate::Outbound`] does so for everything it queues.
pub fn encode(header: &Header<'_>, payload: &[u8], out: &mut BytesMut) {
    let start = out.len();
    encode_header(header, payload.len(), out);
    out.extend_from_slice(payload);
    debug_assert!(out.len() > start + 4);
}

/// Appends a frame without its payload. The caller sends the `payload_len` payload bytes right
/// after it.
pub(crate) fn encode_header(header: &Header<'_>, payload_len: usize, out: &mut BytesMut) {
    let start = out.len();
    out.put_u32_le(0);
    // This cannot fail: the buffer grows, and a header has no map or sequence of unknown length,
    // which is what postcard refuses.
    let _ = postcard::serialize_with_flavor(header, Append(out));
    let len = u32::try_from(out.len() - start - 4 + payload_len).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Appends postcard's output to a `BytesMut`, slice by slice.
struct Append<'a>(&'a mut BytesMut);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, DetailKind, Fail, GoAwayCode, Hello, Metadata, Status, Timeout};
    use std::time::Duration;

    #[track_caller]
    fn check(header: Header<'_>, payload: &[u8], expected: &[u8]) {
        let mut out = BytesMut::new();
        encode(&header, payload, &mut out);
        let (len, rest) = expected.split_at(4);
        assert_eq!(out[..4], *len, "length of {header:?}");
        assert_eq!(out[4..], *rest, "bytes of {header:?}");
    }

    /// The examples of PROTOCOL.md, byte for byte.
    #[test]
    fn headers_have_exactly_these_bytes() {
        check(
            Header::Hello(Hello {
                min_version: 1,
                max_version: 1,
                max_frame: 131_072,
                max_message: 16_777_216,
                max_calls: 1024,
                window: 67_108_864,
                max_cancels: 4096,
                token: b"",
                agent: "x",
            }),
            b"",
            b"\x15\0\0\0\x00\x01\x01\x80\x80\x08\x80\x80\x80\x08\x80\x08\x80\x80\x80\x20\x80\x20\x00\x01x",
        );
        check(
            Header::Resolve { id: 1, name: "arith.multiply", fingerprint: None },
            b"",
            b"\x12\0\0\0\x01\x01\x0earith.multiply\x00",
        );
        check(
            Header::Resolved { id: 1, method: 0, fingerprint: [7; 16] },
            b"",
            b"\x13\0\0\0\x02\x01\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07",
        );
        check(Header::Describe { id: 2, service: "arith" }, b"", b"\x08\0\0\0\x03\x02\x05arith");
        check(
            Header::Call {
                id: 300,
                method: 0,
                timeout: Timeout::after(Duration::from_secs(1)),
                metadata: Metadata::default(),
                body: Body::Whole,
            },
            b"\x0e\x10",
            b"\x0c\0\0\0\x04\xac\x02\x00\x01\xc0\x84\x3d\x00\x00\x0e\x10",
        );
        check(
            Header::Call {
                id: 3,
                method: 200,
                timeout: Timeout::NONE,
                metadata: Metadata::over(b"\x01k\x01v"),
                body: Body::Chunked(100_000),
            },
            b"",
            b"\x0e\0\0\0\x04\x03\xc8\x01\x00\x04\x01k\x01v\x01\xa0\x8d\x06",
        );
        check(Header::Reply { id: 3, body: Body::Whole }, b"\x70", b"\x04\0\0\0\x05\x03\x00\x70");
        check(
            Header::Fail(Fail {
                id: 3,
                status: Status::Unavailable,
                not_executed: true,
                retry_after_ms: Some(300),
                detail: DetailKind::SchemaMismatch,
                message: "no",
            }),
            b"!",
            b"\x0c\0\0\0\x06\x03\x0e\x01\x01\xac\x02\x01\x02no!",
        );
        check(Header::Chunk { id: 3 }, b"ab", b"\x04\0\0\0\x07\x03ab");
        check(Header::Cancel { id: 3 }, b"", b"\x02\0\0\0\x08\x03");
        check(Header::Cancel { id: 3 }, b"\x04\xac\x02", b"\x05\0\0\0\x08\x03\x04\xac\x02");
        check(Header::Ping { nonce: 9 }, b"", b"\x02\0\0\0\x09\x09");
        check(Header::Pong { nonce: 9 }, b"", b"\x02\0\0\0\x0a\x09");
        check(
            Header::GoAway { last_id: 300, code: GoAwayCode::Shutdown, message: "bye" },
            b"",
            b"\x08\0\0\0\x0b\xac\x02\x00\x03bye",
        );
    }
}
