//! Waits for conditions. Only a broken system reaches the time limit.

use std::time::Duration;

use anyhow::Context;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls `condition` repeatedly until it returns `Some`.
///
/// # Errors
/// When that does not happen in time.
pub async fn eventually<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    within(what, async {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        loop {
            looks.tick().await;
            if let Some(found) = condition().await {
                return found;
            }
        }
    })
    .await
}

/// Waits for a future.
///
/// # Errors
/// When it does not complete in time.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("waited {PATIENCE:?} in vain: {what}"))
}
