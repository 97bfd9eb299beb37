//! Ends a connection so that the peer receives the last message, which says why.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_net::Stream;

/// How long sending the last message of a connection may take.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sends a last message, and waits until the peer has read it.
pub(super) async fn say(mut stream: Stream, words: &[u8]) {
    let saying = async {
        stream.write_all(words).await?;
        discard(&mut stream).await
    };
    // If the peer does not read the message in time, there is nothing more to do.
    let _ = tokio::time::timeout(LAST_WORDS, saying).await;
}

/// Waits until the peer has read what was written. If input were left unread, closing the socket
/// would reset the connection, and the peer might lose the last message.
pub(super) async fn let_hear(stream: &mut Stream) {
    let _ = tokio::time::timeout(LAST_WORDS, discard(stream)).await;
}

/// Closes our side, then reads and discards until the peer closes its side.
async fn discard(stream: &mut Stream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut discarded = [0; 4096];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}
