//! A key, and the request for a certificate of it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SigningKey};

use super::names::SpiffeId;

/// A request for a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("a request for a certificate cannot be made")]
pub struct RequestError(#[from] rcgen::Error);

/// A new private key, ECDSA over P-256, and the request for a certificate of it (PKCS #10).
pub struct CertificateRequest {
    key: KeyPair,
    pem: String,
}

impl CertificateRequest {
    /// Asks for a certificate with this name.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(name: &SpiffeId) -> Result<Self, RequestError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = name.to_string().try_into()?;
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let pem = params.serialize_request(&key)?.pem()?;
        Ok(CertificateRequest { key, pem })
    }

    /// The request, in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key, in PEM.
    #[must_use]
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// Signs a message with the private key in a PEM text: ECDSA over P-256 with SHA-256, in ASN.1.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn sign_with(key: &str, message: &[u8]) -> Result<Vec<u8>, RequestError> {
        Ok(KeyPair::from_pem(key)?.sign(message)?)
    }

    /// The public key, as it stands in certificates.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateRequest")
    }
}
