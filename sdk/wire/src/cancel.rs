//! The calls that one Cancel names: one in its header, and further ones in its payload.

use bytes::BytesMut;

use crate::{Header, encode, limits};

/// The longest id on the wire, in bytes.
const LONGEST: usize = 10;

/// Appends Cancels of all `ids` to `out`, as few as can be.
pub(crate) fn encode_cancels(ids: &[u64], out: &mut BytesMut) {
    for ids in ids.chunks(limits::CANCEL_IDS) {
        let Some((id, more)) = ids.split_first() else { continue };
        let mut payload = Vec::with_capacity(more.len() * 4);
        for id in more {
            let mut room = [0; LONGEST];
            // This cannot fail: there is room for the longest id.
            let bytes = postcard::to_slice(id, &mut room).map_or(&[][..], |bytes| bytes);
            payload.extend_from_slice(bytes);
        }
        encode(&Header::Cancel { id: *id }, &payload, out);
    }
}

/// The calls that a Cancel names, by its header's id and its payload.
///
/// ```
/// let ids: Vec<u64> = wharf_wire::cancelled(7, b"\x08\x80\x01").collect();
/// assert_eq!(ids, [7, 8, 128]);
/// ```
pub fn cancelled(id: u64, mut payload: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::once(id).chain(std::iter::from_fn(move || take(&mut payload)))
}

/// Whether a payload is that of a Cancel: a row of ids, and not too many.
pub(crate) fn is_row_of_ids(mut payload: &[u8]) -> bool {
    let mut count = 1;
    while !payload.is_empty() {
        count += 1;
        if take(&mut payload).is_none() || count > limits::CANCEL_IDS {
            return false;
        }
    }
    true
}

fn take(payload: &mut &[u8]) -> Option<u64> {
    let (id, rest) = postcard::take_from_bytes(payload).ok()?;
    *payload = rest;
    Some(id)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Frame, FrameError, Inbound, MAGIC};

    fn frames(bytes: &[u8]) -> Vec<Frame> {
        let mut inbound = Inbound::new();
        inbound.accept_frames(limits::MIN_MAX_FRAME);
        inbound.buffer().extend_from_slice(&MAGIC);
        inbound.buffer().extend_from_slice(bytes);
        std::iter::from_fn(|| inbound.next_frame().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn all_ids_arrive_in_as_few_frames_as_can_be(
            ids in proptest::collection::vec(any::<u64>(), 0..3000),
        ) {
            let mut out = BytesMut::new();
            encode_cancels(&ids, &mut out);
            let mut arrived = Vec::new();
            let frames = frames(&out);
            prop_assert_eq!(frames.len(), ids.len().div_ceil(limits::CANCEL_IDS));
            for frame in frames {
                let (header, payload) = frame.parse().unwrap();
                let Header::Cancel { id } = header else { panic!("{header:?}") };
                arrived.extend(cancelled(id, &payload));
            }
            prop_assert_eq!(arrived, ids);
        }
    }

    #[test]
    fn a_payload_that_is_no_row_of_ids_or_too_long_is_refused() {
        let parse = |payload: &[u8]| {
            let mut out = BytesMut::new();
            encode(&Header::Cancel { id: 1 }, payload, &mut out);
            Frame::from_bytes(Bytes::from(out).slice(4..)).parse().map(|_| ())
        };
        assert_eq!(parse(b""), Ok(()));
        assert_eq!(parse(&[5; limits::CANCEL_IDS - 1]), Ok(()));
        for bad in [&[5; limits::CANCEL_IDS][..], b"\x80", b"\x05\xff", &[0xff; 11]] {
            assert_eq!(parse(bad), Err(FrameError::Cancel));
        }
    }
}
