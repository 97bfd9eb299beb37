//! How a connection opens, on the caller's side.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf_wire::{Header, Hello, Inbound, MAGIC, Negotiated, Outbound, limits, negotiate};

use crate::error::ConnectError;

/// An open connection after the exchange of Hellos.
pub(crate) struct Opened {
    pub(crate) stream: TcpStream,
    pub(crate) inbound: Inbound,
    pub(crate) negotiated: Negotiated,
}

/// Connects and exchanges Hellos, within a timeout.
pub(crate) async fn open(
    address: &str,
    token: &[u8],
    timeout: Duration,
) -> Result<Opened, ConnectError> {
    let opening = async {
        let mut stream = TcpStream::connect(address).await.map_err(ConnectError::Io)?;
        stream.set_nodelay(true).map_err(ConnectError::Io)?;
        let mut outbound = Outbound::new(limits::CHUNK);
        outbound.push_raw(&MAGIC);
        // A client serves nothing, so it accepts no calls.
        outbound.push(&Header::Hello(Hello { max_calls: 0, token, ..Hello::ours() }));
        stream.write_all_buf(&mut outbound).await.map_err(ConnectError::Io)?;
        let mut inbound = Inbound::new();
        let hello = next(&mut stream, &mut inbound).await?;
        let (Header::Hello(hello), _) = hello.parse()? else {
            return Err(ConnectError::Refused("its first frame is not a Hello".into()));
        };
        let negotiated = negotiate(&hello)?;
        inbound.accept_frames(limits::MAX_FRAME);
        Ok(Opened { stream, inbound, negotiated })
    };
    tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::TimedOut(timeout))?
}

async fn next(
    stream: &mut TcpStream,
    inbound: &mut Inbound,
) -> Result<wharf_wire::Frame, ConnectError> {
    loop {
        if let Some(frame) = inbound.next_frame()? {
            return Ok(frame);
        }
        if stream.read_buf(inbound.buffer()).await.map_err(ConnectError::Io)? == 0 {
            return Err(ConnectError::Refused("it closed the connection without a reason".into()));
        }
    }
}
