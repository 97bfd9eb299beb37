//! How far the runtime isolates the calls of one plugin from each other.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf_runtime::{
    Engine, EngineOptions, InvokeError, Isolation, Limits, MethodIndex, Plugin, Settings,
};
use wharf_tests::{component, eventually, guest, within};

async fn rogue(engine: &Engine, settings: Settings) -> Plugin {
    Plugin::load(engine, "rogue", guest("rogue").unwrap(), settings).await.unwrap()
}

async fn call(plugin: &Plugin, name: &str, arguments: &[u8]) -> Result<Bytes, InvokeError> {
    let method = plugin.services()[0].methods().iter().position(|m| m.name == name).unwrap();
    let arguments = Bytes::copy_from_slice(arguments);
    let deadline = Instant::now() + Duration::from_secs(20);
    plugin
        .clone()
        .call(MethodIndex { service: 0, method }, arguments, Instant::now(), deadline)
        .await
}

async fn count(plugin: &Plugin) -> u32 {
    postcard::from_bytes(&call(plugin, "count", &[]).await.unwrap()).unwrap()
}

#[tokio::test]
async fn state_in_a_guests_globals_does_not_leak_between_calls_that_get_fresh_instances() {
    let engine = Engine::new(None).unwrap();
    let reuse = |calls| {
        let isolation = Isolation { reuse: NonZeroU32::new(calls), ..Isolation::default() };
        Settings { isolation, ..Settings::default() }
    };
    let fresh = rogue(&engine, reuse(1)).await;
    for _ in 0..200 {
        assert_eq!(count(&fresh).await, 1);
    }
    // If instances are reused, the same guest keeps its state.
    let limits = Limits { instances: 1, ..Limits::default() };
    let reused = rogue(&engine, Settings { limits: limits.clone(), ..Settings::default() }).await;
    for expected in 1..=10 {
        assert_eq!(count(&reused).await, expected);
    }
    let thrice = rogue(&engine, Settings { limits, ..reuse(3) }).await;
    for expected in [1, 2, 3, 1, 2, 3, 1] {
        assert_eq!(count(&thrice).await, expected);
    }
    assert!(fresh.pool().instances <= Limits::default().instances);
}

#[tokio::test]
async fn an_instance_that_grew_beyond_the_mark_does_not_serve_again() {
    let engine = Engine::new(None).unwrap();
    let limits = Limits { instances: 1, ..Limits::default() };
    let isolation = Isolation { high_water: Some(16 << 20), ..Isolation::default() };
    let plugin = rogue(&engine, Settings { limits, isolation, ..Settings::default() }).await;
    let keep = async |bytes: u64| {
        call(&plugin, "keep", &postcard::to_stdvec(&bytes).unwrap()).await.unwrap();
    };
    keep(4 << 20).await;
    assert_eq!(count(&plugin).await, 1, "below the mark, it goes on");
    keep(32 << 20).await;
    assert_eq!(count(&plugin).await, 1, "another has taken its place");
}

#[tokio::test]
async fn a_guest_that_leaks_a_little_in_each_call_is_replaced_before_a_call_fails() {
    let engine = Engine::new(None).unwrap();
    for memory in [16 << 20, 64 << 20] {
        let limits = Limits { instances: 1, memory, ..Limits::default() };
        let plugin = rogue(&engine, Settings { limits, ..Settings::default() }).await;
        // Three times the limit in all.
        for _ in 0..3 * memory / (1 << 20) {
            let bytes = postcard::to_stdvec(&(1u64 << 20)).unwrap();
            call(&plugin, "keep", &bytes).await.unwrap();
        }
    }
}

#[tokio::test]
async fn guests_take_no_more_than_their_budget_and_idle_ones_make_room_for_others() {
    let budget = 96 << 20;
    let options = EngineOptions { guest_memory: Some(budget), ..EngineOptions::default() };
    let engine = Engine::with(options).unwrap();
    let settings = || {
        let limits = Limits { instances: 1, memory: 256 << 20, ..Limits::default() };
        let isolation = Isolation { high_water: Some(128 << 20), ..Isolation::default() };
        Settings { limits, isolation, ..Settings::default() }
    };
    let (one, other) = (rogue(&engine, settings()).await, rogue(&engine, settings()).await);
    let keep = async |plugin: &Plugin, bytes: u64| {
        call(plugin, "keep", &postcard::to_stdvec(&bytes).unwrap()).await
    };
    keep(&one, 60 << 20).await.unwrap();
    assert!(one.pool().idle == 1 && engine.guest_memory().0 > 60 << 20);
    // There is room for it only without the idle instance of the other plugin.
    keep(&other, 60 << 20).await.unwrap();
    assert_eq!(one.pool().instances, 0, "it was ended");
    assert_eq!(count(&one).await, 1, "and a call makes another");
    let error = keep(&one, 200 << 20).await.unwrap_err();
    assert!(matches!(error, InvokeError::GuestMemory { .. }), "{error}");
    assert!(error.to_string().contains("(96 MiB, --guest-memory)"), "{error}");
    drop((one, other));
    let given_back =
        eventually("it is given back", async || (engine.guest_memory().0 == 0).then_some(()));
    given_back.await.unwrap();
}

#[tokio::test]
async fn what_the_host_holds_for_a_guests_handles_counts_as_the_guests_memory() {
    // It makes fields of HTTP messages and drops none, without any grant.
    let bytes = component(
        "package test:leak@1.0.0;
         interface leak { leak: func(count: u32) -> u32; }
         world plugin { import wasi:http/types@0.2.0; export leak; }
         package wasi:http@0.2.0 { interface types { resource fields { constructor(); } } }",
        r#"(module
            (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
            (global $calls (mut i32) (i32.const 0))
            (func (export "test:leak/leak@1.0.0#leak") (param i32) (result i32)
                (block $done
                    (loop $again
                        (br_if $done (i32.eqz (local.get 0)))
                        (drop (call $fields))
                        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
                        (br $again)))
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (global.get $calls)))"#,
    )
    .unwrap();
    let engine = Engine::new(None).unwrap();
    let limits = Limits { instances: 1, memory: 64 << 20, ..Limits::default() };
    let settings = Settings { limits, ..Settings::default() };
    let plugin = Plugin::load(&engine, "leak", bytes, settings).await.unwrap();
    let leak = async |count: u32| {
        let result = call(&plugin, "leak", &postcard::to_stdvec(&count).unwrap()).await;
        result.map(|result| postcard::from_bytes::<u32>(&result).unwrap())
    };
    let before = engine.guest_memory().0;
    assert_eq!(leak(100).await.unwrap(), 1);
    assert!(engine.guest_memory().0 >= before + 100 * (64 << 10), "each handle counts");
    assert_eq!(leak(100).await.unwrap(), 2);
    assert_eq!(leak(100).await.unwrap(), 3, "16 MiB, a quarter of its limit, are passed now");
    assert_eq!(leak(1).await.unwrap(), 1, "another instance has taken its place");
    // In one call, it cannot hold more than its limit.
    let error = leak(5000).await.unwrap_err();
    assert!(error.is_trap(), "{error}");
    assert_eq!(leak(1).await.unwrap(), 1);
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once_and_nothing_ran() {
    let engine = Engine::new(None).unwrap();
    let limits = Limits { instances: 1, queue: 0, ..Limits::default() };
    let plugin = rogue(&engine, Settings { limits, ..Settings::default() }).await;
    let sleeping = {
        let plugin = plugin.clone();
        tokio::spawn(async move { call(&plugin, "sleep", &[0xf4, 0x03]).await })
    };
    within("the instance is taken", async {
        while plugin.pool().idle > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let error = call(&plugin, "count", &[]).await.unwrap_err();
    assert!(matches!(error, InvokeError::QueueFull { queue: 0 }), "{error}");
    assert!(error.not_executed());
    sleeping.await.unwrap().unwrap();
    assert_eq!(count(&plugin).await, 1);
}
