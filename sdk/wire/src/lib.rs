//! Wharf's wire protocol, version 1: frames, status codes and limits.
//!
//! This crate turns bytes into [`Header`]s and back, cuts large payloads into chunks and joins them
//! again. It must not know of sockets, clocks, async runtimes or what a payload means: the owner of
//! a socket passes bytes in ([`Inbound`]) and takes bytes out ([`Outbound`]). `PROTOCOL.md`, at the
//! root of the repository, specifies the protocol for implementors in any language.

mod assembly;
mod cancel;
mod frame;
mod header;
mod hello;
mod inbound;
pub mod limits;
mod metadata;
mod outbound;
mod status;
mod trace_parent;

pub use assembly::{Assembler, AssemblyError};
pub use cancel::cancelled;
pub use frame::encode;
pub use header::{Body, DetailKind, Fail, GoAwayCode, Header, Timeout};
pub use hello::{Hello, HelloError, Negotiated, negotiate};
pub use inbound::{Frame, FrameError, Inbound};
pub use metadata::{Metadata, MetadataError};
pub use outbound::Outbound;
pub use status::Status;
pub use trace_parent::{TraceParent, TraceParentError};

/// The first bytes of every connection, sent by both sides before their [`Hello`].
///
/// The first byte is not `{` (JSON-RPC), not `0x16` (TLS) and not an ASCII letter (HTTP), so one
/// port can tell the protocols apart. The line end reveals a transport that rewrites text.
pub const MAGIC: [u8; 8] = *b"\x9eWharf\r\n";

/// The oldest protocol version that this crate speaks.
pub const MIN_VERSION: u16 = 1;

/// The newest protocol version that this crate speaks.
pub const MAX_VERSION: u16 = 1;
