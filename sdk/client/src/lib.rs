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
//! Or with types out of the service's WIT, checked when the program is built:
//!
//! ```no_run
//! wharf_client::bindgen!({ path: "../../plugins/arith/wit", idempotent: ["multiply"] });
//!
//! # async fn example(client: wharf_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let arith = ArithClient::new(&client);
//! let product: i64 = arith.multiply(Args { a: 7, b: 8 }).await?;
//! match arith.divide(Args { a: 7, b: 0 }).await {
//!     Ok(Quotient { quo, rem }) => println!("{quo}, and {rem} is left"),
//!     Err(wharf_client::CallError::Application(ArithError::DivideByZero)) => println!("by zero"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(()) }
//! # fn main() {}
//! ```
//!
//! Or with JSON, by what the service says of itself: [`Client::call_json`]. Programs that are not
//! async have [`blocking`].
//!
//! In [`Client::call`], a method of one parameter takes that parameter, one of several a tuple of them; a method that
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
pub mod blocking;
mod builder;
mod channel;
mod client;
mod connection;
mod discovery;
mod endpoints;
mod error;
mod fixed_list;
mod id_hasher;
mod json;
mod methods;
mod named;
mod names;
mod observe;
mod opening;
mod options;
mod pending;
mod retry;
#[doc(hidden)]
pub mod stub;

pub use builder::ClientBuilder;
pub use bytes::Bytes;
pub use client::{Client, EndpointStatus};
pub use connection::KeepAlive;
pub use error::{CallError, ConnectError, Failure, Remote, RpcError};
pub use fixed_list::FixedList;
pub use observe::{Attempt, Ended, Interceptor, Observer, Outgoing};
pub use options::CallOptions;
pub use semver::VersionReq;
/// Writes typed stubs for the services of a WIT package.
///
/// `bindgen!("wit")` reads the WIT file or folder at that path, relative to the package's
/// `Cargo.toml`. What the package's world exports is what is called; where it has no world, all of its
/// interfaces. The long form says more:
///
/// ```
/// wharf_client::bindgen!({
///     path: "../../plugins/arith/wit",
///     // Where the package has several.
///     world: "plugin",
///     // Methods that may be executed more than once: retried and hedged. Where several services
///     // have one of that name, "arith.multiply".
///     idempotent: ["multiply", "divide"],
/// });
/// # fn main() {}
/// ```
///
/// Each interface becomes a module of its name, with its types and, if it is called, a client:
/// `arith` has `arith::ArithClient`. If there is only one service, all of its module is visible where
/// the macro stands.
///
/// | WIT | Rust |
/// | --- | --- |
/// | `bool`, integers, floats, `char`, `string` | the same, `String` |
/// | `list<u8>`, `list<T>` | [`Bytes`], `Vec<T>` |
/// | `list<T, N>` | `[T; N]`, beyond 32 elements [`FixedList`] |
/// | `tuple`, `option`, `result` | tuples, `Option`, `Result` |
/// | `record`, `variant`, `enum` | `struct`, `enum`, with serde's derives |
/// | `flags` | a struct with a constant for each, `Flags::A \| Flags::B` |
///
/// Methods take what is on the heap by reference. A method's `result` is the method's own: its error is
/// [`CallError::Application`], apart from everything that can go wrong with a call. What cannot be
/// transported (resources, streams) is left out, and the client's documentation says why.
///
/// A mistake in the WIT is shown with its file, line and text. Nothing but these files is read.
#[cfg(feature = "bindgen")]
pub use wharf_bindgen::bindgen;
pub use wharf_registry_api::RegistryError;
pub use wharf_schema::{Fingerprint, NameError, Outcome, Service};
pub use wharf_wire::{MetadataError, Status, TraceParent};
