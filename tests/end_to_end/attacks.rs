//! Attacks on a host by its callers and by files: others do not notice.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_client::Client;
use wharf_tests::{
    Args, Process, Wharf, component, eventually, get, get_json, hard_to_compile, hostile, plugin,
    renamed,
};
use wharf_wire::{Body, GoAwayCode, Header, Status};

use crate::raw_peer::{Peer, call};

/// Bytes that each call of the attack announces.
const ANNOUNCED: u64 = 16 << 20;

async fn up(arguments: &[&str]) -> Wharf {
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    let plugins = [("arith.wasm", &arith[..]), ("textkit.wasm", &textkit[..])];
    Wharf::up(&plugins, arguments).await.unwrap()
}

async fn multiply(client: &Client) -> i64 {
    client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap()
}

#[tokio::test]
async fn arguments_that_are_only_announced_take_no_room_of_others() {
    let wharf = up(&[]).await;
    let mut attackers = Vec::new();
    for number in 0..64 {
        let mut peer = Peer::greeted(&wharf.host).await;
        // Some ask for a method first, and some announce arguments for none.
        let method = if number % 2 == 0 { peer.resolve(1, "textkit.word-counts").await } else { 0 };
        for id in 2..6 {
            peer.send(&call(id, method, Body::Chunked(ANNOUNCED)), b"x").await;
        }
        if number % 2 == 1 {
            let refused = peer.next().await.unwrap();
            let Header::Fail(fail) = refused.parse().unwrap().0 else { panic!("not refused") };
            assert_eq!((fail.status, fail.not_executed), (Status::InvalidArgument, true));
            assert!(fail.message.contains("has resolved no method 0"), "{}", fail.message);
        }
        attackers.push(peer);
    }
    let client = wharf.direct();
    assert_eq!(multiply(&client).await, 56);
    let large = "word ".repeat(300_000);
    let counts: Vec<(String, u32)> =
        client.call("textkit.word-counts", &(&large, Some(10u32))).await.unwrap();
    assert_eq!(counts, [("word".to_owned(), 300_000)]);
}

#[tokio::test]
async fn names_that_do_not_exist_are_metered_on_each_connection() {
    let wharf = up(&[]).await;
    let mut peer = Peer::greeted(&wharf.host).await;
    let (mut hinted, mut plain) = (0, 0);
    for id in 1..=300 {
        let unknown = Header::Resolve { id, name: "arih.multiply", fingerprint: None };
        peer.send(&unknown, b"").await;
        let frame = peer.next().await.unwrap();
        let Header::Fail(fail) = frame.parse().unwrap().0 else { panic!("it exists") };
        assert_eq!(fail.status, Status::NotFound);
        if fail.message.contains("did you mean 'arith'?") { hinted += 1 } else { plain += 1 }
    }
    assert!(hinted >= 32 && plain > 0, "{hinted} answers with a hint, {plain} without");
    for id in 1000..20_000 {
        let unknown = Header::Resolve { id, name: "a.b", fingerprint: None };
        let mut bytes = bytes::BytesMut::new();
        wharf_wire::encode(&unknown, b"", &mut bytes);
        // The host may have closed the connection already.
        if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &bytes).await.is_err() {
            break;
        }
    }
    let (code, message) = peer.go_away().await;
    assert_eq!(code, GoAwayCode::Overload);
    assert!(message.contains("asked for that are not here"), "{message}");
    assert_eq!(multiply(&wharf.direct()).await, 56);
}

/// What the host says of a file, once it is neither read nor compiled any more.
async fn settled(wharf: &Wharf, name: &str) -> serde_json::Value {
    eventually("the file is loaded or refused", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        let files = overview["files"].as_array().unwrap().clone();
        files.into_iter().find(|file| file["file"] == name && file["state"] != "compiling")
    })
    .await
    .unwrap()
}

/// The processes that a host has started.
fn children(wharf: &Wharf) -> usize {
    let host = wharf.process.id().unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{host}/task")).unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let children = std::fs::read_to_string(task.unwrap().path().join("children"));
        children.map_or(0, |children| children.split_whitespace().count())
    };
    tasks.map(of).sum()
}

#[tokio::test]
async fn a_file_that_takes_too_much_memory_to_compile_is_refused_and_another_is_not_delayed() {
    let wharf = up(&["--compile-memory", "300MiB"]).await;
    let resident = wharf.process.resident().unwrap();
    std::fs::write(wharf.file("hard.wasm"), hard_to_compile(1500, 1000).unwrap()).unwrap();
    let refused = settled(&wharf, "hard.wasm").await;
    assert_eq!(refused["state"], "refused", "{refused}");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("300 MiB of memory, the limit (--compile-memory)"), "{reason}");
    let now = wharf.process.resident().unwrap();
    assert!(now < resident + (64 << 20), "{resident} bytes before, {now} now");
    assert_eq!(multiply(&wharf.direct()).await, 56);
}

#[tokio::test]
async fn a_file_that_takes_too_long_to_compile_is_refused_and_ends_with_its_file() {
    let wharf = up(&["--compile-timeout", "6s", "--compile-memory", "20GiB"]).await;
    let hard = hard_to_compile(1000, 1000).unwrap();
    std::fs::write(wharf.file("hard.wasm"), &hard).unwrap();
    eventually("it is being compiled", async || (children(&wharf) > 0).then_some(()))
        .await
        .unwrap();
    // A small file does not wait for it.
    let quick = wharf_tests::arith_reordered().unwrap();
    std::fs::remove_file(wharf.file("arith.wasm")).unwrap();
    std::fs::write(wharf.file("other.wasm"), quick).unwrap();
    assert_eq!(settled(&wharf, "other.wasm").await["state"], "serving");
    // Its compilation ends when the file is gone.
    std::fs::remove_file(wharf.file("hard.wasm")).unwrap();
    let ended = eventually("it ends", async || (children(&wharf) == 0).then_some(()));
    tokio::time::timeout(Duration::from_secs(3), ended).await.unwrap().unwrap();
    std::fs::write(wharf.file("hard.wasm"), &hard).unwrap();
    let refused = settled(&wharf, "hard.wasm").await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("longer than 6s, the limit (--compile-timeout)"), "{reason}");
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let wharf = up(&["--max-connections", "20"]).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(&wharf.host).await.unwrap());
    }
    // One that calls is not idle, and stays.
    let busy = wharf.direct();
    assert_eq!(multiply(&busy).await, 56);
    for _ in 0..40 {
        silent.push(TcpStream::connect(&wharf.host).await.unwrap());
    }
    assert_eq!(multiply(&wharf.direct()).await, 56);
    assert_eq!(multiply(&busy).await, 56);
    wharf.process.logged("nearly all connections are taken").await.unwrap();
}

#[tokio::test]
async fn half_sent_requests_do_not_block_the_health_check() {
    let wharf = up(&[]).await;
    let address = wharf.http.trim_start_matches("http://");
    let mut half = Vec::new();
    for _ in 0..130 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        half.push(stream);
    }
    let url = format!("{}/healthz", wharf.http);
    let health = tokio::time::timeout(Duration::from_secs(8), get(&url)).await.unwrap().unwrap();
    assert_eq!(health.1, "ok\n");
}

#[tokio::test]
async fn when_few_files_may_be_open_plugins_and_connections_leave_some_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (bytes, name) in renamed(100).unwrap() {
        std::fs::write(folder.path().join(format!("{name}.wasm")), bytes).unwrap();
    }
    let limited = ["-c", "ulimit -n 160 && exec \"$0\" \"$@\""];
    let mut command = tokio::process::Command::new("/bin/sh");
    let program = Process::program().unwrap();
    command.args(limited).arg(program).args(["host", "--registry", "none", "--plugins", path]);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--cache", "none"]);
    let mut process = Process::run(command).unwrap();
    let host = process.announced("host").await.unwrap();
    let http = process.announced("http").await.unwrap();
    process.logged("too many files open to load another plugin").await.unwrap();
    process.logged("may open too few files for --max-connections 1024").await.unwrap();
    let connections: Vec<_> = {
        let mut all = Vec::new();
        for _ in 0..60 {
            all.push(Peer::greeted(&host).await);
        }
        all
    };
    let (status, health) = get(&format!("{http}/healthz")).await.unwrap();
    assert_eq!((status, &*health), (200, "ok\n"));
    let client = Client::builder().direct(&host);
    assert_eq!(
        client.call::<_, i64>("a000:arith/arith.multiply", &Args { a: 7, b: 8 }).await.unwrap(),
        56
    );
    drop(connections);
}

/// Returns a mebibyte.
const GENEROUS: &str = r#"(module
    (memory (export "memory") 18)
    (func (export "test:generous/generous@1.0.0#f") (result i32)
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 1048576))
        (i32.const 0)))"#;

#[tokio::test]
async fn replies_that_nobody_reads_take_a_bounded_part_of_the_hosts_memory() {
    let wit = "package test:generous@1.0.0;
        interface generous { f: func() -> list<u8>; }
        world plugin { export generous; }";
    let generous = component(wit, GENEROUS).unwrap();
    let arith = plugin("arith").unwrap();
    let plugins = [("generous.wasm", &generous[..]), ("arith.wasm", &arith[..])];
    let wharf = Wharf::up(&plugins, &["--max-unread", "16MiB"]).await.unwrap();
    let resident = wharf.process.resident().unwrap();
    let client = wharf.direct();
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut peer = Peer::greeted(&wharf.host).await;
        let method = peer.resolve(1, "generous.f").await;
        for id in 2..8 {
            peer.send(&call(id, method, Body::Whole), b"").await;
        }
        silent.push(peer);
        // A small reply has room all the while.
        assert_eq!(multiply(&client).await, 56);
    }
    // And a large one as soon as the slowest readers have gone.
    let reply = eventually("a large reply has room", async || {
        let options = wharf_client::CallOptions::default();
        client.call_bytes("generous.f", bytes::Bytes::new(), options).await.ok()
    });
    assert_eq!(reply.await.unwrap().len(), (1 << 20) + 3);
    let now = wharf.process.resident().unwrap();
    // 240 MiB are asked for, and the kernel's buffers hold some of them.
    assert!(now < resident + (100 << 20), "{resident} bytes before, {now} now");
}

#[tokio::test]
async fn a_host_that_floods_its_caller_with_pings_is_left() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let flooding = tokio::spawn(async move {
        // The client connects again, for it may call what surely did not run.
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = bytes::BytesMut::from(&wharf_wire::MAGIC[..]);
            wharf_wire::encode(&Header::Hello(wharf_wire::Hello::ours()), b"", &mut bytes);
            stream.write_all(&bytes).await.unwrap();
            loop {
                bytes.clear();
                wharf_wire::encode(&Header::Ping { nonce: 7 }, b"", &mut bytes);
                if stream.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        }
    });
    let client = Client::builder().direct(&address);
    let error = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap_err();
    assert!(error.to_string().contains("sends pings faster than"), "{error}");
    flooding.abort();
}

#[tokio::test]
async fn the_http_side_on_loopback_answers_to_no_foreign_name() {
    let wharf = up(&[]).await;
    let address = wharf.http.trim_start_matches("http://").to_owned();
    for (host, status) in [("evil.example:7401", "403"), ("localhost", "200"), (&address, "200")] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request =
            format!("GET /services HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_call_without_any_time_left_is_not_executed() {
    let wharf = up(&[]).await;
    let mut peer = Peer::greeted(&wharf.host).await;
    let method = peer.resolve(1, "arith.multiply").await;
    let timeout = wharf_wire::Timeout::after(Duration::ZERO);
    let metadata = wharf_wire::Metadata::default();
    let header = Header::Call { id: 2, method, timeout, metadata, body: Body::Whole };
    peer.send(&header, &[14, 16]).await;
    let frame = peer.next().await.unwrap();
    let Header::Fail(fail) = frame.parse().unwrap().0 else { panic!("it was executed") };
    assert_eq!((fail.status, fail.not_executed), (Status::DeadlineExceeded, true));
}

#[tokio::test]
async fn a_removal_loads_no_refused_file_again_that_it_does_not_concern() {
    let wharf = up(&[]).await;
    std::fs::write(wharf.file("broken.wasm"), b"broken").unwrap();
    assert_eq!(settled(&wharf, "broken.wasm").await["state"], "refused");
    std::fs::remove_file(wharf.file("textkit.wasm")).unwrap();
    wharf.process.logged("a removed plugin no longer serves").await.unwrap();
    // Another file that is loaded after the removal: by then, the refused one would be too.
    std::fs::remove_file(wharf.file("arith.wasm")).unwrap();
    std::fs::write(wharf.file("other.wasm"), wharf_tests::arith_reordered().unwrap()).unwrap();
    assert_eq!(settled(&wharf, "other.wasm").await["state"], "serving");
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert_eq!(log.matches("it is not WebAssembly").count(), 1, "{log}");
}

#[tokio::test]
async fn whatever_is_given_up_is_cancelled_however_much_at_once() {
    const ROUNDS: usize = 9;
    const CALLS: usize = 700;
    // Those that run.
    const SOME: usize = 50;
    let hostile = hostile().unwrap();
    let plugins = [("hostile.wasm", &hostile[..])];
    let wharf = Wharf::up(&plugins, &["--call-timeout", "10m"]).await.unwrap();
    let client = Client::builder().timeout(Duration::from_secs(600)).direct(&wharf.host);
    let metric = async |begin: &str| -> f64 {
        let (_, text) = wharf_tests::get(&format!("{}/metrics", wharf.http)).await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with(begin));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    // It shows that the connection stays open.
    let spinning = client.clone();
    let witness = tokio::spawn(async move { spinning.call::<_, ()>("hostile.spin", &()).await });
    // More than a connection may cancel at once, so that some Cancels have to wait.
    for _ in 0..ROUNDS {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..CALLS {
            let client = client.clone();
            calls.spawn(async move { client.call::<_, ()>("hostile.spin", &()).await });
        }
        eventually("most of the calls wait for an instance", async || {
            (metric("wharf_calls_waiting").await > (CALLS - SOME) as f64).then_some(())
        })
        .await
        .unwrap();
        // Dropping the futures gives the calls up.
        calls.shutdown().await;
    }
    // Some are given up before they are sent, because Cancels of earlier ones wait.
    eventually("more than may be cancelled at once are, and none waits", async || {
        let cancelled = metric(
            "wharf_calls_total{door=\"wharf\",method=\"spin\",service=\"test:hostile/hostile@1.0.0\",status=\"CANCELLED\"",
        )
        .await;
        let waiting = metric("wharf_calls_waiting").await;
        (cancelled > wharf_wire::limits::MAX_CANCELS.into() && waiting == 0.0).then_some(())
    })
    .await
    .unwrap();
    assert!(!witness.is_finished());
    witness.abort();
    let count: u32 = wharf.direct().call("hostile.count", &()).await.unwrap();
    assert_eq!(count, 1);
}
