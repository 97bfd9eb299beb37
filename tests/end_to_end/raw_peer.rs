//! A peer that sends and reads raw frames, so that it can break the rules.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_tests::within;
use wharf_wire::{
    Body, Frame, GoAwayCode, Header, Hello, Inbound, MAGIC, Metadata, Timeout, encode, limits,
};

/// A peer that sends and reads raw frames.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) inbound: Inbound,
}

impl Peer {
    pub(crate) async fn connect(address: &str) -> Self {
        Peer { stream: TcpStream::connect(address).await.unwrap(), inbound: Inbound::new() }
    }

    pub(crate) async fn greeted(address: &str) -> Self {
        Self::greeted_by(address, Hello::ours()).await
    }

    pub(crate) async fn greeted_by(address: &str, hello: Hello<'_>) -> Self {
        let mut peer = Self::connect(address).await;
        peer.raw(&MAGIC).await;
        peer.send(&Header::Hello(hello), b"").await;
        let hello = peer.next().await.unwrap();
        assert!(matches!(hello.parse().unwrap().0, Header::Hello(_)));
        peer.inbound.accept_frames(limits::MAX_FRAME);
        peer
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send(&mut self, header: &Header<'_>, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        encode(header, payload, &mut bytes);
        self.raw(&bytes).await;
    }

    /// The next frame; `None` once the host closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let next = async {
            loop {
                if let Some(frame) = self.inbound.next_frame().unwrap() {
                    return Some(frame);
                }
                if self.stream.read_buf(self.inbound.buffer()).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        within("a frame, or the end", next).await.unwrap()
    }

    /// Waits for the host's GoAway, which says why it closes the connection.
    pub(crate) async fn go_away(&mut self) -> (GoAwayCode, String) {
        while let Some(frame) = self.next().await {
            if let Header::GoAway { code, message, .. } = frame.parse().unwrap().0 {
                let said = (code, message.to_owned());
                assert!(self.next().await.is_none(), "closed after its last words");
                return said;
            }
        }
        panic!("closed without a word");
    }

    pub(crate) async fn resolve(&mut self, id: u64, name: &str) -> u32 {
        self.send(&Header::Resolve { id, name, fingerprint: None }, b"").await;
        let frame = self.next().await.unwrap();
        match frame.parse().unwrap().0 {
            Header::Resolved { method, .. } => method,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn call(id: u64, method: u32, body: Body) -> Header<'static> {
    let timeout = Timeout::after(Duration::from_secs(20));
    Header::Call { id, method, timeout, metadata: Metadata::default(), body }
}
