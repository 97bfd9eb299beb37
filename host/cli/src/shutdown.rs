//! Signals that end a server. The first one starts an orderly shutdown; a second one ends it at
//! once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM and SIGINT from the moment it is created. SIGHUP ends no server: see `reloading`.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Begins to listen for signals.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Shutdown {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes at the next signal.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Runs `ending`, but stops at once if a second signal arrives.
    pub(crate) async fn or_at_once(mut self, ending: impl Future<Output = ()>) {
        tokio::select! {
            () = ending => {}
            () = self.asked() => tracing::warn!("received a second signal: ending at once"),
        }
    }
}
