//! The sending half of a connection's state: messages in, bytes out.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{encode, encode_header};
use crate::{Body, Fail, Header, limits};

/// Payloads up to this many bytes are copied behind their header. That is cheaper than a segment of
/// their own.
const COPY: usize = 8 * 1024;

/// Chunks are cut only while fewer bytes than this are ready, because later frames wait for
/// everything that is ready.
const READY: usize = 2 * limits::CHUNK;

/// What one connection still has to send.
///
/// Small frames are coalesced into one buffer. Payloads larger than a chunk are cut. Their chunks
/// take turns with each other and with small frames, so a large payload does not delay a small one.
/// A payload only a little larger than a chunk is not cut: a value of 64 KiB with its length in
/// front is three bytes larger than a chunk, and the receiver would have to copy it together again
/// because of these three bytes. It is a [`Buf`]: its owner writes [`Buf::chunks_vectored`] and
/// calls [`Buf::advance`].
#[derive(Debug)]
pub struct Outbound {
    /// Complete segments, sent before `tail`.
    ready: VecDeque<Bytes>,
    /// Small frames, back to back.
    tail: BytesMut,
    ready_bytes: usize,
    streams: VecDeque<Stream>,
    stream_bytes: usize,
    chunk: usize,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    rest: Bytes,
}

impl Outbound {
    /// An empty queue that cuts chunks of `chunk` payload bytes. The last chunk may have an eighth
    /// more.
    #[must_use]
    pub fn new(chunk: usize) -> Self {
        Outbound {
            ready: VecDeque::new(),
            tail: BytesMut::new(),
            ready_bytes: 0,
            streams: VecDeque::new(),
            stream_bytes: 0,
            chunk,
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
            let total = payload.len() as u64;
            self.push_small(&header(Body::Chunked(total)), &[]);
            self.stream_bytes += payload.len();
            self.streams.push_back(Stream { id, rest: payload });
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

    /// Stops sending the rest of payload `id`: its call was cancelled, or failed.
    pub fn abandon(&mut self, id: u64) {
        if let Some(at) = self.streams.iter().position(|stream| stream.id == id)
            && let Some(stream) = self.streams.remove(at)
        {
            self.stream_bytes -= stream.rest.len();
        }
    }

    /// All queued bytes, including payloads that are not cut yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.ready_bytes + self.stream_bytes
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
        rest > limits::last_chunk(self.chunk)
    }

    /// Keeps some chunks ready, cutting one from each stream in turn.
    fn cut_chunks(&mut self) {
        while self.ready_bytes < READY
            && let Some(mut stream) = self.streams.pop_front()
        {
            let rest = stream.rest.len();
            let taken = if self.is_to_be_cut(rest) { self.chunk } else { rest };
            let chunk = stream.rest.split_to(taken);
            self.stream_bytes -= chunk.len();
            self.push_frame(&Header::Chunk { id: stream.id }, chunk);
            if !stream.rest.is_empty() {
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
        let mut outbound = Outbound::new(limits::CHUNK);
        outbound.push_message(1, Bytes::from(vec![1; 10 * limits::CHUNK]), reply(1));
        outbound.push_message(2, Bytes::from_static(b"small"), reply(2));
        let frames = drain(&mut outbound, usize::MAX);
        let at = frames
            .iter()
            .position(|frame| {
                frame.parse().unwrap().0 == Header::Reply { id: 2, body: Body::Whole }
            })
            .unwrap();
        assert!(at <= 4, "the small reply is frame {at} of {}", frames.len());
    }

    #[test]
    fn what_is_hardly_more_than_a_chunk_is_one_frame() {
        for (size, frames) in [(1000, 1), (1125, 1), (1126, 2), (2125, 2), (2126, 3)] {
            let mut outbound = Outbound::new(1000);
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
        let mut outbound = Outbound::new(limits::CHUNK);
        outbound.push_message(1, Bytes::from(vec![1; 10 * limits::CHUNK]), reply(1));
        outbound.abandon(1);
        assert!(drain(&mut outbound, usize::MAX).len() < 5);
    }

    proptest! {
        #[test]
        fn every_payload_arrives_whole_whatever_the_cuts(
            sizes in proptest::collection::vec(0usize..40_000, 1..12),
            step in 1usize..60_000,
            chunk in 1_000usize..20_000,
        ) {
            let mut outbound = Outbound::new(chunk);
            for (id, size) in (1u64..).zip(&sizes) {
                let payload: Vec<u8> = (0..*size).map(|i| pattern(i, id)).collect();
                outbound.push_message(id, Bytes::from(payload), reply(id));
            }
            let mut assembler = Assembler::new(1 << 20, 1 << 24);
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
