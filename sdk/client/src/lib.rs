//! The Wharf client: finds a service's endpoints in the registry, and calls them.
//!
//! ```no_run
//! # #[derive(serde::Serialize)] struct Args { a: i64, b: i64 }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = wharf_client::Client::connect("http://127.0.0.1:8500").await?;
//! let product = client.call::<_, i64>("Arith.Multiply", &Args { a: 7, b: 8 }).await?;
//! # Ok(()) }
//! ```
//!
//! Or with types generated from the service's WIT, checked at compile time:
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
//! Or with JSON, using the service's own description: [`Client::call_json`]. Programs that are not
//! async use [`blocking`].
//!
//! [`Client::call`] takes a method's only parameter, a tuple of several parameters, or `()` for
//! none. A method that returns WIT's `result` returns Rust's `Result`. Any type works that serde
//! and postcard encode in the same way: records are structs with the fields in order, variants are
//! enums with the cases in order.
//!
//! - **Endpoints.** The client follows the registry's lists, and keeps the latest ones in memory
//!   and on disk. It balances by latency and load: of two endpoints drawn at random, it calls the
//!   less loaded one. An endpoint that fails repeatedly is ejected for a while.
//! - **Deadlines.** A call has one deadline for all of its attempts. Dropping the future of a call
//!   cancels it on the host.
//! - **Retries.** Calls that certainly did not run are retried elsewhere. Others are retried only
//!   if their method is marked idempotent ([`CallOptions::idempotent`]). One budget covers all
//!   retries of a client: a fifth of its calls, plus ten a second.
//! - **Errors.** An error names the endpoint, the number of attempts, and whether the call may have
//!   run. A typed call's [`CallError`] separates the method's own error from all other failures.

#![cfg_attr(
    not(feature = "discovery"),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        reason = "much is there to follow lists of registries; with the feature it is checked"
    )
)]

mod attempts;
mod balance;
mod binds;
pub mod blocking;
mod builder;
mod channel;
mod client;
mod connection;
#[cfg(feature = "discovery")]
mod discovery;
mod endpoints;
mod error;
mod fixed_list;
mod id_hasher;
mod json;
#[cfg(feature = "discovery")]
mod member;
mod methods;
mod named;
mod names;
#[cfg(feature = "discovery")]
mod net_rpc;
mod observe;
mod opening;
mod options;
mod pending;
mod retry;
mod security;
mod settings;
#[doc(hidden)]
pub mod stub;

pub use binds::BindError;
pub use builder::ClientBuilder;
pub use bytes::Bytes;
pub use client::{Client, EndpointStatus};
pub use error::{CallError, ConnectError, Failure, Remote, RpcError};
pub use fixed_list::FixedList;
#[cfg(feature = "discovery")]
pub use member::{Member, MemberError};
pub use observe::{Attempt, Ended, Interceptor, Observer, Outgoing};
pub use options::CallOptions;
pub use semver::VersionReq;
pub use settings::KeepAlive;
/// Generates typed stubs for the services of a WIT package.
///
/// `bindgen!("wit")` reads the WIT file or folder at that path, relative to the package's
/// `Cargo.toml`. It generates clients for the interfaces that the package's world exports, or for
/// all interfaces if there is no world. The long form has more options:
///
/// ```
/// wharf_client::bindgen!({
///     path: "../../plugins/arith/wit",
///     // Needed only if the package has several worlds.
///     world: "plugin",
///     // Methods that may run more than once: they are retried and hedged. If several services
///     // have a method of this name, write "arith.multiply".
///     idempotent: ["multiply", "divide"],
/// });
/// # fn main() {}
/// ```
///
/// Each interface becomes a module of the same name. The module has the interface's types and, if
/// the interface is a service, a client: `arith` has `arith::ArithClient`. If there is only one
/// service, the contents of its module are also visible where the macro is used.
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
/// Methods take strings, lists and other heap types by reference. If a method returns WIT's
/// `result`, its error is [`CallError::Application`], separate from all failures of the call.
/// Methods that cannot be called remotely (resources, streams) are left out; the documentation of
/// the client says why.
///
/// An error in the WIT is reported with its file, line and text. The macro reads no other files.
#[cfg(feature = "bindgen")]
pub use wharf_bindgen::bindgen;
#[cfg(feature = "tls")]
pub use wharf_net::tls::{Identity, Names, Role, SpiffeId, TlsError, TrustDomain};
#[cfg(feature = "discovery")]
pub use wharf_registry_api::RegistryError;
/// The oldest and the newest version of Wharf's protocol that this client speaks.
pub const PROTOCOL_VERSIONS: (u32, u32) =
    (wharf_wire::MIN_VERSION as u32, wharf_wire::MAX_VERSION as u32);
pub use wharf_schema::{Fingerprint, NameError, Outcome, Service};
pub use wharf_wire::{MetadataError, Status, TraceParent};
