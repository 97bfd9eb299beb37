//! How the command ends after an error: with a message, and with an exit code for scripts.

use std::process::ExitCode;

use wharf_client::{Failure, RegistryError, RpcError, Status};
use wharf_schema::printable_lines;

/// An error with its own exit code. `wharf --help` documents the codes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exit {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The method returned its own error.
    #[error("{0}")]
    Application(String),
    /// The service, method or file does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Something that was asked does not answer as it has to.
    #[error("{0}")]
    Unreachable(String),
    /// What was compared or tried is not as it has to be.
    #[error("{0}")]
    Unlike(String),
}

/// Prints the error with its causes, and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if broken_pipe(error) {
        // The program that reads our output has stopped reading. That is not an error.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", printable_lines(&wharf_net::chain(error.as_ref())));
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(Exit::Usage(_)) => return 2,
        Some(Exit::Application(_)) => return 3,
        Some(Exit::NotFound(_)) => return 4,
        Some(Exit::Unreachable(_)) => return 5,
        Some(Exit::Unlike(_)) => return 7,
        None => {}
    }
    if let Some(RegistryError::BadAddress(_)) = error.downcast_ref() {
        return 2;
    }
    if error.downcast_ref::<RegistryError>().is_some_and(|e| e.problem().is_none()) {
        return 5;
    }
    match error.downcast_ref::<RpcError>().map(|error| &error.failure) {
        Some(Failure::Method(_)) => 4,
        Some(failure) => match failure.status() {
            Status::NotFound | Status::Unimplemented => 4,
            Status::Unavailable => 5,
            Status::DeadlineExceeded => 6,
            _ => 1,
        },
        None => 1,
    }
}

/// Whether something was printed, if whoever reads it has not stopped reading. Then what follows still
/// decides about the exit code.
pub(crate) fn said(printed: std::io::Result<()>) -> std::io::Result<()> {
    match printed {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
