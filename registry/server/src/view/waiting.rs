//! Places among those who wait for a change.

use std::sync::Arc;

use tokio::sync::watch;

use super::View;

/// A place among those who wait for a change. It is given up when this is dropped.
pub(crate) struct Waiting {
    pub(super) view: Arc<View>,
    pub(super) key: Option<Arc<str>>,
    /// Taken only when this is dropped, under the lock.
    pub(super) changed: Option<watch::Receiver<()>>,
}

impl Waiting {
    /// Completes at the next change since the place was taken, or since this completed last.
    pub(crate) async fn changed(&mut self) {
        if let Some(changed) = &mut self.changed {
            // The sender is dropped only when nobody waits, and this one does.
            let _ = changed.changed().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (_, mut inner) = self.view.lock();
        drop(self.changed.take());
        if inner.waiting.get(&self.key).is_some_and(|sender| sender.receiver_count() == 0) {
            inner.waiting.remove(&self.key);
        }
    }
}
