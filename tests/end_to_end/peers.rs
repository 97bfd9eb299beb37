//! Peers that misbehave: the host keeps running, and says what was wrong.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_tests::{Args, Wharf, eventually, hostile, plugin, within};
use wharf_wire::{Body, GoAwayCode, Header, Hello, MAGIC, Status, encode, limits};

use crate::raw_peer::{Peer, call};

async fn up() -> Wharf {
    Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap()
}

async fn still_serves(wharf: &Wharf) {
    let product = wharf.direct().call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
    assert_eq!(product.unwrap(), 56);
}

#[tokio::test]
async fn a_client_by_hand_is_answered_byte_for_byte() {
    let wharf = up().await;
    let mut peer = Peer::greeted(&wharf.host).await;
    let method = peer.resolve(1, "Arith.Multiply").await;
    peer.send(&call(2, method, Body::Whole), &[14, 16]).await;
    let frame = peer.next().await.unwrap();
    let (header, payload) = frame.parse().unwrap();
    assert_eq!(header, Header::Reply { id: 2, body: Body::Whole });
    assert_eq!(&payload[..], [112], "56 as a zigzag varint");
    peer.send(&Header::Ping { nonce: 77 }, b"").await;
    assert_eq!(peer.next().await.unwrap().parse().unwrap().0, Header::Pong { nonce: 77 });
}

#[tokio::test]
async fn frames_that_come_together_with_the_hello_are_answered() {
    let wharf = up().await;
    let mut peer = Peer::connect(&wharf.host).await;
    let mut bytes = BytesMut::from(&MAGIC[..]);
    encode(&Header::Hello(Hello::ours()), b"", &mut bytes);
    encode(&Header::Resolve { id: 1, name: "arith.multiply", fingerprint: None }, b"", &mut bytes);
    encode(&call(2, 0, Body::Whole), &[14, 16], &mut bytes);
    peer.raw(&bytes).await;
    assert!(matches!(peer.next().await.unwrap().parse().unwrap().0, Header::Hello(_)));
    peer.inbound.accept_frames(limits::MAX_FRAME);
    let resolved = peer.next().await.unwrap();
    assert!(matches!(resolved.parse().unwrap().0, Header::Resolved { id: 1, .. }));
    assert_eq!(&peer.next().await.unwrap().parse().unwrap().1[..], [112]);
}

#[tokio::test]
async fn answers_that_are_made_reach_a_peer_that_has_closed_its_side() {
    let wharf = up().await;
    let mut peer = Peer::greeted(&wharf.host).await;
    let method = peer.resolve(1, "arith.multiply").await;
    peer.send(&call(2, method, Body::Whole), &[14, 16]).await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(&peer.next().await.unwrap().parse().unwrap().1[..], [112]);
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn arguments_that_wait_are_bounded() {
    let textkit = plugin("textkit").unwrap();
    let wharf = Wharf::up(&[("textkit.wasm", &textkit)], &[]).await.unwrap();
    let mut peer = Peer::greeted(&wharf.host).await;
    let method = peer.resolve(1, "textkit.checksum").await;
    // Five calls of 15 MiB each begin; their arguments would take more than one connection may
    // hold.
    let total = 15 * 1024 * 1024;
    for id in 2..7 {
        peer.send(&call(id, method, Body::Chunked(total)), b"").await;
    }
    let frame = peer.next().await.unwrap();
    let Header::Fail(fail) = frame.parse().unwrap().0 else { panic!("no failure") };
    assert_eq!((fail.id, fail.status), (6, Status::ResourceExhausted));
    assert!(fail.not_executed && fail.retry_after_ms.is_some(), "{fail:?}");
}

#[tokio::test]
async fn garbage_is_closed() {
    let wharf = up().await;
    for garbage in [&b"\x00\x01\x02\x03"[..], b"\x9eWharf\r\r", b"\x16\x03\x01\x02\x00"] {
        let mut peer = Peer::connect(&wharf.host).await;
        peer.raw(garbage).await;
        assert!(peer.next().await.is_none(), "{garbage:?}");
    }
    still_serves(&wharf).await;
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_its_length_alone() {
    let wharf = up().await;
    let mut peer = Peer::greeted(&wharf.host).await;
    peer.raw(&(limits::MAX_FRAME + 1).to_le_bytes()).await;
    let (code, message) = peer.go_away().await;
    assert_eq!(code, GoAwayCode::Protocol);
    assert_eq!(
        message,
        "a frame of 131073 bytes, at most 131072 are accepted: send larger payloads in chunks"
    );
    // Before the Hello, the limit is lower.
    let mut peer = Peer::connect(&wharf.host).await;
    peer.raw(&MAGIC).await;
    peer.raw(&(limits::HELLO_FRAME + 1).to_le_bytes()).await;
    assert_eq!(peer.next().await.map(|f| f.parse().is_ok()), Some(true), "the host's Hello");
    still_serves(&wharf).await;
}

#[tokio::test]
async fn no_version_in_common_is_answered_with_the_range() {
    let wharf = up().await;
    let mut peer = Peer::connect(&wharf.host).await;
    peer.raw(&MAGIC).await;
    let future = Hello { min_version: 7, max_version: 9, ..Hello::ours() };
    peer.send(&Header::Hello(future), b"").await;
    let frame = peer.next().await.unwrap();
    let Header::Hello(hello) = frame.parse().unwrap().0 else { panic!("no Hello") };
    assert_eq!((hello.min_version, hello.max_version), (1, 1));
    let (code, message) = peer.go_away().await;
    assert_eq!(code, GoAwayCode::Version);
    assert!(message.contains("we speak 1 to 1, the peer 7 to 9"), "{message}");
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_told_how() {
    let wharf = up().await;
    let unreadable = b"\x02\x00\x00\x00\xff\xff";
    let mut peer = Peer::greeted(&wharf.host).await;
    peer.raw(unreadable).await;
    assert!(peer.go_away().await.1.starts_with("a frame whose header cannot be read"));

    let mut peer = Peer::greeted(&wharf.host).await;
    peer.resolve(5, "arith.multiply").await;
    peer.send(&Header::Describe { id: 5, service: "arith" }, b"").await;
    assert_eq!(peer.go_away().await.1, "id 5 after id 5: ids grow, and none is used twice");

    let mut peer = Peer::greeted(&wharf.host).await;
    peer.send(&Header::Hello(Hello::ours()), b"").await;
    assert_eq!(peer.go_away().await.1, "a frame that only a host sends, or a second Hello");

    let mut peer = Peer::greeted(&wharf.host).await;
    let method = peer.resolve(1, "arith.multiply").await;
    peer.send(&call(2, method, Body::Chunked(10)), &[0; 11]).await;
    assert_eq!(peer.go_away().await.1, "a payload goes beyond the 10 bytes announced for it");

    let mut peer = Peer::greeted(&wharf.host).await;
    for id in 0..20_000 {
        let mut bytes = BytesMut::new();
        encode(&Header::Cancel { id }, b"", &mut bytes);
        if peer.stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    // The host may have closed before it read everything. Then its GoAway can be lost.
    while let Some(frame) = peer.next().await {
        if let Header::GoAway { message, .. } = frame.parse().unwrap().0 {
            assert_eq!(message, "too many calls were cancelled: cancel more slowly");
        }
    }
    still_serves(&wharf).await;
}

#[tokio::test]
async fn calls_that_cannot_be_are_failed_and_the_connection_goes_on() {
    let wharf = up().await;
    let mut peer = Peer::greeted(&wharf.host).await;
    let multiply = peer.resolve(1, "arith.multiply").await;
    let mut fails = async |header: Header<'_>, payload: &[u8]| {
        peer.send(&header, payload).await;
        let frame = peer.next().await.unwrap();
        match frame.parse().unwrap().0 {
            Header::Fail(fail) => (fail.status, fail.not_executed, fail.message.to_owned()),
            other => panic!("{other:?}"),
        }
    };
    let (status, not_executed, message) = fails(call(2, 9, Body::Whole), b"").await;
    assert_eq!((status, not_executed), (Status::InvalidArgument, true));
    assert!(message.contains("has resolved no method 9"), "{message}");
    let (status, not_executed, message) = fails(call(3, 9, Body::Chunked(10)), b"").await;
    assert_eq!((status, not_executed), (Status::InvalidArgument, true));
    assert!(message.contains("has resolved no method 9"), "{message}");
    let huge = limits::MAX_MESSAGE + 1;
    let (status, _, message) = fails(call(4, multiply, Body::Chunked(huge)), b"").await;
    assert_eq!(status, Status::ResourceExhausted);
    assert!(message.contains("a payload of 16777217 bytes, at most 16777216"), "{message}");
    let resolve = Header::Resolve { id: 5, name: "arith", fingerprint: None };
    assert_eq!(fails(resolve, b"").await.0, Status::InvalidArgument);
    let resolve = Header::Resolve { id: 6, name: "arith.multiply", fingerprint: Some([1; 16]) };
    assert_eq!(fails(resolve, b"").await.0, Status::FailedPrecondition);
    let describe = Header::Describe { id: 7, service: "nothing" };
    assert_eq!(fails(describe, b"").await.0, Status::NotFound);
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_call_leaves_nothing_running() {
    let wharf = Wharf::up(&[("hostile.wasm", &hostile().unwrap())], &[]).await.unwrap();
    // More callers vanish than the plugin has instances, so each must free its instance.
    for _ in 0..40 {
        let mut peer = Peer::greeted(&wharf.host).await;
        let method = peer.resolve(1, "hostile.spin").await;
        peer.send(&call(2, method, Body::Whole), b"").await;
        // The host answers this only after it has read the call before it.
        peer.send(&Header::Ping { nonce: 1 }, b"").await;
        assert!(peer.next().await.is_some());
        drop(peer);
    }
    let client = wharf.direct();
    eventually("an instance is free", async || {
        client.call::<_, u32>("hostile.count", &()).await.ok()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_that_reads_late_gets_every_answer() {
    let textkit = plugin("textkit").unwrap();
    let wharf = Wharf::up(&[("textkit.wasm", &textkit)], &[]).await.unwrap();
    let mut peer = Peer::greeted(&wharf.host).await;
    let method = peer.resolve(1, "textkit.echo").await;
    // Far more than all buffers between the two can hold, so the host must pause and continue.
    const CALLS: u64 = 200;
    let argument = postcard::to_stdvec(&vec![7u8; 60_000]).unwrap();
    let (mut read, mut write) = peer.stream.into_split();
    let sender = tokio::spawn({
        let argument = argument.clone();
        async move {
            for id in 2..CALLS + 2 {
                let mut bytes = BytesMut::new();
                encode(&call(id, method, Body::Whole), &argument, &mut bytes);
                write.write_all(&bytes).await.unwrap();
            }
            write
        }
    });
    let mut inbound = peer.inbound;
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < usize::try_from(CALLS).unwrap() {
        let Some(frame) = inbound.next_frame().unwrap() else {
            let reading = read.read_buf(inbound.buffer());
            assert_ne!(within("more answers", reading).await.unwrap().unwrap(), 0);
            continue;
        };
        let (header, payload) = frame.parse().unwrap();
        let Header::Reply { id, body: Body::Whole } = header else { panic!("{header:?}") };
        assert_eq!(payload, argument);
        answered.insert(id);
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_and_silent_ones_do_not_hold_the_accept_loop() {
    let arith = plugin("arith").unwrap();
    let wharf = Wharf::up(&[("arith.wasm", &arith)], &["--max-connections", "2"]).await.unwrap();
    // Two peers that never send a Hello take both places, until their handshake times out.
    let _silent = Peer::connect(&wharf.host).await;
    let _silent_too = Peer::connect(&wharf.host).await;
    let client =
        wharf_client::Client::builder().timeout(Duration::from_secs(20)).direct(&wharf.host);
    eventually("the third is served in the end", async || {
        client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await.ok()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_a_word() {
    let arith = plugin("arith").unwrap();
    let wharf = Wharf::up(&[("arith.wasm", &arith)], &["--idle-timeout", "200ms"]).await.unwrap();
    let mut peer = Peer::greeted(&wharf.host).await;
    let (code, _) = peer.go_away().await;
    assert_eq!(code, GoAwayCode::Idle);
    still_serves(&wharf).await;
}
