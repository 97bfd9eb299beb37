//! What operators see: health, metrics, services, logs and traces.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use wharf_client::{CallOptions, TraceParent};
use wharf_tests::{Args, Wharf, eventually, get, get_json, guest, plugin, within};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn up() -> Wharf {
    let (arith, rogue) = (plugin("arith").unwrap(), guest("rogue").unwrap());
    Wharf::up(&[("arith.wasm", &arith), ("rogue.wasm", &rogue)], &[]).await.unwrap()
}

async fn metrics(wharf: &Wharf) -> String {
    get(&format!("{}/metrics", wharf.http)).await.unwrap().1
}

#[tokio::test]
async fn health_and_readiness_are_told_and_unknown_paths_say_what_there_is() {
    let wharf = up().await;
    let at = async |path: &str| get(&format!("{}{path}", wharf.http)).await.unwrap();
    assert_eq!(at("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(at("/readyz").await, (200, "ok\n".to_owned()));
    let (status, body) = at("/").await;
    assert_eq!(status, 404);
    assert!(body.contains("try GET /healthz, /readyz, /metrics or /services"), "{body}");
}

#[tokio::test]
async fn a_host_that_drains_is_alive_and_not_ready() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let slow = tokio::spawn(async move { client.call::<_, ()>("rogue.sleep", &3000u64).await });
    eventually("the call runs", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        let services = overview["services"].as_array().unwrap();
        let rogue = services.iter().find(|service| service["file"] == "rogue.wasm").unwrap();
        (rogue["idle"].as_u64() < rogue["instances"].as_u64()).then_some(())
    })
    .await
    .unwrap();
    wharf.process.signal("TERM").unwrap();
    let (_, body) = eventually("it is not ready", async || {
        Some(get(&format!("{}/readyz", wharf.http)).await.unwrap()).filter(|(s, _)| *s == 503)
    })
    .await
    .unwrap();
    assert!(body.starts_with("draining"), "{body}");
    assert_eq!(get(&format!("{}/healthz", wharf.http)).await.unwrap().0, 200);
    slow.await.unwrap().unwrap();
    let (status, _) = wharf.process.ended().await.unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn calls_are_counted_by_service_method_and_status_whatever_callers_send() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    for _ in 0..3 {
        client.call::<_, i64>("Arith.Multiply", &Args { a: 7, b: 8 }).await.unwrap();
    }
    client.call::<_, i64>("arith.multiply", &"no record").await.unwrap_err();
    client.call::<_, ()>("rogue.panic", "on purpose").await.unwrap_err();
    for number in 0..20 {
        let name = format!("arith.no-such-method-{number}");
        client.call::<_, ()>(&name, &()).await.unwrap_err();
        client.call::<_, ()>(&format!("no-such-service-{number}.x"), &()).await.unwrap_err();
    }
    let text = metrics(&wharf).await;
    for series in [
        "wharf_calls_total{door=\"wharf\",method=\"multiply\",service=\"demo:arith/arith@0.1.0\",status=\"OK\"} 3\n",
        "wharf_calls_total{door=\"wharf\",method=\"multiply\",service=\"demo:arith/arith@0.1.0\",status=\"INVALID_ARGUMENT\"} 1\n",
        "wharf_calls_total{door=\"wharf\",method=\"panic\",service=\"test:rogue/rogue@1.0.0\",status=\"INTERNAL\"} 1\n",
        "wharf_traps_total{method=\"panic\",service=\"test:rogue/rogue@1.0.0\"} 1\n",
        "wharf_call_duration_seconds_count{method=\"multiply\",service=\"demo:arith/arith@0.1.0\"} 4\n",
        "wharf_calls_waiting{plugin=\"arith.wasm\"} 0\n",
        "wharf_plugin_loads_total{result=\"compiled\"} 2\n",
        "wharf_plugin_compile_seconds_count 2\n",
        "wharf_plugin_swaps_total 0\n",
        "wharf_connections 1\n",
    ] {
        assert!(text.contains(series), "{series} is not in\n{text}");
    }
    assert!(text.contains("wharf_instances{plugin=\"rogue.wasm\"}"), "{text}");
    assert!(!text.contains("no-such"), "labels come from what is served: {text}");
}

#[tokio::test]
async fn services_are_listed_with_their_wit() {
    let wharf = up().await;
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    let arith = &overview["services"][0];
    assert_eq!(arith["service"], "demo:arith/arith@0.1.0");
    assert_eq!(arith["file"], "arith.wasm");
    assert!(arith["wit"].as_str().unwrap().contains("multiply: func(args: args) -> s64;"));
    assert_eq!(arith["methods"][0]["name"], "multiply");
    assert_eq!(overview["files"][1]["state"], "serving");
}

#[tokio::test]
async fn what_a_guest_prints_and_how_it_dies_is_logged_within_the_callers_trace() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let trace_parent = Some(TRACE.parse::<TraceParent>().unwrap());
    let options = CallOptions { trace_parent, ..CallOptions::default() };
    client.call_with::<_, ()>("rogue.panic", "on purpose", options).await.unwrap_err();
    let (_, log) = wharf.process.terminate().await.unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let traced: Vec<_> = lines
        .filter(|line| line["span"]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736")
        .collect();
    for (field, text) in [("message", "on purpose"), ("message", "a guest trapped")] {
        let found = traced.iter().find(|line| line[field].as_str().unwrap().contains(text));
        let line = found.unwrap_or_else(|| panic!("{text} is not in {traced:?}"));
        assert_eq!(line["span"]["method"], "rogue.panic");
        assert_eq!(line["span"]["parent_id"], "00f067aa0ba902b7");
        assert_eq!(line["plugin"], "rogue.wasm");
    }
}

/// Starts a collector. It receives one export after the other, and passes on their bodies.
fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let mut part = [0; 4096];
            let body = loop {
                let read = stream.read(&mut part).unwrap();
                bytes.extend_from_slice(&part[..read]);
                let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
                let len = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let len: usize = len.unwrap().trim().parse().unwrap();
                if bytes.len() >= head + 4 + len {
                    break bytes[head + 4..].to_vec();
                }
            };
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).unwrap();
            if send.send(body).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

#[tokio::test]
async fn spans_of_calls_are_exported_below_the_callers() {
    let (collector, bodies) = collector();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("arith.wasm"), plugin("arith").unwrap()).unwrap();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector)];
    let wharf = Wharf::up_over(folder, &[], &environment).await.unwrap();
    let client = wharf.client().await.unwrap();
    let trace_parent: TraceParent = TRACE.parse().unwrap();
    let options = CallOptions { trace_parent: Some(trace_parent), ..CallOptions::default() };
    let product: i64 =
        client.call_with("arith.multiply", &Args { a: 7, b: 8 }, options).await.unwrap();
    assert_eq!(product, 56);
    // The remaining spans are exported when the process ends.
    wharf.process.terminate().await.unwrap();
    let body = within("an export", tokio::task::spawn_blocking(move || bodies.recv()));
    let body = body.await.unwrap().unwrap().unwrap();
    let has = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&trace_parent.trace_id), "the trace is the caller's");
    assert!(has(&trace_parent.span_id), "the parent is the caller's span");
    assert!(has(b"arith.multiply") && has(b"wharf"));
}
