//! Signals that end a server: the first asks it to, a second one does not ask.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, heard from the moment this is made.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Begins to listen for signals.
    ///
    /// # Errors
    /// When the system does not let us.
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

    /// Does `ending`, unless a second signal comes first.
    pub(crate) async fn or_at_once(mut self, ending: impl Future<Output = ()>) {
        tokio::select! {
            () = ending => {}
            () = self.asked() => tracing::warn!("a second signal: ending at once"),
        }
    }
}
