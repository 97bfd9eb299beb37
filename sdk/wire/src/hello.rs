//! The first frame of each side, and what the two of them agree on.

use serde::{Deserialize, Serialize};

use crate::{MAX_VERSION, MIN_VERSION, limits};

/// The protocol versions that a side speaks, and what it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The oldest protocol version that the sender speaks.
    pub min_version: u16,
    /// The newest protocol version that the sender speaks.
    pub max_version: u16,
    /// The largest frame that the sender accepts, in bytes after the length prefix.
    pub max_frame: u32,
    /// The largest whole payload that the sender accepts, chunks joined, in bytes.
    pub max_message: u64,
    /// The most calls in flight that the sender accepts; 0 from a side that serves no calls.
    pub max_calls: u32,
    /// The bytes of payloads in chunks that the sender holds at once. A host counts the arguments of a
    /// call until the call has ended; a client counts a reply until it is whole. If nothing is counted,
    /// one payload may be larger.
    pub window: u64,
    /// The most calls that may be cancelled a second; 0 from a side that serves no calls. Further
    /// Cancels wait at their sender.
    pub max_cancels: u32,
    /// Identifies the caller; empty if no token is needed.
    pub token: &'a [u8],
    /// The sender's software, `wharf/0.1.0`; for logs only.
    pub agent: &'a str,
}

impl Hello<'static> {
    /// Our versions and default limits, without a token.
    #[must_use]
    pub fn ours() -> Self {
        Hello {
            min_version: MIN_VERSION,
            max_version: MAX_VERSION,
            max_frame: limits::MAX_FRAME,
            max_message: limits::MAX_MESSAGE,
            max_calls: limits::MAX_CALLS,
            window: limits::WINDOW,
            max_cancels: limits::MAX_CANCELS,
            token: &[],
            agent: concat!("wharf/", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// The parameters of a connection once both Hellos are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The newest version that both speak.
    pub version: u16,
    /// The payload bytes that we put into one frame. The last frame may carry an eighth more.
    pub chunk: usize,
    /// The largest whole payload that the peer accepts, in bytes.
    pub max_message: u64,
    /// The most calls that we may have in flight.
    pub max_calls: u32,
    /// The bytes of payloads in chunks that the peer holds at once.
    pub window: u64,
    /// The most calls that we may cancel a second.
    pub max_cancels: u32,
}

/// Why two sides cannot talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// No version in common.
    #[error(
        "no protocol version in common: we speak {MIN_VERSION} to {MAX_VERSION}, the peer {min} to {max}; update the older side"
    )]
    Version {
        /// The peer's oldest.
        min: u16,
        /// The peer's newest.
        max: u16,
    },
    /// The peer's `max_frame` is too small for the protocol.
    #[error("the peer accepts frames of at most {0} bytes; the protocol needs {min}", min = limits::MIN_MAX_FRAME)]
    FrameTooSmall(u32),
    /// A field is longer than its limit.
    #[error("the Hello's {field} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// Checks the peer's Hello against ours, and returns the parameters for what we send.
///
/// # Errors
/// No common version, or a Hello that breaks a limit.
pub fn negotiate(peer: &Hello<'_>) -> Result<Negotiated, HelloError> {
    let version = peer.max_version.min(MAX_VERSION);
    if version < peer.min_version || version < MIN_VERSION {
        return Err(HelloError::Version { min: peer.min_version, max: peer.max_version });
    }
    if peer.max_frame < limits::MIN_MAX_FRAME {
        return Err(HelloError::FrameTooSmall(peer.max_frame));
    }
    for (field, len, max) in
        [("token", peer.token.len(), limits::TOKEN), ("agent", peer.agent.len(), limits::AGENT)]
    {
        if len > max {
            return Err(HelloError::TooLong { field, len, max });
        }
    }
    let room = usize::try_from(peer.max_frame).unwrap_or(usize::MAX) - limits::HEADER_ROOM;
    Ok(Negotiated {
        version,
        chunk: (room - room / 8).min(limits::CHUNK),
        max_message: peer.max_message,
        max_calls: peer.max_calls,
        window: peer.window,
        max_cancels: peer.max_cancels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken() {
        let peer = Hello { min_version: 1, max_version: 9, ..Hello::ours() };
        assert_eq!(negotiate(&peer).map(|n| n.version), Ok(1));
    }

    #[test]
    fn a_peer_without_a_common_version_learns_both_ranges() {
        let peer = Hello { min_version: 2, max_version: 3, ..Hello::ours() };
        let error = negotiate(&peer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no protocol version in common: we speak 1 to 1, the peer 2 to 3; update the older side"
        );
    }

    #[test]
    fn the_largest_chunk_fits_the_smallest_frame() {
        for max_frame in [limits::MIN_MAX_FRAME, 20_001, limits::MAX_FRAME, u32::MAX] {
            let peer = Hello { max_frame, ..Hello::ours() };
            let last = limits::largest_whole(negotiate(&peer).unwrap().chunk);
            assert!(last + limits::HEADER_ROOM <= max_frame as usize, "{last} of {max_frame}");
        }
    }

    #[test]
    fn hellos_out_of_bounds_are_refused() {
        let peer = Hello { max_frame: 100, ..Hello::ours() };
        assert_eq!(negotiate(&peer), Err(HelloError::FrameTooSmall(100)));
        let token = [0; limits::TOKEN + 1];
        let peer = Hello { token: &token, ..Hello::ours() };
        assert!(matches!(negotiate(&peer), Err(HelloError::TooLong { field: "token", .. })));
    }
}
