//! Guests that misbehave. After each one, the host's memory is near its earlier size, the calls of
//! other plugins have continued, and the caller knows what happened.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wharf_client::{CallOptions, Client, RpcError, Status};
use wharf_tests::{
    Load, Wharf, arith_that, eventually, get_json, guest, heavy, hostile, imports_the_unknown,
    many_methods, never_starts, plugin, with_section,
};

/// How many bytes more the host may hold after a rogue than before it. Allocators keep some memory.
const NEAR: u64 = 48 * 1024 * 1024;

/// How many callers call another plugin during the test.
const CALLERS: usize = 1;

/// A host with a rogue plugin, and with calls to another plugin.
struct Scene {
    wharf: Wharf,
    client: Client,
    load: Load,
    resident: u64,
}

impl Scene {
    async fn begin(rogues: &[(&str, &[u8])]) -> Self {
        let arith = arith_that("(i64.const 56)").unwrap();
        let plugins = [&[("arith.wasm", &arith[..])], rogues].concat();
        let wharf = Wharf::up(&plugins, &[]).await.unwrap();
        // Call the host directly: it knows first what it serves.
        let client = wharf.direct();
        let load = Load::start(&client, CALLERS);
        eventually("calls go on", async || (load.calls() > 100).then_some(())).await.unwrap();
        let resident = wharf.process.resident().unwrap();
        Scene { wharf, client, load, resident }
    }

    async fn call<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
        timeout: Duration,
    ) -> Result<R, RpcError> {
        let options = CallOptions { timeout: Some(timeout), ..CallOptions::default() };
        self.client.call_with(method, arguments, options).await
    }

    /// Calls a rogue several times. If one call leaked something, the leaks would add up.
    async fn misbehaves<A: Serialize + ?Sized>(
        &self,
        method: &str,
        arguments: &A,
        status: Status,
        told: &str,
    ) {
        for _ in 0..5 {
            let result =
                self.call::<A, serde::de::IgnoredAny>(method, arguments, seconds(20)).await;
            let error = result.map(drop).unwrap_err();
            assert_eq!(error.failure.status(), status, "{error}");
            assert!(error.to_string().contains(told), "{told} is not in: {error}");
            assert!(error.failure.may_have_executed(), "{error}");
        }
    }

    /// Drops a file into the plugins folder, and waits until it is loaded or refused.
    async fn drops(&self, name: &str, bytes: &[u8]) -> serde_json::Value {
        std::fs::write(self.wharf.file(name), bytes).unwrap();
        eventually("the file is loaded or refused", async || {
            let overview = get_json(&format!("{}/services", self.wharf.http)).await.unwrap();
            let files = overview["files"].as_array().unwrap().clone();
            files.into_iter().find(|file| file["file"] == name && file["state"] != "compiling")
        })
        .await
        .unwrap()
    }

    /// Ends the test: the memory must be released, and no other call may have failed. Returns the
    /// host's log.
    async fn ends(self) -> String {
        let calls = self.load.calls();
        let go_on = eventually("the others' calls go on", async || {
            (self.load.calls() > calls + 100).then_some(())
        });
        let gone_on = go_on.await;
        let report = self.load.stop().await;
        // A caller that saw something stops, so what it saw comes first.
        assert_eq!(report.failures, Vec::<String>::new());
        gone_on.unwrap();
        let resident = eventually("memory is given back", async || {
            let now = self.wharf.process.resident().unwrap();
            (now < self.resident + NEAR).then_some(now)
        });
        let resident = resident.await.unwrap_or_else(|error| {
            panic!("{error}: {} before, {:?} now", self.resident, self.wharf.process.resident())
        });
        println!("resident: {} KiB before, {} KiB after", self.resident >> 10, resident >> 10);
        let (status, log) = self.wharf.process.terminate().await.unwrap();
        assert!(status.success());
        log
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

async fn with_hostile() -> Scene {
    Scene::begin(&[("hostile.wasm", &hostile().unwrap())]).await
}

async fn with_rogue() -> Scene {
    Scene::begin(&[("rogue.wasm", &guest("rogue").unwrap())]).await
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let scene = with_hostile().await;
    let timeout = Duration::from_millis(200);
    for _ in 0..5 {
        let error = scene.call::<_, ()>("hostile.spin", &(), timeout).await.unwrap_err();
        assert_eq!(error.failure.status(), Status::DeadlineExceeded, "{error}");
    }
    scene.ends().await;
}

#[tokio::test]
async fn an_endless_recursion_is_a_trap() {
    let scene = with_hostile().await;
    scene.misbehaves("hostile.recurse", &(), Status::Internal, "call stack exhausted").await;
    let log = scene.ends().await;
    assert!(log.contains("a guest trapped; its instance is dropped"), "{log}");
}

#[tokio::test]
async fn memory_is_refused_at_the_limit() {
    let scene = with_hostile().await;
    let told = "the guest reached its memory limit of 256 MiB, and then trapped";
    scene.misbehaves("hostile.gorge", &(), Status::ResourceExhausted, told).await;
    scene.ends().await;
}

#[tokio::test]
async fn a_panic_is_a_trap_and_its_message_is_logged() {
    let scene = with_rogue().await;
    scene.misbehaves("rogue.panic", "on purpose", Status::Internal, "the guest trapped").await;
    let log = scene.ends().await;
    assert!(log.contains("on purpose"), "{log}");
}

#[tokio::test]
async fn unreachable_is_a_trap() {
    let scene = with_hostile().await;
    scene.misbehaves("hostile.trap", &(), Status::Internal, "`unreachable` instruction").await;
    scene.ends().await;
}

#[tokio::test]
async fn a_huge_result_is_refused() {
    let scene = with_hostile().await;
    let told = "the result takes more than 16777216 bytes, this plugin's limit";
    scene.misbehaves("hostile.zeros", &200_000_000u32, Status::ResourceExhausted, told).await;
    scene.ends().await;
}

#[tokio::test]
async fn exit_ends_the_instance_and_nothing_else() {
    let scene = with_rogue().await;
    scene.misbehaves("rogue.exit", &3u8, Status::Internal, "the guest called exit(").await;
    scene.ends().await;
}

#[tokio::test]
async fn a_guest_that_sleeps_in_the_host_ends_at_its_deadline() {
    let scene = with_rogue().await;
    let timeout = Duration::from_millis(200);
    for _ in 0..5 {
        let error = scene.call::<_, ()>("rogue.sleep", &600_000u64, timeout).await.unwrap_err();
        assert_eq!(error.failure.status(), Status::DeadlineExceeded, "{error}");
    }
    scene.ends().await;
}

#[tokio::test]
async fn a_gigabyte_of_output_is_cut_short_in_the_log() {
    // Long calls have a lower priority than the quick calls of others, so this may take a while.
    let patient = b"[limits]\ncall-timeout = \"5m\"\n";
    let rogue = guest("rogue").unwrap();
    let scene = Scene::begin(&[("rogue.wasm", &rogue), ("rogue.toml", patient)]).await;
    scene.call::<_, ()>("rogue.print", &1_000_000_000u64, seconds(300)).await.unwrap();
    let log = scene.ends().await;
    assert!(log.len() < 8 * 1024 * 1024, "{} bytes of log", log.len());
    assert!(log.contains("dropped output of a plugin that prints or traps too much"));
}

#[tokio::test]
async fn a_start_function_that_loops_is_refused() {
    let scene = with_hostile().await;
    std::fs::write(scene.wharf.file("stuck.toml"), "[limits]\nstart-timeout = \"200ms\"\n")
        .unwrap();
    let file = scene.drops("stuck.wasm", &never_starts().unwrap()).await;
    let reason = file["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("its first instance does not start: the deadline passed"),
        "{reason}"
    );
    scene.ends().await;
}

#[tokio::test]
async fn an_import_that_does_not_exist_is_refused_by_name() {
    let scene = with_hostile().await;
    let file = scene.drops("lost.wasm", &imports_the_unknown().unwrap()).await;
    assert_eq!(
        file["reason"],
        "it imports interfaces that Wharf does not provide: acme:secret/sauce@1.0.0; \
         build it without them"
    );
    scene.ends().await;
}

#[tokio::test]
async fn ten_thousand_exports_are_served() {
    let scene = with_hostile().await;
    let file = scene.drops("many.wasm", &many_methods(10_000).unwrap()).await;
    assert_eq!(file["state"], "serving", "{file}");
    let answer: u32 = scene.call("many.m9999", &(), seconds(20)).await.unwrap();
    assert_eq!(answer, 9999);
    std::fs::remove_file(scene.wharf.file("many.wasm")).unwrap();
    scene.ends().await;
}

#[tokio::test]
async fn a_component_of_a_hundred_megabytes_is_served_and_given_back() {
    let scene = with_hostile().await;
    let file = scene.drops("heavy.wasm", &heavy(100).unwrap()).await;
    assert_eq!(file["state"], "serving", "{file}");
    let byte: u8 = scene.call("heavy.at", &(99u32 << 20), seconds(20)).await.unwrap();
    assert_eq!(byte, 7);
    std::fs::remove_file(scene.wharf.file("heavy.wasm")).unwrap();
    scene.ends().await;
}

#[tokio::test]
async fn malformed_custom_sections_harm_nobody() {
    let arith = plugin("arith").unwrap();
    let scene = with_hostile().await;
    std::fs::remove_file(scene.wharf.file("arith.wasm")).unwrap();
    std::fs::write(scene.wharf.file("arith.wasm"), arith_that("(i64.const 56)").unwrap()).unwrap();
    let garbage: Vec<u8> = (0..=255).cycle().take(4096).collect();
    for (number, name) in
        ["name", "component-name", "producers", "wharf:wit", "component-type", ".debug_info", ""]
            .into_iter()
            .enumerate()
    {
        // With its own name, so that no other file serves the same service.
        let renamed = String::from_utf8_lossy(b"demo:").replace("demo", &format!("m{number:03}"));
        let mut bytes = arith.clone();
        for start in 0..bytes.len() - 5 {
            if bytes[start..].starts_with(b"demo:") {
                bytes[start..start + 5].copy_from_slice(renamed.as_bytes());
            }
        }
        for content in [&garbage[..], &[0xff; 3], &[]] {
            let file = format!("garbage-{number}.wasm");
            std::fs::remove_file(scene.wharf.file(&file)).ok();
            let report = scene.drops(&file, &with_section(&bytes, name, content)).await;
            let state = report["state"].as_str().unwrap();
            assert!(matches!(state, "serving" | "refused" | "withdrawing"), "{name}: {report}");
        }
    }
    scene.ends().await;
}

#[tokio::test]
async fn results_that_lie_are_traps() {
    let scene = with_hostile().await;
    scene.misbehaves("hostile.lie", &(), Status::Internal, "the guest trapped").await;
    scene.misbehaves("hostile.discriminant", &7u32, Status::Internal, "the guest trapped").await;
    scene.ends().await;
}

#[tokio::test]
async fn a_cancelled_call_and_a_closed_connection_stop_their_guests() {
    let scene = with_hostile().await;
    let busy = async || {
        let overview = get_json(&format!("{}/services", scene.wharf.http)).await.unwrap();
        let services = overview["services"].as_array().unwrap().clone();
        let rogue = services.iter().find(|s| s["file"] == "hostile.wasm").unwrap();
        rogue["instances"].as_u64().unwrap() - rogue["idle"].as_u64().unwrap()
    };
    for closes in [false, true] {
        let other = scene.wharf.direct();
        let client = if closes { other.clone() } else { scene.client.clone() };
        let call = tokio::spawn(async move { client.call::<_, ()>("hostile.spin", &()).await });
        eventually("it runs", async || (busy().await > 0).then_some(())).await.unwrap();
        call.abort();
        drop(other);
        eventually("it is stopped", async || (busy().await == 0).then_some(())).await.unwrap();
    }
    scene.ends().await;
}
