//! TLS 1.3 with rustls, at both ends: what a process shows of itself, whom it believes, and by which name.
//!
//! A peer is known by the name in its certificate, never by its address. Names are SPIFFE IDs
//! (<https://spiffe.io>) where a trust domain gives out certificates, else DNS names. An [`Identity`] can
//! change while connections are open. Sessions are never resumed, so each connection verifies certificates
//! anew.

mod accept;
mod chain;
mod connect;
mod files;
mod identity;
mod names;
mod path;
mod request;
mod verify;
mod words;

pub use accept::{Clients, Tls, TlsFiles};
pub use chain::Chain;
pub use files::TlsError;
pub use identity::{Believed, Identity, Roots};
pub use names::{Names, Role, SpiffeId, SpiffeIdError, TrustDomain};
pub use request::{CertificateRequest, RequestError};
pub use verify::Expected;
pub use words::in_words;
