//! The real binary, real components, real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod attacks;
mod author;
mod balance;
mod book;
mod cache;
mod calls;
mod classic;
mod command_line;
mod credit;
mod domains;
mod doors;
mod folder;
mod generators;
mod go;
mod guide;
mod hostile_doors;
mod hosts;
mod identity;
mod impostors;
mod install;
mod json_rpc;
mod mcp;
mod observed;
mod others;
mod outsider;
mod own_certificates;
mod peers;
mod raw_peer;
mod rights;
mod rogues;
mod sidecar;
mod stubs;
mod swap;
mod who;
