//! What is made out of what is served when somebody asks, and kept until that changes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

/// The most values that are kept.
const MAX_KEPT: usize = 256;

/// Values by name.
pub(crate) struct Kept<T> {
    /// With the revision of the table that they were made from. They are read without a lock.
    values: ArcSwap<HashMap<String, (u64, T)>>,
    /// Held while a value is made, so only one is made at a time, whoever asks.
    making: Mutex<()>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { values: ArcSwap::default(), making: Mutex::default() }
    }
}

impl<T: Clone> Kept<T> {
    /// The value with this name, as of this revision. `make` makes it.
    ///
    /// # Errors
    /// Those of `make`. Nothing is kept then.
    pub(super) async fn get<E>(
        &self,
        name: &str,
        revision: u64,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if let Some(value) = self.kept(name, revision) {
            return Ok(value);
        }
        let _making = self.making.lock().await;
        // Somebody else may have made it in the meantime.
        if let Some(value) = self.kept(name, revision) {
            return Ok(value);
        }
        let value = make.await?;
        let mut values = HashMap::clone(&self.values.load());
        if values.len() >= MAX_KEPT {
            values.clear();
        }
        values.insert(name.to_owned(), (revision, value.clone()));
        self.values.store(Arc::new(values));
        Ok(value)
    }

    fn kept(&self, name: &str, revision: u64) -> Option<T> {
        let values = self.values.load();
        let (at, value) = values.get(name)?;
        (*at == revision).then(|| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_made_once_for_each_revision() {
        let kept = Kept::default();
        let get = async |revision, text: &str| {
            let text = text.to_owned();
            kept.get("all", revision, async { Ok::<_, ()>(text) }).await.unwrap()
        };
        assert_eq!(get(1, "first").await, "first");
        assert_eq!(get(1, "second").await, "first");
        assert_eq!(get(2, "third").await, "third");
        let failed = kept.get("all", 3, async { Err::<String, _>("no") }).await;
        assert_eq!(failed, Err("no"));
        assert_eq!(get(2, "fourth").await, "third");
    }
}
