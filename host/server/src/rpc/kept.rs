//! What is made out of what is served when somebody asks, and kept until that changes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::task::JoinError;

/// The most values that are kept.
const MAX_KEPT: usize = 256;

/// Values by name.
pub(crate) struct Kept<T>(Arc<Inner<T>>);

struct Inner<T> {
    /// With the version of the table that they were made from. They are read without a lock.
    values: ArcSwap<HashMap<String, (u64, T)>>,
    /// Held while a value is made, so only one is made at a time, whoever asks.
    making: Mutex<()>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept(Arc::new(Inner { values: ArcSwap::default(), making: Mutex::default() }))
    }
}

impl<T: Clone + Send + Sync + 'static> Kept<T> {
    /// The value with this name, as of this version. `make` makes it, in a task of its own: a caller that
    /// goes away does not end it, so that no two are made at once.
    ///
    /// # Errors
    /// Those of `make`, or `lost` if it panics. Nothing is kept then.
    pub(super) async fn get<E: Send + 'static>(
        &self,
        name: &str,
        version: u64,
        make: impl FnOnce() -> Result<T, E> + Send + 'static,
        lost: impl FnOnce(JoinError) -> E,
    ) -> Result<T, E> {
        if let Some(value) = self.0.kept(name, version) {
            return Ok(value);
        }
        let (inner, name) = (self.0.clone(), name.to_owned());
        let made = tokio::spawn(async move {
            let making = inner.making.lock().await;
            // Somebody else may have made it in the meantime.
            if let Some(value) = inner.kept(&name, version) {
                return Ok(Ok(value));
            }
            let made = tokio::task::spawn_blocking(make).await?;
            if let Ok(value) = &made {
                inner.keep(name, version, value.clone());
            }
            drop(making);
            Ok(made)
        });
        match made.await {
            Ok(Ok(made)) => made,
            Ok(Err(error)) | Err(error) => Err(lost(error)),
        }
    }
}

impl<T: Clone> Inner<T> {
    fn kept(&self, name: &str, version: u64) -> Option<T> {
        let values = self.values.load();
        let (at, value) = values.get(name)?;
        (*at == version).then(|| value.clone())
    }

    fn keep(&self, name: String, version: u64, value: T) {
        let mut values = HashMap::clone(&self.values.load());
        // Those of earlier versions are of no use.
        values.retain(|_, (at, _)| *at == version);
        if values.len() >= MAX_KEPT {
            values.clear();
        }
        values.insert(name, (version, value));
        self.values.store(Arc::new(values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_made_once_for_each_version() {
        let kept = Kept::default();
        let lost = |error: JoinError| panic!("{error}");
        let get = async |version, text: &str| {
            let text = text.to_owned();
            kept.get("all", version, move || Ok::<_, ()>(text), lost).await.unwrap()
        };
        assert_eq!(get(1, "first").await, "first");
        assert_eq!(get(1, "second").await, "first");
        assert_eq!(get(2, "third").await, "third");
        let failed = kept.get("all", 3, || Err::<String, _>("no"), |_| "lost").await;
        assert_eq!(failed, Err("no"));
        assert_eq!(get(2, "fourth").await, "third");
        let panicked = kept.get("all", 4, || panic!("inside"), |_| "lost").await;
        assert_eq!(panicked, Err("lost"));
        assert_eq!(get(5, "fifth").await, "fifth");
    }
}
