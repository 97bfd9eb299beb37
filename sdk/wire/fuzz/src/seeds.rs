//! Writes the seed corpus to corpus/frames, where cargo-fuzz looks for it.

#[path = "body.rs"]
mod body;

fn main() -> std::io::Result<()> {
    std::fs::create_dir_all("corpus/frames")?;
    for (index, seed) in body::seeds().iter().enumerate() {
        std::fs::write(format!("corpus/frames/seed-{index}"), seed)?;
    }
    Ok(())
}
