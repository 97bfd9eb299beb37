//! The service of `tests/guests/tongues`, built in languages other than Rust.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use wit_bindgen_core::Files;
use wit_component::ComponentEncoder;
use wit_parser::Resolve;

use crate::installed;
use crate::programs::{missing, tool};

/// Arguments for clang. Compiler libraries are left out: Debian does not have them for this target.
const FOR_WEBASSEMBLY: [&str; 4] =
    ["--target=wasm32-wasi", "-O2", "-mexec-model=reactor", "-nodefaultlibs"];

/// A language, with the tools that compile it to components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// C, with wit-bindgen, clang and wasi-libc.
    C,
    /// Python, with componentize-py from PyPI.
    Python,
    /// JavaScript, with componentize-js from npm, which `jco componentize` runs.
    JavaScript,
}

impl Tongue {
    /// Builds the component. If the tools are not installed, prints that the test is skipped and
    /// returns `None`; in CI, it fails instead.
    ///
    /// # Errors
    /// When the tools fail.
    pub fn component(self) -> anyhow::Result<Option<Vec<u8>>> {
        let folder = tempfile::tempdir()?;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/tongues");
        let output = folder.path().join("tongue.wasm");
        match self {
            Tongue::C => {
                let Some(clang) = installed("clang", "Debian: clang lld wasi-libc") else {
                    return Ok(None);
                };
                if !links(&clang, folder.path())? {
                    return missing("clang for WebAssembly", "Debian: lld wasi-libc");
                }
                c(&clang, &sources, folder.path(), &output)?;
                let module = std::fs::read(&output)?;
                return Ok(Some(ComponentEncoder::default().module(&module)?.encode()?));
            }
            Tongue::Python => {
                let Some(tool) = tool("python/bin/componentize-py")? else {
                    return Ok(None);
                };
                let mut command = Command::new(tool);
                command.arg("-d").arg(sources.join("tongues.wit"));
                // Only the interpreter uses WASI, and it works with stubs.
                command.args(["-w", "speaker", "componentize", "--stub-wasi", "tongue", "-p"]);
                command.arg(&sources);
                // Do not write bytecode beside the source.
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                run(command.arg("-o").arg(&output))?;
            }
            Tongue::JavaScript => {
                let Some(node) = installed("node", "Debian: nodejs npm") else { return Ok(None) };
                let Some(modules) = tool("javascript/node_modules")? else {
                    return Ok(None);
                };
                let mut command = Command::new(node);
                // Node resolves imports from the current directory.
                let script = include_str!("../guests/tongues/componentize.mjs");
                command.current_dir(modules).args(["--input-type=module", "-e", script, "--"]);
                command.arg(sources.join("tongue.js")).arg(sources.join("tongues.wit"));
                run(command.arg("speaker").arg(&output))?;
            }
        }
        Ok(Some(std::fs::read(&output)?))
    }
}

/// Whether clang can build a module that uses the C library.
fn links(clang: &Path, folder: &Path) -> anyhow::Result<bool> {
    let source = folder.join("empty.c");
    std::fs::write(&source, "#include <stdlib.h>\nvoid *take(void) { return malloc(1); }\n")?;
    let mut command = Command::new(clang);
    command.args(FOR_WEBASSEMBLY).arg(source).arg("-lc");
    Ok(command.arg("-o").arg(folder.join("empty.wasm")).output()?.status.success())
}

/// Generates the bindings, and compiles them with the service. The service does not use WASI, so
/// the module has no WASI imports.
fn c(clang: &Path, sources: &Path, folder: &Path, output: &Path) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(sources.join("tongues.wit"))?;
    let world = resolve.select_world(&[package], None)?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        std::fs::write(folder.join(name), content)?;
    }
    let mut command = Command::new(clang);
    command.args(FOR_WEBASSEMBLY);
    command.arg("-I").arg(folder).arg(sources.join("tongue.c")).arg(folder.join("speaker.c"));
    command.arg(folder.join("speaker_component_type.o")).arg("-lc");
    run(command.arg("-o").arg(output))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
