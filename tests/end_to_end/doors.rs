//! Calls over HTTP, and what holds for all protocols on the RPC port.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use wharf_tests::{Wharf, eventually, get, http_client, installed, within};

/// An answer over HTTP.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(
    wharf: &Wharf,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let url = format!("http://{}{path}", wharf.host);
    let mut request = http_client().unwrap().request(method, url).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = within("an answer", request.send()).await.unwrap().unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

async fn post(wharf: &Wharf, path: &str, body: &str) -> Answer {
    send(wharf, Method::POST, path, &[("content-type", "application/json")], body).await
}

#[tokio::test]
async fn curl_calls_a_method_as_the_readme_says_over_http_1_and_2() {
    let Some(curl) = installed("curl", "Debian: curl") else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--noproxy", "*", version]);
        command.arg(format!("{}/arith/multiply", wharf.host)).args(["-d", r#"{"a":7,"b":8}"#]);
        let output = within("curl ends", command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "56", "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_body_is_the_record_the_parameters_by_name_or_in_order() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for (path, body, expected) in [
        ("/arith/multiply", r#"{"a":7,"b":8}"#, json!(56)),
        ("/Arith/Multiply", r#"{"A":"7","B":8.0}"#, json!(56)),
        ("/demo:arith/arith@0.1.0/multiply", r#"[{"a":7,"b":8}]"#, json!(56)),
        ("/demo%3Aarith%2Farith/multiply", r#"{"args":{"a":7,"b":8}}"#, json!(56)),
        ("/arith/divide", r#"{"a":17,"b":5}"#, json!({"quo": 3, "rem": 2})),
        ("/textkit/recase", r#"{"text":"ab","to":"upper"}"#, json!("AB")),
        ("/textkit/recase", r#"["ab","upper"]"#, json!("AB")),
        (
            "/textkit/analyze",
            r#""one two""#,
            json!({"bytes": 7, "chars": 7, "words": 2,
            "lines": 1, "longestWord": "one", "wordsPerLine": 2.0}),
        ),
        ("/textkit/word-counts", r#"{"text":"b a b"}"#, json!([["b", 2], ["a", 1]])),
        ("/textkit/wordCounts", r#"{"text":"b a b","atMost":1}"#, json!([["b", 2]])),
        ("/zoo/nothing", "", json!(null)),
        ("/zoo/nothing", "{}", json!(null)),
        ("/zoo/give-option", "", json!(null)),
    ] {
        let answer = post(&wharf, path, body).await;
        assert_eq!((answer.status, answer.json()), (200, expected), "{path} {body}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn failures_have_connects_codes_and_a_methods_own_error_is_apart() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let own = post(&wharf, "/arith/divide", r#"{"a":7,"b":0}"#).await;
    assert_eq!((own.status, &own.body[..]), (422, r#"{"error":"divide-by-zero"}"#));
    let own = post(&wharf, "/textkit/decode", r#"["zz","hex"]"#).await;
    assert_eq!((own.status, &own.body[..]), (422, r#"{"error":{"bad-character":["z",0]}}"#));
    for (path, body, status, code, words) in [
        ("/arit/multiply", "{}", 404, "not_found", "did you mean 'arith'?"),
        ("/arith/add", "{}", 501, "unimplemented", "has no method 'add'"),
        ("/arith", "{}", 404, "not_found", "POST /arith/multiply"),
        ("/arith/multiply", "{", 400, "invalid_argument", "is not JSON: EOF"),
        ("/arith/multiply", "", 400, "invalid_argument", "write it like {\"a\":-7,\"b\":-7}"),
        ("/arith/multiply", r#"{"a":1}"#, 400, "invalid_argument", "args.b: the field is missing"),
        ("/rogue/panic", r#"["x"]"#, 500, "internal", "rogue.panic"),
    ] {
        let answer = post(&wharf, path, body).await;
        let json = answer.json();
        assert_eq!((answer.status, json["code"].as_str()), (status, Some(code)), "{path} {json}");
        assert!(json["message"].as_str().unwrap().contains(words), "{path} {json}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        let executed = json["details"][0]["debug"]["notExecuted"] == false;
        assert_eq!(executed, path == "/rogue/panic", "{json}");
    }
    for (method, headers, status) in [
        (Method::GET, &[][..], 405),
        (Method::POST, &[("content-type", "text/plain")], 415),
        (Method::POST, &[("content-type", "application/json; charset=latin1")], 415),
        (Method::POST, &[("content-type", "application/json; charset=utf-8")], 200),
        (Method::POST, &[("content-encoding", "gzip")], 501),
        (Method::POST, &[("connect-timeout-ms", "soon")], 400),
        (Method::POST, &[("connect-protocol-version", "2")], 400),
        (Method::POST, &[("connect-protocol-version", "1")], 200),
    ] {
        let answer =
            send(&wharf, method.clone(), "/arith/multiply", headers, r#"{"a":7,"b":8}"#).await;
        assert_eq!(answer.status, status, "{method} {headers:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_timeout_ends_the_call_and_its_guest() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let headers = [("connect-timeout-ms", "100")];
    let answer = send(&wharf, Method::POST, "/rogue/sleep", &headers, "[60000]").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));
    counted(&wharf, "http", "sleep", "DEADLINE_EXCEEDED").await;
}

/// Waits until a call is counted.
async fn counted(wharf: &Wharf, door: &str, method: &str, status: &str) {
    let begin = format!("wharf_calls_total{{door=\"{door}\",method=\"{method}\"");
    let end = format!("status=\"{status}\"}} 1");
    eventually("the call is counted", async || {
        let (_, text) = get(&format!("{}/metrics", wharf.http)).await.ok()?;
        text.lines().any(|line| line.starts_with(&begin) && line.ends_with(&end)).then_some(())
    })
    .await
    .unwrap();
}

/// Waits until a plugin has an instance that is not idle.
async fn is_busy(wharf: &Wharf, service: &str) {
    eventually("a call runs", async || {
        let services = wharf_tests::get_json(&format!("{}/services", wharf.http)).await.ok()?;
        let found = services["services"].as_array()?.iter().find(|s| s["service"] == service)?;
        (found["instances"].as_u64()? > found["idle"].as_u64()?).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_call_is_cancelled_when_its_caller_goes_away_whatever_it_speaks() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    // The request of Go's net/rpc, as its bytes: the types, then `Rogue.Sleep` with 60000.
    let gob = gob_call("Rogue.Sleep", 60_000);
    for (door, request) in [
        (
            "http",
            b"POST /rogue/sleep HTTP/1.1\r\nhost: localhost\r\ncontent-length: 7\r\n\r\n[60000]"
                .to_vec(),
        ),
        (
            "jsonrpc",
            br#"{"jsonrpc":"2.0","method":"rogue.sleep","params":[60000],"id":1}"#.to_vec(),
        ),
        ("gob", gob),
    ] {
        let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
        stream.write_all(&request).await.unwrap();
        is_busy(&wharf, "test:rogue/rogue@1.0.0").await;
        drop(stream);
        counted(&wharf, door, "sleep", "CANCELLED").await;
    }
}

/// A call of net/rpc with one unsigned number.
fn gob_call(method: &str, argument: u64) -> Vec<u8> {
    let mut bytes = b"\x2f\xff\x81\x03\x01\x01\x07Request\x01\xff\x82\x00\x01\x02\x01\x0dServiceMethod\x01\x0c\x00\x01\x03Seq\x01\x06\x00\x00\x00".to_vec();
    let mut head = vec![0xff, 0x82, 1, u8::try_from(method.len()).unwrap()];
    head.extend_from_slice(method.as_bytes());
    head.extend_from_slice(&[1, 1, 0]);
    let number = argument.to_be_bytes();
    let body = [&[6, 0, 0xf8][..], &number].concat();
    for message in [head, body] {
        bytes.push(u8::try_from(message.len()).unwrap());
        bytes.extend(message);
    }
    bytes
}

#[tokio::test]
async fn web_pages_call_only_if_their_origin_is_allowed() {
    let wharf = Wharf::up_with_services(&["--allow-origin", "https://app.example"]).await.unwrap();
    let call = async |headers: &[(&str, &str)]| {
        send(&wharf, Method::POST, "/arith/multiply", headers, r#"{"a":7,"b":8}"#).await
    };
    let allowed = call(&[("origin", "https://app.example")]).await;
    assert_eq!((allowed.status, &allowed.body[..]), (200, "56"));
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    let other = call(&[("origin", "https://evil.example")]).await;
    assert_eq!(other.status, 403);
    assert_eq!(other.header("access-control-allow-origin"), "");
    assert!(other.body.contains("--allow-origin https://evil.example"), "{}", other.body);
    assert_eq!(call(&[("host", "evil.example")]).await.status, 403, "a rebound name");

    let ask = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let told = send(&wharf, Method::OPTIONS, "/arith/multiply", &ask, "").await;
    assert_eq!(told.status, 204);
    assert!(told.header("access-control-allow-headers").contains("content-type"));
}

#[tokio::test]
async fn a_token_is_asked_for_at_every_door() {
    let wharf = Wharf::up_with_services(&["--token", "secret-0123456789"]).await.unwrap();
    let call = async |headers: &[(&str, &str)]| {
        send(&wharf, Method::POST, "/arith/multiply", headers, r#"{"a":7,"b":8}"#).await
    };
    let without = call(&[]).await;
    assert_eq!((without.status, without.json()["code"].as_str()), (401, Some("unauthenticated")));
    assert_eq!(without.header("www-authenticate"), "Bearer");
    assert_eq!(call(&[("authorization", "Bearer wrong")]).await.status, 401);
    assert_eq!(call(&[("authorization", "bearer secret-0123456789")]).await.body, "56");
    assert_eq!(post(&wharf, "/rpc", "{}").await.status, 401);
    // The others have no place for a token.
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    let call = br#"{"jsonrpc":"2.0","method":"arith.multiply","params":{"a":7,"b":8},"id":1}"#;
    stream.write_all(call).await.unwrap();
    let mut answer = vec![0; 1000];
    let count = within("an answer", stream.read(&mut answer)).await.unwrap().unwrap();
    let answer: Value = serde_json::from_slice(&answer[..count]).unwrap();
    assert_eq!(answer["error"]["data"]["status"], "UNAUTHENTICATED", "{answer}");
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    stream.write_all(&gob_call("Rogue.Sleep", 0)).await.unwrap();
    let mut answer = vec![0; 1000];
    let count = within("an answer", stream.read(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(text.contains("wharf: UNAUTHENTICATED: "), "{text}");
}

#[tokio::test]
async fn a_door_that_is_closed_says_so() {
    let wharf = Wharf::up_with_services(&["--doors", "wharf,http"]).await.unwrap();
    assert_eq!(post(&wharf, "/arith/multiply", r#"{"a":7,"b":8}"#).await.body, "56");
    assert_eq!(post(&wharf, "/rpc", "{}").await.status, 403);
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    stream.write_all(b"{\"id\":1}").await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("this host does not serve jsonrpc: it serves wharf,http"), "{answer}");
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    stream.write_all(&gob_call("Rogue.Sleep", 0)).await.unwrap();
    assert_eq!(within("an end", stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    // And the other way round.
    let wharf = Wharf::up_with_services(&["--doors", "wharf"]).await.unwrap();
    let answer = post(&wharf, "/arith/multiply", "{}").await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("this host does not serve http"), "{}", answer.body);
}

#[tokio::test]
async fn bodies_are_bounded_and_a_connection_takes_thousands_of_calls() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(17 << 20));
    let answer = post(&wharf, "/textkit/analyze", &large).await;
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert!(answer.body.contains("more than 16777216 bytes"), "{}", answer.body);
    let deep = "[".repeat(100_000);
    let answer = post(&wharf, "/textkit/analyze", &deep).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid_argument")));
    // A mebibyte each way.
    let data = "QUJD".repeat(300_000);
    let answer = post(&wharf, "/textkit/echo", &format!("\"{data}\"")).await;
    assert_eq!(answer.body.len(), data.len() + 2);
    let client = http_client().unwrap();
    let url = format!("http://{}/arith/multiply", wharf.host);
    for n in 0..3000i64 {
        let answer = client.post(&url).json(&json!({"a": n, "b": 2})).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), (n * 2).to_string());
    }
}

#[tokio::test]
async fn whoever_is_still_sending_hears_an_answer_that_comes_early() {
    // More than any buffers hold, and than a host accepts.
    const LENGTH: usize = 24 << 20;
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for (path, status) in [("textkit/analyze", 429), ("arith/multiply", 429), ("nobody/there", 404)]
    {
        let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
        let head =
            format!("POST /{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // Nothing is read before everything was sent.
        within("the body", stream.write_all(&vec![b' '; LENGTH])).await.unwrap().unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_drain_answers_what_is_in_flight_and_closes_the_connection() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let url = format!("http://{}/rogue/compute", wharf.host);
    let request = http_client().unwrap().post(url).json(&json!([1000]));
    let call = tokio::spawn(request.send());
    is_busy(&wharf, "test:rogue/rogue@1.0.0").await;
    let terminated = tokio::spawn(wharf.process.terminate());
    let response = within("an answer", call).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["connection"], "close");
    let (status, log) = within("an end", terminated).await.unwrap().unwrap().unwrap();
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn a_request_id_is_sent_back_and_a_slow_body_is_given_up() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let headers = [("x-request-id", "a-1"), ("content-type", "application/json")];
    let answer = send(&wharf, Method::POST, "/arith/multiply", &headers, r#"{"a":7,"b":8}"#).await;
    assert_eq!(answer.header("x-request-id"), "a-1");
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    let head = "POST /arith/multiply HTTP/1.1\r\nhost: localhost\r\nconnect-timeout-ms: 300\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4000];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer));
    let count = read.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(text.starts_with("HTTP/1.1 504 "), "{text}");
    assert!(text.contains("the body did not arrive in time"), "{text}");
}
