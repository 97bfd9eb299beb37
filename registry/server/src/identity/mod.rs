//! A trust domain: who belongs to it, and the certificates that prove that.
//!
//! `wharf identity init` makes a folder with the domain's root and its issuer. A registry that has the folder
//! gives out certificates. Another registry that joins gets an issuer of its own, below the first.

mod folder;
mod issuer;
mod joined;
mod making;

pub use folder::{DomainError, DomainFolder};
pub use issuer::{Issuer, IssuerOptions, Refusal};
