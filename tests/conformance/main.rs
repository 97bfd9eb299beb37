//! Tests without a process of their own: the dependencies between crates, and values that pass
//! through a real guest.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod arrows;
mod circles;
mod codec;
mod gob;
mod isolation;
mod lifts;
mod loading;
mod made_up;
mod smith;
mod tongues;
mod values;
