//! The ends of a connection: listeners with limits, TLS, first bytes that can be read twice,
//! secrets, and private directories.
//!
//! Every listener of Wharf accepts with [`listener::serve`], so all have the same limits. This
//! crate knows no service, no RPC protocol and no HTTP framework.

#[cfg(feature = "listener")]
pub mod budget;
mod chain;
#[cfg(feature = "private")]
pub mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "listener")]
pub mod listener;
mod meter;
#[cfg(feature = "listener")]
mod places;
#[cfg(feature = "principals")]
pub mod principals;
#[cfg(feature = "private")]
pub mod private;
#[cfg(feature = "listener")]
mod secret;
mod socket;
#[cfg(feature = "listener")]
mod stream;
#[cfg(feature = "tls")]
pub mod tls;
mod unsent;
#[cfg(feature = "listener")]
mod unstalled;

pub use chain::chain;
pub use meter::Meter;
#[cfg(feature = "listener")]
pub use places::Seat;
#[cfg(feature = "listener")]
pub use secret::Secret;
pub use socket::Socket;
#[cfg(feature = "listener")]
pub use stream::Stream;
pub use unsent::limit_unsent;
