//! Compiled code is kept between runs. It is never loaded from a directory that others can write
//! to.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wharf_registry_api::{EndpointState, ListOptions, RegistryClient};
use wharf_tests::{Args, Wharf, arith_that, eventually, get, get_json, plugin, renamed, within};

const PLUGINS: usize = 100;

/// A folder with copies of the example services, each with its own package name.
fn copies(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, (wasm, namespace)) in renamed(count).unwrap().into_iter().enumerate() {
        std::fs::write(folder.path().join(format!("{namespace}-{index}.wasm")), wasm).unwrap();
    }
    folder
}

async fn up(folder: TempDir, cache: &Path) -> Wharf {
    Wharf::up_over(folder, &["--cache", cache.to_str().unwrap()], &[]).await.unwrap()
}

/// How many files were loaded with this result.
async fn loads(wharf: &Wharf, result: &str) -> u64 {
    let (_, text) = get(&format!("{}/metrics", wharf.http)).await.unwrap();
    let series = format!("wharf_plugin_loads_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.map_or(0, |count| count.parse().unwrap())
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

async fn ends(wharf: Wharf) -> TempDir {
    let (process, folder) = wharf.into_parts();
    let (status, log) = process.terminate().await.unwrap();
    assert!(status.success(), "{log}");
    folder
}

#[tokio::test]
async fn a_restart_with_a_hundred_plugins_compiles_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let first = up(copies(PLUGINS), cache.path()).await;
    assert_eq!((loads(&first, "compiled").await, loads(&first, "cached").await), (100, 0));
    assert_eq!(entries(cache.path()).len(), PLUGINS);
    let folder = ends(first).await;

    let begun = std::time::Instant::now();
    let second = up(folder, cache.path()).await;
    println!("{PLUGINS} plugins served {:?} after the start", begun.elapsed());
    assert_eq!((loads(&second, "compiled").await, loads(&second, "cached").await), (0, 100));
    let client = second.client().await.unwrap();
    for (_, namespace) in renamed(PLUGINS).unwrap() {
        if namespace.starts_with('t') {
            let method = format!("{namespace}:textkit/textkit.echo");
            let echoed: Vec<u8> = client.call(&method, &vec![1u8, 2]).await.unwrap();
            assert_eq!(echoed, [1, 2]);
        } else {
            let method = format!("{namespace}:arith/arith.multiply");
            let product: i64 = client.call(&method, &Args { a: 7, b: 8 }).await.unwrap();
            assert_eq!(product, 56);
        }
    }
}

#[tokio::test]
async fn entries_that_are_not_what_was_put_there_are_compiled_again() {
    let cache = tempfile::tempdir().unwrap();
    let mut wharf = up(copies(1), cache.path()).await;
    let [entry] = &entries(cache.path())[..] else { panic!("one entry") };
    let whole = std::fs::read(entry).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut grown = whole.clone();
    grown.push(0);
    for damaged in [&[][..], &whole[..10], &whole[..whole.len() - 1], &flipped, &grown] {
        let folder = ends(wharf).await;
        std::fs::write(entry, damaged).unwrap();
        wharf = up(folder, cache.path()).await;
        assert_eq!((loads(&wharf, "compiled").await, loads(&wharf, "cached").await), (1, 0));
        assert_eq!(std::fs::read(entry).unwrap(), whole, "it is mended");
        let client = wharf.client().await.unwrap();
        let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
        assert_eq!(product, 56);
    }
    let folder = ends(wharf).await;
    let wharf = up(folder, cache.path()).await;
    assert_eq!((loads(&wharf, "compiled").await, loads(&wharf, "cached").await), (0, 1));
}

#[tokio::test]
async fn a_cache_that_others_can_write_to_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    std::fs::set_permissions(cache.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let folder = copies(1);
    let (folder, cache) = (folder.path().to_str().unwrap(), cache.path().to_str().unwrap());
    let arguments = [
        "host",
        "--registry",
        "none",
        "--plugins",
        folder,
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "none",
        "--cache",
        cache,
    ];
    let done = wharf_tests::wharf(&arguments).await.unwrap();
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("is not safe, and what is in the cache gets executed: ")
            && done.stderr.contains("can be written by others; run 'chmod go-w "),
        "{}",
        done.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_component_is_listed_as_compiling_while_calls_to_others_go_on() {
    let big = wharf_tests::big(12 * 1024 * 1024).unwrap();
    let arith = arith_that("(i64.const 56)").unwrap();
    let wharf = Wharf::up(&[("arith.wasm", &arith)], &[]).await.unwrap();
    let client = wharf.client().await.unwrap();
    std::fs::write(wharf.file("big.wasm"), &big).unwrap();
    let registry = RegistryClient::new(&wharf.registry).unwrap();
    eventually("it is listed as compiling", async || {
        let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
        assert_eq!(product, 56);
        let listed = registry.endpoints("big", &ListOptions::default()).await.unwrap().unwrap();
        listed.endpoints.iter().any(|e| e.state == EndpointState::Compiling).then_some(())
    })
    .await
    .unwrap();
    let listed = wharf_tests::wharf(&["services", "--registry", &wharf.registry]).await.unwrap();
    assert!(listed.stdout.contains("compiling"), "{}", listed.stdout);
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    let files = overview["files"].as_array().unwrap();
    assert!(files.iter().any(|f| f["file"] == "big.wasm" && f["state"] == "compiling"));
    // Another plugin does not wait for the large one.
    std::fs::write(wharf.file("arith.wasm"), plugin("arith").unwrap()).unwrap();
    within("a small one overtakes", async {
        loop {
            let divided = client
                .call::<_, Result<wharf_tests::Quotient, wharf_tests::ArithError>>(
                    "arith.divide",
                    &Args { a: 7, b: 2 },
                )
                .await;
            if divided.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    let files = overview["files"].as_array().unwrap();
    assert!(files.iter().any(|f| f["file"] == "big.wasm" && f["state"] == "compiling"));
    let (status, log) = wharf.process.terminate().await.unwrap();
    assert!(status.success());
    assert!(log.contains("compiling a large plugin"), "{log}");
}
