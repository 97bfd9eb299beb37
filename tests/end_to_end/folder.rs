//! Plugins are loaded, replaced and removed when their files change.

use std::io::Write;

use wharf_client::Client;
use wharf_tests::{Args, Wharf, arith_that, eventually, plugin};

async fn multiply(client: &Client) -> Option<i64> {
    client.call("arith.multiply", &Args { a: 7, b: 8 }).await.ok()
}

async fn answers(client: &Client, expected: Option<i64>) {
    let what = format!("the answer is {expected:?}");
    eventually(&what, async || (multiply(client).await == expected).then_some(())).await.unwrap();
}

async fn registered(wharf: &Wharf) -> Vec<String> {
    let registry = wharf_registry_api::RegistryClient::new(&wharf.registry).unwrap();
    let services = registry.services().await.unwrap().services;
    services.into_iter().map(|service| service.service).collect()
}

#[tokio::test]
async fn a_file_is_dropped_in_replaced_and_removed() {
    let wharf = Wharf::up(&[], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    assert_eq!(multiply(&client).await, None);

    std::fs::write(wharf.file("arith.wasm"), plugin("arith").unwrap()).unwrap();
    answers(&client, Some(56)).await;
    assert_eq!(registered(&wharf).await, ["arith"]);

    std::fs::write(wharf.file("arith.wasm"), arith_that("(i64.const 57)").unwrap()).unwrap();
    answers(&client, Some(57)).await;

    // Replaced with a rename, like careful tools do.
    std::fs::write(wharf.file("arith.wasm.new"), arith_that("(i64.const 58)").unwrap()).unwrap();
    std::fs::rename(wharf.file("arith.wasm.new"), wharf.file("arith.wasm")).unwrap();
    answers(&client, Some(58)).await;

    std::fs::remove_file(wharf.file("arith.wasm")).unwrap();
    eventually("gone from the registry", async || {
        registered(&wharf).await.is_empty().then_some(())
    })
    .await
    .unwrap();
    let direct = wharf.direct();
    answers(&direct, None).await;
    let error = direct.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap_err();
    assert!(error.to_string().contains("this host has no service 'arith'"), "{error}");
}

#[tokio::test]
async fn a_half_copied_file_is_never_loaded() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    answers(&client, Some(56)).await;

    // These bytes are a complete component, and also the beginning of a longer file. The host can
    // know which only after the writer has closed the file.
    let whole = arith_that("(i64.const 57)").unwrap();
    let mut file = std::fs::File::create(wharf.file("arith.wasm")).unwrap();
    file.write_all(&whole[..whole.len() / 2]).unwrap();
    file.flush().unwrap();
    // The pause lasts until another plugin, dropped later, has long been loaded.
    let marker = wharf_tests::hostile().unwrap();
    std::fs::write(wharf.file("marker.wasm"), marker).unwrap();
    eventually("a later file is served", async || {
        assert_eq!(multiply(&client).await, Some(56), "the old one serves on");
        client.call::<_, u32>("hostile.count", &()).await.ok()
    })
    .await
    .unwrap();
    file.write_all(&whole[whole.len() / 2..]).unwrap();
    drop(file);
    answers(&client, Some(57)).await;

    let (status, log) = wharf.process.terminate().await.unwrap();
    assert!(status.success());
    assert!(!log.contains("does not load"), "{log}");
}

#[tokio::test]
async fn a_file_that_does_not_load_leaves_the_old_one_serving_and_says_why() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    answers(&client, Some(56)).await;
    std::fs::write(wharf.file("arith.wasm"), b"this is not wasm").unwrap();
    std::fs::write(wharf.file("other.wasm"), wharf_tests::hostile().unwrap()).unwrap();
    eventually("a later file is served", async || {
        client.call::<_, u32>("hostile.count", &()).await.ok()
    })
    .await
    .unwrap();
    assert_eq!(multiply(&client).await, Some(56));
    assert_eq!(registered(&wharf).await, ["arith", "hostile"]);
    std::fs::write(wharf.file("arith.wasm"), arith_that("(i64.const 59)").unwrap()).unwrap();
    answers(&client, Some(59)).await;
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert!(log.contains("a plugin does not load: it is not WebAssembly"), "{log}");
}

#[tokio::test]
async fn of_two_files_with_one_service_the_first_stays_until_it_goes() {
    let wharf = Wharf::up(&[("a.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    answers(&client, Some(56)).await;
    std::fs::write(wharf.file("b.wasm"), arith_that("(i64.const 60)").unwrap()).unwrap();
    std::fs::write(wharf.file("c.wasm"), wharf_tests::hostile().unwrap()).unwrap();
    eventually("a later file is served", async || {
        client.call::<_, u32>("hostile.count", &()).await.ok()
    })
    .await
    .unwrap();
    assert_eq!(multiply(&client).await, Some(56));
    std::fs::remove_file(wharf.file("a.wasm")).unwrap();
    answers(&client, Some(60)).await;
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert!(log.contains("a.wasm serves demo:arith/arith@0.1.0 already"), "{log}");
}
