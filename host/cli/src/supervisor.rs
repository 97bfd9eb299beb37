//! Tells the program that started a server how it stands, as systemd wants it (`Type=notify`). Elsewhere
//! this does nothing.

use sd_notify::NotifyState;

/// The server takes requests.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// The server ends in good order, which may take a while.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the program that started this one cannot be told how it stands");
    }
}
