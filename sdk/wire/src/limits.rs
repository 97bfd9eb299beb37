//! Every limit of the protocol, named in one place.

use std::time::Duration;

/// The largest frame accepted before both Hellos are known, in bytes after the length prefix.
pub const HELLO_FRAME: u32 = 4 * 1024;

/// The smallest `max_frame` a peer may announce: room for any header, and for some payload.
pub const MIN_MAX_FRAME: u32 = 16 * 1024;

/// The `max_frame` that we announce: one chunk and any header.
pub const MAX_FRAME: u32 = 128 * 1024;

/// The payload bytes of one chunk. A payload is cut if it is more than an eighth larger than this.
/// The last chunk may be up to an eighth larger.
pub const CHUNK: usize = 64 * 1024;

/// The most payload bytes of the last chunk, if the others have `chunk` bytes; also of a payload that is
/// not cut.
#[must_use]
pub fn largest_whole(chunk: usize) -> usize {
    chunk + chunk / 8
}

/// The most bytes of a header that is not a Hello or a Fail, without the payload.
pub const HEADER_ROOM: usize = 8 * 1024;

/// The largest whole payload that we announce by default, in bytes.
pub const MAX_MESSAGE: u64 = 16 * 1024 * 1024;

/// The most calls in flight on one connection that we announce by default.
pub const MAX_CALLS: u32 = 1024;

/// The bytes of payloads in chunks that we hold at once for one connection, by default.
pub const WINDOW: u64 = 64 * 1024 * 1024;

/// The most calls of one connection that may be cancelled a second, as we announce it by default.
pub const MAX_CANCELS: u32 = 4096;

/// The most calls that one Cancel names.
pub const CANCEL_IDS: usize = 1024;

/// The longest method or service name, in bytes.
pub const NAME: usize = 512;

/// The longest token, in bytes.
pub const TOKEN: usize = 1024;

/// The longest name that a peer may give itself, in bytes.
pub const AGENT: usize = 128;

/// The longest message of a Fail or a GoAway, in bytes; a longer one is cut between characters.
pub const MESSAGE: usize = 2 * 1024;

/// The longest detail of a Fail, in bytes; a longer one is cut.
pub const DETAIL: usize = 8 * 1024;

/// The most metadata of one call, in bytes: all encoded keys and values together.
pub const METADATA: usize = 4 * 1024;

/// The most metadata entries of one call.
pub const METADATA_ENTRIES: usize = 32;

/// How long a peer may take from connecting to the end of its Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Cuts `text` to at most `max` bytes, at a character boundary.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
