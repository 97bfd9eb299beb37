//! Both ends of a connection: listeners with bounds, TLS, first bytes that are given back, secrets.
//!
//! Every listener of Wharf accepts by [`listener::serve`], so none has weaker bounds than another. This
//! crate knows no service, no RPC protocol and no HTTP framework.

mod chain;
#[cfg(feature = "http")]
pub mod http;
pub mod listener;
pub mod private;
mod secret;
mod stream;
mod tls;
mod unstalled;

pub use chain::chain;
pub use secret::Secret;
pub use stream::Stream;
pub use tls::{Tls, TlsError, TlsFiles};
