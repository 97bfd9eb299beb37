//! How far the runtime isolates the calls of one plugin from each other.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf_runtime::{
    Engine, EngineOptions, InvokeError, Isolation, Limits, MethodIndex, Plugin, Settings,
};
use wharf_tests::{eventually, guest, within};

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
