//! The registry: real processes, real sockets, real stores, and their failures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod access;
mod api;
mod at_home;
mod bounds;
mod cluster;
mod consul;
mod consul_clients;
mod dns;
mod durability;
mod etcd_access;
mod fleet;
mod liveness;
mod operators;
mod traefik;
mod versions;
mod watching;
