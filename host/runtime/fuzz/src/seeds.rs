//! Copies the examples and the guests of the tests into the corpus: components that fuzzing changes.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/component");
    std::fs::create_dir_all(&corpus)?;
    for folder in ["plugins", "target/wasm32-wasip2/plugin"] {
        for file in std::fs::read_dir(root.join(folder))?.flatten() {
            let path = file.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                std::fs::copy(&path, corpus.join(file.file_name()))?;
            }
        }
    }
    Ok(())
}
