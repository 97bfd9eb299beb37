//! A plugin is replaced while calls are made.

use wharf_client::Failure;
use wharf_registry_api::{Endpoint, EndpointState, ListOptions, RegistryClient};
use wharf_tests::{Args, Load, Wharf, arith_reordered, arith_that, eventually, get_json, plugin};

const SWAPS: u64 = 50;
const CALLERS: usize = 64;

async fn up() -> Wharf {
    let arith = arith_that("(i64.const 0)").unwrap();
    Wharf::up(&[("arith.wasm", &arith)], &[]).await.unwrap()
}

/// The generation of the plugin that serves now.
async fn generation(wharf: &Wharf) -> u64 {
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    overview["services"][0]["generation"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_replacements_under_load_fail_no_call_and_none_is_answered_by_an_older_version() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let load = Load::start(&client, CALLERS);
    let mut served = generation(&wharf).await;
    for version in 1..=SWAPS {
        let before = load.calls();
        let next = arith_that(&format!("(i64.const {version})")).unwrap();
        // Half of the files are replaced with a rename, like careful tools do; the others like cp
        // does.
        if version % 2 == 0 {
            std::fs::write(wharf.file("next"), next).unwrap();
            std::fs::rename(wharf.file("next"), wharf.file("arith.wasm")).unwrap();
        } else {
            std::fs::write(wharf.file("arith.wasm"), next).unwrap();
        }
        served = eventually("the host says that the new version answers", async || {
            Some(generation(&wharf).await).filter(|now| *now > served)
        })
        .await
        .unwrap();
        load.expect_at_least(version);
        eventually("calls went on", async || (load.calls() > before + 1000).then_some(()))
            .await
            .unwrap();
    }
    let report = load.stop().await;
    assert_eq!(report.failures, Vec::<String>::new());
    println!("{SWAPS} swaps, {} calls, {:.0} calls/s", report.calls, report.rate());
}

#[tokio::test]
async fn a_replacement_that_breaks_callers_is_warned_of_and_refused_where_compatible_is_required() {
    let wharf = up().await;
    let before = generation(&wharf).await;
    std::fs::write(wharf.file("arith.wasm"), arith_reordered().unwrap()).unwrap();
    let warned = "the replacement breaks callers: arith.multiply: the fields of args are in another \
                  order (breaks typed clients)";
    wharf.process.logged(warned).await.unwrap();
    assert!(generation(&wharf).await > before);

    std::fs::write(wharf.file("arith.toml"), "compatible = \"required\"\n").unwrap();
    std::fs::write(wharf.file("arith.wasm"), arith_that("(i64.const 1)").unwrap()).unwrap();
    let refused = "a plugin does not load: it breaks callers of what it replaces, and compatible = \
                   \\\"required\\\": arith.multiply: the fields of args are in another order";
    wharf.process.logged(refused).await.unwrap();
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    assert_eq!(overview["files"][0]["state"], "refused");
    // Grants that are only added take nothing from the version that serves.
    let more = "compatible = \"required\"\n[grants]\nenv = { MORE = \"yes\" }\n";
    std::fs::write(wharf.file("arith.toml"), more).unwrap();
    eventually("it is refused once more", async || {
        (wharf.process.count_logged("it breaks callers of what it replaces") >= 2).then_some(())
    })
    .await
    .unwrap();
    let call = ["call", "--direct", &wharf.host, "arith.multiply", "a=7", "b=8"];
    assert_eq!(wharf_tests::wharf(&call).await.unwrap().code, Some(0));
    // What adds to it loads, and so does anything once it is allowed to break.
    std::fs::write(wharf.file("arith.toml"), "compatible = \"any\"\n").unwrap();
    eventually("it serves", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.ok()?;
        (overview["files"][0]["state"] == "serving").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_host_may_require_that_replacements_are_compatible() {
    let arith = arith_that("(i64.const 0)").unwrap();
    let arguments = ["--compatible", "required"];
    let wharf = Wharf::up(&[("arith.wasm", &arith)], &arguments).await.unwrap();
    std::fs::write(wharf.file("arith.wasm"), arith_reordered().unwrap()).unwrap();
    wharf.process.logged("it breaks callers of what it replaces").await.unwrap();
    // The same methods with other code.
    std::fs::write(wharf.file("arith.wasm"), arith_that("(i64.const 1)").unwrap()).unwrap();
    wharf.process.logged("replaced a plugin").await.unwrap();
}

#[tokio::test]
async fn a_refused_replacement_leaves_the_old_one_serving_and_is_seen_everywhere() {
    let wharf = up().await;
    let client = wharf.client().await.unwrap();
    let answer = async || client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
    std::fs::write(wharf.file("arith.wasm"), b"(module)").unwrap();
    let registry = RegistryClient::new(&wharf.registry).unwrap();
    let reason = "its replacement does not load: it is not WebAssembly";
    let endpoint = eventually("the registry knows the reason", async || {
        let listed = registry.endpoints("arith", &ListOptions::default()).await.unwrap().unwrap();
        // Before, it may hear that the replacement is being compiled.
        let told = |endpoint: &Endpoint| {
            endpoint.spec.reason.as_ref().is_some_and(|told| told.starts_with(reason))
        };
        listed.endpoints.into_iter().find(told)
    })
    .await
    .unwrap();
    assert_eq!(endpoint.state, EndpointState::Serving);
    assert_eq!(answer().await.unwrap(), 0);
    let listed = wharf_tests::wharf(&["services", "--registry", &wharf.registry]).await.unwrap();
    assert!(listed.stdout.contains(&format!("serving; {reason}")), "{}", listed.stdout);
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    assert_eq!(overview["files"][0]["state"], "refused");
    assert!(overview["files"][0]["reason"].as_str().unwrap().starts_with("it is not WebAssembly"));

    // The next valid file takes over. The earlier failure has no effect.
    std::fs::write(wharf.file("arith.wasm"), arith_that("(i64.const 1)").unwrap()).unwrap();
    eventually("the next one answers", async || (answer().await.unwrap() == 1).then_some(()))
        .await
        .unwrap();
    eventually("the reason is gone", async || {
        let listed = registry.endpoints("arith", &ListOptions::default()).await.unwrap().unwrap();
        listed.endpoints[0].spec.reason.is_none().then_some(())
    })
    .await
    .unwrap();
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert!(log.contains("a plugin does not load: it is not WebAssembly"), "{log}");
}

#[tokio::test]
async fn a_new_plugin_that_does_not_load_is_listed_as_refused_and_never_called() {
    let wharf = up().await;
    let reach = wharf_tests::guest("reach").unwrap();
    std::fs::write(wharf.file("reach.wasm"), reach).unwrap();
    let registry = RegistryClient::new(&wharf.registry).unwrap();
    let endpoint = eventually("it is listed", async || {
        let listed = registry.endpoints("reach", &ListOptions::default()).await.unwrap().unwrap();
        listed.endpoints.into_iter().find(|endpoint| endpoint.state == EndpointState::Refused)
    })
    .await
    .unwrap();
    assert!(endpoint.spec.reason.unwrap().starts_with("its imports need grants: "));
    let client = wharf.client().await.unwrap();
    let error = client.call::<_, Option<String>>("reach.variable", &"X").await.unwrap_err();
    assert!(matches!(error.failure, Failure::NoEndpoint { .. }), "{error}");
    assert!(error.to_string().contains("(1 refused)"), "{error}");
    let listed = wharf_tests::wharf(&["services", "--registry", &wharf.registry]).await.unwrap();
    assert!(listed.stdout.contains("refused; its imports need grants"), "{}", listed.stdout);
}

#[tokio::test]
async fn a_removed_plugin_is_withdrawn_first_and_its_calls_finish() {
    let rogue = wharf_tests::guest("rogue").unwrap();
    let wharf = Wharf::up(&[("rogue.wasm", &rogue)], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    let slow = {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, ()>("rogue.sleep", &1500u64).await })
    };
    let idle = async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        overview["services"][0]["idle"].as_u64()
    };
    let instances = async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        overview["services"][0]["instances"].as_u64()
    };
    eventually("the call runs", async || (idle().await? < instances().await?).then_some(()))
        .await
        .unwrap();
    std::fs::remove_file(wharf.file("rogue.wasm")).unwrap();
    let registry = RegistryClient::new(&wharf.registry).unwrap();
    eventually("withdrawn", async || {
        registry.services().await.unwrap().services.is_empty().then_some(())
    })
    .await
    .unwrap();
    let direct = wharf.direct();
    eventually("gone", async || direct.call::<_, u32>("rogue.count", &()).await.err())
        .await
        .unwrap();
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn of_two_files_with_one_service_the_second_is_refused_by_name() {
    let wharf = up().await;
    std::fs::write(wharf.file("copy.wasm"), plugin("arith").unwrap()).unwrap();
    let file = eventually("the second is refused", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        let files = overview["files"].as_array().unwrap().clone();
        files.into_iter().find(|file| file["state"] == "refused")
    })
    .await
    .unwrap();
    assert_eq!(file["file"], "copy.wasm");
    let reason = file["reason"].as_str().unwrap();
    assert!(reason.starts_with("arith.wasm serves demo:arith/arith@0.1.0 already"), "{reason}");
}
