//! Signals that end a server. The first one starts an orderly shutdown; a second one ends it at
//! once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM, SIGINT and perhaps SIGHUP from the moment it is created.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
    /// A terminal that hangs up. `None` if this signal means something else to the process.
    hangup: Option<Signal>,
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
            hangup: Some(signal(SignalKind::hangup())?),
        })
    }

    /// The same, for a process that reads files again at SIGHUP.
    pub(crate) fn but_for_hangup(self) -> Self {
        Shutdown { hangup: None, ..self }
    }

    /// Completes at the next signal.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            Some(_) = hung_up(self.hangup.as_mut()) => {}
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

async fn hung_up(hangup: Option<&mut Signal>) -> Option<()> {
    hangup?.recv().await
}
