//! Waiting for conditions, within bounds that only a broken system reaches.

use std::time::Duration;

use anyhow::Context;

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// Looks again and again until `condition` gives something.
///
/// # Errors
/// When it never does.
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

/// Waits for something that must come.
///
/// # Errors
/// When it does not.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("waited {PATIENCE:?} in vain: {what}"))
}
