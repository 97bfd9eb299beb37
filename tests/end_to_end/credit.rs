//! What a connection takes: large arguments, large replies and Cancels wait for room, none is lost, and
//! nothing small waits with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use wharf_client::{CallOptions, Client};
use wharf_tests::{Args, Link, Wharf, component, eventually, get, hostile, plugin, within};
use wharf_wire::{Body, Header, Hello, Inbound, MAGIC, cancelled, encode, limits};

use crate::raw_peer::{Peer, call};

/// What `generous.f` returns.
const REPLY: usize = (4 << 20) + 4;

/// A service whose one method returns 4 MiB.
fn generous() -> Vec<u8> {
    component(
        "package test:generous@1.0.0;
         interface generous { f: func() -> list<u8>; small: func() -> u32; }
         world plugin { export generous; }",
        r#"(module
            (memory (export "memory") 72)
            (func (export "test:generous/generous@1.0.0#small") (result i32) (i32.const 7))
            (func (export "test:generous/generous@1.0.0#f") (result i32)
                (i32.store (i32.const 0) (i32.const 65536))
                (i32.store (i32.const 4) (i32.const 4194304))
                (i32.const 0)))"#,
    )
    .unwrap()
}

async fn metric(wharf: &Wharf, begin: &str) -> f64 {
    let (_, text) = get(&format!("{}/metrics", wharf.http)).await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(begin));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// The replies of a peer, as they begin and end.
#[derive(Default)]
struct Replies {
    /// Calls whose replies the peer does not keep, since it has cancelled them.
    given_up: BTreeSet<u64>,
    /// The whole sizes of those that are under way, and what is left of each.
    under_way: BTreeMap<u64, (u64, u64)>,
    /// The most bytes that were under way at once, by their whole sizes.
    most: u64,
    /// Those that are whole, in their order.
    whole: Vec<u64>,
}

impl Replies {
    /// Reads until so many are whole.
    async fn read(&mut self, peer: &mut Peer, count: usize) {
        while self.whole.len() < count {
            let frame = peer.next().await.unwrap();
            let (header, payload) = frame.parse().unwrap();
            match header {
                Header::Reply { id, .. } | Header::Chunk { id } if self.given_up.contains(&id) => {}
                Header::Reply { id, body: Body::Whole } => self.whole.push(id),
                Header::Reply { id, body: Body::Chunked(total) } => {
                    self.under_way.insert(id, (total, total));
                    let now = self.under_way.values().map(|(total, _)| total).sum();
                    self.most = self.most.max(now);
                }
                Header::Chunk { id } => {
                    let (_, left) = self.under_way.get_mut(&id).unwrap();
                    *left -= payload.len() as u64;
                    if *left == 0 {
                        self.under_way.remove(&id);
                        self.whole.push(id);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn no_call_fails_because_its_reply_has_to_wait_and_small_ones_pass() {
    const LARGE: u64 = 60;
    let wharf = Wharf::up(&[("generous.wasm", &generous())], &[]).await.unwrap();
    let mut peer = Peer::greeted(&wharf.host).await;
    let (f, small) = (peer.resolve(1, "generous.f").await, peer.resolve(2, "generous.small").await);
    for id in 3..3 + LARGE {
        peer.send(&call(id, f, Body::Whole), b"").await;
    }
    // More than the host holds for one connection.
    eventually("the host holds what it may, and nothing runs", async || {
        let instances = metric(&wharf, "wharf_instances{").await;
        let idle = instances == metric(&wharf, "wharf_instances_idle{").await;
        (idle && metric(&wharf, "wharf_unread_bytes").await > 50e6).then_some(())
    })
    .await
    .unwrap();
    let id = 3 + LARGE;
    peer.send(&call(id, small, Body::Whole), b"").await;
    eventually("the small call runs", async || {
        let calls = "wharf_calls_total{door=\"wharf\",method=\"small\"";
        (metric(&wharf, calls).await == 1.0).then_some(())
    })
    .await
    .unwrap();
    let held = metric(&wharf, "wharf_unread_bytes").await;
    assert!(held < (72 << 20) as f64, "{held}");
    let mut replies = Replies::default();
    replies.read(&mut peer, 1 + usize::try_from(LARGE).unwrap()).await;
    let place = replies.whole.iter().position(|whole| *whole == id).unwrap();
    assert!(place < 20, "the small one was number {place}");
    let each: BTreeSet<u64> = replies.whole.into_iter().collect();
    assert!(each.into_iter().eq(3..=id));
}

#[tokio::test]
async fn replies_keep_to_the_callers_window_and_one_of_any_size_has_room() {
    let wharf = Wharf::up(&[("generous.wasm", &generous())], &[]).await.unwrap();
    let reply = REPLY as u64;
    for (window, most) in [(0, reply), (reply * 2 + 1, reply * 2), (u64::MAX, reply * 10)] {
        let hello = Hello { window, ..Hello::ours() };
        let mut peer = Peer::greeted_by(&wharf.host, hello).await;
        let f = peer.resolve(1, "generous.f").await;
        for id in 2..12 {
            peer.send(&call(id, f, Body::Whole), b"").await;
        }
        // A call that is given up makes room, wherever its reply is. Its bytes are kept no longer.
        peer.send(&Header::Cancel { id: 5 }, &[6, 6]).await;
        let given_up = BTreeSet::from([5, 6]);
        let mut replies = Replies { given_up, ..Replies::default() };
        replies.read(&mut peer, 8).await;
        assert!(replies.most <= most, "{window}: {} bytes were under way", replies.most);
    }
}

#[tokio::test]
async fn large_arguments_wait_at_their_caller_and_small_calls_pass_them() {
    let textkit = plugin("textkit").unwrap();
    let wharf = Wharf::up(&[("textkit.wasm", &textkit)], &[]).await.unwrap();
    let client = Client::builder().timeout(Duration::from_secs(60)).direct(&wharf.host);
    let argument = Bytes::from(postcard::to_stdvec(&vec![7u8; 15 << 20]).unwrap());
    let mut calls = JoinSet::new();
    // Four times what a host holds for one connection.
    for _ in 0..17 {
        let (client, argument) = (client.clone(), argument.clone());
        calls.spawn(async move {
            client.call_bytes("textkit.echo", argument, CallOptions::default()).await
        });
    }
    let mut small = 0;
    while !calls.is_empty() {
        let word: Vec<u8> = client.call("textkit.echo", &(vec![1u8, 2, 3],)).await.unwrap();
        assert_eq!(word, [1, 2, 3]);
        small += 1;
        while let Some(ended) = calls.try_join_next() {
            assert_eq!(ended.unwrap().unwrap(), argument);
        }
    }
    assert!(small > 17, "{small} small calls");
    let (_, metrics) = get(&format!("{}/metrics", wharf.http)).await.unwrap();
    assert!(!metrics.contains("RESOURCE_EXHAUSTED"), "none was refused, and made again");
}

#[tokio::test]
async fn cancels_beyond_what_a_host_announces_are_taken_later_and_none_is_lost() {
    let wharf = Wharf::up(&[("hostile.wasm", &hostile().unwrap())], &[]).await.unwrap();
    let mut peer = Peer::greeted(&wharf.host).await;
    let spin = peer.resolve(1, "hostile.spin").await;
    let (mut id, mut bytes) = (2, BytesMut::new());
    // Three times what is announced, in as few frames as can be.
    for _ in 0..3 * limits::MAX_CANCELS / 1000 {
        let mut more = Vec::new();
        let first = id;
        for number in 0..1000 {
            encode(&call(id, spin, Body::Whole), b"", &mut bytes);
            if number > 0 {
                more.extend(postcard::to_stdvec(&id).unwrap());
            }
            id += 1;
        }
        encode(&Header::Cancel { id: first }, &more, &mut bytes);
    }
    encode(&Header::Ping { nonce: 7 }, b"", &mut bytes);
    peer.raw(&bytes).await;
    loop {
        let frame = peer.next().await.unwrap();
        match frame.parse().unwrap().0 {
            // The plugin's queue is full until those that were given up have left it.
            Header::Fail(fail) => assert!(fail.not_executed, "{fail:?}"),
            Header::Pong { nonce: 7 } => break,
            other => panic!("{other:?}"),
        }
    }
    eventually("each has ended, and none runs or waits", async || {
        let calls = "wharf_calls_total{door=\"wharf\",method=\"spin\"";
        let ended = metric(&wharf, calls).await == (id - 2) as f64;
        (ended && metric(&wharf, "wharf_calls_waiting").await == 0.0).then_some(())
    })
    .await
    .unwrap();
    let count: u32 = wharf.direct().call("hostile.count", &()).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_client_keeps_to_the_cancels_that_its_host_announces_and_forgets_none() {
    const CALLS: u64 = 300;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::builder()
        .timeout(Duration::from_secs(60))
        .direct(&listener.local_addr().unwrap().to_string());
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move { client.call::<_, ()>("a.b", &()).await });
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut out = BytesMut::from(&MAGIC[..]);
    encode(&Header::Hello(Hello { max_cancels: 100, ..Hello::ours() }), b"", &mut out);
    stream.write_all(&out).await.unwrap();
    let mut inbound = Inbound::new();
    inbound.accept_frames(limits::MAX_FRAME);
    let (mut given_up, mut called, mut frames) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut since = None;
    while given_up.len() < called.len().max(1) {
        let Some(frame) = inbound.next_frame().unwrap() else {
            let read = stream.read_buf(inbound.buffer());
            assert_ne!(within("what the client sends", read).await.unwrap().unwrap(), 0);
            continue;
        };
        let (header, payload) = frame.parse().unwrap();
        match header {
            Header::Resolve { id, .. } => {
                out.clear();
                encode(&Header::Resolved { id, method: 0, fingerprint: [0; 16] }, b"", &mut out);
                stream.write_all(&out).await.unwrap();
            }
            Header::Call { id, .. } => {
                called.insert(id);
                if called.len() as u64 == CALLS {
                    since = Some(Instant::now());
                    calls.abort_all();
                }
            }
            Header::Cancel { id } => {
                frames += 1;
                for id in cancelled(id, &payload) {
                    assert!(called.contains(&id) && given_up.insert(id), "{id}");
                }
                let allowed = 100.0 + 100.0 * since.unwrap().elapsed().as_secs_f64();
                assert!(given_up.len() as f64 <= allowed + 1.0, "{} of {allowed}", given_up.len());
            }
            _ => {}
        }
    }
    assert_eq!(given_up.len() as u64, CALLS);
    assert!(frames < CALLS / 2 + 100, "{frames} frames");
}

/// One caller makes small calls, one after the other, while 45 MiB go both ways on the same connection.
#[test]
fn small_calls_pass_large_payloads_on_a_slow_link() {
    let Some(link) = Link::if_possible() else { return };
    link.shape("tbf rate 200mbit burst 64kb latency 10ms").unwrap();
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    let passed = link.inside(async || {
        let plugins = [("arith.wasm", &arith[..]), ("textkit.wasm", &textkit[..])];
        let wharf = link.far_wharf(&plugins).await.unwrap();
        let client = Client::builder().timeout(Duration::from_secs(60)).direct(&wharf.host);
        let argument = Bytes::from(postcard::to_stdvec(&vec![7u8; 15 << 20]).unwrap());
        let mut calls = JoinSet::new();
        for _ in 0..3 {
            let (client, argument) = (client.clone(), argument.clone());
            calls.spawn(async move {
                client.call_bytes("textkit.echo", argument, CallOptions::default()).await
            });
        }
        let mut count = 0;
        while !calls.is_empty() {
            let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
            assert_eq!(product, 56);
            count += 1;
            while let Some(ended) = calls.try_join_next() {
                assert_eq!(ended.unwrap().unwrap(), argument);
            }
        }
        count
    });
    let passed = passed.unwrap();
    // Each waits for what is on the wire, and for one chunk each way: some 370 pass. With the buffers
    // that the kernel takes by itself, it was 60.
    assert!(passed > 150, "{passed} calls passed");
}
