//! How far the runtime isolates the calls of one plugin from each other.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf_runtime::{Engine, InvokeError, Isolation, Limits, MethodIndex, Plugin, Settings};
use wharf_tests::{guest, within};

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
    let isolation = Isolation { high_water: 16 << 20, ..Isolation::default() };
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
