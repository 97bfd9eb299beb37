//! What callers notice while hosts, networks and the registry fail. There are three real hosts,
//! each behind a proxy of the test, and 64 callers.
//!
//! `WHARF_FAULT_SECONDS` is the length of a run in seconds, 12 by default; CI sets 20. Each run
//! prints a row of a table. Its times are only for people, because machines are noisy. The tests
//! assert only on counts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod disturbances;
mod fleet;
mod load;
