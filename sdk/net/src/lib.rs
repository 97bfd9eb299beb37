//! The ends of a connection: listeners with limits, TLS, first bytes that can be read twice,
//! secrets, and private directories.
//!
//! Every listener of Wharf accepts with [`listener::serve`], so all have the same limits. This
//! crate knows no service, no RPC protocol and no HTTP framework.

pub mod budget;
mod chain;
pub mod files;
#[cfg(feature = "http")]
pub mod http;
pub mod listener;
mod meter;
mod places;
pub mod private;
mod secret;
mod stream;
mod tls;
mod unstalled;

pub use chain::chain;
pub use meter::Meter;
pub use places::Seat;
pub use secret::Secret;
pub use stream::Stream;
pub use tls::{Tls, TlsError, TlsFiles};
