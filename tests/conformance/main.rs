//! The dependencies between crates, and values that pass through a real guest, by all protocols.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod arrows;
mod circles;
mod codec;
mod doors;
mod go_shaped;
mod gob;
mod isolation;
mod lifts;
mod loading;
mod made_up;
mod smith;
mod tongues;
mod values;
