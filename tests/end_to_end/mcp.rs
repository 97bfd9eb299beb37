//! Methods as tools for models.

use serde_json::{Value, json};
use tokio::process::Command;
use wharf_tests::{
    Wharf, eventually, get_json, guest, http_client, plugin, run_command, tool, within,
};

/// A host whose plugins have these sidecars.
async fn up(sidecars: &[(&str, &str)]) -> Wharf {
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    let zoo = guest("zoo").unwrap();
    let mut plugins =
        vec![("arith.wasm", &arith[..]), ("textkit.wasm", &textkit[..]), ("zoo.wasm", &zoo[..])];
    plugins.extend(sidecars.iter().map(|(name, text)| (*name, text.as_bytes())));
    Wharf::up(&plugins, &[]).await.unwrap()
}

/// The status and body of the answer to a message.
async fn send(wharf: &Wharf, headers: &[(&str, &str)], message: &Value) -> (u16, Value) {
    let url = format!("http://{}/mcp", wharf.host);
    let mut request = http_client().unwrap().post(url).body(message.to_string());
    request = request.header("content-type", "application/json");
    request = request.header("accept", "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = within("an answer", request.send()).await.unwrap().unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    (status, body)
}

const STATELESS: &str = "2026-07-28";

/// A request of the stateless revision, with what it has to say about itself.
fn request(method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

async fn tools(wharf: &Wharf) -> Vec<String> {
    let headers = [("mcp-protocol-version", STATELESS), ("mcp-method", "tools/list")];
    let (status, body) = send(wharf, &headers, &request("tools/list", json!({}))).await;
    assert_eq!(status, 200, "{body}");
    let tools = body["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

async fn call(wharf: &Wharf, name: &str, arguments: Value) -> (u16, Value) {
    let headers =
        [("mcp-protocol-version", STATELESS), ("mcp-method", "tools/call"), ("mcp-name", name)];
    let params = json!({ "name": name, "arguments": arguments });
    send(wharf, &headers, &request("tools/call", params)).await
}

#[tokio::test]
async fn the_official_sdk_lists_tools_and_calls_them_in_both_revisions() {
    let Some(python) = tool("python/bin/python3").unwrap() else { return };
    let all = "mcp = true\n";
    let wharf = up(&[("arith.toml", all), ("textkit.toml", all), ("zoo.toml", all)]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/mcp/client.py");
    for (mode, spoken) in [(STATELESS, STATELESS), ("auto", STATELESS), ("legacy", "2025-11-25")] {
        let mut command = Command::new(&python);
        command.args([script, &wharf.host, mode, spoken]).env("NO_PROXY", "127.0.0.1");
        let finished = run_command(command.env("PYTHONDONTWRITEBYTECODE", "1")).await.unwrap();
        assert_eq!(finished.stdout, "all tools answered\n", "{mode}: {}", finished.stderr);
        assert_eq!(finished.code, Some(0));
    }
}

#[tokio::test]
async fn only_what_a_sidecar_offers_is_a_tool_and_a_change_of_it_counts_at_once() {
    let list = "mcp = [\"Divide\", \"demo:arith/arith.divide\"]\n";
    let wharf = up(&[("arith.toml", list), ("textkit.toml", "mcp = false\n")]).await;
    assert_eq!(tools(&wharf).await, ["arith_divide"]);
    let (status, body) = call(&wharf, "arith_multiply", json!({ "a": 7, "b": 8 })).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!(-32602)), "{body}");
    let (status, body) = call(&wharf, "arith_divide", json!({ "a": 17, "b": 5 })).await;
    let expected = json!({ "quo": "3", "rem": "2" });
    assert_eq!((status, &body["result"]["structuredContent"]), (200, &expected), "{body}");
    std::fs::remove_file(wharf.file("arith.toml")).unwrap();
    eventually("there is no tool any more", async || tools(&wharf).await.is_empty().then_some(()))
        .await
        .unwrap();
    let (status, _) = call(&wharf, "arith_divide", json!({ "a": 17, "b": 5 })).await;
    assert_eq!(status, 400);
    std::fs::write(wharf.file("arith.toml"), "mcp = [\"arith.dvide\"]\n").unwrap();
    let refused = eventually("the sidecar is refused", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        let files = overview["files"].as_array().unwrap().clone();
        files.into_iter().find(|file| file["file"] == "arith.wasm" && file["state"] == "refused")
    })
    .await
    .unwrap();
    assert_eq!(
        refused["reason"],
        "its sidecar offers 'arith.dvide' to models (mcp), and it has no such method; did you mean \
         'divide'?"
    );
}

#[tokio::test]
async fn the_stateless_revision_refuses_what_contradicts_itself() {
    let wharf = up(&[("arith.toml", "mcp = true\n")]).await;
    let version = ("mcp-protocol-version", STATELESS);
    let (list, name) = (("mcp-method", "tools/list"), ("mcp-name", "arith_divide"));
    let tools_list = request("tools/list", json!({}));
    let divide = request("tools/call", json!({ "name": "arith_divide", "arguments": {} }));
    let mut unknown = tools_list.clone();
    unknown["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2030-01-01");
    let mut bare = tools_list.clone();
    bare["params"] = json!({});
    let mut incapable = tools_list.clone();
    incapable["params"]["_meta"]
        .as_object_mut()
        .unwrap()
        .remove("io.modelcontextprotocol/clientCapabilities");
    type Case<'a> = (Vec<(&'a str, &'a str)>, &'a Value, u16, i64);
    let cases: Vec<Case<'_>> = vec![
        (vec![version, list], &tools_list, 200, 0),
        (vec![list], &tools_list, 400, -32020),
        (vec![version], &tools_list, 400, -32020),
        (vec![("mcp-protocol-version", "2025-11-25"), list], &tools_list, 400, -32020),
        (vec![version, ("mcp-method", "tools/call")], &tools_list, 400, -32020),
        (vec![version, list, ("mcp-method", "tools/list")], &tools_list, 400, -32020),
        (vec![version, ("mcp-method", "tools/call")], &divide, 400, -32020),
        (vec![version, ("mcp-method", "tools/call"), ("mcp-name", "x")], &divide, 400, -32020),
        (vec![version, ("mcp-method", "tools/call"), name], &divide, 200, 0),
        (
            vec![
                version,
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?YXJpdGhfZGl2aWRl?="),
            ],
            &divide,
            200,
            0,
        ),
        (vec![("mcp-protocol-version", "2030-01-01"), list], &unknown, 400, -32022),
        (vec![version, list], &bare, 400, -32602),
        (vec![version, list], &incapable, 400, -32602),
    ];
    for (headers, message, status, code) in cases {
        let (given, body) = send(&wharf, &headers, message).await;
        assert_eq!(given, status, "{headers:?} {body}");
        if code == 0 {
            assert_eq!(body["result"]["resultType"], "complete", "{body}");
        } else {
            assert_eq!((&body["error"]["code"], &body["id"]), (&json!(code), &json!(7)), "{body}");
        }
    }
    let headers = [version, ("mcp-method", "tools/explode")];
    let (status, body) = send(&wharf, &headers, &request("tools/explode", json!({}))).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!(-32601)));
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled" });
    assert_eq!(send(&wharf, &[version], &notification).await, (202, Value::Null));
    let (status, body) = send(&wharf, &[("mcp-protocol-version", "x")], &notification).await;
    assert_eq!((status, &body["error"]["data"]["supported"][0]), (400, &json!(STATELESS)));
    for text in [json!([]), json!(7)] {
        assert_eq!(send(&wharf, &[version], &text).await.0, 400);
    }
    let got = wharf_tests::get(&format!("http://{}/mcp", wharf.host)).await.unwrap();
    assert_eq!(got.0, 405);
    let page = [version, list, ("origin", "https://evil.example")];
    assert_eq!(send(&wharf, &page, &tools_list).await.0, 403);
}
