//! Which files are refused as plugins, and with which errors.

use std::time::{Duration, Instant};

use wharf_runtime::{Engine, InvokeError, Limits, LoadError, MethodIndex, Plugin, Settings};
use wharf_tests::{component, eventually, hostile, plugin};

async fn refusal(bytes: Vec<u8>) -> LoadError {
    let engine = Engine::new(None).unwrap();
    Plugin::load(&engine, "test", bytes, Settings::default()).await.unwrap_err()
}

#[tokio::test]
async fn a_file_that_is_no_plugin_is_told_what_it_is_and_what_to_do() {
    let core = wat::parse_str("(module)").unwrap();
    let arith = plugin("arith").unwrap();
    let half = arith[..arith.len() / 2].to_vec();
    let empty = wat::parse_str("(component)").unwrap();
    let stray = component(
        "package a:b; world plugin { export run: func(); }",
        r#"(module (func (export "run")))"#,
    )
    .unwrap();
    let foreign = component(
        "package a:b; interface i { f: func(); } world plugin { import acme:x/y; export i; }
         package acme:x { interface y { g: func(); } }",
        r#"(module (import "acme:x/y" "g" (func)) (func (export "a:b/i#f")))"#,
    )
    .unwrap();
    let starts_badly = component(
        "package a:b; interface i { f: func(); } world plugin { export i; }",
        r#"(module (func $start unreachable) (start $start) (func (export "a:b/i#f")))"#,
    )
    .unwrap();
    for (bytes, message) in [
        (b"#!/bin/sh\necho".to_vec(), "it is not WebAssembly: build a component"),
        (Vec::new(), "it is cut off after 0 bytes"),
        (core, "it is a core WebAssembly module, not a component: build it for wasm32-wasip2"),
        (half, "it is cut off after"),
        (empty, "it exports no method that can be called: a service is"),
        (stray, "it exports functions outside any interface (run); move them into an interface"),
        (foreign, "it imports interfaces that Wharf does not provide: acme:x/y"),
        (starts_badly, "its first instance does not start: the guest trapped: wasm `unreachable`"),
    ] {
        let error = refusal(bytes).await.to_string();
        assert!(error.contains(message), "'{error}' does not say '{message}'");
    }
}

#[tokio::test]
async fn an_interface_of_types_alone_needs_no_implementation_and_its_calls_go_through_the_codec() {
    let bytes = component(
        "package t:t@1.0.0;
         interface types { record p { x: u32 } }
         interface api { use types.{p}; f: func(a: p) -> p; }
         world w { export api; }",
        r#"(module (func (export "t:t/api@1.0.0#f") (param i32) (result i32) (local.get 0)))"#,
    )
    .unwrap();
    let inspection = wharf_runtime::inspect(&bytes).unwrap();
    assert_eq!(inspection.imports[0].name, "t:t/types@1.0.0");
    assert_eq!(inspection.imports[0].need, wharf_runtime::Need::Nothing);
    let engine = Engine::new(None).unwrap();
    let plugin = Plugin::load(&engine, "types", bytes, Settings::default()).await.unwrap();
    assert_eq!(plugin.methods_without_codec(), Vec::<String>::new());
    let (method, now) = (MethodIndex { service: 0, method: 0 }, Instant::now());
    let arguments = postcard::to_stdvec(&77u32).unwrap();
    let call = plugin.call(method, arguments.clone().into(), now, now + Duration::from_secs(20));
    assert_eq!(call.await.unwrap(), arguments);
}

#[tokio::test]
async fn a_version_of_wasi_that_is_not_run_is_named_by_inspect_and_by_the_host() {
    for (package, version) in [("random", "0.3.0"), ("random", "0.2.0-rc-2023-11-10")] {
        let bytes = component(
            &format!(
                "package a:b; interface i {{ f: func(); }}
                 world w {{ import wasi:{package}/random@{version}; export i; }}
                 package wasi:{package}@{version} {{ interface random {{ g: func() -> u64; }} }}"
            ),
            &format!(
                r#"(module (import "wasi:{package}/random@{version}" "g" (func (result i64)))
                    (func (export "a:b/i#f")))"#
            ),
        )
        .unwrap();
        let import = wharf_runtime::inspect(&bytes).unwrap().imports.remove(0);
        assert_eq!(import.need, wharf_runtime::Need::OtherWasi);
        let error = refusal(bytes).await.to_string();
        let expected = format!("does not run (wasi:{package}/random@{version}); this version");
        assert!(error.contains(&expected), "{error}");
    }
}

#[tokio::test]
async fn a_component_without_a_callable_method_says_why_of_each() {
    let bytes = component(
        "package a:b;
         interface i { resource r { constructor(); m: func(); } g: func(a: own<r>); }
         world w { export i; }",
        r#"(module
            (import "[export]a:b/i" "[resource-new]r" (func (param i32) (result i32)))
            (func (export "a:b/i#[constructor]r") (result i32) (i32.const 0))
            (func (export "a:b/i#[method]r.m") (param i32))
            (func (export "a:b/i#g") (param i32)))"#,
    )
    .unwrap();
    let error = refusal(bytes).await.to_string();
    for expected in ["i.[constructor]r: it belongs to a resource", "i.g: parameter a: "] {
        assert!(error.contains(expected), "'{error}' does not say '{expected}'");
    }
}

#[tokio::test]
async fn cut_or_mutated_components_are_refused_without_a_panic() {
    let arith = plugin("arith").unwrap();
    for at in (0..arith.len()).step_by(97) {
        let mut mutated = arith.clone();
        mutated[at] ^= 0x55;
        // Some mutations are still valid components. None may crash the reader.
        let _ = wharf_runtime::inspect(&mutated);
        let _ = wharf_runtime::inspect(&arith[..at]);
    }
}

struct Guest {
    plugin: Plugin,
    engine: Engine,
}

impl Guest {
    async fn hostile(limits: Limits) -> Self {
        let engine = Engine::new(None).unwrap();
        let settings = Settings { limits, ..Settings::default() };
        let plugin = Plugin::load(&engine, "hostile", hostile().unwrap(), settings).await.unwrap();
        Guest { plugin, engine }
    }

    async fn call(
        &self,
        name: &str,
        arguments: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, InvokeError> {
        let methods = self.plugin.services()[0].methods();
        let method = methods.iter().position(|method| method.name == name).unwrap();
        let index = MethodIndex { service: 0, method };
        let deadline = Instant::now() + timeout;
        let arguments = bytes::Bytes::copy_from_slice(arguments);
        self.plugin.clone().call(index, arguments, Instant::now(), deadline).await.map(Into::into)
    }

    async fn count(&self) -> u8 {
        self.call("count", &[], LONG).await.unwrap()[0]
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_guest_that_loops_ends_with_its_deadline_and_the_next_call_gets_a_fresh_instance() {
    let guest = Guest::hostile(Limits { instances: 1, ..Limits::default() }).await;
    assert_eq!(guest.count().await, 1);
    let spun = guest.call("spin", &[], Duration::from_millis(50)).await;
    assert!(matches!(spun, Err(InvokeError::DeadlineExceeded { executed: true })), "{spun:?}");
    assert_eq!(guest.count().await, 1);
    assert_eq!(guest.count().await, 2, "an instance that ended well is used again");
}

#[tokio::test]
async fn a_clock_that_rests_wakes_for_the_next_guest_and_stays_awake_while_it_runs() {
    let guest = Guest::hostile(Limits::default()).await;
    for _ in 0..2 {
        let resting = async || guest.engine.is_resting().then_some(());
        eventually("the clock rests", resting).await.unwrap();
        // The guest runs for longer than the clock needs to rest again. If the clock rested, it
        // would never stop this guest.
        let spun = guest.call("spin", &[], Duration::from_millis(1500)).await;
        assert!(matches!(spun, Err(InvokeError::DeadlineExceeded { executed: true })), "{spun:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_takes_its_guest_with_it() {
    let guest = Guest::hostile(Limits { instances: 1, ..Limits::default() }).await;
    let given_up =
        tokio::time::timeout(Duration::from_millis(30), guest.call("spin", &[], LONG)).await;
    assert!(given_up.is_err());
    // There is only one instance, so this call is answered only if the looping one is gone.
    assert_eq!(guest.count().await, 1);
}

#[tokio::test]
async fn traps_end_their_call_and_their_instance_and_nothing_else() {
    let guest = Guest::hostile(Limits { instances: 1, ..Limits::default() }).await;
    for (method, cause) in [
        ("trap", "wasm `unreachable` instruction executed"),
        ("recurse", "call stack exhausted"),
        ("lie", "out of bounds"),
    ] {
        assert_eq!(guest.count().await, 1);
        let error = guest.call(method, &[], LONG).await.unwrap_err();
        assert!(matches!(error, InvokeError::Trapped { .. }), "{method}: {error:?}");
        assert!(error.to_string().contains(cause), "{method}: {error}");
    }
    assert_eq!(guest.call("discriminant", &[1], LONG).await.unwrap(), [1]);
    let error = guest.call("discriminant", &[2], LONG).await.unwrap_err();
    assert!(error.to_string().contains("discriminant"), "{error}");
}

#[tokio::test]
async fn memory_is_capped_and_the_caller_is_told() {
    let memory = 8 * 1024 * 1024;
    let guest = Guest::hostile(Limits { memory, ..Limits::default() }).await;
    let error = guest.call("gorge", &[], LONG).await.unwrap_err();
    assert!(
        matches!(error, InvokeError::MemoryLimit { limit, .. } if limit == memory),
        "{error:?}"
    );
    assert_eq!(guest.count().await, 1);
}

#[tokio::test]
async fn a_result_beyond_the_bound_is_refused_and_the_instance_lives() {
    let guest =
        Guest::hostile(Limits { result_size: 1000, instances: 1, ..Limits::default() }).await;
    assert_eq!(guest.count().await, 1);
    assert_eq!(guest.call("zeros", &[3], LONG).await.unwrap(), [3, 0, 0, 0]);
    let two_thousand = [0xd0, 0x0f];
    let error = guest.call("zeros", &two_thousand, LONG).await.unwrap_err();
    assert_eq!(error.to_string(), "the result takes more than 1000 bytes, this plugin's limit");
    assert_eq!(guest.count().await, 2);
}

#[tokio::test]
async fn calls_beyond_the_queue_are_refused_at_once() {
    let limits = Limits { instances: 1, queue: 1, ..Limits::default() };
    let guest = Guest::hostile(limits).await;
    let spin = async || guest.call("spin", &[], Duration::from_millis(200)).await;
    let (one, two, three) = tokio::join!(spin(), spin(), spin());
    let results = [one, two, three];
    let count = |matches: fn(&InvokeError) -> bool| {
        results.iter().filter(|r| r.as_ref().is_err_and(matches)).count()
    };
    assert_eq!(count(|e| matches!(e, InvokeError::QueueFull { queue: 1 })), 1, "{results:?}");
    assert_eq!(count(|e| matches!(e, InvokeError::DeadlineExceeded { .. })), 2, "{results:?}");
}

#[tokio::test]
async fn malformed_arguments_leave_the_guest_untouched() {
    let guest = Guest::hostile(Limits { instances: 1, ..Limits::default() }).await;
    for bytes in [&[][..], &[0x80], &[1, 2], &[0xff; 6]] {
        let error = guest.call("discriminant", bytes, LONG).await.unwrap_err();
        assert!(matches!(error, InvokeError::InvalidArgument(_)), "{error:?}");
        assert!(error.not_executed());
    }
    assert_eq!(guest.count().await, 1);
    assert_eq!(guest.count().await, 2);
}
