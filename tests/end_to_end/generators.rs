//! What others make out of a host's OpenAPI document.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use wharf_tests::{Finished, Wharf, get, installed, run_command, tool};

/// Writes the host's document into a folder.
async fn document(wharf: &Wharf, path: &str, folder: &Path) -> PathBuf {
    let (status, text) = get(&format!("http://{}{path}", wharf.host)).await.unwrap();
    assert_eq!(status, 200, "{text}");
    let file = folder.join("openapi.json");
    std::fs::write(&file, text).unwrap();
    file
}

#[track_caller]
fn assert_ok(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi")
}

#[tokio::test]
async fn a_validator_finds_nothing_wrong_with_the_document_of_a_host_or_of_a_service() {
    let Some(validator) = tool("python/bin/openapi-spec-validator").unwrap() else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    for path in [
        "/openapi.json",
        "/textkit/openapi.json",
        "/zoo/openapi.json",
        "/demo:arith/arith@0.1.0/openapi.json",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = document(&wharf, path, folder.path()).await;
        let mut command = Command::new(&validator);
        let finished = run_command(command.arg(&file)).await.unwrap();
        assert_ok(&finished);
        assert!(finished.stdout.ends_with("OK\n"), "{path}: {}", finished.stdout);
    }
}

#[tokio::test]
async fn the_document_has_the_docs_of_wit_an_example_of_each_call_and_follows_what_is_served() {
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let read = async |path: &str| -> serde_json::Value {
        let (status, text) = get(&format!("http://{}{path}", wharf.host)).await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let all = read("/openapi.json").await;
    let find = &all["paths"]["/textkit/find"]["post"];
    assert_eq!(find["summary"], "Every place where `needle` occurs, without overlaps");
    let textkit = all["tags"].as_array().unwrap().iter().find(|tag| tag["name"] == "textkit");
    assert_eq!(
        textkit.unwrap()["description"],
        "Small tools for text: counting, searching, splitting, encoding."
    );
    let schemas = &all["components"]["schemas"];
    assert_eq!(schemas["TextkitSpan"]["description"], "Where a search found something.");
    let line = &schemas["TextkitSpan"]["properties"]["line"];
    assert_eq!(line["description"], "The line, counted from 1.");
    for (path, item) in all["paths"].as_object().unwrap() {
        let Some(body) = item["post"].get("requestBody") else { continue };
        let example = &body["content"]["application/json"]["example"];
        assert!(!example.is_null(), "{path} has no example");
        if path.starts_with("/rogue/") {
            continue;
        }
        // Examples can be sent as they are.
        let url = format!("http://{}{path}", wharf.host);
        let request = wharf_tests::http_client().unwrap().post(url).body(example.to_string());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert!([200, 422].contains(&status), "{path}: {}", answer.text().await.unwrap());
    }
    std::fs::remove_file(wharf.file("textkit.wasm")).unwrap();
    wharf_tests::eventually("textkit is gone from the document", async || {
        read("/openapi.json").await["paths"].get("/textkit/find").is_none().then_some(())
    })
    .await
    .unwrap();
    let gone = get(&format!("http://{}/textkit/openapi.json", wharf.host)).await.unwrap();
    assert_eq!(gone.0, 404);
}

#[tokio::test]
async fn a_client_made_for_python_calls_with_all_of_textkits_types() {
    let Some(generator) = tool("python/bin/openapi-python-client").unwrap() else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = document(&wharf, "/openapi.json", folder.path()).await;
    let mut command = Command::new(&generator);
    // It formats what it makes with a program that is beside it.
    let beside = generator.parent().unwrap();
    let path = std::env::join_paths(
        [beside.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    command.env("PATH", path).arg("generate").arg("--path").arg(&file);
    command.args(["--meta", "none", "--fail-on-warning", "--output-path"]);
    let finished = run_command(command.arg(folder.path().join("generated"))).await.unwrap();
    assert_ok(&finished);
    let mut command = Command::new(beside.join("python3"));
    command.env("PYTHONPATH", folder.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(sources().join("client.py")).arg(&wharf.host);
    let finished = run_command(&mut command).await.unwrap();
    assert_ok(&finished);
    assert_eq!(finished.stdout, "all calls answered\n");
}

#[tokio::test]
async fn a_client_made_for_typescript_compiles_strictly_and_calls_with_all_of_textkits_types() {
    let Some(node) = installed("node", "Debian: nodejs npm") else { return };
    let Some(modules) = tool("typescript/node_modules").unwrap() else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = document(&wharf, "/openapi.json", folder.path()).await;
    let mut command = Command::new(&node);
    command.arg(modules.join("openapi-typescript/bin/cli.js")).arg(&file);
    let finished =
        run_command(command.arg("--output").arg(folder.path().join("generated.ts"))).await.unwrap();
    assert_ok(&finished);
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules")).unwrap();
    std::fs::copy(sources().join("client.ts"), folder.path().join("client.ts")).unwrap();
    let mut command = Command::new(&node);
    command.current_dir(folder.path()).arg(modules.join("typescript/bin/tsc"));
    command.args(["--strict", "--noUncheckedIndexedAccess", "--target", "es2022"]);
    command.args(["--module", "nodenext", "--lib", "es2022,dom", "client.ts"]);
    let finished = run_command(&mut command).await.unwrap();
    assert_ok(&finished);
    let mut command = Command::new(&node);
    command.current_dir(folder.path()).arg("client.js").arg(&wharf.host);
    let finished = run_command(&mut command).await.unwrap();
    assert_ok(&finished);
    assert_eq!(finished.stdout, "all calls answered\n");
}
