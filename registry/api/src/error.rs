//! What can go wrong when a registry is asked.

use crate::Problem;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A token or certificate that cannot be used.
    #[error("the registry's {what} cannot be used: {why}")]
    BadIdentity {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A request that cannot be written.
    #[error("the request cannot be written: {0}")]
    Unsendable(String),
    /// Not an address of a registry.
    #[error("'{0}' is not a registry's address: write it like http://127.0.0.1:8500")]
    BadAddress(String),
    /// No answer.
    #[error(
        "the registry at {url} cannot be reached: is it running ('wharf up' or 'wharf registry')?"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The registry refused the request.
    #[error("the registry at {url} refused: {problem}")]
    Refused {
        /// Where.
        url: String,
        /// Its reason.
        problem: Box<Problem>,
    },
    /// An answer that does not belong to this API.
    #[error("the server at {url} does not answer as a registry does: {what}")]
    Unexpected {
        /// Where.
        url: String,
        /// What came instead.
        what: String,
    },
}

impl RegistryError {
    /// The registry's reason, if it gave one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            RegistryError::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }
}
