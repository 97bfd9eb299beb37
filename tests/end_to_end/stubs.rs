//! Typed stubs, and the other ways to call: JSON, blocking, examples.

use std::time::Duration;

use serde_json::json;
use wharf_client::{Bytes, CallError, CallOptions, Client, Failure, Status, blocking};
use wharf_tests::{Wharf, component, example, guest, plugin};

mod arith {
    wharf_client::bindgen!({ path: "../plugins/arith/wit", idempotent: ["Multiply"] });
}

wharf_client::bindgen!("guests/zoo/wit");

/// No plugin serves it. The test is that the stubs compile in spite of unusual names.
#[deny(missing_docs, dead_code)]
mod odd {
    wharf_client::bindgen!({ path: "wit/odd", idempotent: ["odd.flag"] });
}

#[tokio::test]
async fn a_typed_call_has_the_methods_own_error_apart_from_all_others() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let calls = arith::ArithClient::new(&client);
    assert_eq!(calls.multiply(arith::Args { a: 7, b: 8 }).await.unwrap(), 56);
    let quotient = calls.divide(arith::Args { a: -7, b: 2 }).await.unwrap();
    assert_eq!(quotient, arith::Quotient { quo: -3, rem: -1 });

    let divided: Result<arith::Quotient, CallError<arith::ArithError>> =
        calls.divide(arith::Args { a: 7, b: 0 }).await;
    let error = divided.unwrap_err();
    assert!(matches!(error, CallError::Application(arith::ArithError::DivideByZero)), "{error}");
    assert_eq!(error.to_string(), "the method returned an error: DivideByZero");

    let options = CallOptions { timeout: Some(Duration::ZERO), ..CallOptions::default() };
    let late = arith::ArithClient::with_options(&client, options);
    let error = late.divide(arith::Args { a: 7, b: 0 }).await.unwrap_err();
    let rpc = error.rpc().unwrap();
    assert_eq!(rpc.status(), Status::DeadlineExceeded);
    assert!(!rpc.may_have_executed, "{rpc:?}");
}

#[tokio::test]
async fn every_kind_of_value_travels_through_a_typed_stub() {
    use shapes::Point;
    use zoo::{Color, Few, Many, Nested, Numbers, Several, Shape};

    let wharf = Wharf::up(&[("zoo.wasm", &guest("zoo").unwrap())], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let calls = ZooClient::new(&client);
    let numbers = Numbers {
        a: true,
        b: u8::MAX,
        c: u16::MAX,
        d: u32::MAX,
        e: u64::MAX,
        f: i8::MIN,
        g: i16::MIN,
        h: i32::MIN,
        i: i64::MIN,
        j: -0.0,
        k: f64::MAX,
        l: '\u{1F40B}',
    };
    assert_eq!(calls.give_numbers(numbers).await.unwrap(), numbers);
    let square = Shape::Polygon(vec![Point { x: 0.5, y: 1.5 }; 4]);
    let nested = Nested {
        name: "thrée".to_owned(),
        blob: Bytes::from(vec![0, 255]),
        blobs: vec![Bytes::new(), Bytes::from_static(b"x")],
        points: vec![Point { x: 1.0, y: 2.0 }],
        maybe: Some(None),
        pair: ("p".to_owned(), (7, 'q')),
        outcome: Err(square.clone()),
        r#type: vec![(u64::MAX, None), (0, Some(String::new()))],
    };
    assert_eq!(calls.give_nested(&nested).await.unwrap(), nested);
    let list = vec![nested.clone(), Nested { outcome: Ok(vec![]), maybe: None, ..nested }];
    assert_eq!(calls.give_list(&list).await.unwrap(), list);
    for shape in [Shape::Nothing, Shape::Circle(2.5), square, Shape::Named("s".to_owned())] {
        assert_eq!(calls.give_shape(&shape).await.unwrap(), shape);
        let result = calls.give_result(&Err(shape.clone())).await;
        assert_eq!(result.unwrap_err().application(), Some(&shape));
    }
    assert_eq!(calls.give_result(&Ok("fine".to_owned())).await.unwrap(), "fine");
    assert_eq!(calls.give_color(Color::DarkBlue).await.unwrap(), Color::DarkBlue);
    for flags in [Few::empty(), Few::B, Few::A | Few::C, Few::all()] {
        assert_eq!(calls.give_few(flags).await.unwrap(), flags);
    }
    let ninth = Several::F0 | Several::F8;
    assert_eq!(calls.give_several(ninth).await.unwrap(), ninth);
    assert_eq!(calls.give_many(Many::F31).await.unwrap(), Many::F31);
    assert_eq!(calls.give_name("n").await.unwrap(), "n");
    assert_eq!(calls.give_bytes(&[1, 2, 3]).await.unwrap(), &[1u8, 2, 3][..]);
    assert_eq!(calls.give_option(Some(b"b")).await.unwrap(), Some(Bytes::from_static(b"b")));
    assert_eq!(calls.give_option(None).await.unwrap(), None);
    let pair = (-1, "p".to_owned());
    assert_eq!(calls.give_tuple(&pair).await.unwrap(), pair);
    calls.may_fail(false).await.unwrap();
    assert_eq!(calls.may_fail(true).await.unwrap_err().application(), Some(&()));
    calls.nothing().await.unwrap();
    let sum = calls.sum(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, "four");
    assert_eq!(sum.await.unwrap(), 17 * 18 / 2 + 4);
}

/// `demo:arith` in another version, in which `multiply` returns `answer`.
fn arith_in(version: &str, answer: i64) -> Vec<u8> {
    component(
        &format!(
            "package demo:arith@{version};
             interface arith {{ record args {{ a: s64, b: s64 }} multiply: func(args: args) -> s64; }}
             world plugin {{ export arith; }}"
        ),
        &format!(
            r#"(module (memory (export "memory") 1)
                (func (export "demo:arith/arith@{version}#multiply") (param i64 i64) (result i64)
                    (i64.const {answer})))"#
        ),
    )
    .unwrap()
}

#[tokio::test]
async fn a_stub_calls_the_newest_version_that_is_compatible_and_a_requirement_chooses_another() {
    let plugins = [
        ("a.wasm", arith_in("0.1.0", 10)),
        ("b.wasm", arith_in("0.1.3", 13)),
        ("c.wasm", arith_in("0.2.0", 20)),
    ];
    let plugins: Vec<(&str, &[u8])> =
        plugins.iter().map(|(name, wasm)| (*name, &wasm[..])).collect();
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let arguments = arith::Args { a: 7, b: 8 };
    let calls = arith::ArithClient::new(&client);
    assert_eq!(calls.multiply(arguments).await.unwrap(), 13, "of 0.1, and not of 0.2");
    let in_version = async |requirement: &str| {
        let version = Some(requirement.parse().unwrap());
        let options = CallOptions { version, ..CallOptions::default() };
        client.call_with::<_, i64>("arith.multiply", &arguments, options).await
    };
    assert_eq!(in_version("=0.1.0").await.unwrap(), 10);
    assert_eq!(in_version("*").await.unwrap(), 20);
    let error = in_version("^3").await.unwrap_err();
    assert!(matches!(error.failure, Failure::NoEndpoint { .. }), "{error:?}");
    assert!(error.to_string().contains("'arith@^3'"), "{error}");
}

#[test]
fn flags_and_lists_have_the_bytes_that_hosts_write() {
    use odd::{Flags, odd::Type, other_odd_types as second_or_first, types::Place};

    let flags = Flags::B0 | Flags::B9 | Flags::B32;
    let bytes = postcard::to_stdvec(&flags).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(&(1u32 | 1 << 9, 1u32)).unwrap());
    assert_eq!(postcard::from_bytes::<Flags>(&bytes).unwrap(), flags);
    let unknown = postcard::to_stdvec(&(0u32, 2u32)).unwrap();
    assert!(postcard::from_bytes::<Flags>(&unknown).is_err(), "a flag that there is not");
    let value = Type { self_: 1, r#gen: 2, option: Some("x".to_owned()), r#fn: Place { x: 3 } };
    assert_eq!(postcard::to_stdvec(&value).unwrap(), [1, 2, 1, 1, b'x', 3]);
    let _ = std::mem::size_of::<second_or_first::Place>();
}

#[tokio::test]
async fn a_host_that_is_called_directly_is_asked_for_a_compatible_version_too() {
    let (old, new) = (arith_in("0.1.3", 13), arith_in("0.2.0", 20));
    let wharf = Wharf::up(&[("a.wasm", &old), ("b.wasm", &new)], &[]).await.unwrap();
    let client = wharf.direct();
    let arguments = arith::Args { a: 7, b: 8 };
    assert_eq!(arith::ArithClient::new(&client).multiply(arguments).await.unwrap(), 13);
    let call = async |method| client.call::<_, i64>(method, &arguments).await;
    assert_eq!(call("arith.multiply").await.unwrap(), 20);
    assert_eq!(call("arith@^0.1.multiply").await.unwrap(), 13);
    let error = call("arith@^3.multiply").await.unwrap_err();
    assert_eq!(error.status(), Status::NotFound, "{error}");
}

#[tokio::test]
async fn json_needs_no_types() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let product = client.call_json("Arith.Multiply", json!({"a": 7, "b": 8})).await;
    assert_eq!(product.unwrap(), json!(56));
    let error = client.call_json("arith.divide", json!({"a": 7, "b": 0})).await.unwrap_err();
    assert_eq!(error.application(), Some(&json!("divide-by-zero")));
    let error = client.call_json("arith.divide", json!([1, 2])).await.unwrap_err();
    assert_eq!(error.rpc().map(|rpc| rpc.status()), Some(Status::InvalidArgument));
}

#[tokio::test]
async fn a_program_that_is_not_async_calls_and_waits() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let host = wharf.host.clone();
    let call = move || {
        let build = |builder: wharf_client::ClientBuilder| {
            Ok::<_, blocking::StartError>(builder.direct(&host))
        };
        let client = blocking::Client::build(build).unwrap();
        let product: i64 =
            client.call("arith.multiply", &wharf_tests::Args { a: 7, b: 8 }).unwrap();
        let typed = arith::ArithClient::new(client.client());
        assert_eq!(client.wait(typed.multiply(arith::Args { a: 7, b: 8 })).unwrap(), product);
        product
    };
    let plain = tokio::task::spawn_blocking({
        let call = call.clone();
        move || std::thread::spawn(call).join().unwrap()
    });
    assert_eq!(plain.await.unwrap(), 56);
    // The blocking client also works inside an async program, although it should not be used there.
    assert_eq!(call(), 56);
}

#[tokio::test]
async fn the_examples_do_what_they_show() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    for (name, said) in [
        ("call", "7 * 8 = 56"),
        ("typed", "7 / 0: there is none, since DivideByZero"),
        ("json", "{\"quo\":3,\"rem\":1}"),
        ("blocking", "7 * 8 = 56"),
        ("observed", "arith.multiply took"),
    ] {
        let finished = example(name, &[&wharf.registry]).await.unwrap();
        assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
        assert!(finished.stdout.contains(said), "{name}: {}", finished.stdout);
    }
}

#[tokio::test]
async fn a_client_is_made_outside_of_a_runtime_and_debugs_without_secrets() {
    let client = std::thread::spawn(|| Client::builder().token("secret").direct("127.0.0.1:1"));
    let client = client.join().unwrap();
    assert!(!format!("{client:?}").contains("secret"));
    let error = client.call::<_, ()>("arith.multiply", &()).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Connect(_)), "{error:?}");
}
