//! Go's gob as bytes: its types, its values, and one stream in each direction.
//!
//! A stream is a row of messages. A message either defines a type or has one value of a type that is
//! defined. The definitions hold for the rest of the stream. Reading and writing are pure: bytes go
//! in, and bytes come out. This crate must not know of sockets or of WIT.
//!
//! Input is hostile. Every message, type and nesting is bounded, and every element of a list is paid
//! for by a byte of input. The format is described in the documentation of Go's `encoding/gob`; where
//! that is wrong, what Go's own code does holds.

mod decoder;
mod encoder;
mod limits;
mod reader;
mod types;
mod value;
mod walk;
mod wire_type;
mod writing;

pub use decoder::{Decoder, Item};
pub use encoder::Encoder;
pub use limits::Limits;
pub use reader::Reader;
pub use types::{Field, Kind, Opaque, TypeId, Types, Wire};
pub use value::Value;
pub use walk::{interface, skip};
pub use writing::{StructBody, put_float, put_int, put_message, put_text, put_uint};

/// Bytes that are not gob, or not within the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GobError {
    /// The input ends in the middle of something.
    #[error("the input ends in the middle of a value")]
    Truncated,
    /// An unsigned integer that no encoder writes.
    #[error("an integer has more than 8 bytes")]
    Integer,
    /// A message is longer than the limit.
    #[error("a message of {len} bytes; at most {max} are accepted")]
    TooLong {
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A value goes on in the next message.
    #[error("a value goes over too many messages")]
    Continued,
    /// Bytes are left over in a message.
    #[error("bytes are left over at the end of a message")]
    LeftOver,
    /// A count is larger than what the rest of the message can hold.
    #[error("a count of {0}, but fewer bytes follow")]
    Count(u64),
    /// A type that is not defined.
    #[error("the type {0} is not defined")]
    Undefined(i64),
    /// A type is defined twice, or has the id of a basic type.
    #[error("the type {0} is defined already")]
    Duplicate(i64),
    /// A definition that is not one.
    #[error("a type's definition is malformed")]
    Definition,
    /// A struct's field does not exist.
    #[error("a value has a field that its type does not have")]
    NoSuchField,
    /// A boolean is neither 0 nor 1.
    #[error("a boolean is neither 0 nor 1")]
    Bool,
    /// A value that is not a struct has no zero in front.
    #[error("a value that is not a struct has to begin with 0")]
    Singleton,
    /// An array does not have the length of its type.
    #[error("an array of {found} elements, where its type has {wanted}")]
    ArrayLength {
        /// As the value says.
        found: u64,
        /// As the type says.
        wanted: u64,
    },
    /// Nested more deeply than the limit.
    #[error("values nest more than {0} deep")]
    TooDeep(usize),
    /// More types than the limit, or larger ones.
    #[error("the stream defines too many types, or too large ones")]
    TooManyTypes,
}
