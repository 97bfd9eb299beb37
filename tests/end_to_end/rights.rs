//! Who may call what: a file of principals, at every door and in every list.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_client::{CallOptions, Client, Outcome, RpcError};
use wharf_schema::Service;
use wharf_tests::{Process, eventually, get, http_client, plugin, wharf, within};

const SHOP: &str = "shop-secret-0123456789";
const DESK: &str = "desk-secret-0123456789";

/// `shop` may call one method of arith and all of textkit, `desk` everything, and strangers one method.
const PRINCIPALS: &str = r#"
[anonymous]
calls = ["arith.multiply"]

[[principal]]
name = "shop"
secret = "shop-secret-0123456789"
calls = [
    "demo:arith/arith.divide",
    "demo:textkit/*",
]

[[principal]]
name = "desk"
secret = "desk-secret-0123456789"
calls = ["*"]
scopes = ["read"]
"#;

/// A host that asks who calls.
struct Guarded {
    process: Process,
    host: String,
    http: String,
    principals: PathBuf,
    _folder: TempDir,
}

impl Guarded {
    async fn start(principals: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (plugins, file) =
            (folder.path().join("plugins"), folder.path().join("principals.toml"));
        std::fs::write(&file, principals).unwrap();
        std::fs::create_dir(&plugins).unwrap();
        for name in ["arith", "textkit"] {
            std::fs::write(plugins.join(format!("{name}.wasm")), plugin(name).unwrap()).unwrap();
            std::fs::write(plugins.join(format!("{name}.toml")), "mcp = true").unwrap();
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (plugins, path) = (text(&plugins), text(&file));
        let arguments = ["host", "--registry", "none", "--listen", "127.0.0.1:0"];
        let paths = ["--plugins", &plugins, "--principals", &path];
        let mut process = Process::start(&[&arguments[..], &paths].concat()).unwrap();
        let host = process.announced("host").await.unwrap();
        let http = process.announced("http").await.unwrap();
        eventually("it is ready", async || {
            (get(&format!("{http}/readyz")).await.ok()?.0 == 200).then_some(())
        })
        .await
        .unwrap();
        Guarded { process, host, http, principals: file, _folder: folder }
    }

    fn client(&self, secret: Option<&str>) -> Client {
        let builder = Client::builder();
        match secret {
            Some(secret) => builder.token(secret).direct(&self.host),
            None => builder.direct(&self.host),
        }
    }

    async fn ask(
        &self,
        secret: Option<&str>,
        method: Method,
        path: &str,
        body: Value,
    ) -> (u16, String) {
        let url = format!("http://{}{path}", self.host);
        let mut request = http_client().unwrap().request(method, url).json(&body);
        if let Some(secret) = secret {
            request = request.bearer_auth(secret);
        }
        let response = within("an answer", request.send()).await.unwrap().unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

async fn call(client: &Client, method: &str, arguments: &[Value]) -> Result<String, RpcError> {
    match client.call_json_with(method, arguments, CallOptions::default()).await? {
        Outcome::Ok(text) => Ok(text),
        other => panic!("{other:?}"),
    }
}

/// Methods, with their arguments by position, and a name of the same kind that does not exist.
fn methods() -> [(&'static str, Vec<Value>, &'static str); 3] {
    let pair = json!({"a": 8, "b": 2});
    [
        ("arith.multiply", vec![pair.clone()], "arith.multiplx"),
        ("arith.divide", vec![pair], "arith.dividx"),
        ("textkit.recase", vec![json!("hello"), json!("upper")], "textkix.recase"),
    ]
}

#[tokio::test]
async fn at_each_door_everybody_calls_what_they_may_and_the_rest_does_not_exist() {
    let guarded = Guarded::start(PRINCIPALS).await;
    for (who, may) in [
        (None, Some([true, false, false])),
        (Some(SHOP), Some([false, true, true])),
        (Some(DESK), Some([true, true, true])),
        (Some("wrong-secret-0123456789"), None),
    ] {
        let client = guarded.client(who);
        for (position, (method, arguments, missing)) in methods().into_iter().enumerate() {
            let path = |method: &str| format!("/{}", method.replace('.', "/"));
            let answer = call(&client, method, &arguments).await;
            let (status, body) =
                guarded.ask(who, Method::POST, &path(method), json!(arguments)).await;
            let rpc = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": arguments});
            let (rpc_status, rpc) = guarded.ask(who, Method::POST, "/rpc", rpc).await;
            match may.map(|may| may[position]) {
                Some(true) => {
                    assert!(answer.is_ok(), "{who:?} {method}: {answer:?}");
                    assert_eq!(status, 200, "{who:?} {method}: {body}");
                    assert!(rpc.contains("\"result\""), "{who:?} {method}: {rpc}");
                }
                Some(false) => {
                    // It is said in the same words as of what is not there.
                    let same = |text: &str| {
                        let text = text.replace("multiplx", "multiply").replace("dividx", "divide");
                        text.replace("textkix", "textkit")
                    };
                    let error = answer.unwrap_err().to_string();
                    let expected =
                        call(&client, missing, &arguments).await.unwrap_err().to_string();
                    assert_eq!(error, same(&expected), "{who:?}");
                    let (of_missing, expected) =
                        guarded.ask(who, Method::POST, &path(missing), json!(arguments)).await;
                    assert_eq!((status, body), (of_missing, same(&expected)), "{who:?}");
                    assert!(rpc.contains("-32601"), "{who:?} {method}: {rpc}");
                }
                None => {
                    let error = answer.unwrap_err().to_string();
                    assert!(error.contains("the token is missing or wrong"), "{error}");
                    assert_eq!((status, rpc_status), (401, 401), "{body}");
                }
            }
        }
    }
    // Whoever comes by a door without a place for a secret is a stranger.
    let mut stream = TcpStream::connect(&guarded.host).await.unwrap();
    for (method, answer) in [("Arith.Multiply", "\"result\":16"), ("Arith.Divide", "can't find")] {
        let call = format!(r#"{{"method":"{method}","params":[{{"A":8,"B":2}}],"id":1}}"#);
        stream.write_all(call.as_bytes()).await.unwrap();
        let mut heard = vec![0; 1000];
        let count = within("an answer", stream.read(&mut heard)).await.unwrap().unwrap();
        let heard = String::from_utf8_lossy(&heard[..count]).into_owned();
        assert!(heard.contains(answer), "{heard}");
    }
    guarded.process.logged("demo:textkit/textkit@0.1.0 was denied").await.unwrap();
    let (_, log) = guarded.process.terminate().await.unwrap();
    assert!(log.contains(r#""principal":"shop""#) && !log.contains(SHOP), "{log}");
}

#[tokio::test]
async fn lists_and_descriptions_show_what_one_may_call() {
    let ghost =
        "[[principal]]\nname = 'ghost'\nsecret = 'ghost-secret-0123456789'\ncalls = ['arith.old']";
    let guarded = Guarded::start(&format!("{PRINCIPALS}\n{ghost}")).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for (who, seen, unseen) in [
        (None, vec!["multiply"], vec!["divide", "recase", "quotient", "textkit"]),
        (Some(SHOP), vec!["divide", "recase"], vec!["multiply"]),
        (Some(DESK), vec!["multiply", "divide", "recase"], vec![]),
    ] {
        let client = guarded.client(who);
        let (_, all) = guarded.ask(who, Method::GET, "/openapi.json", Value::Null).await;
        let (_, tools) = guarded.ask(who, Method::POST, "/mcp", list.clone()).await;
        let described = client.describe("arith").await.unwrap();
        let names: Vec<_> = described.methods().iter().map(|method| &method.name[..]).collect();
        for name in &seen {
            assert!(all.contains(name) && tools.contains(name), "{who:?} {name}:\n{all}\n{tools}");
        }
        for name in unseen {
            assert!(!all.contains(name), "{who:?} {name}: {all}");
            assert!(!tools.contains(name), "{who:?} {name}: {tools}");
            assert!(!names.contains(&name), "{who:?}: {names:?}");
        }
        let (_, welcome) = guarded.ask(who, Method::GET, "/", Value::Null).await;
        assert_eq!(welcome.contains("textkit"), seen.contains(&"recase"), "{who:?}: {welcome}");
        let (status, _) = guarded.ask(who, Method::GET, "/textkit/openapi.json", Value::Null).await;
        assert_eq!(status, if seen.contains(&"recase") { 200 } else { 404 }, "{who:?}");
    }
    // A service without any method that one may call is not there.
    let ghost = guarded.client(Some("ghost-secret-0123456789"));
    for service in ["arith", "arithx"] {
        let error = ghost.describe(service).await.unwrap_err().to_string();
        assert!(error.contains(&format!("this host has no service '{service}'")), "{error}");
    }
    // What a part of a service does not show is not in its types either.
    let part = guarded.client(None).describe("arith").await.unwrap();
    assert!(part.wit().is_empty());
    assert!(!part.to_document().contains("\"quo\""), "{}", part.to_document());
    let whole = guarded.client(Some(DESK)).describe("arith").await.unwrap();
    assert!(whole.wit().contains("divide") && whole.to_document().contains("\"quo\""));
    let fingerprint = |service: &Service| {
        service.method("multiply").unwrap().signature.as_ref().unwrap().fingerprint
    };
    assert_eq!(fingerprint(&part), fingerprint(&whole));
}

#[tokio::test]
async fn rights_that_are_taken_back_end_on_open_connections_and_others_notice_nothing() {
    let guarded = Guarded::start(PRINCIPALS).await;
    let (shop, desk) = (guarded.client(Some(SHOP)), guarded.client(Some(DESK)));
    let recase = [json!("hello"), json!("upper")];
    call(&shop, "textkit.recase", &recase).await.unwrap();
    let mut stranger = TcpStream::connect(&guarded.host).await.unwrap();
    stranger
        .write_all(br#"{"method":"Arith.Multiply","params":[{"A":8,"B":2}],"id":1}"#)
        .await
        .unwrap();
    let mut heard = vec![0; 1000];
    assert!(within("an answer", stream_read(&mut stranger, &mut heard)).await.unwrap() > 0);
    // It is noticed without a signal, since the file has changed.
    let less =
        PRINCIPALS.replace("    \"demo:textkit/*\",\n", "").replace("[\"arith.multiply\"]", "[]");
    std::fs::write(&guarded.principals, less).unwrap();
    eventually("the right is gone", async || call(&shop, "textkit.recase", &recase).await.err())
        .await
        .unwrap();
    call(&shop, "arith.divide", &[json!({"a": 8, "b": 2})]).await.unwrap();
    let read = within("a stranger's connection ends", stream_read(&mut stranger, &mut heard)).await;
    assert_eq!(read.unwrap(), 0);
    call(&desk, "textkit.recase", &recase).await.unwrap();
    // What cannot be read changes nothing.
    std::fs::write(&guarded.principals, "[[principal]]\nname = 'x'\nsecret = 'sesame'").unwrap();
    guarded.process.logged("the principals stay as they were").await.unwrap();
    call(&desk, "textkit.recase", &recase).await.unwrap();
    assert!(!guarded.process.has_logged("sesame"));
}

async fn stream_read(stream: &mut TcpStream, into: &mut [u8]) -> usize {
    stream.read(into).await.unwrap_or(0)
}

#[tokio::test]
async fn metrics_and_services_are_for_those_who_may_read() {
    let guarded = Guarded::start(PRINCIPALS).await;
    for path in ["/metrics", "/services"] {
        for (secret, status) in [(None, 401), (Some(SHOP), 401), (Some(DESK), 200)] {
            let mut request = http_client().unwrap().get(format!("{}{path}", guarded.http));
            if let Some(secret) = secret {
                request = request.bearer_auth(secret);
            }
            let response = within("an answer", request.send()).await.unwrap().unwrap();
            assert_eq!(response.status().as_u16(), status, "{path} {secret:?}");
        }
    }
    assert_eq!(get(&format!("{}/healthz", guarded.http)).await.unwrap().0, 200);
}

#[tokio::test]
async fn whoever_calls_more_often_than_its_rate_is_told_when_to_come_back() {
    let limited = PRINCIPALS.replace("name = \"shop\"", "name = \"shop\"\nrate = 1\nburst = 2");
    let guarded = Guarded::start(&limited).await;
    let divide = json!({"a": 8, "b": 2});
    let refused = eventually("too often", async || {
        let (status, body) =
            guarded.ask(Some(SHOP), Method::POST, "/arith/divide", divide.clone()).await;
        (status == 429).then_some(body)
    })
    .await
    .unwrap();
    assert!(refused.contains("'shop' calls more often than it may: retry in"), "{refused}");
    let (status, _) = guarded.ask(Some(DESK), Method::POST, "/arith/divide", divide).await;
    assert_eq!(status, 200, "others are not held up");
}

#[tokio::test]
async fn rights_check_says_yes_or_no_and_which_line_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    std::fs::write(&file, PRINCIPALS).unwrap();
    let path = file.to_str().unwrap();
    for (who, method, code, said) in [
        ("shop", "demo:arith/arith.divide", 0, "line 9: 'demo:arith/arith.divide' in the calls of"),
        ("shop", "demo:textkit/textkit@0.1.0.recase", 0, "line 10: 'demo:textkit/*'"),
        ("desk", "Any.Thing", 0, "line 16: '*'"),
        ("anonymous", "Arith.Multiply", 0, "line 3: 'arith.multiply'"),
        ("shop", "demo:arith/arith.multiply", 1, "no: nothing in the calls of 'shop' allows"),
        ("shop", "arith.divide", 1, "only count for a full name"),
        ("nobody", "arith.divide", 4, "has no principal 'nobody': it has shop, desk, anonymous"),
    ] {
        let checked = wharf(&["rights", "check", path, "--as", who, method]).await.unwrap();
        assert_eq!(checked.code, Some(code), "{who} {method}: {checked:?}");
        let text = checked.stdout + &checked.stderr;
        assert!(text.contains(said), "{who} {method}: {text}");
    }
}

#[tokio::test]
async fn beyond_loopback_a_host_that_trusts_everybody_has_to_be_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = ["--plugins", folder.path().to_str().unwrap()];
    let name = ["--advertise", "127.0.0.1:0"];
    let beyond = ["--listen", "0.0.0.0:0"];
    let http = ["--listen", "127.0.0.1:0", "--http-listen", "[::]:0"];
    for arguments in [
        [&["host", "--registry", "none"], &plugins[..], &name, &beyond].concat(),
        [&["up"], &plugins[..], &name, &beyond].concat(),
        [&["host", "--registry", "none"], &plugins[..], &http].concat(),
    ] {
        let refused = wharf(&arguments).await.unwrap();
        assert_eq!(refused.code, Some(1), "{arguments:?}");
        for part in ["could call everything", "--principals FILE", "--anyone-may-call"] {
            assert!(refused.stderr.contains(part), "{arguments:?}: {}", refused.stderr);
        }
        assert!(!refused.stdout.contains("host:"), "{}", refused.stdout);
    }
    let secret = ["--token", "secret-0123456789"];
    for told in [&["--anyone-may-call"][..], &secret] {
        let arguments =
            [&["host", "--registry", "none"], &plugins[..], &name, &beyond, told].concat();
        let mut process = Process::start(&arguments).unwrap();
        process.announced("host").await.unwrap();
    }
    let guessed = wharf(&["host", "--token", "1"]).await.unwrap();
    assert_eq!(guessed.code, Some(2));
    assert!(guessed.stderr.contains("it can be guessed"), "{}", guessed.stderr);
}

#[tokio::test]
async fn secrets_that_are_guessed_are_answered_later_and_later_and_told_to_the_log() {
    let guarded = Guarded::start(PRINCIPALS).await;
    let wrong = Some("wrong-secret-0123456789");
    let divide = json!({"a": 8, "b": 2});
    for _ in 0..5 {
        let (status, _) = guarded.ask(wrong, Method::POST, "/arith/divide", divide.clone()).await;
        assert_eq!(status, 401);
    }
    guarded.process.logged("an address shows secrets that belong to nobody").await.unwrap();
    for _ in 0..3 {
        guarded.ask(wrong, Method::POST, "/arith/divide", divide.clone()).await;
    }
    let (status, _) = guarded.ask(Some(SHOP), Method::POST, "/arith/divide", divide.clone()).await;
    assert_eq!(status, 200, "others at this address are served");
    // At Wharf's own door, and on the HTTP side, it is the same count.
    let error = call(&guarded.client(wrong), "arith.divide", &[divide]).await.unwrap_err();
    assert!(error.to_string().contains("the token is missing or wrong"), "{error}");
    let mut request = http_client().unwrap().get(format!("{}/metrics", guarded.http));
    request = request.bearer_auth("wrong-secret-0123456789");
    let begun = tokio::time::Instant::now();
    let response = within("an answer", request.send()).await.unwrap().unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_principal_has_no_more_connections_than_its_line_says() {
    let guarded =
        Guarded::start(&PRINCIPALS.replace("\"shop\"", "\"shop\"\nconnections = 2")).await;
    let pair = [json!({"a": 8, "b": 2})];
    let clients = [(); 3].map(|()| guarded.client(Some(SHOP)));
    for client in &clients[..2] {
        call(client, "arith.divide", &pair).await.unwrap();
    }
    let refused = call(&clients[2], "arith.divide", &pair).await.unwrap_err();
    assert!(refused.to_string().contains("'shop' has as many connections"), "{refused}");
    assert!(!refused.may_have_executed);
    let (status, body) = guarded.ask(Some(SHOP), Method::POST, "/arith/divide", json!(pair)).await;
    assert!(status == 429 && body.contains("close one"), "{status} {body}");
    // Others have theirs, and a place that is given back can be taken.
    call(&guarded.client(Some(DESK)), "arith.divide", &pair).await.unwrap();
    drop(clients);
    let client = guarded.client(Some(SHOP));
    eventually("there is a place", async || call(&client, "arith.divide", &pair).await.ok())
        .await
        .unwrap();
}
