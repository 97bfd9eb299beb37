//! Promises that need no process: the arrows between crates, and values through a real guest.

mod arrows;
mod loading;
mod values;
