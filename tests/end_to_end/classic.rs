//! Wharf's client calls services of Go's net/rpc that registered themselves. They are in
//! `tests/go/classic`.

use serde_json::{Value, json};
use tokio::process::Command;
use wharf_client::{CallError, Client};
use wharf_tests::{
    Process, RegistryProcess, Wharf, client, eventually, get_json, go_program, plugin, wharf,
};

/// A host without plugins, and a classic service beside it.
async fn up(proto: &str) -> Option<(Wharf, Process, String)> {
    let program = go_program("classic").await.unwrap()?;
    let wharf = Wharf::up(&[], &[]).await.unwrap();
    let (process, address) = service(&program, &wharf.registry, proto, "Calc").await;
    Some((wharf, process, address))
}

async fn service(
    program: &std::path::Path,
    registry: &str,
    proto: &str,
    name: &str,
) -> (Process, String) {
    let mut command = Command::new(program);
    command.args([registry, proto, name]);
    let mut process = Process::run(command).unwrap();
    let address = process.announced("calc").await.unwrap();
    (process, address)
}

async fn called(client: &Client, method: &str, argument: Value) -> Result<Value, String> {
    match client.call_json(method, argument).await {
        Ok(value) => Ok(value),
        Err(CallError::Application(error)) => Err(format!("its own: {error}")),
        Err(CallError::Rpc(error)) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn the_command_line_calls_a_classic_service_and_lists_it() {
    for proto in ["gob", "jsonrpc"] {
        let Some((on, _process, address)) = up(proto).await else { return };
        let call = async |arguments: &[&str]| {
            let all = [&["call", "--registry", &on.registry][..], arguments].concat();
            wharf(&all).await.unwrap()
        };
        let done = call(&["Calc.Multiply", r#"{"A":7,"B":8}"#]).await;
        assert_eq!((done.code, &done.stdout[..]), (Some(0), "56\n"), "{proto}: {}", done.stderr);
        let done = call(&["calc.multiply", r#"{"a":7,"b":8}"#]).await;
        assert_eq!((done.code, &done.stdout[..]), (Some(0), "56\n"), "{proto}: {}", done.stderr);
        let done = call(&["Calc.Divide", r#"{"A":7,"B":0}"#]).await;
        assert_eq!(done.code, Some(3), "{}", done.stderr);
        assert!(done.stderr.contains("returned an error: divide by zero"), "{}", done.stderr);
        let done = call(&["Calc.Explode", "{}"]).await;
        let missing = "rpc: can't find method Calc.Explode";
        assert!(done.stderr.contains(missing), "{proto}: {}", done.stderr);
        let listed = wharf(&["services", "--registry", &on.registry]).await.unwrap();
        assert!(listed.stdout.contains(&address), "{}", listed.stdout);
    }
}

#[tokio::test]
async fn json_becomes_the_types_that_a_service_of_go_wants_and_its_own_become_json() {
    for proto in ["gob", "jsonrpc"] {
        let Some((on, _process, _)) = up(proto).await else { return };
        let client = client(&on.registry).unwrap();
        let quotient = called(&client, "Calc.Divide", json!({ "A": 17, "B": 5 })).await;
        assert_eq!(quotient, Ok(json!({ "Quo": 3, "Rem": 2 })), "{proto}");
        let own = called(&client, "Calc.Divide", json!({ "A": 17, "B": 0 })).await;
        assert_eq!(own, Err("its own: \"divide by zero\"".to_owned()), "{proto}");
        let url = called(&client, "Calc.GetURL", json!(null)).await;
        assert_eq!(url, Ok(json!("http://calc")), "{proto}");
        for (method, argument, expected) in [
            ("Calc.Double", json!(21), json!(42)),
            ("Calc.Halve", json!(7.0), json!(3.5)),
            ("Calc.Halve", json!(7), json!(3.5)),
            ("Calc.Total", json!({ "a": 1.5, "b b": 2 }), json!(3.5)),
            ("Calc.Total", json!({}), json!(0.0)),
            ("Calc.Join", json!(["a", "b"]), json!("ab")),
            ("Calc.Join", json!([]), json!("")),
        ] {
            let result = called(&client, method, argument.clone()).await;
            let expected =
                if proto == "jsonrpc" && expected == json!(0.0) { json!(0) } else { expected };
            assert_eq!(result, Ok(expected), "{proto}: {method} {argument}");
        }
        let all = json!({
            "Flag": true, "Small": -7, "Size": 65535, "Ratio": 0.5, "Exact": 7.25,
            "Text": "ü", "Data": "AAEC/w==", "Names": ["a", "b"], "Counts": { "x": 1, "y z": -2 },
            "ByID": { "7": 0.5 },
            "Nested": { "Name": "n", "Big": 18446744073709551615u64,
                "Next": { "Name": "m", "Big": 1, "Next": null } },
            "Maybe": { "Name": "p", "Big": 2, "Next": null },
            "List": [{ "Name": "q", "Big": 3, "Next": null }, { "Name": "", "Big": 0, "Next": null }],
            "Grid": [[1, 2], [], [3]], "Pair": [4, 5],
        });
        let echoed = called(&client, "Calc.Echo", all.clone()).await;
        assert_eq!(echoed, Ok(all), "{proto}");
        // What is zero in Go is there all the same.
        let zero = called(&client, "Calc.Echo", json!({})).await.unwrap();
        assert_eq!(
            (&zero["Small"], &zero["Text"], &zero["Maybe"]),
            (&json!(0), &json!(""), &Value::Null)
        );
        let unfit = called(&client, "Calc.Double", json!(-1)).await.unwrap_err();
        let expected = match proto {
            "gob" => "the service wants a uint here, not -1",
            _ => "cannot unmarshal number -1",
        };
        assert!(unfit.contains(expected), "{proto}: {unfit}");
        let typed = client.call::<_, i64>("calc.multiply", &(7, 8)).await.unwrap_err().to_string();
        assert!(typed.contains("call it with JSON, by call_json"), "{typed}");
    }
}

#[tokio::test]
async fn hundreds_of_calls_share_a_connection_and_a_slow_one_holds_up_nobody() {
    for proto in ["gob", "jsonrpc"] {
        let Some((on, _process, _)) = up(proto).await else { return };
        let client = client(&on.registry).unwrap();
        let slow = tokio::spawn({
            let client = client.clone();
            async move { called(&client, "Calc.Sleep", json!(2000)).await }
        });
        let calls = (0..500i64).map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let product = called(&client, "Calc.Multiply", json!({ "A": n, "B": 3 })).await;
                assert_eq!(product, Ok(json!(3 * n)));
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert!(!slow.is_finished(), "{proto}: the quick calls waited for the slow one");
        assert_eq!(slow.await.unwrap(), Ok(json!(2000)));
    }
}

#[tokio::test]
async fn a_plugin_replaces_a_classic_service_and_gives_it_back_without_a_failed_call() {
    let Some(program) = go_program("classic").await.unwrap() else { return };
    let on = Wharf::up(&[], &[]).await.unwrap();
    let (_process, _) = service(&program, &on.registry, "gob", "Arith").await;
    let client = client(&on.registry).unwrap();
    let product = async || {
        let product = called(&client, "Arith.Multiply", json!({ "A": 7, "B": 8 })).await;
        assert_eq!(product, Ok(json!(56)));
    };
    product().await;
    std::fs::write(on.file("arith.wasm"), plugin("arith").unwrap()).unwrap();
    // The host's own counter tells who was called.
    let by_plugin = async || {
        let metrics = wharf_tests::get(&format!("{}/metrics", on.http)).await.unwrap().1;
        metrics.lines().any(|line| line.starts_with("wharf_calls_total") && line.contains("arith"))
    };
    eventually("the plugin is called", async || {
        product().await;
        by_plugin().await.then_some(())
    })
    .await
    .unwrap();
    std::fs::remove_file(on.file("arith.wasm")).unwrap();
    eventually("the plugin is gone", async || {
        product().await;
        let list = get_json(&format!("{}/v1/services/arith/endpoints", on.registry)).await.unwrap();
        (list["endpoints"].as_array().unwrap().len() == 1).then_some(())
    })
    .await
    .unwrap();
    product().await;
}

#[tokio::test]
async fn calls_go_to_the_classic_service_when_the_host_beside_it_cannot_be_reached() {
    let Some(program) = go_program("classic").await.unwrap() else { return };
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("registry.redb");
    let registry = RegistryProcess::start(&["--store", store.to_str().unwrap()]).await.unwrap();
    // It is listed until its time to live is over, and nobody listens there.
    assert_eq!(registry.declare("gone", 1, &["arith"]).await.0, 201);
    let (_process, _) = service(&program, &registry.url, "gob", "Arith").await;
    let client = client(&registry.url).unwrap();
    let product = called(&client, "Arith.Multiply", json!({ "A": 7, "B": 8 })).await;
    assert_eq!(product, Ok(json!(56)));
}

#[tokio::test]
async fn a_classic_service_that_ends_fails_calls_at_once_and_its_successor_takes_them() {
    let Some(program) = go_program("classic").await.unwrap() else { return };
    let on = Wharf::up(&[], &[]).await.unwrap();
    let (process, _) = service(&program, &on.registry, "gob", "Calc").await;
    let client = client(&on.registry).unwrap();
    assert_eq!(called(&client, "Calc.Double", json!(1)).await, Ok(json!(2)));
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { called(&client, "Calc.Sleep", json!(60_000)).await }
    });
    // One that runs has been read by the service, so the other one is behind it.
    assert_eq!(called(&client, "Calc.Double", json!(2)).await, Ok(json!(4)));
    drop(process);
    let lost = wharf_tests::within("the call fails", hanging).await.unwrap().unwrap();
    assert!(lost.as_ref().unwrap_err().contains("the connection was lost"), "{lost:?}");
    let (_process, _) = service(&program, &on.registry, "gob", "Calc").await;
    eventually("the successor answers", async || {
        called(&client, "Calc.Double", json!(3)).await.ok()
    })
    .await
    .unwrap();
}
