//! Clients that send or read too slowly, too much, or on too many connections.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_tests::{RegistryProcess, eventually, within};

/// Reads until the registry closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset also closes it.
    let _ = within("the registry closes it", stream.read_to_end(&mut text)).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

async fn connect(registry: &RegistryProcess) -> TcpStream {
    TcpStream::connect(registry.address()).await.unwrap()
}

#[tokio::test]
async fn a_sender_that_stops_in_the_head_or_body_is_sent_away() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let mut silent = connect(&registry).await;
    let mut head = connect(&registry).await;
    head.write_all(b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nX-Slow").await.unwrap();
    let mut body = connect(&registry).await;
    body.write_all(
        b"PUT /v1/hosts/h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"sess",
    )
    .await
    .unwrap();
    let mut trickle = connect(&registry).await;
    trickle
        .write_all(b"PUT /v1/hosts/h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        .await
        .unwrap();
    let (mut reader, mut writer) = trickle.into_split();
    let trickling = tokio::spawn(async move {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let (_, _, body, trickled) =
        tokio::join!(rest(&mut silent), rest(&mut head), rest(&mut body), async {
            let mut text = vec![0; 4096];
            let read = within("an answer", reader.read(&mut text)).await.unwrap().unwrap();
            String::from_utf8_lossy(&text[..read]).into_owned()
        });
    trickling.abort();
    for answer in [&body, &trickled] {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"too-slow\""), "{answer}");
    }
    assert_eq!(registry.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_watcher_that_reads_nothing_is_given_up() {
    let registry = RegistryProcess::start(&["--ttl", "1h"]).await.unwrap();
    let services: Vec<String> = (0..5_000).map(|n| format!("s{n}")).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    registry.declare("h", 1, &services).await;
    let before = registry.process.resident().unwrap();
    let mut watchers = Vec::new();
    for _ in 0..50 {
        let mut watcher = connect(&registry).await;
        watcher.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        watchers.push(watcher);
    }
    let count = async |count: f64| {
        eventually("watchers are counted", async || {
            let open = registry.metric("wharf_registry_watchers").await;
            (open == Some(count)).then_some(())
        })
        .await
        .unwrap();
    };
    count(50.0).await;
    for round in 0..6 {
        let state = if round % 2 == 0 { "draining" } else { "serving" };
        let body = json!({"session": 1, "state": state});
        registry.send(Method::PUT, "/v1/hosts/h/state", Some(body)).await;
    }
    let grown = registry.process.resident().unwrap().saturating_sub(before);
    assert!(grown < 200 * 1024 * 1024, "{grown} bytes more");
    count(0.0).await;
}

#[tokio::test]
async fn heads_and_bodies_beyond_their_bounds_are_refused() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let mut large = connect(&registry).await;
    let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    head.extend(format!("X-Large: {}\r\n\r\n", "x".repeat(64 * 1024)).into_bytes());
    let _ = large.write_all(&head).await;
    let answer = rest(&mut large).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let body = json!({"session": 1, "address": "x".repeat(5 * 1024 * 1024), "endpoints": []});
    let answer = registry.try_send(Method::PUT, "/v1/hosts/h", Some(body)).await;
    // The registry may close the connection before the whole body is sent.
    if let Ok((status, problem)) = answer {
        assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("too-large")));
    }
    let chunked =
        "PUT /v1/hosts/h HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut endless = connect(&registry).await;
    endless.write_all(chunked.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, " ".repeat(64 * 1024));
    let mut sent = 0;
    while sent < 1_000 && endless.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 1_000, "64 MB of a body were taken");
    assert_eq!(registry.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn an_answer_that_comes_before_its_body_was_read_ends_the_connection_and_says_so() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let body = "x".repeat(256 * 1024);
    for (path, status) in [("/nowhere", "404"), ("/register?name=A&addr=a:1", "200")] {
        let mut stream = connect(&registry).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // All of it can be sent: the registry reads what it does not want.
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the whole answer", stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_with_two_host_headers_is_refused() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    let mut stream = connect(&registry).await;
    let head = "GET /services HTTP/1.1\r\nHost: localhost\r\nHost: example.com\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("two Host headers"), "{answer}");
}
