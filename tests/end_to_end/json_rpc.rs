//! JSON-RPC over TCP and over HTTP.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_tests::{Wharf, eventually, get, http_client, within};

/// Sends text over TCP. Returns as many answers.
async fn over_tcp(wharf: &Wharf, text: &str, answers: usize) -> Vec<Value> {
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    over_stream(&mut stream, text, answers).await
}

async fn over_stream(stream: &mut TcpStream, text: &str, answers: usize) -> Vec<Value> {
    stream.write_all(text.as_bytes()).await.unwrap();
    let (mut bytes, mut read) = (Vec::new(), Vec::new());
    while read.len() < answers {
        let more = within("an answer", stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(more > 0, "{read:?} and then the end");
        read = serde_json::Deserializer::from_slice(&bytes)
            .into_iter::<Value>()
            .map_while(Result::ok)
            .collect();
    }
    read
}

async fn over_http(wharf: &Wharf, text: &str) -> (u16, String) {
    let url = format!("http://{}/rpc", wharf.host);
    let request = http_client().unwrap().post(url).header("content-type", "application/json-rpc");
    let answer = request.body(text.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Calls and their answers, the same over TCP and over HTTP.
fn cases() -> Vec<(&'static str, Value)> {
    vec![
        (
            r#"{"jsonrpc":"2.0","method":"arith.multiply","params":{"a":7,"b":8},"id":1}"#,
            json!({"jsonrpc": "2.0", "result": 56, "id": 1}),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"Arith.Multiply","params":[{"a":7,"b":8}],"id":"x"}"#,
            json!({"jsonrpc": "2.0", "result": 56, "id": "x"}),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"textkit.recase","params":["ab","upper"],"id":null}"#,
            json!({"jsonrpc": "2.0", "result": "AB", "id": null}),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"zoo.nothing","id":4}"#,
            json!({"jsonrpc": "2.0", "result": null, "id": 4}),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"arith.divide","params":{"a":7,"b":0},"id":5}"#,
            json!({"jsonrpc": "2.0", "error": {"code": -32000, "message": "divide-by-zero",
                "data": "divide-by-zero"}, "id": 5}),
        ),
        (
            r#"{"method":"Arith.Multiply","params":[{"A":7,"B":8}],"id":6}"#,
            json!({"result": 56, "error": null, "id": 6}),
        ),
        (
            r#"{"method":"Zoo.Nothing","params":[{}],"id":7}"#,
            json!({"result": {}, "error": null, "id": 7}),
        ),
        (
            r#"{"method":"Arith.Divide","params":[{"A":7,"B":0}],"id":8}"#,
            json!({"result": null, "error": "divide-by-zero", "id": 8}),
        ),
        (
            r#"{"method":"Arit.Multiply","params":[{"A":7,"B":0}],"id":9}"#,
            json!({"result": null, "error": "rpc: can't find service Arit.Multiply", "id": 9}),
        ),
    ]
}

#[tokio::test]
async fn both_dialects_are_answered_in_their_own_form_over_tcp_and_http() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for (call, answer) in cases() {
        assert_eq!(over_tcp(&wharf, call, 1).await, std::slice::from_ref(&answer), "{call}");
        let (status, text) = over_http(&wharf, call).await;
        let over_http: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, over_http), (200, answer), "{call}");
    }
    // On one connection, one right after the other.
    let all: String = cases().iter().map(|(call, _)| *call).collect();
    let mut answers = over_tcp(&wharf, &all, cases().len()).await;
    let place = |answer: &Value| cases().iter().position(|(_, wanted)| wanted == answer);
    answers.sort_by_key(place);
    let wanted: Vec<Value> = cases().into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(answers, wanted);
}

#[tokio::test]
async fn errors_have_the_codes_of_the_standard() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for (call, code, status) in [
        (r#"{"jsonrpc":"2.0","method":"arit.multiply","id":1}"#, -32601, "NOT_FOUND"),
        (r#"{"jsonrpc":"2.0","method":"arith.add","id":1}"#, -32601, "UNIMPLEMENTED"),
        (r#"{"jsonrpc":"2.0","method":"arith","id":1}"#, -32601, "INVALID_ARGUMENT"),
        (
            r#"{"jsonrpc":"2.0","method":"arith.multiply","params":[7,8],"id":1}"#,
            -32602,
            "INVALID_ARGUMENT",
        ),
        (r#"{"jsonrpc":"2.0","method":"rogue.panic","params":["x"],"id":1}"#, -32603, "INTERNAL"),
    ] {
        let answer = over_tcp(&wharf, call, 1).await.remove(0);
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert_eq!(answer["error"]["data"]["status"], status, "{answer}");
        assert_eq!(answer["id"], 1);
    }
}

#[tokio::test]
async fn a_batch_has_one_answer_and_notifications_have_none() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let call = |id: i64| json!({"jsonrpc": "2.0", "method": "arith.multiply", "params": {"a": id, "b": 2}, "id": id});
    let notification = json!({"jsonrpc": "2.0", "method": "rogue.count"});
    let batch = json!([call(1), notification, call(2), 7]).to_string();
    let check = |answers: &Value| {
        let answers = answers.as_array().unwrap();
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert_eq!(answers[0]["result"], 2);
        assert_eq!(answers[1]["result"], 4);
        assert_eq!(answers[2]["error"]["code"], -32600);
    };
    check(&over_tcp(&wharf, &batch, 1).await[0]);
    let (status, text) = over_http(&wharf, &batch).await;
    assert_eq!(status, 200);
    check(&serde_json::from_str(&text).unwrap());
    // It is called, and nothing is said of it.
    let only = json!([notification, notification]).to_string();
    assert_eq!(over_http(&wharf, &only).await, (204, String::new()));
    let both = only + &call(3).to_string();
    let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
    assert_eq!(over_stream(&mut stream, &both, 1).await[0]["result"], 6);
    // One of the first batch at each door, two alone over HTTP, two before a call over TCP. The first
    // over TCP may have been cancelled when its connection closed; the others have to run. Calls may run
    // in different instances, so the host counts them and not the guest.
    let called = async || {
        let (_, text) = get(&format!("{}/metrics", wharf.http)).await.ok()?;
        let line = text.lines().find(|line| {
            line.starts_with("wharf_calls_total{")
                && line.contains("\"count\"")
                && line.contains("\"OK\"")
        })?;
        line.rsplit_once(' ')?.1.parse::<u64>().ok().filter(|&count| count >= 5)
    };
    eventually("five notifications that were called", called).await.unwrap();
}

#[tokio::test]
async fn what_is_not_json_is_answered_once_and_the_connection_ends() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for (text, code) in [("[ }7", -32700), ("[] x", -32600)] {
        let mut stream = TcpStream::connect(&wharf.host).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let first = serde_json::Deserializer::from_str(&answer).into_iter::<Value>().next();
        assert_eq!(first.unwrap().unwrap()["error"]["code"], code, "{text}: {answer}");
    }
    let deep = "[".repeat(1000);
    let answers = over_tcp(&wharf, &deep, 1).await;
    assert!(answers[0]["error"]["message"].as_str().unwrap().contains("127 deep"), "{answers:?}");
}

#[tokio::test]
async fn a_slow_call_holds_up_no_quick_one_on_the_same_connection() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let calls = r#"{"jsonrpc":"2.0","method":"rogue.sleep","params":[400],"id":"slow"}
        {"jsonrpc":"2.0","method":"arith.multiply","params":{"a":7,"b":8},"id":"quick"}"#;
    let answers = over_tcp(&wharf, calls, 2).await;
    assert_eq!([&answers[0]["id"], &answers[1]["id"]], ["quick", "slow"]);
}
