//! The Wharf client: asks the registry where a service lives, and calls it.
//!
//! ```no_run
//! # #[derive(serde::Serialize)] struct Args { a: i64, b: i64 }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = wharf_client::Client::connect("http://127.0.0.1:8500").await?;
//! let product = client.call::<_, i64>("Arith.Multiply", &Args { a: 7, b: 8 }).await?;
//! # Ok(()) }
//! ```
//!
//! A method of one parameter takes that parameter, one of several a tuple of them; a method that
//! returns WIT's `result` gives Rust's `Result`. Types are whatever serde and postcard write alike:
//! records are structs with the fields in order, variants enums with the cases in order.
//!
//! - **Where.** The client follows the lists of the registry, and keeps the last ones in memory and on
//!   disk. Of several endpoints it asks the one that has less to do of two drawn at random; those that
//!   fail again and again are left out for a while.
//! - **When.** A call has one deadline for all of its attempts. A call whose future is dropped is
//!   cancelled where it runs.
//! - **Again.** What was surely not executed is tried elsewhere. Whatever may have been is tried again
//!   only where [`CallOptions::idempotent`] says that it does no harm. All retries of a client come out
//!   of one budget: a fifth of its calls, and ten a second.
//! - **Why not.** An error says which endpoint, after how many attempts, and whether the call may have
//!   been executed; a typed call's [`CallError`] has the method's own error apart from it.

mod attempts;
mod balance;
mod builder;
mod channel;
mod client;
mod connection;
mod discovery;
mod endpoints;
mod error;
mod json;
mod methods;
mod named;
mod observe;
mod opening;
mod options;
mod pending;
mod retry;

pub use builder::ClientBuilder;
pub use client::{Client, EndpointStatus};
pub use connection::KeepAlive;
pub use error::{CallError, ConnectError, Failure, Remote, RpcError};
pub use observe::{Attempt, Ended, Interceptor, Observer, Outgoing};
pub use options::CallOptions;
pub use semver::VersionReq;
pub use wharf_registry_api::RegistryError;
pub use wharf_schema::{Fingerprint, Outcome, Service};
pub use wharf_wire::{MetadataError, Status, TraceParent};
