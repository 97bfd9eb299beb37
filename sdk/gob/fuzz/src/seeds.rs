//! Writes the seed corpus to corpus/stream, where cargo-fuzz looks for it.

#[path = "body.rs"]
mod body;

fn main() -> std::io::Result<()> {
    std::fs::create_dir_all("corpus/stream")?;
    for (index, seed) in body::seeds().iter().enumerate() {
        std::fs::write(format!("corpus/stream/seed-{index}"), seed)?;
    }
    Ok(())
}
