//! Hostile bytes at each door of a real host.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_gob::{
    Encoder, Field, StructBody, TypeId, Wire, put_int, put_message, put_text, put_uint,
};
use wharf_tests::{Wharf, plugin, within};

/// Damaged conversations of each kind.
const CONVERSATIONS: usize = 400;

async fn up() -> Wharf {
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    let plugins = [
        ("arith.wasm", &arith[..]),
        ("arith.toml", b"mcp = true\n"),
        ("textkit.wasm", &textkit[..]),
    ];
    Wharf::up(&plugins, &[]).await.unwrap()
}

/// A call of Arith.Multiply over gob, twice.
fn gob() -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    let field = |name: &str, ty| Field { name: name.to_owned(), ty };
    let fields = vec![field("ServiceMethod", TypeId::STRING), field("Seq", TypeId::UINT)];
    let request = encoder.define(Wire::Struct { name: "Request".to_owned(), fields }, &mut out);
    let fields = vec![field("A", TypeId::INT), field("B", TypeId::INT)];
    let args = encoder.define(Wire::Struct { name: "Args".to_owned(), fields }, &mut out);
    for number in 1..3 {
        let mut message = |ty: TypeId, put: &dyn Fn(&mut StructBody, &mut Vec<u8>)| {
            let mut body = Vec::new();
            put_int(&mut body, ty.number());
            put(&mut StructBody::default(), &mut body);
            StructBody::end(&mut body);
            put_message(&mut out, &body);
        };
        message(request, &|head, body| {
            head.field(0, body);
            put_text(body, b"Arith.Multiply");
            head.field(1, body);
            put_uint(body, number);
        });
        message(args, &|members, body| {
            members.field(0, body);
            put_int(body, 7);
            members.field(1, body);
            put_int(body, 8);
        });
    }
    out
}

/// A valid conversation at each door, and what its answer has in it.
fn conversations() -> Vec<(&'static str, Vec<u8>, &'static [u8])> {
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let two = r#"{"jsonrpc":"2.0","id":1,"method":"arith.multiply","params":[{"a":7,"b":8}]}"#;
    let one = r#"{"id":1,"method":"Arith.Multiply","params":[{"A":7,"B":8}]}"#;
    let tool = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"arith_multiply","arguments":{"a":7,"b":8}}}"#;
    // The preface of HTTP/2 and empty SETTINGS.
    let two_zero = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    vec![
        ("gob", gob(), b"\x70"),
        ("gob over HTTP", [b"CONNECT /_goRPC_ HTTP/1.0\n\n", &gob()[..]].concat(), b"Connected"),
        ("JSON-RPC", format!("{two}\n[{two},{one}]").into_bytes(), b"56"),
        ("Go's JSON-RPC", format!("{one}{one}").into_bytes(), b"56"),
        ("HTTP", post("/arith/multiply", r#"{"a":7,"b":8}"#), b"56"),
        ("HTTP/2", two_zero, b"\x04"),
        ("JSON-RPC over HTTP", post("/rpc", two), b"56"),
        ("MCP", post("/mcp", tool), b"56"),
    ]
}

/// Sends bytes, and reads until the host closes. HTTP takes the end of the sending side for the end of
/// the caller, so only where that is meant the sending side ends.
async fn converse(host: &str, bytes: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let mut answer = Vec::new();
    let conversation = async {
        // The host may have closed the connection already.
        let _ = stream.write_all(bytes).await;
        if ends {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut answer).await;
    };
    within("the host closes the connection", conversation).await.unwrap();
    answer
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn damaged_conversations_at_any_door_are_closed_and_hurt_nobody() {
    let wharf = up().await;
    let host: Arc<str> = wharf.host.as_str().into();
    for (name, valid, expected) in conversations() {
        let ends = !contains(&valid, b"connection: close");
        let answer = converse(&host, &valid, ends).await;
        assert!(contains(&answer, expected), "{name}: {}", String::from_utf8_lossy(&answer));
        let mut random = fastrand::Rng::with_seed(valid.len() as u64);
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..CONVERSATIONS {
            let mut bytes = valid.clone();
            for _ in 0..=random.usize(..4) {
                let at = random.usize(..bytes.len());
                match random.u32(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.insert(at, random.u8(..)),
                    2 => bytes[at] ^= 1 << random.u32(..8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let host = host.clone();
            running.spawn(async move { converse(&host, &bytes, true).await });
            if running.len() >= 16 {
                running.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        let answer = converse(&host, &valid, ends).await;
        assert!(contains(&answer, expected), "{name}: {}", String::from_utf8_lossy(&answer));
    }
    assert!(!wharf.process.has_logged("panicked"));
}

#[tokio::test]
async fn values_that_nest_too_deeply_get_the_doors_own_error() {
    let wharf = up().await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"arith.multiply","params":{deep}}}"#);
    for (name, bytes, parts) in [
        ("HTTP", post("/arith/multiply", &deep), ["HTTP/1.1 400", "invalid_argument"]),
        ("JSON-RPC over HTTP", post("/rpc", &call), ["HTTP/1.1 200", "-32700"]),
        ("MCP", post("/mcp", &call), ["HTTP/1.1 400", "-32700"]),
        ("JSON-RPC", call.clone(), ["-32600", "nests more than 127 deep"]),
    ] {
        let answer = converse(&wharf.host, bytes.as_bytes(), name == "JSON-RPC").await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        for part in parts {
            assert!(answer.contains(part), "{name}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_thousand_calls_written_at_once_on_one_connection_are_all_answered() {
    let wharf = up().await;
    let line = |n: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"arith.multiply","params":[{{"a":{n},"b":3}}]}}"#
        )
    };
    let lines: String = (0..1000).map(line).collect();
    let answer = converse(&wharf.host, lines.as_bytes(), true).await;
    let mut answers = 0;
    for value in serde_json::Deserializer::from_slice(&answer).into_iter::<serde_json::Value>() {
        let value = value.unwrap();
        assert_eq!(value["result"], 3 * value["id"].as_u64().unwrap());
        answers += 1;
    }
    assert_eq!(answers, 1000);
    let request = |n: usize| {
        let body = format!(r#"{{"a":{n},"b":3}}"#);
        let connection = if n == 999 { "close" } else { "keep-alive" };
        format!(
            "POST /arith/multiply HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let requests: String = (0..1000).map(request).collect();
    let answer =
        String::from_utf8(converse(&wharf.host, requests.as_bytes(), false).await).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1000);
    let bodies = answer.split("\r\n\r\n").skip(1).map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse::<usize>().unwrap()
    });
    assert!(bodies.eq((0..1000).map(|n| 3 * n)));
}
