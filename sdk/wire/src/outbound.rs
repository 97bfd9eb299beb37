//! The sending half of a connection's state: messages in, bytes out.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::cancel::encode_cancels;
use crate::frame::{encode, encode_header};
use crate::{Body, Fail, Header, limits};

/// Payloads up to this many bytes are copied behind their header. That is cheaper than a segment of
/// their own.
const COPY: usize = 8 * 1024;

/// The most bytes of a payload in one chunk, even if the peer takes more. What is ready when a small frame
/// comes is sent first, so this is how long it waits for large payloads.
const PIECE: usize = 16 * 1024;

/// What one connection still has to send.
///
/// Small frames are coalesced into one buffer. Payloads larger than a chunk are cut. Their chunks
/// take turns with each other and with small frames, so a large payload does not delay a small one.
/// A payload only a little larger than a chunk is not cut: a value of 64 KiB with its length in
/// front is three bytes larger than a chunk, and the receiver would have to copy it together again
/// because of these three bytes. It is a [`Buf`]: its owner writes [`Buf::chunks_vectored`] and
/// calls [`Buf::advance`].
///
/// The peer holds a payload in chunks until it is whole. Its window says how many bytes of them it
/// holds at once. Payloads beyond wait here, in their order, and hold up nothing else. Sending the last
/// chunk of a payload gives its bytes back, so the two sides need no frames to agree. (The windows of
/// HTTP/2 and QUIC are for receivers that may stop reading one of several streams.)
#[derive(Debug)]
pub struct Outbound {
    /// Complete segments, sent before `tail`.
    ready: VecDeque<Bytes>,
    /// Small frames, back to back.
    tail: BytesMut,
    ready_bytes: usize,
    streams: VecDeque<Stream>,
    /// Payloads for which the window has no room yet.
    waiting: VecDeque<Waiting>,
    /// Bytes of payloads of both that are not cut yet.
    uncut: usize,
    chunk: usize,
    window: u64,
    /// What is taken of the window: the whole sizes of `streams`.
    taken: u64,
}

/// A payload whose chunks are sent.
#[derive(Debug)]
struct Stream {
    id: u64,
    total: usize,
    rest: Bytes,
}

/// A payload that has not begun.
#[derive(Debug)]
struct Waiting {
    id: u64,
    /// The frame that begins it.
    first: Bytes,
    payload: Bytes,
}

impl Outbound {
    /// An empty queue that cuts chunks of `chunk` payload bytes. The last chunk may have an eighth
    /// more. `window` is what the peer holds of payloads in chunks, in bytes.
    #[must_use]
    pub fn new(chunk: usize, window: u64) -> Self {
        Outbound {
            ready: VecDeque::new(),
            tail: BytesMut::new(),
            ready_bytes: 0,
            streams: VecDeque::new(),
            waiting: VecDeque::new(),
            uncut: 0,
            chunk,
            window,
            taken: 0,
        }
    }

    /// Queues bytes outside any frame: the magic.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.ready_bytes += bytes.len();
    }

    /// Queues a frame without payload.
    pub fn push(&mut self, header: &Header<'_>) {
        self.push_small(header, &[]);
    }

    /// Queues a call or a reply. `header` is told whether the payload is whole or comes in chunks.
    pub fn push_message<'h>(
        &mut self,
        id: u64,
        payload: Bytes,
        header: impl FnOnce(Body) -> Header<'h>,
    ) {
        if self.is_to_be_cut(payload.len()) {
            let mut first = BytesMut::new();
            encode(&header(Body::Chunked(payload.len() as u64)), &[], &mut first);
            self.uncut += payload.len();
            self.waiting.push_back(Waiting { id, first: first.freeze(), payload });
            self.begin_waiting();
            self.cut_chunks();
        } else {
            self.push_frame(&header(Body::Whole), payload);
        }
    }

    /// Queues a failure with its detail. Message and detail are cut to their limits.
    pub fn push_fail(&mut self, fail: &Fail<'_>, detail: &[u8]) {
        let message = limits::cut(fail.message, limits::MESSAGE);
        let detail = &detail[..detail.len().min(limits::DETAIL)];
        self.push_small(&Header::Fail(Fail { message, ..*fail }), detail);
    }

    /// Queues Cancels of calls, as few as can be.
    pub fn push_cancels(&mut self, ids: &[u64]) {
        let before = self.tail.len();
        encode_cancels(ids, &mut self.tail);
        self.ready_bytes += self.tail.len() - before;
    }

    /// Stops sending the rest of payload `id`: its call was cancelled, or failed.
    pub fn abandon(&mut self, id: u64) {
        if let Some(at) = self.streams.iter().position(|stream| stream.id == id)
            && let Some(stream) = self.streams.remove(at)
        {
            self.uncut -= stream.rest.len();
            self.taken -= stream.total as u64;
        } else if let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id)
            && let Some(waiting) = self.waiting.remove(at)
        {
            self.uncut -= waiting.payload.len();
        } else {
            return;
        }
        self.begin_waiting();
        self.cut_chunks();
    }

    /// All queued bytes, including payloads that are not cut yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.ready_bytes + self.uncut
    }

    /// Begins payloads while the window has room. If none is under way, one of any size has room.
    fn begin_waiting(&mut self) {
        while let Some(Waiting { payload, .. }) = self.waiting.front()
            && (self.taken == 0 || self.taken.saturating_add(payload.len() as u64) <= self.window)
            && let Some(Waiting { id, first, payload }) = self.waiting.pop_front()
        {
            self.ready_bytes += first.len();
            self.tail.extend_from_slice(&first);
            self.taken += payload.len() as u64;
            self.streams.push_back(Stream { id, total: payload.len(), rest: payload });
        }
    }

    fn push_frame(&mut self, header: &Header<'_>, payload: Bytes) {
        if payload.len() <= COPY {
            return self.push_small(header, &payload);
        }
        let before = self.tail.len();
        encode_header(header, payload.len(), &mut self.tail);
        self.ready_bytes += self.tail.len() - before + payload.len();
        self.ready.push_back(self.tail.split().freeze());
        self.ready.push_back(payload);
    }

    fn push_small(&mut self, header: &Header<'_>, payload: &[u8]) {
        let before = self.tail.len();
        encode(header, payload, &mut self.tail);
        self.ready_bytes += self.tail.len() - before;
    }

    /// Whether so much more than a chunk is left that another frame is worthwhile.
    fn is_to_be_cut(&self, rest: usize) -> bool {
        rest > limits::largest_whole(self.chunk)
    }

    /// Keeps one chunk ready, cutting one from each stream in turn. It is cut when nothing else is ready,
    /// because later frames wait for everything that is ready.
    fn cut_chunks(&mut self) {
        while self.ready_bytes == 0
            && let Some(mut stream) = self.streams.pop_front()
        {
            let (rest, piece) = (stream.rest.len(), self.chunk.min(PIECE));
            let taken = if rest > limits::largest_whole(piece) { piece } else { rest };
            let chunk = stream.rest.split_to(taken);
            self.uncut -= chunk.len();
            self.push_frame(&Header::Chunk { id: stream.id }, chunk);
            if stream.rest.is_empty() {
                self.taken -= stream.total as u64;
                self.begin_waiting();
            } else {
                self.streams.push_back(stream);
            }
        }
    }
}

impl Buf for Outbound {
    /// Bytes ready to be written. [`Buf::advance`] refills them from the streams, so 0 means that
    /// everything is sent.
    fn remaining(&self) -> usize {
        self.ready_bytes
    }

    fn chunk(&self) -> &[u8] {
        self.ready.front().map_or(&self.tail[..], |segment| &segment[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let segments = self.ready.iter().map(|segment| &segment[..]);
        let tail = std::iter::once(&self.tail[..]).filter(|tail| !tail.is_empty());
        let mut filled = 0;
        for (slice, bytes) in slices.iter_mut().zip(segments.chain(tail)) {
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.ready_bytes -= count;
        while let Some(front) = self.ready.front_mut() {
            if count < front.len() {
                front.advance(count);
                count = 0;
                break;
            }
            count -= front.len();
            self.ready.pop_front();
        }
        if count > 0 {
            self.tail.advance(count);
        }
        self.cut_chunks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assembler, Frame, Inbound, MAGIC};
    use proptest::prelude::*;

    fn pattern(position: usize, id: u64) -> u8 {
        (position as u64 + id).to_le_bytes()[0]
    }

    fn drain(outbound: &mut Outbound, step: usize) -> Vec<Frame> {
        let mut inbound = Inbound::new();
        inbound.buffer().extend_from_slice(&MAGIC);
        inbound.accept_frames(limits::MAX_FRAME);
        let mut frames = Vec::new();
        while outbound.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = outbound.chunks_vectored(&mut slices);
            let bytes: Vec<u8> =
                slices[..filled].iter().flat_map(|s| s.iter().copied()).take(step).collect();
            outbound.advance(bytes.len());
            inbound.buffer().extend_from_slice(&bytes);
            while let Some(frame) = inbound.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(outbound.queued(), 0);
        frames
    }

    fn reply(id: u64) -> impl FnOnce(Body) -> Header<'static> {
        move |body| Header::Reply { id, body }
    }

    #[test]
    fn a_small_reply_overtakes_a_large_one() {
        let mut outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
        outbound.push_message(1, Bytes::from(vec![1; 10 * limits::CHUNK]), reply(1));
        outbound.push_message(2, Bytes::from_static(b"small"), reply(2));
        let frames = drain(&mut outbound, usize::MAX);
        let at = frames
            .iter()
            .position(|frame| {
                frame.parse().unwrap().0 == Header::Reply { id: 2, body: Body::Whole }
            })
            .unwrap();
        assert!(at <= 2, "the small reply is frame {at} of {}", frames.len());
    }

    #[test]
    fn what_is_hardly_more_than_a_chunk_is_one_frame() {
        for (size, frames) in [(1000, 1), (1125, 1), (1126, 2), (2125, 2), (2126, 3)] {
            let mut outbound = Outbound::new(1000, limits::WINDOW);
            outbound.push_message(1, Bytes::from(vec![1; size]), reply(1));
            let sent: Vec<usize> = drain(&mut outbound, usize::MAX)
                .iter()
                .map(|frame| frame.parse().unwrap().1.len())
                .filter(|payload| *payload > 0)
                .collect();
            assert_eq!((sent.len(), sent.iter().sum()), (frames, size), "{size}: {sent:?}");
        }
    }

    #[test]
    fn an_abandoned_payload_is_not_sent_on() {
        let mut outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
        outbound.push_message(1, Bytes::from(vec![1; 10 * limits::CHUNK]), reply(1));
        outbound.abandon(1);
        assert!(drain(&mut outbound, usize::MAX).len() < 5);
    }

    #[test]
    fn a_payload_that_the_window_has_no_room_for_holds_up_nothing_small() {
        const WINDOW: u64 = 10 * limits::CHUNK as u64;
        let mut outbound = Outbound::new(limits::CHUNK, WINDOW);
        for id in 1..=3 {
            outbound.push_message(id, Bytes::from(vec![1; 6 * limits::CHUNK]), reply(id));
        }
        // Larger than the window: it goes alone.
        outbound.push_message(4, Bytes::from(vec![1; 20 * limits::CHUNK]), reply(4));
        outbound.push_message(5, Bytes::from_static(b"small"), reply(5));
        outbound.abandon(2);
        let (mut begun, mut under_way) = (Vec::new(), 0);
        for frame in drain(&mut outbound, 30_000) {
            let (header, payload) = frame.parse().unwrap();
            match header {
                Header::Reply { id, body: Body::Chunked(total) } => {
                    begun.push(id);
                    assert!(under_way == 0 || under_way + total <= WINDOW, "{id}: {under_way}");
                    under_way += total;
                }
                Header::Reply { id, .. } => begun.push(id),
                _ => under_way -= payload.len() as u64,
            }
        }
        assert_eq!(begun, [1, 5, 3, 4]);
    }

    proptest! {
        #[test]
        fn every_payload_arrives_whole_whatever_the_cuts(
            sizes in proptest::collection::vec(0usize..40_000, 1..12),
            step in 1usize..60_000,
            chunk in 1_000usize..20_000,
            window in 0u64..100_000,
        ) {
            let mut outbound = Outbound::new(chunk, window);
            for (id, size) in (1u64..).zip(&sizes) {
                let payload: Vec<u8> = (0..*size).map(|i| pattern(i, id)).collect();
                outbound.push_message(id, Bytes::from(payload), reply(id));
            }
            let mut assembler = Assembler::new(1 << 20, window.max(40_000));
            let mut arrived = std::collections::BTreeMap::new();
            for frame in drain(&mut outbound, step) {
                let (header, payload) = frame.parse().unwrap();
                let whole = match header {
                    Header::Reply { id, body: Body::Whole } => Some((id, payload)),
                    Header::Reply { id, body: Body::Chunked(total) } => {
                        assembler.begin(id, id, total, &payload).unwrap()
                    }
                    Header::Chunk { id } => assembler.push(id, &payload).unwrap(),
                    other => panic!("unexpected {other:?}"),
                };
                arrived.extend(whole);
            }
            prop_assert_eq!(arrived.len(), sizes.len());
            for (id, size) in (1u64..).zip(&sizes) {
                let payload = &arrived[&id];
                prop_assert_eq!(payload.len(), *size);
                prop_assert!(payload.iter().enumerate().all(|(i, b)| *b == pattern(i, id)));
            }
        }
    }
}
