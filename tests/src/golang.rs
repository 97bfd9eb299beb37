//! Programs in Go, for tests of what Go's own clients and servers see.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::sync::{Mutex, OnceCell};

use crate::installed;

/// Where Debian's packages put the sources of libraries.
const LIBRARIES: &str = "/usr/share/gocode";

/// Builds the program in `tests/go/NAME`, once for each test binary. `None` if Go is not installed.
///
/// # Errors
/// When it does not build.
pub async fn go_program(name: &'static str) -> anyhow::Result<Option<PathBuf>> {
    static FOLDER: OnceCell<tempfile::TempDir> = OnceCell::const_new();
    static BUILDING: Mutex<()> = Mutex::const_new(());
    let Some(go) = installed("go", "Debian: golang-go") else { return Ok(None) };
    let folder = FOLDER.get_or_try_init(async || tempfile::tempdir()).await?;
    let program = folder.path().join(name);
    let _alone = BUILDING.lock().await;
    if !program.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(name).join("main.go");
        let mut command = Command::new(&go);
        command.args(["build", "-o"]).arg(&program).arg(&source);
        // Whoever runs the tests may have no home.
        let cache = std::env::current_exe()?.ancestors().nth(3).map(|p| p.join("tools/go"));
        command.env("GOCACHE", cache.context("no target directory")?);
        command.env("GO111MODULE", "off").env("GOPATH", LIBRARIES).env("CGO_ENABLED", "0");
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {text}", source.display());
    }
    Ok(Some(program))
}
