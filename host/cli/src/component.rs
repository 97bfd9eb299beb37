//! A component's file, as commands read it.

use std::path::Path;

use wharf_runtime::Inspection;

use crate::exit::Exit;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1024 * 1024 * 1024;

/// Whether a name means a file, and not a service: services have no `.wasm` at their end.
pub(crate) fn is_file(name: &str) -> bool {
    let path = Path::new(name);
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wasm"))
        || path.is_file()
}

/// Reads a component and what it offers.
pub(crate) fn read(path: &Path) -> anyhow::Result<(Vec<u8>, Inspection)> {
    let bytes = bytes(path)?;
    let inspection = wharf_runtime::inspect(&bytes)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    Ok((bytes, inspection))
}

/// Reads a file of a bounded size.
pub(crate) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = path.display();
    let not_found =
        |error: &std::io::Error| Exit::NotFound(format!("{file} cannot be read: {error}"));
    let len = std::fs::metadata(path).map_err(|error| not_found(&error))?.len();
    anyhow::ensure!(
        len <= MAX_SIZE,
        "{file} has {len} bytes, but at most {MAX_SIZE} are supported"
    );
    Ok(std::fs::read(path).map_err(|error| not_found(&error))?)
}
