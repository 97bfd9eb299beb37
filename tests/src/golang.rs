//! Programs in Go, for tests of what Go's own clients and servers see.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::installed;

/// Builds the program in `tests/go/NAME`, once for each test binary. `None` if Go is not installed.
///
/// # Errors
/// When it does not build.
pub async fn go_program(name: &'static str) -> anyhow::Result<Option<PathBuf>> {
    static BUILT: OnceCell<tempfile::TempDir> = OnceCell::const_new();
    let Some(go) = installed("go", "Debian: golang-go") else { return Ok(None) };
    let folder = BUILT
        .get_or_try_init(async || {
            let folder = tempfile::tempdir()?;
            let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
            for entry in std::fs::read_dir(&sources)? {
                let source = entry?.path().join("main.go");
                let name = source.parent().and_then(Path::file_name).context("no name")?;
                let mut command = Command::new(&go);
                command.args(["build", "-o"]).arg(folder.path().join(name)).arg(&source);
                // Whoever runs the tests may have no home.
                let cache = std::env::current_exe()?.ancestors().nth(3).map(|p| p.join("tools/go"));
                command.env("GOCACHE", cache.context("no target directory")?);
                command.env("GO111MODULE", "off").env("CGO_ENABLED", "0");
                let output = command.output().await?;
                let text = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{}: {text}", source.display());
            }
            anyhow::Ok(folder)
        })
        .await?;
    Ok(Some(folder.path().join(name)))
}
