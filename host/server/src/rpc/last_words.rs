//! How a connection ends whose peer is to hear why.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_net::Stream;

/// How long the last words of a connection may take.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Says something, and lets the peer hear it.
pub(super) async fn say(mut stream: Stream, words: &[u8]) {
    let saying = async {
        stream.write_all(words).await?;
        discard(&mut stream).await
    };
    // A peer that does not listen has lost nothing that it wanted.
    let _ = tokio::time::timeout(LAST_WORDS, saying).await;
}

/// Lets the peer hear what was written. If input was left unread, closing the socket would reset the
/// connection, and the peer might lose the last words.
pub(super) async fn let_hear(stream: &mut Stream) {
    let _ = tokio::time::timeout(LAST_WORDS, discard(stream)).await;
}

/// Closes our side and reads the other to its end.
async fn discard(stream: &mut Stream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut discarded = [0; 4096];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}
