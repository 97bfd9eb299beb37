//! The host: loads the plugins of a folder, serves their methods over TCP, announces them.
//!
//! [`Host::start`] takes a listener and returns at once; [`Host::drain`] ends it in good order.
//! It must not know how plugins run (that is wharf-runtime) nor how a registry stores anything.

mod announce;
mod config;
mod connection;
mod fail;
mod folder;
mod host;
mod http;
mod loader;
mod metrics;
mod server;
mod settling;
mod sidecar;
mod table;

pub use config::{Advertise, AdvertiseError, Config};
pub use host::{Host, StartError};
pub use table::{FileReport, FileState};

/// The port that a host listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7400;

/// The port of a host's HTTP side unless told otherwise.
pub const DEFAULT_HTTP_PORT: u16 = 7401;
