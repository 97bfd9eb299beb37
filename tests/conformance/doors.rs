//! The same call through each door of a host: made-up types and values come back the same.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_client::{CallError, CallOptions, Client};
use wharf_gob::{Decoder, Encoder};
use wharf_schema::encoding::Reader;
use wharf_schema::{
    JsonDialect, Outcome, Service, TypeId, Types, result_to_json_in, value_to_json,
};
use wharf_tests::{Wharf, guest, http_client, plugin, within};

use crate::go_shaped::{self, Uncarried};
use crate::made_up::{Kind, Shape, arguments, echo, shape};

/// Services with made-up types, each on a host of its own.
const SERVICES: u32 = 12;

/// Values of each type.
const VALUES: u32 = 12;

/// A connection for each door that has one.
struct Doors {
    wharf: Client,
    host: String,
    http: reqwest::Client,
    lines: TcpStream,
    gob: Gob,
}

struct Gob {
    stream: TcpStream,
    encoder: Encoder,
    decoder: Decoder,
    input: Vec<u8>,
    calls: u64,
}

impl Doors {
    async fn open(wharf: &Wharf) -> Self {
        let connect = async || TcpStream::connect(&wharf.host).await.unwrap();
        let gob = Gob {
            stream: connect().await,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            input: Vec::new(),
            calls: 0,
        };
        Doors {
            wharf: wharf.direct(),
            host: wharf.host.clone(),
            http: http_client().unwrap(),
            lines: connect().await,
            gob,
        }
    }

    async fn post(&self, path: &str, body: String, headers: &[(&str, &str)]) -> String {
        let url = format!("http://{}{path}", self.host);
        let mut request = self.http.post(url).body(body);
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = within("an answer", request.send()).await.unwrap().unwrap();
        answer.text().await.unwrap()
    }

    /// Go's dialect of JSON-RPC over TCP.
    async fn line(&mut self, call: &str) -> String {
        self.lines.write_all(call.as_bytes()).await.unwrap();
        let mut input = Vec::new();
        loop {
            let read = within("an answer", self.lines.read_buf(&mut input)).await.unwrap().unwrap();
            assert_ne!(read, 0, "closed: {}", String::from_utf8_lossy(&input));
            if serde_json::from_slice::<&RawValue>(&input).is_ok() {
                return String::from_utf8(input).unwrap();
            }
        }
    }
}

/// The member of an answer, as it stands in the text.
fn member(text: &str, name: &str) -> String {
    let members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let value = members.get(name).unwrap_or_else(|| panic!("no {name} in {text}"));
    value.get().to_owned()
}

impl Gob {
    /// Calls a method, and compares the reply with the value, which is what comes back.
    async fn call(
        &mut self,
        method: &str,
        (types, ty, value): (&Types, TypeId, &[u8]),
    ) -> Result<(), Uncarried> {
        let mut out = Vec::new();
        self.calls += 1;
        let call = (types, ty, value);
        go_shaped::put_call(&mut self.encoder, self.calls, method, call, &mut out)?;
        self.stream.write_all(&out).await.unwrap();
        let head = self.next(|_, _, value| error_in(value)).await;
        assert_eq!(head, None, "{method}");
        self.next(|gob, gob_ty, found| {
            let mut expected = Reader::new(value);
            go_shaped::assert_same((types, ty), &mut expected, (gob, gob_ty), found, "x");
        })
        .await;
        Ok(())
    }

    /// The error of a call whose argument is a struct with these fields.
    async fn error(&mut self, method: &str, fields: &[(&str, i64)]) -> String {
        let mut out = Vec::new();
        self.calls += 1;
        go_shaped::put_call_with(&mut self.encoder, self.calls, method, fields, &mut out);
        self.stream.write_all(&out).await.unwrap();
        let error = self.next(|_, _, value| error_in(value)).await;
        // The body beside an error has nothing in it.
        self.next(|_, _, body| assert_eq!(body, &wharf_gob::Value::Struct(Vec::new()))).await;
        error.unwrap_or_else(|| panic!("{method} did not fail"))
    }

    /// The next value of the stream.
    async fn next<R>(
        &mut self,
        read: impl Fn(&wharf_gob::Types, wharf_gob::TypeId, &wharf_gob::Value<'_>) -> R,
    ) -> R {
        loop {
            let Some((used, item)) = self.decoder.next(&self.input).unwrap() else {
                let more = self.stream.read_buf(&mut self.input);
                let count = within("an answer", more).await.unwrap().unwrap();
                assert_ne!(count, 0, "the host closed the connection");
                continue;
            };
            let result = item.map(|item| {
                let types = self.decoder.types();
                read(types, item.ty, &wharf_gob::Value::read(types, item).unwrap())
            });
            self.input.drain(..used);
            if let Some(result) = result {
                return result;
            }
        }
    }
}

/// The error in a `Response`.
fn error_in(head: &wharf_gob::Value<'_>) -> Option<String> {
    let wharf_gob::Value::Struct(fields) = head else { panic!("{head:?}") };
    let error = fields.iter().find(|(index, _)| *index == 2)?;
    let wharf_gob::Value::String(text) = error.1 else { panic!("{head:?}") };
    Some(String::from_utf8(text.to_vec()).unwrap())
}

/// The only parameter of a method.
fn parameter(service: &Service, method: usize) -> TypeId {
    service.methods()[method].signature.as_ref().unwrap().params[0].ty
}

/// Calls through all doors. Returns what gob cannot carry of the value.
async fn all_alike(
    doors: &mut Doors,
    service: &Service,
    method: usize,
    value: &[u8],
) -> Option<Uncarried> {
    let name = &service.methods()[method].name;
    let (types, ty) = (service.types(), parameter(service, method));
    let dotted = format!("echo.{name}");
    let bytes = doors.wharf.call_bytes(&dotted, value.to_vec().into(), CallOptions::default());
    assert_eq!(bytes.await.unwrap(), value, "wharf");
    let plain = value_to_json(types, ty, value).unwrap();
    let over_http = doors.post(&format!("/echo/{name}"), format!("[{plain}]"), &[]).await;
    assert_eq!(over_http, plain, "http");
    let two = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{dotted}","params":[{plain}]}}"#);
    assert_eq!(member(&doors.post("/rpc", two, &[]).await, "result"), plain, "JSON-RPC 2.0");
    let one = format!(r#"{{"id":1,"method":"{dotted}","params":[{plain}]}}"#);
    assert_eq!(member(&doors.line(&one).await, "result"), plain, "Go's JSON-RPC");
    let model = result_to_json_in(JsonDialect::Model, types, Some(ty), value).unwrap();
    let Outcome::Ok(model) = model else { panic!("a tuple is no error") };
    let tool = format!("echo_{name}");
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"x":{model}}}}}}}"#
    );
    let answer = doors.post("/mcp", call, &[("mcp-protocol-version", "2025-11-25")]).await;
    let structured = member(&member(&answer, "result"), "structuredContent");
    assert_eq!(member(&structured, "result"), model, "MCP");
    doors.gob.call(&dotted, (types, ty, value)).await.err()
}

#[tokio::test]
async fn made_up_types_and_values_are_the_same_through_each_door() {
    let seed = std::env::var("WHARF_DOORS_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.unwrap_or(1u64).to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let mut carried = 0;
    for _ in 0..SERVICES {
        let shapes = vec(shape(), 1..5).new_tree(&mut runner).unwrap().current();
        let echo = echo(&shapes);
        let plugins = [("echo.wasm", &echo.wasm[..]), ("echo.toml", b"mcp = true\n")];
        let wharf = Wharf::up(&plugins, &[]).await.unwrap();
        let inspection = wharf_runtime::inspect(&echo.wasm).unwrap();
        let services = &inspection.services;
        let service = services.iter().find(|service| !service.methods().is_empty()).unwrap();
        let mut doors = Doors::open(&wharf).await;
        for ty in 0..shapes.len() {
            let method = Kind::InMemory.place(shapes.len(), ty);
            for _ in 0..VALUES {
                let value = arguments(service, method).new_tree(&mut runner).unwrap().current();
                let uncarried = all_alike(&mut doors, service, method, &value).await;
                carried += u32::from(uncarried.is_none());
            }
        }
    }
    assert!(carried > SERVICES * VALUES, "gob carried only {carried}");
}

#[tokio::test]
async fn what_gob_cannot_carry_is_refused_by_its_name_and_the_others_carry_it() {
    let option = |inner| Shape::Option(Box::new(inner));
    let cases = [
        (Shape::List(Box::new(option(Shape::Scalar("u8")))), &[1, 0][..], "none in a list"),
        (Shape::FixedList(Box::new(option(Shape::Scalar("u8"))), 1), &[0], "none in a list"),
        (option(option(Shape::Scalar("u8"))), &[1, 0], "none within an option"),
    ];
    let shapes: Vec<Shape> = cases.iter().map(|(shape, ..)| shape.clone()).collect();
    let echo = echo(&shapes);
    let sidecar = b"mcp = true\n[limits]\ninstances = 1\n";
    let plugins = [("echo.wasm", &echo.wasm[..]), ("echo.toml", sidecar)];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    let inspection = wharf_runtime::inspect(&echo.wasm).unwrap();
    let services = &inspection.services;
    let service = services.iter().find(|service| !service.methods().is_empty()).unwrap();
    let mut doors = Doors::open(&wharf).await;
    let name = |kind: Kind, case| &service.methods()[Kind::place(kind, shapes.len(), case)].name;
    for (case, (_, value, why)) in cases.iter().enumerate() {
        // The guest keeps what it was given by Wharf's own protocol.
        let given = [value, &[0; 17][..]].concat();
        let write = format!("echo.{}", name(Kind::Write, case));
        let options = CallOptions::default();
        doors.wharf.call_bytes(&write, given.clone().into(), options).await.unwrap();
        let read = name(Kind::Read, case);
        let ty = parameter(service, Kind::InMemory.place(shapes.len(), case));
        let plain = value_to_json(service.types(), ty, &given).unwrap();
        assert_eq!(doors.post(&format!("/echo/{read}"), String::new(), &[]).await, plain);
        let call = format!(r#"{{"id":1,"method":"echo.{read}","params":[{{}}]}}"#);
        assert_eq!(member(&doors.line(&call).await, "result"), plain);
        let error = doors.gob.error(&format!("echo.{read}"), &[]).await;
        assert!(error.contains(why), "{error}");
        // The connection goes on.
        let error = doors.gob.error("echo.nothing", &[]).await;
        assert_eq!(error, "rpc: can't find method echo.nothing");
    }
}

#[tokio::test]
async fn a_result_that_doubles_at_each_level_is_refused_over_gob() {
    // `id` is `Id` and `ID` in Go, so each level has the one below it twice.
    let records: String = (1..40).map(|n| format!("record r{n} {{ id: r{} }} ", n - 1)).collect();
    let wit = format!(
        "package test:deep; world w {{ export deep: interface {{
            record r0 {{ id: u8 }} {records} f: func() -> r39; }} }}"
    );
    let module = "(module (func (export \"deep#f\") (result i32) (i32.const 7)))";
    let deep = wharf_tests::component(&wit, module).unwrap();
    let wharf = Wharf::up(&[("deep.wasm", &deep)], &[]).await.unwrap();
    let mut doors = Doors::open(&wharf).await;
    let error = doors.gob.error("deep.f", &[]).await;
    assert!(error.contains("has more than 16777216 bytes as gob"), "{error}");
    let plain = doors.post("/deep/f", String::new(), &[]).await;
    assert_eq!(plain, format!("{}7{}", "{\"id\":".repeat(40), "}".repeat(40)));
}

/// A failure, and how each door says it.
struct Case {
    method: &'static str,
    /// For those who write JSON.
    params: &'static str,
    /// For those who write gob.
    fields: &'static [(&'static str, i64)],
    status: &'static str,
    http: (u16, &'static str),
    json_rpc: i64,
    /// What Go's programmers see, from the beginning.
    text: &'static str,
    /// Whether a model sees it as the result of its call.
    is_result: bool,
}

#[tokio::test]
async fn the_same_failure_has_the_same_class_at_each_door() {
    let (arith, rogue) = (plugin("arith").unwrap(), guest("rogue").unwrap());
    let all = b"mcp = true\n".as_slice();
    let impatient = b"mcp = true\n[limits]\ncall-timeout = \"300ms\"\n";
    let plugins = [
        ("arith.wasm", &arith[..]),
        ("arith.toml", all),
        ("rogue.wasm", &rogue[..]),
        ("rogue.toml", impatient),
    ];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    let mut doors = Doors::open(&wharf).await;
    let case = |method, params, fields, status, http, json_rpc, text, is_result| Case {
        method,
        params,
        fields,
        status,
        http,
        json_rpc,
        text,
        is_result,
    };
    let cases = [
        case(
            "arit.divide",
            "{}",
            &[],
            "NOT_FOUND",
            (404, "not_found"),
            -32601,
            "rpc: can't find service arit.divide",
            false,
        ),
        case(
            "arith.add",
            "{}",
            &[],
            "UNIMPLEMENTED",
            (501, "unimplemented"),
            -32601,
            "rpc: can't find method arith.add",
            false,
        ),
        case(
            "arith.divide",
            r#"{"a":1}"#,
            &[("A", 1)],
            "INVALID_ARGUMENT",
            (400, "invalid_argument"),
            -32602,
            "wharf: INVALID_ARGUMENT: ",
            true,
        ),
        case(
            "arith.divide",
            r#"{"a":1,"b":0}"#,
            &[("A", 1), ("B", 0)],
            "",
            (422, ""),
            -32000,
            "divide-by-zero",
            true,
        ),
        case(
            "rogue.exit",
            r#"{"code":3}"#,
            &[("Code", 3)],
            "INTERNAL",
            (500, "internal"),
            -32603,
            "wharf: INTERNAL: ",
            true,
        ),
        case(
            "rogue.sleep",
            r#"{"milliseconds":60000}"#,
            &[("Milliseconds", 60_000)],
            "DEADLINE_EXCEEDED",
            (504, "deadline_exceeded"),
            -32004,
            "wharf: DEADLINE_EXCEEDED: ",
            true,
        ),
    ];
    for case in cases {
        let Case { method, params, .. } = case;
        let argument: Value = serde_json::from_str(params).unwrap();
        // There the argument stands without its name, unless it is a record.
        let only = argument.as_object().filter(|members| members.len() == 1);
        let argument = match only.and_then(|members| members.values().next()) {
            Some(value) if method.starts_with("rogue.") => value.clone(),
            _ => argument,
        };
        // The client knows types beforehand, so what does not fit does not leave it.
        match doors.wharf.call_json(method, argument).await {
            Err(CallError::Rpc(error)) => {
                assert_eq!(error.status().name(), case.status, "{method}");
            }
            Err(CallError::Application(own)) => {
                assert_eq!((own, ""), (json!("divide-by-zero"), case.status));
            }
            Ok(result) => panic!("{method}: {result}"),
        }
        let path = format!("/{}", method.replace('.', "/"));
        let url = format!("http://{}{path}", doors.host);
        let answer = doors.http.post(url).body(params).send().await.unwrap();
        let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
        let body: Value = serde_json::from_str(&body).unwrap();
        let code = body["code"].as_str().unwrap_or_default();
        assert_eq!((status, code), case.http, "{method}: {body}");
        let two = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let body: Value = serde_json::from_str(&doors.post("/rpc", two, &[]).await).unwrap();
        assert_eq!(body["error"]["code"], case.json_rpc, "{method}: {body}");
        let one = format!(r#"{{"id":1,"method":"{method}","params":[{params}]}}"#);
        let body: Value = serde_json::from_str(&doors.line(&one).await).unwrap();
        let text = body["error"].as_str().unwrap();
        assert!(text.starts_with(case.text), "{method}: {text}");
        let text = doors.gob.error(method, case.fields).await;
        assert!(text.starts_with(case.text), "{method}: {text}");
        let tool = method.replace('.', "_");
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": tool, "arguments": serde_json::from_str::<Value>(params).unwrap() } });
        let body: Value =
            serde_json::from_str(&doors.post("/mcp", call.to_string(), &[]).await).unwrap();
        match case.is_result {
            true => assert_eq!(body["result"]["isError"], true, "{method}: {body}"),
            false => assert_eq!(body["error"]["code"], -32602, "{method}: {body}"),
        }
    }
}
