//! Logs: for people on a terminal, as JSON elsewhere; always on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. Servers say what they do; other commands only what goes wrong.
pub(crate) fn start(is_server: bool) {
    let default = if is_server { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("WHARF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.compact().with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}
