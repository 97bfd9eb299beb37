//! Descriptions that are made when somebody asks, and kept until what is served changes.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::Mutex;

/// The most descriptions that are kept.
const MAX_KEPT: usize = 256;

/// Descriptions by name.
#[derive(Default)]
pub(crate) struct Documents {
    /// With the revision of the table that they were made from. The lock is held while one is made, so
    /// only one is made at a time, whoever asks.
    kept: Mutex<HashMap<String, (u64, Bytes)>>,
}

impl Documents {
    /// The description with this name, as of this revision. `make` makes it.
    ///
    /// # Errors
    /// Those of `make`. Nothing is kept then.
    pub(super) async fn get<E>(
        &self,
        name: String,
        revision: u64,
        make: impl Future<Output = Result<String, E>>,
    ) -> Result<Bytes, E> {
        let mut kept = self.kept.lock().await;
        if let Some((at, text)) = kept.get(&name)
            && *at == revision
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(make.await?);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(name, (revision, text.clone()));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_description_is_made_once_for_each_revision() {
        let documents = Documents::default();
        let get = async |revision, text: &str| {
            let text = text.to_owned();
            documents.get("all".to_owned(), revision, async { Ok::<_, ()>(text) }).await.unwrap()
        };
        assert_eq!(get(1, "first").await, "first");
        assert_eq!(get(1, "second").await, "first");
        assert_eq!(get(2, "third").await, "third");
        let failed = documents.get("all".to_owned(), 3, async { Err::<String, _>("no") }).await;
        assert_eq!(failed, Err("no"));
        assert_eq!(get(2, "fourth").await, "third");
    }
}
