//! Calls through the registry and the client, as an application makes them.

use std::time::{Duration, Instant};

use serde_json::json;
use wharf_client::{CallOptions, Client, Failure, Fingerprint, Outcome, Status};
use wharf_tests::{Args, ArithError, Quotient, Wharf, eventually, hostile, plugin, within};

async fn up() -> Wharf {
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    Wharf::up(&[("arith.wasm", &arith), ("textkit.wasm", &textkit)], &[]).await.unwrap()
}

#[tokio::test]
async fn a_dropped_service_is_called_by_name() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let product = client.call::<_, i64>("Arith.Multiply", &Args { a: 7, b: 8 }).await.unwrap();
    assert_eq!(product, 56);
    for spelling in ["arith.multiply", "arith@0.1.0.multiply", "demo:arith/arith@0.1.0.multiply"] {
        let product = client.call::<_, i64>(spelling, &Args { a: 2, b: 3 }).await.unwrap();
        assert_eq!(product, 6, "{spelling}");
    }
    type Division = Result<Quotient, ArithError>;
    let division = client.call::<_, Division>("Arith.Divide", &Args { a: 7, b: 0 }).await.unwrap();
    assert_eq!(division, Err(ArithError::DivideByZero));
}

#[tokio::test]
async fn a_caller_without_types_calls_with_json() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let call = async |method, arguments: &[_]| {
        client.call_json_with(method, arguments, CallOptions::default()).await
    };
    let product = call("Arith.Multiply", &[json!({"A": 7, "B": 8})]).await.unwrap();
    assert_eq!(product, Outcome::Ok("56".into()));
    let division = call("arith.divide", &[json!({"a": 7, "b": 0})]).await.unwrap();
    assert_eq!(division, Outcome::Err("\"divide-by-zero\"".into()));
    let error = call("arith.multiply", &[json!({"a": 7})]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "arith.multiply: args.b: the field is missing (s64); write it like {\"a\":-7,\"b\":-7}"
    );
}

#[tokio::test]
async fn large_arguments_and_results_travel_in_chunks_while_small_calls_go_on() {
    let wharf = up().await;
    let client = wharf.direct();
    let large: Vec<u8> = (0..1_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
    let echo = async { client.call::<_, Vec<u8>>("textkit.echo", &large).await.unwrap() };
    let small = async {
        for a in 0..200 {
            let product = client.call::<_, i64>("arith.multiply", &Args { a, b: 2 }).await.unwrap();
            assert_eq!(product, a * 2);
        }
    };
    let (echoed, ()) = tokio::join!(echo, small);
    assert_eq!(echoed, large);
}

#[tokio::test]
async fn many_callers_share_one_connection_and_each_gets_its_own_answer() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let callers = (0..64i64).map(|caller| {
        let client = client.clone();
        tokio::spawn(async move {
            for i in 0..50 {
                let arguments = Args { a: caller, b: i };
                let product = client.call::<_, i64>("arith.multiply", &arguments).await.unwrap();
                assert_eq!(product, caller * i);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn wrong_arguments_names_and_signatures_are_told_apart_and_name_the_endpoint() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let fail = async |method: &str, options| {
        let result = client.call_with::<_, i64>(method, &"not a record", options).await;
        result.unwrap_err()
    };
    let plain = CallOptions::default();

    let error = fail("arith.multiply", plain.clone()).await;
    assert_eq!(error.failure.status(), Status::InvalidArgument);
    assert_eq!(error.endpoint.as_deref(), Some(&wharf.host[..]));
    assert!(!error.failure.may_have_executed());
    assert!(error.to_string().contains("arith.multiply: the arguments do not fit: "), "{error}");

    let error = fail("arith.multipy", plain.clone()).await;
    assert_eq!(error.failure.status(), Status::Unimplemented);
    assert!(error.to_string().contains("did you mean 'multiply'?"), "{error}");

    let error = fail("arih.multiply", plain.clone()).await;
    assert!(matches!(error.failure, Failure::NoEndpoint { .. }), "{error:?}");

    let error = fail("multiply", plain.clone()).await;
    assert!(error.to_string().contains("write SERVICE.METHOD"), "{error}");

    let options = CallOptions { fingerprint: Some(Fingerprint([7; 16])), ..plain };
    let error = fail("arith.multiply", options).await;
    assert_eq!(error.failure.status(), Status::FailedPrecondition);
    let Failure::Remote(remote) = &error.failure else { panic!("{error:?}") };
    let wit = remote.served_wit.as_deref().unwrap();
    assert!(wit.starts_with("multiply: func(args: record { a: s64, b: s64 }) -> s64"), "{wit}");
    assert!(wit.contains("/// The first operand."), "{wit}");
}

#[tokio::test]
async fn a_guest_that_loops_ends_with_deadline_exceeded_and_the_next_call_works() {
    let hostile = hostile().unwrap();
    let arguments = ["--call-timeout", "300ms"];
    let wharf = Wharf::up(&[("hostile.wasm", &hostile)], &arguments).await.unwrap();
    let client = wharf.client().await.unwrap();
    // The host's own timeout applies, even if the caller allows more.
    let error = client.call::<_, ()>("hostile.spin", &()).await.unwrap_err();
    assert_eq!(error.failure.status(), Status::DeadlineExceeded);
    assert!(matches!(error.failure, Failure::Remote(_)), "{error:?}");
    assert_eq!(client.call::<_, u32>("hostile.count", &()).await.unwrap(), 1);
    // The caller's timeout applies if it is shorter.
    let options = CallOptions { timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let error = client.call_with::<_, ()>("hostile.spin", &(), options).await.unwrap_err();
    assert_eq!(error.failure.status(), Status::DeadlineExceeded);
    assert!(client.call::<_, u32>("hostile.count", &()).await.is_ok());
}

#[tokio::test]
async fn a_guest_that_traps_or_gorges_fails_its_own_call_only() {
    let arith = plugin("arith").unwrap();
    let hostile = hostile().unwrap();
    let plugins: [(&str, &[u8]); 2] = [("arith.wasm", &arith), ("hostile.wasm", &hostile)];
    let wharf = Wharf::up(&plugins, &["--memory", "16"]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let others = tokio::spawn({
        let client = client.clone();
        async move {
            for a in 0..300 {
                client.call::<_, i64>("arith.multiply", &Args { a, b: 2 }).await.unwrap();
            }
        }
    });
    for _ in 0..10 {
        let error = client.call::<_, ()>("hostile.trap", &()).await.unwrap_err();
        assert_eq!(error.failure.status(), Status::Internal);
        assert!(error.to_string().contains("wasm `unreachable` instruction executed"), "{error}");
        let error = client.call::<_, u32>("hostile.recurse", &()).await.unwrap_err();
        assert_eq!(error.failure.status(), Status::Internal);
        let error = client.call::<_, ()>("hostile.gorge", &()).await.unwrap_err();
        assert_eq!(error.failure.status(), Status::ResourceExhausted);
        assert!(error.to_string().contains("memory limit of 16 MiB"), "{error}");
    }
    others.await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_stops_its_guest() {
    // An instance serves one call at a time. While a guest loops in it, it answers no other call.
    let hostile = hostile().unwrap();
    let wharf = Wharf::up(&[("hostile.wasm", &hostile)], &[]).await.unwrap();
    let client = wharf.direct();
    assert_eq!(client.call::<_, u32>("hostile.count", &()).await.unwrap(), 1);
    let spinning: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>("hostile.spin", &()).await })
        })
        .collect();
    // When a further call has to wait, all sixteen instances are looping.
    eventually("all instances are taken", async || {
        let options =
            CallOptions { timeout: Some(Duration::from_millis(100)), ..Default::default() };
        let waiting = client.call_with::<_, u32>("hostile.count", &(), options).await;
        waiting.is_err().then_some(())
    })
    .await
    .unwrap();
    for call in &spinning {
        call.abort();
    }
    let start = Instant::now();
    within("an instance is free again", client.call::<_, u32>("hostile.count", &()))
        .await
        .unwrap()
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(9), "freed by the cancel, not by the deadline");
}

#[tokio::test]
async fn a_token_is_asked_for_and_checked() {
    let arith = plugin("arith").unwrap();
    let wharf =
        Wharf::up(&[("arith.wasm", &arith)], &["--token", "secret-0123456789"]).await.unwrap();
    let call =
        async |client: Client| client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
    let with = |token: &str| Client::builder().token(token).direct(&wharf.host);
    assert_eq!(call(with("secret-0123456789")).await.unwrap(), 56);
    for wrong in ["", "secret-012345678", "secret-01234567890"] {
        let error = call(with(wrong)).await.unwrap_err();
        assert!(error.to_string().contains("the token is missing or wrong"), "{error}");
    }
}

#[tokio::test]
async fn of_several_versions_the_newest_answers_and_each_can_be_named() {
    let old = plugin("arith").unwrap();
    let new = wharf_tests::component(
        "package demo:arith@0.2.0;
         interface arith { record args { a: s64, b: s64 } multiply: func(args: args) -> s64; }
         world plugin { export arith; }",
        r#"(module (memory (export "memory") 1)
            (func (export "demo:arith/arith@0.2.0#multiply") (param i64 i64) (result i64) (i64.const 2)))"#,
    )
    .unwrap();
    let wharf = Wharf::up(&[("a.wasm", &old), ("b.wasm", &new)], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let call = async |name| client.call::<_, i64>(name, &Args { a: 7, b: 8 }).await.unwrap();
    assert_eq!(call("arith.multiply").await, 2);
    assert_eq!(call("arith@0.1.0.multiply").await, 56);
    assert_eq!(call("demo:arith/arith@0.2.0.multiply").await, 2);
}

#[tokio::test]
async fn a_caller_of_a_replaced_signature_gets_a_mismatch_and_json_follows_it() {
    let wharf = up().await;
    let client = wharf.direct();
    let json = async || {
        let arguments = [json!({"a": 7, "b": 8})];
        client.call_json_with("arith.multiply", &arguments, CallOptions::default()).await
    };
    assert_eq!(json().await.unwrap(), Outcome::Ok("56".into()));
    let product = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
    assert_eq!(product, 56);
    let other_signature = wharf_tests::arith_reordered().unwrap();
    std::fs::write(wharf.file("arith.wasm"), other_signature).unwrap();
    // The typed caller has resolved the old signature. The new method must never answer it.
    eventually("the old signature is refused", async || {
        match client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await {
            Ok(product) => {
                assert_eq!(product, 56);
                None
            }
            Err(error) => {
                assert!(error.failure.is_schema_mismatch(), "{error}");
                Some(())
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(json().await.unwrap(), Outcome::Ok("8".into()), "JSON is encoded anew");
    // The typed caller still sends the old encoding. It must be refused every time, because the new
    // signature would read other values from the same bytes.
    for _ in 0..3 {
        let call = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 });
        assert!(call.await.unwrap_err().failure.is_schema_mismatch());
    }
}

#[test]
fn a_client_goes_on_when_the_runtime_on_which_it_connected_has_ended() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let host = runtime();
    let arith = plugin("arith").unwrap();
    let wharf = host.block_on(Wharf::up(&[("arith.wasm", &arith)], &[])).unwrap();
    for client in [host.block_on(wharf.client()).unwrap(), wharf.direct()] {
        // As tests with a static client: each has a runtime of its own.
        for _ in 0..3 {
            let own = runtime();
            let call = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 });
            assert_eq!(own.block_on(call).unwrap(), 56);
            own.shutdown_timeout(Duration::from_secs(5));
        }
        // Several at once, on a runtime that ends with calls in flight.
        let own = runtime();
        for _ in 0..8 {
            let client = client.clone();
            own.spawn(async move {
                loop {
                    let _ = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
                }
            });
        }
        let call = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 });
        assert_eq!(own.block_on(call).unwrap(), 56);
        own.shutdown_timeout(Duration::from_secs(5));
        let next = runtime();
        let call = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 });
        assert_eq!(next.block_on(call).unwrap(), 56);
        // Outside of any runtime it is an error, and no panic.
        let call = client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 });
        let error = futures_util::FutureExt::now_or_never(call).unwrap().unwrap_err();
        assert!(error.to_string().contains("the client needs a Tokio runtime"), "{error}");
    }
    drop(host.enter());
    host.block_on(async move { drop(wharf) });
}
