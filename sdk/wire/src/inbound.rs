//! Reading frames out of the bytes that a socket delivers.

use bytes::{Buf, Bytes, BytesMut};

use crate::cancel::is_row_of_ids;
use crate::{Header, MAGIC, MetadataError, limits};

/// Bytes that break the protocol. Each error ends the connection: no later frame can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The connection does not open with [`MAGIC`].
    #[error("the peer does not speak Wharf's protocol: it opened with {0}")]
    Magic(String),
    /// A frame larger than the announced limit.
    #[error("a frame of {len} bytes, at most {max} are accepted: send larger payloads in chunks")]
    TooLarge {
        /// The length in its prefix.
        len: u32,
        /// The limit that we announced.
        max: u32,
    },
    /// A frame too short for any header.
    #[error("an empty frame")]
    Empty,
    /// A header that cannot be read.
    #[error("a frame whose header cannot be read (it begins {0})")]
    Header(String),
    /// A name longer than any method's name may be.
    #[error("a name of {0} bytes, at most {max} are accepted", max = limits::NAME)]
    Name(usize),
    /// A Cancel that names too many calls, or is none.
    #[error("a Cancel whose payload is not a row of at most {max} ids", max = limits::CANCEL_IDS - 1)]
    Cancel,
    /// Metadata that break their limits or their form.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// The receiving half of a connection's state: bytes in, frames out.
#[derive(Debug)]
pub struct Inbound {
    buffer: BytesMut,
    max_frame: u32,
    magic_seen: bool,
}

/// One received frame.
#[derive(Clone, Debug)]
pub struct Frame(Bytes);

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbound {
    /// The state before the peer's magic bytes. Frames are limited to the size of a Hello.
    #[must_use]
    pub fn new() -> Self {
        Inbound { buffer: BytesMut::new(), max_frame: limits::HELLO_FRAME, magic_seen: false }
    }

    /// Call this when the peer's Hello is accepted: from then on, frames may have up to `max_frame`
    /// bytes, as our own Hello announced.
    pub fn accept_frames(&mut self, max_frame: u32) {
        self.max_frame = max_frame;
    }

    /// The buffer to append the socket's bytes to. Beyond one frame, it never holds more than the
    /// owner reads at once.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Makes room for a read of up to `most` bytes. It allocates only when less than an eighth of
    /// `most` is left in the current block. Received frames share that block: while they are in
    /// use, each further reservation needs a new block.
    pub fn make_room(&mut self, most: usize) {
        if self.buffer.capacity() - self.buffer.len() < most / 8 {
            self.buffer.reserve(most);
        }
    }

    /// The next whole frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// On bytes that break the protocol. A length is checked as soon as its four bytes have
    /// arrived, so nothing is stored for a frame that will be refused.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if !self.magic_seen {
            let have = self.buffer.len().min(MAGIC.len());
            if self.buffer[..have] != MAGIC[..have] {
                return Err(FrameError::Magic(excerpt(&self.buffer)));
            }
            if have < MAGIC.len() {
                return Ok(None);
            }
            self.buffer.advance(MAGIC.len());
            self.magic_seen = true;
        }
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*prefix);
        if len > self.max_frame {
            return Err(FrameError::TooLarge { len, max: self.max_frame });
        }
        if len == 0 {
            return Err(FrameError::Empty);
        }
        let len = len as usize;
        if self.buffer.len() - 4 < len {
            // One allocation for the rest of a large frame; it is bounded by `max_frame`.
            self.buffer.reserve(len + 4 - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(Frame(self.buffer.split_to(len).freeze())))
    }
}

impl Frame {
    /// A frame from its bytes without the length prefix, if they do not come from an [`Inbound`].
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Frame(bytes)
    }

    /// Header and payload. The payload shares the frame's memory.
    ///
    /// # Errors
    /// On a header that cannot be read or breaks a limit.
    pub fn parse(&self) -> Result<(Header<'_>, Bytes), FrameError> {
        let (header, payload) = postcard::take_from_bytes::<Header<'_>>(&self.0)
            .map_err(|_| FrameError::Header(excerpt(&self.0)))?;
        match header {
            Header::Resolve { name, .. } | Header::Describe { service: name, .. }
                if name.len() > limits::NAME =>
            {
                return Err(FrameError::Name(name.len()));
            }
            Header::Call { metadata, .. } => metadata.check()?,
            Header::Cancel { .. } if !is_row_of_ids(payload) => return Err(FrameError::Cancel),
            _ => {}
        }
        Ok((header, self.0.slice(self.0.len() - payload.len()..)))
    }
}

/// The first bytes, printable, for an error message.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(16)];
    format!("\"{}\"", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use proptest::prelude::*;

    fn after_magic(max_frame: u32) -> Inbound {
        let mut inbound = Inbound::new();
        inbound.buffer().extend_from_slice(&MAGIC);
        assert!(inbound.next_frame().unwrap().is_none());
        inbound.accept_frames(max_frame);
        inbound
    }

    #[test]
    fn frames_survive_any_cutting_of_the_stream() {
        let mut stream = BytesMut::from(&MAGIC[..]);
        encode(&Header::Ping { nonce: 5 }, b"", &mut stream);
        encode(&Header::Chunk { id: 1 }, &[3; 300], &mut stream);
        let mut inbound = Inbound::new();
        let mut frames = Vec::new();
        for byte in &stream {
            inbound.buffer().extend_from_slice(&[*byte]);
            frames.extend(inbound.next_frame().unwrap());
        }
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].parse().unwrap().0, Header::Ping { nonce: 5 });
        let (header, payload) = frames[1].parse().unwrap();
        assert_eq!(header, Header::Chunk { id: 1 });
        assert_eq!(payload, &[3; 300][..]);
    }

    #[test]
    fn another_protocol_is_recognised_by_its_first_byte() {
        for opening in [&b"GET / HTTP/1.1\r\n"[..], b"{\"method\"", b"\x16\x03\x01"] {
            let mut inbound = Inbound::new();
            inbound.buffer().extend_from_slice(&opening[..1]);
            assert!(matches!(inbound.next_frame(), Err(FrameError::Magic(_))));
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_stored() {
        let mut inbound = after_magic(1000);
        inbound.buffer().extend_from_slice(&u32::MAX.to_le_bytes());
        let before = inbound.buffer().capacity();
        assert_eq!(
            inbound.next_frame().unwrap_err(),
            FrameError::TooLarge { len: u32::MAX, max: 1000 }
        );
        assert_eq!(inbound.buffer().capacity(), before);
    }

    #[test]
    fn before_its_hello_a_peer_may_send_only_small_frames() {
        let mut inbound = Inbound::new();
        inbound.buffer().extend_from_slice(&MAGIC);
        inbound.buffer().extend_from_slice(&(limits::HELLO_FRAME + 1).to_le_bytes());
        assert!(matches!(inbound.next_frame(), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn names_and_metadata_are_bounded_at_the_edge() {
        let mut bytes = BytesMut::new();
        let name = "a".repeat(limits::NAME + 1);
        encode(&Header::Resolve { id: 1, name: &name, fingerprint: None }, b"", &mut bytes);
        let frame = Frame::from_bytes(bytes.freeze().slice(4..));
        assert_eq!(frame.parse().unwrap_err(), FrameError::Name(limits::NAME + 1));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_end_in_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let len = bytes.len();
            if let Ok((_, payload)) = Frame::from_bytes(Bytes::from(bytes)).parse() {
                prop_assert!(payload.len() < len);
            }
        }
    }
}
