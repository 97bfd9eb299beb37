//! The host: loads the plugins of a folder, serves their methods over TCP, announces them.
//!
//! [`Host::start`] takes a listener and returns at once. [`Host::drain`] shuts the host down in
//! order. This crate must not know how plugins run (wharf-runtime does) or how a registry stores
//! records.

mod admin;
mod announce;
mod config;
mod doors;
mod host;
mod metrics;
mod plugins;
mod rpc;

pub use config::{
    Advertise, AdvertiseError, AnnounceConfig, CallBounds, Config, PluginsConfig, RpcConfig,
};
pub use doors::{Door, Doors};
pub use host::{Host, StartError};
pub use plugins::Compatible;
pub use plugins::granting::Granting;
pub use plugins::table::{FileReport, FileState};

/// The default port of a host for calls.
pub const DEFAULT_PORT: u16 = 7400;

/// The default port of a host's HTTP side.
pub const DEFAULT_HTTP_PORT: u16 = 7401;
