//! The host: loads the plugins of a folder, serves their methods over TCP, announces them.
//!
//! [`Host::start`] takes a listener and returns at once; [`Host::drain`] ends it in good order.
//! It must not know how plugins run (that is wharf-runtime) nor how a registry stores anything.

mod admin;
mod announce;
mod config;
mod host;
mod metrics;
mod plugins;
mod rpc;

pub use config::{
    Advertise, AdvertiseError, AnnounceConfig, CallBounds, Config, PluginsConfig, RpcConfig,
};
pub use host::{Host, StartError};
pub use plugins::table::{FileReport, FileState};

/// The port that a host listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7400;

/// The port of a host's HTTP side unless told otherwise.
pub const DEFAULT_HTTP_PORT: u16 = 7401;
