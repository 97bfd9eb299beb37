//! Opens a connection: each side sends the magic bytes and a Hello, within a limited time.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use wharf_net::Stream;
use wharf_net::principals::Principal;
use wharf_wire::{
    FrameError, GoAwayCode, Header, Hello, HelloError, Inbound, MAGIC, Negotiated, Outbound,
    limits, negotiate,
};

use crate::config::RpcConfig;

/// The result of opening: what was negotiated, and who the peer is.
pub(super) struct Opened {
    pub(super) negotiated: Negotiated,
    pub(super) agent: String,
    pub(super) who: Arc<Principal>,
}

/// Why a connection did not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the peer did not send its Hello in time")]
    Slow,
    #[error("the peer closed the connection")]
    Left,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("the first frame is not a Hello")]
    NotHello,
    #[error("the token is missing or wrong")]
    Token {
        /// Whether one was shown, and belongs to nobody.
        is_wrong: bool,
    },
}

/// Reads the peer's Hello and answers with ours. Both must be done before `open_by`.
pub(super) async fn open(
    (stream, peer): (&mut Stream, IpAddr),
    inbound: &mut Inbound,
    config: &RpcConfig,
    open_by: Instant,
) -> Result<Opened, OpenError> {
    let opening = async {
        let heard = hear(stream, inbound, config).await;
        if let Err(OpenError::Token { is_wrong: true }) = &heard {
            tokio::time::sleep(config.principals.note_wrong(peer)).await;
        }
        let mut outbound = Outbound::new(limits::CHUNK, limits::WINDOW);
        if let Err(OpenError::Frame(FrameError::Magic(_))) = &heard {
            return heard;
        }
        outbound.push_raw(&MAGIC);
        outbound.push(&Header::Hello(Hello {
            max_calls: config.calls.max_calls,
            max_message: config.calls.max_message,
            ..Hello::ours()
        }));
        if let Err(error) = &heard {
            let code = match error {
                OpenError::Hello(HelloError::Version { .. }) => GoAwayCode::Version,
                OpenError::Token { .. } => GoAwayCode::Unauthenticated,
                _ => GoAwayCode::Protocol,
            };
            outbound.push(&Header::GoAway { last_id: 0, code, message: &error.to_string() });
        }
        stream.write_all_buf(&mut outbound).await?;
        stream.flush().await?;
        heard
    };
    tokio::time::timeout_at(open_by, opening).await.map_err(|_| OpenError::Slow)?
}

async fn hear(
    stream: &mut Stream,
    inbound: &mut Inbound,
    config: &RpcConfig,
) -> Result<Opened, OpenError> {
    let frame = loop {
        if let Some(frame) = inbound.next_frame()? {
            break frame;
        }
        // Until the Hello is accepted, frames have a lower limit, so this never reads much.
        if stream.read_buf(inbound.buffer()).await? == 0 {
            return Err(OpenError::Left);
        }
    };
    let (Header::Hello(hello), _) = frame.parse()? else { return Err(OpenError::NotHello) };
    let negotiated = negotiate(&hello)?;
    let known = config.principals.known();
    let who = known.recognise(Some(hello.token), stream.names());
    let who = who.map_err(|_| OpenError::Token { is_wrong: true })?;
    if who.calls().is_nothing() {
        return Err(OpenError::Token { is_wrong: false });
    }
    inbound.accept_frames(limits::MAX_FRAME);
    Ok(Opened { negotiated, agent: hello.agent.to_owned(), who })
}
