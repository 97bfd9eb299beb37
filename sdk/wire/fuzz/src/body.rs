//! What is fuzzed: a peer's bytes, from the socket to joined payloads, and back onto the wire.
//!
//! Shared by the fuzz target, the program that writes its seeds, and an ordinary test.

#![allow(dead_code, reason = "each of its three users needs a part of it")]

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use wharf_wire::{
    Assembler, Body, DetailKind, Fail, GoAwayCode, Header, Hello, Inbound, MAGIC, Metadata,
    Outbound, Status, Timeout, cancelled, encode, limits, negotiate,
};

/// The bound for one payload, small enough that a fuzzer reaches it.
const MAX_MESSAGE: u64 = 4096;

/// Reads `bytes` as a connection does, and checks what must hold for any bytes at all.
pub(crate) fn frames(bytes: &[u8]) {
    let mut inbound = Inbound::new();
    // Cut in two somewhere that the input itself decides: a stream has no packet boundaries.
    let cut = bytes.first().map_or(0, |first| usize::from(*first)).min(bytes.len());
    let mut assembler = Assembler::new(MAX_MESSAGE, 2 * MAX_MESSAGE);
    for part in [&bytes[..cut], &bytes[cut..]] {
        inbound.buffer().extend_from_slice(part);
        loop {
            match inbound.next_frame() {
                Ok(Some(frame)) => match frame.parse() {
                    Ok((header, payload)) => {
                        take(&mut inbound, &mut assembler, header, &payload);
                        round_trip(header, payload);
                    }
                    Err(_) => return,
                },
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(assembler.len() <= 2 * bytes.len(), "every unfinished payload was begun by a frame");
}

fn take(inbound: &mut Inbound, assembler: &mut Assembler<()>, header: Header<'_>, payload: &[u8]) {
    let joined = match header {
        Header::Hello(hello) => {
            if let Ok(agreed) = negotiate(&hello) {
                assert!(agreed.chunk > 0 && agreed.chunk <= limits::CHUNK);
                let largest = agreed.chunk + agreed.chunk / 8 + limits::HEADER_ROOM;
                assert!(largest <= hello.max_frame as usize, "a frame of {largest} bytes");
                inbound.accept_frames(limits::MAX_FRAME);
            }
            return;
        }
        Header::Call { id, metadata, body, timeout, .. } => {
            assert!(metadata.iter().count() <= limits::METADATA_ENTRIES);
            let _ = timeout.duration();
            match body {
                Body::Whole => return,
                Body::Chunked(total) => assembler.begin(id, (), total, payload),
            }
        }
        Header::Reply { id, body: Body::Chunked(total) } => assembler.begin(id, (), total, payload),
        Header::Chunk { id } => assembler.push(id, payload),
        Header::Cancel { id } => {
            let ids: Vec<u64> = cancelled(id, payload).collect();
            assert!(ids.len() <= limits::CANCEL_IDS.min(1 + payload.len()));
            for id in ids {
                assembler.discard(id);
            }
            return;
        }
        _ => return,
    };
    if let Ok(Some(((), whole))) = joined {
        assert!(whole.len() as u64 <= MAX_MESSAGE);
    }
}

/// What was read can be written, and reads as the same again.
fn round_trip(header: Header<'_>, payload: Bytes) {
    let mut bytes = BytesMut::new();
    encode(&header, &payload, &mut bytes);
    let mut again = Inbound::new();
    again.accept_frames(u32::MAX);
    again.buffer().extend_from_slice(&MAGIC);
    again.buffer().extend_from_slice(&bytes);
    let frame = again.next_frame().ok().flatten();
    let frame = frame.as_ref().and_then(|frame| frame.parse().ok());
    assert_eq!(frame, Some((header, payload)));
}

/// Streams that a fuzzer starts from: every header, whole and in chunks.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let fail = Fail {
        not_executed: true,
        retry_after_ms: Some(300),
        detail: DetailKind::SchemaMismatch,
        ..Fail::new(3, Status::FailedPrecondition, "no")
    };
    let call = |body| Header::Call {
        id: 3,
        method: 1,
        timeout: Timeout::after(Duration::from_secs(1)),
        metadata: Metadata::over(b"\x01k\x01v"),
        body,
    };
    let headers = [
        (Header::Resolve { id: 1, name: "arith.multiply", fingerprint: Some([7; 16]) }, &b""[..]),
        (Header::Resolved { id: 1, method: 0, fingerprint: [7; 16] }, b""),
        (Header::Describe { id: 2, service: "arith" }, b""),
        (call(Body::Whole), b"\x0e\x10"),
        (call(Body::Chunked(4)), b"ab"),
        (Header::Reply { id: 3, body: Body::Whole }, b"\x70"),
        (Header::Reply { id: 4, body: Body::Chunked(3) }, b"a"),
        (Header::Fail(fail), b"wit"),
        (Header::Chunk { id: 3 }, b"cd"),
        (Header::Cancel { id: 3 }, b""),
        (Header::Cancel { id: 3 }, b"\x04\xac\x02"),
        (Header::Ping { nonce: u64::MAX }, b""),
        (Header::Pong { nonce: 0 }, b""),
        (Header::GoAway { last_id: 9, code: GoAwayCode::Shutdown, message: "bye" }, b""),
    ];
    let greeting = || {
        let mut bytes = BytesMut::from(&MAGIC[..]);
        encode(&Header::Hello(Hello::ours()), b"", &mut bytes);
        bytes
    };
    let mut seeds: Vec<Vec<u8>> = headers
        .iter()
        .map(|(header, payload)| {
            let mut bytes = greeting();
            encode(header, payload, &mut bytes);
            bytes.to_vec()
        })
        .collect();
    let mut all = greeting();
    headers.iter().for_each(|(header, payload)| encode(header, payload, &mut all));
    seeds.push(all.to_vec());
    let mut chunked = Outbound::new(16, 64);
    chunked.push_raw(&greeting());
    for id in [5, 6] {
        chunked.push_message(id, Bytes::from(vec![1; 100]), |body| Header::Reply { id, body });
    }
    chunked.push_cancels(&[7, 8, 9]);
    seeds.push(chunked.copy_to_bytes(chunked.remaining()).to_vec());
    seeds
}
