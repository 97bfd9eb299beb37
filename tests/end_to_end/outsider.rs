//! Somebody else's project, which depends on the crates as they are published.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use wharf_tests::{Wharf, run_command};

/// The crates that it depends on, with where they are here.
const CRATES: [(&str, &str); 7] = [
    ("wharf-bindgen", "sdk/bindgen"),
    ("wharf-client", "sdk/client"),
    ("wharf-gob", "sdk/gob"),
    ("wharf-guest", "sdk/guest"),
    ("wharf-net", "sdk/net"),
    ("wharf-schema", "sdk/schema"),
    ("wharf-wire", "sdk/wire"),
];

/// Builds a package of the project.
async fn build(folder: &Path, target: &Path, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--target-dir"]).arg(target).args(arguments);
    for (name, path) in CRATES.into_iter().chain([("wharf-registry-api", "registry/api")]) {
        let path = root.join(path).canonicalize().unwrap();
        let patch = format!("patch.crates-io.{name}.path=\"{}\"", path.display());
        cargo.args(["--config", &patch]);
    }
    let done = run_command(cargo.current_dir(folder)).await.unwrap();
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_project_elsewhere_builds_on_the_published_crates_and_calls_its_service() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    copy(&tests.join("outsider"), folder.path());
    // The versions that this build has fetched.
    std::fs::copy(tests.join("../Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    let own = std::env::current_exe().unwrap();
    let target: PathBuf = own.ancestors().nth(3).unwrap().join("outsider");
    let for_wasm = ["-p", "stock", "--release", "--target", "wasm32-wasip2"];
    build(folder.path(), &target, &for_wasm).await;
    build(folder.path(), &target, &["-p", "shop"]).await;

    let stock = std::fs::read(target.join("wasm32-wasip2/release/stock.wasm")).unwrap();
    let on = Wharf::up(&[("stock.wasm", &stock)], &[]).await.unwrap();
    let mut shop = Command::new(target.join("debug/shop"));
    let cache = tempfile::tempdir().unwrap();
    let shop = shop.arg(&on.registry).env("XDG_CACHE_HOME", cache.path());
    let done = run_command(shop).await.unwrap();
    assert_eq!(done.stdout, "3 of tea are left\nonly 10\n", "{}", done.stderr);
}
