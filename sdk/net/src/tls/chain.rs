//! A certificate, and the chain from it to its authority.

use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage};

use super::files::TlsError;
use super::identity::{Identity, Roots};
use super::names::{Names, SpiffeId};
use super::path;

/// The longest chain.
const MAX_CHAIN: usize = 8;

/// A certificate, and the chain from it to its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain(Vec<CertificateDer<'static>>);

impl Chain {
    /// The certificates in a PEM text, in their order.
    ///
    /// # Errors
    /// When it is not PEM, has no certificate, or too many.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .take(MAX_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::unfit("certificate", &error))?;
        match certificates.len() {
            0 => Err(TlsError::unfit("certificate", &"there is none")),
            1..=MAX_CHAIN => Ok(Chain(certificates)),
            _ => Err(TlsError::unfit("certificate", &"its chain is too long")),
        }
    }

    /// The certificates as bytes (DER), that of the member first.
    #[must_use]
    pub fn certificates(&self) -> Vec<&[u8]> {
        self.0.iter().map(|certificate| &**certificate).collect()
    }

    /// Whether this is what an identity shows.
    #[must_use]
    pub fn is_shown_by(&self, identity: &Identity) -> bool {
        identity.shown().is_some_and(|shown| shown.cert.first() == self.0.first())
    }

    /// The names in the first certificate.
    #[must_use]
    pub fn names(&self) -> Names {
        self.0.first().and_then(Names::in_certificate).unwrap_or_default()
    }

    /// The SHA-256 hash of the last certificate.
    #[must_use]
    pub fn root_hash(&self) -> [u8; 32] {
        self.0.last().map(|root| Sha256::digest(root).into()).unwrap_or_default()
    }

    /// Whether the key of the certificate at `position` made this signature: ECDSA over P-256 with SHA-256,
    /// in ASN.1.
    #[must_use]
    pub fn has_signed(&self, position: usize, message: &[u8], signature: &[u8]) -> bool {
        let certificate = self.0.get(position).and_then(|it| EndEntityCert::try_from(it).ok());
        let algorithm = webpki::ring::ECDSA_P256_SHA256;
        certificate.is_some_and(|it| it.verify_signature(algorithm, message, signature).is_ok())
    }
}

impl Roots {
    /// Which member of a trust domain a chain belongs to. It may have ended up to `late` ago.
    ///
    /// # Errors
    /// When it is not believed, or names no member.
    pub fn member(&self, chain: &Chain, late: Duration) -> Result<SpiffeId, TlsError> {
        let unfit = |error: &dyn ToString| TlsError::unfit("certificate", &error.to_string());
        let (first, rest) = chain.0.split_first().ok_or_else(|| unfit(&"it is empty"))?;
        let parsed = EndEntityCert::try_from(first).map_err(|error| unfit(&error))?;
        let verify = |at| path::check(&parsed, rest, self.anchors(), at, KeyUsage::client_auth());
        match verify(UnixTime::now()) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                time,
                not_after,
            })) if time.as_secs().saturating_sub(not_after.as_secs()) <= late.as_secs() => {
                verify(not_after)
            }
            verified => verified,
        }
        .map_err(|error| unfit(&error))?;
        chain.names().spiffe_id().ok_or_else(|| unfit(&"it names no member of a trust domain"))
    }
}
