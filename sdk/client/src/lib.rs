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
//! One connection an endpoint carries all calls. A call whose future is dropped is cancelled where
//! it runs. An error says which endpoint, and whether the call may have been executed.

mod client;
mod connection;
mod discovery;
mod endpoints;
mod error;
mod methods;
mod opening;
mod pending;

pub use client::{CallOptions, Client, ClientBuilder};
pub use error::{CallError, ConnectError, Failure, Remote};
pub use wharf_registry_api::RegistryError;
pub use wharf_schema::{Fingerprint, Outcome, Service};
pub use wharf_wire::{Status, TraceParent};
