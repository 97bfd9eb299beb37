//! A watch, read from a registry's server-sent events.

use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;

use crate::{Index, RegistryError, WatchEvent};

/// The longest event that is read, in bytes.
const MAX_EVENT: usize = 64 * 1024;

/// Registries send a bookmark every 15 seconds. One that is silent for this long counts as gone.
const SILENCE: Duration = Duration::from_secs(45);

/// Changes of endpoints as they happen.
#[derive(Debug)]
pub struct Watch {
    response: Response,
    address: String,
    /// Bytes that have arrived, but were not returned as an event yet.
    text: Vec<u8>,
    /// How many of these bytes were searched, without finding the end of an event.
    searched: usize,
}

#[derive(Deserialize)]
struct BookmarkData {
    index: Index,
}

impl Watch {
    pub(crate) fn new(response: Response, address: String) -> Self {
        Watch { response, address, text: Vec::new(), searched: 0 }
    }

    /// The next event; `None` when the registry has ended the watch. Cancel-safe.
    ///
    /// # Errors
    /// When the connection breaks, nothing arrives for 45 seconds, or an event cannot be read. Then
    /// watch again from the last bookmark.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, RegistryError> {
        loop {
            while let Some(event) = self.take_event() {
                if let Some(event) = self.parse(&event)? {
                    return Ok(Some(event));
                }
            }
            if self.text.len() > MAX_EVENT {
                return Err(self.unexpected("one of its events is too long".to_owned()));
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| self.unexpected("it went silent".to_owned()))?;
            match chunk {
                Ok(Some(chunk)) => self.text.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(source) => {
                    let (url, source) = (self.address.clone(), source.without_url());
                    return Err(RegistryError::Unreachable { url, source });
                }
            }
        }
    }

    /// The text of the next event that has arrived whole.
    fn take_event(&mut self) -> Option<String> {
        let found = self.text[self.searched..].windows(2).position(|end| end == b"\n\n");
        let Some(found) = found else {
            self.searched = self.text.len().saturating_sub(1);
            return None;
        };
        let rest = self.text.split_off(self.searched + found + 2);
        let event = std::mem::replace(&mut self.text, rest);
        self.searched = 0;
        Some(String::from_utf8_lossy(&event).into_owned())
    }

    /// Parses an event. `None` if this API does not define it, or if it is only a comment.
    fn parse(&self, text: &str) -> Result<Option<WatchEvent>, RegistryError> {
        let field = |name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let data = field("data").unwrap_or_default();
        let bad = |error: serde_json::Error| {
            self.unexpected(format!("one of its events cannot be read: {error}"))
        };
        Ok(Some(match field("event") {
            Some("snapshot") => WatchEvent::Snapshot,
            Some("upsert") => WatchEvent::Upsert(serde_json::from_str(data).map_err(bad)?),
            Some("delete") => WatchEvent::Delete(serde_json::from_str(data).map_err(bad)?),
            Some("bookmark") => {
                let data: BookmarkData = serde_json::from_str(data).map_err(bad)?;
                WatchEvent::Bookmark(data.index)
            }
            Some("resync") => WatchEvent::Resync,
            Some("goodbye") => WatchEvent::Goodbye,
            Some(_) | None => return Ok(None),
        }))
    }

    fn unexpected(&self, what: String) -> RegistryError {
        RegistryError::Unexpected { url: self.address.clone(), what }
    }
}
