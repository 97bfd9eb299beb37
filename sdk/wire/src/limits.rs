//! Every bound of the protocol, named once.

use std::time::Duration;

/// The largest frame accepted before both Hellos are known, in bytes after the length prefix.
pub const HELLO_FRAME: u32 = 4 * 1024;

/// The smallest `max_frame` a peer may announce: room for any header, and for some payload.
pub const MIN_MAX_FRAME: u32 = 16 * 1024;

/// The `max_frame` that we announce: one chunk and any header.
pub const MAX_FRAME: u32 = 128 * 1024;

/// Payloads that are larger than this many bytes, and an eighth, travel in chunks of this many; the last
/// has up to an eighth more.
pub const CHUNK: usize = 64 * 1024;

/// How many payload bytes the last chunk may have where others have `chunk`.
#[must_use]
pub(crate) fn last_chunk(chunk: usize) -> usize {
    chunk + chunk / 8
}

/// Bytes that a header other than a Hello or a Fail may take beside its payload.
pub const HEADER_ROOM: usize = 8 * 1024;

/// The largest whole payload that we announce unless told otherwise, in bytes.
pub const MAX_MESSAGE: u64 = 16 * 1024 * 1024;

/// Calls in flight on one connection that we announce unless told otherwise.
pub const MAX_CALLS: u32 = 1024;

/// The longest method or service name, in bytes.
pub const NAME: usize = 512;

/// The longest token, in bytes.
pub const TOKEN: usize = 1024;

/// The longest name a peer may give of itself, in bytes.
pub const AGENT: usize = 128;

/// The longest message of a Fail or a GoAway, in bytes; longer ones are cut at a character.
pub const MESSAGE: usize = 2 * 1024;

/// The longest detail of a Fail, in bytes; a longer one is cut.
pub const DETAIL: usize = 8 * 1024;

/// The metadata of one call: all keys and values together, in bytes.
pub const METADATA: usize = 4 * 1024;

/// The metadata of one call: entries.
pub const METADATA_ENTRIES: usize = 32;

/// How long a peer may take from connecting to the end of its Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Cuts `text` to at most `max` bytes, at a character boundary.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
