//! Where records are kept, and who decides about changes of them.
//!
//! A store takes a [`Write`], decides it in one order with all others, makes it durable, and feeds
//! the view with it; only then is it acknowledged.

pub(crate) mod file;
pub(crate) mod local;
mod stored;

use crate::record::Refusal;

/// A change that a store has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// There was no record before.
    pub(crate) created: bool,
    /// There is none any more.
    pub(crate) removed: bool,
    /// An endpoint changed.
    pub(crate) visible: bool,
    /// The view is complete up to here, and so is every answer that is given from now on.
    pub(crate) number: u64,
}

/// A change that a store has not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// It may not be made.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// Too many are asked for at once.
    #[error("more changes wait than are taken at once")]
    Busy,
    /// The store fails; whether the change was made is not known.
    #[error("the store fails: {0}")]
    Unavailable(String),
}
