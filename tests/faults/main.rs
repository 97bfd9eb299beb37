//! What callers notice while hosts, networks and the registry fail: three real hosts, each behind a
//! proxy that the test owns, and 64 callers.
//!
//! A run takes as long as `WHARF_FAULT_SECONDS` says, 12 unless told otherwise; CI says 20. Each
//! prints a row of a table: times are for people, since machines are noisy, and what is asserted is
//! counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod disturbances;
mod fleet;
mod load;
