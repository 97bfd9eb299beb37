//! What servers read again while they run: principals and certificates.

use tokio::signal::unix::{SignalKind, signal};
use wharf_net::chain;
use wharf_net::principals::Principals;
use wharf_net::tls::Tls;

/// Reads principals and certificates again at each SIGHUP, and principals also when their file changes,
/// for as long as the process lives. SIGHUP never ends the process, even if there is nothing to read.
///
/// # Errors
/// When the system does not let us hear of signals.
pub(crate) fn reload(principals: Option<Principals>, tls: Option<Tls>) -> std::io::Result<()> {
    if let Some(principals) = principals.clone() {
        tokio::spawn(principals.follow());
    }
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match principals.as_ref().map(Principals::reload) {
                Some(Ok(())) => tracing::info!("the principals were read again"),
                Some(Err(error)) => {
                    tracing::error!(error = %chain(&error), "the principals stay as they were");
                }
                None => {}
            }
            match tls.as_ref().map(Tls::reload) {
                Some(Ok(())) => tracing::info!("the certificates were read again"),
                Some(Err(error)) => {
                    tracing::error!(error = %chain(&error), "the certificates stay as they were");
                }
                None => {}
            }
            if principals.is_none() && tls.is_none() {
                tracing::info!(
                    "SIGHUP: there are no principals and no certificates to read again; SIGTERM ends the process"
                );
            }
        }
    });
    Ok(())
}
