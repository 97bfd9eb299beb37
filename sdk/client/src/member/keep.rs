//! Keeps a member's certificate new, and the authorities that it believes.

use std::time::Duration;

use tokio::time::Instant;
use wharf_net::chain;
use wharf_net::tls::Roots;
use wharf_registry_api::{RegistryClient, RegistryError, retry_pauses};

use super::{Member, MemberError};

/// How long after a failure it is tried again, at most.
const PAUSE: Duration = Duration::from_secs(30);

/// The shortest time between two questions.
const SHORTEST: Duration = Duration::from_millis(100);

impl Member {
    /// Renews the certificate when it is due, and follows the authorities of the trust domain, for as long as
    /// it is polled. While no registry answers, the member goes on with what it has.
    ///
    /// # Cancel safety
    /// It can be dropped at any time.
    ///
    /// # Errors
    /// Only when the registry's address is not valid.
    pub async fn keep(self, registry: &str) -> Result<(), MemberError> {
        let registry = self.issuer(registry)?;
        let mut known_failure = None;
        let mut pauses = retry_pauses();
        loop {
            match self.look_after(&registry).await {
                Ok(refresh) => {
                    if known_failure.take().is_some() {
                        tracing::info!(member = %self.id, "the registry of the trust domain answers again");
                    }
                    pauses = retry_pauses();
                    tokio::time::sleep(refresh.min(self.left()).max(SHORTEST)).await;
                }
                Err(error) => {
                    let failure = chain(&error);
                    if known_failure.as_ref() != Some(&failure) {
                        tracing::warn!(
                            member = %self.id,
                            "the certificate is not looked after; what there is stays in use: {failure}"
                        );
                        known_failure = Some(failure);
                    }
                    tokio::time::sleep(pauses.next().unwrap_or(PAUSE).min(PAUSE)).await;
                }
            }
        }
    }

    /// Returns when to look again.
    async fn look_after(&self, registry: &RegistryClient) -> Result<Duration, MemberError> {
        let bundle = registry.trust_bundle().await;
        // A registry that waits for its store gives out nothing either.
        let is_away = |error: &RegistryError| error.problem().is_none_or(|p| p.status >= 500);
        self.identity.note_issuer(!bundle.as_ref().is_err_and(is_away));
        let bundle = bundle?;
        let roots = Roots::from_pem(&bundle.roots)?;
        if roots != self.identity.roots() {
            self.folder.write_roots(&bundle.roots)?;
            self.identity.believe(&roots);
            tracing::info!(member = %self.id, roots = roots.certificates().len(), "other authorities are believed");
        }
        let root = self.follow_folder()?;
        if self.is_due() || root != bundle.root {
            let begun = Instant::now();
            self.renew_at(registry).await?;
            tracing::info!(member = %self.id, elapsed = ?begun.elapsed(), "the certificate was renewed");
        }
        Ok(Duration::from_millis(bundle.refresh_in_ms))
    }
}
