//! Describes a Wharf service: its types, methods and fingerprints, and its values.
//!
//! WIT is the only interface language. Its values are encoded as postcard on the wire, and as JSON
//! for people. This crate has both encodings and converts between them, driven by the types. It
//! must not know of sockets, of wasm engines or of the wire protocol.
//!
//! Input is hostile: every reader here is bounded by the bytes it was given.

mod arguments;
mod compatibility;
mod document;
pub mod encoding;
mod example;
mod fingerprint;
mod from_json;
mod json_schema;
mod name;
mod printable;
mod service;
mod similar;
mod to_json;
mod types;
mod value_error;
#[cfg(feature = "wit")]
mod wit;

#[cfg(all(test, feature = "wit"))]
mod agreement_tests;

pub use arguments::{arguments_from_body, example_of};
pub use compatibility::{Broken, Difference, differences};
pub use document::{DocumentError, MAX_DOCUMENT};
pub use example::example;
pub use fingerprint::Fingerprint;
pub use from_json::{argument_from_text, arguments_from_json, value_from_json};
pub use json_schema::{JsonDialect, JsonSchemas};
pub use name::{MethodPath, NameError, ServiceName, find_name, kebab, lower_camel, net_rpc};
pub use printable::{printable, printable_json, printable_lines};
pub use service::{Label, Method, Param, Service, Signature};
pub use similar::{did_you_mean, most_similar};
pub use to_json::{Outcome, result_to_json, result_to_json_in, value_to_json};
pub use types::{Case, Field, MAX_DEPTH, Type, TypeError, TypeId, Types};
pub use value_error::{Expected, ValueError};
#[cfg(feature = "wit")]
pub use wit::service_from_wit;
