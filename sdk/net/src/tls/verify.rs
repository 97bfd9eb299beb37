//! Who a peer is, and whether to believe it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage};

use super::identity::Identity;
use super::names::Names;
use super::path::{self, in_words_of_tls};

/// Who a peer has to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expected {
    /// The host of this name. Without a trust domain, this is a DNS name or an IP address.
    Host(String),
    /// A registry of the trust domain.
    Registry,
    /// A registry whose chain ends at the root with this SHA-256 hash.
    RootedIn([u8; 32]),
}

/// A peer that is somebody else.
#[derive(thiserror::Error)]
#[error("its certificate is for {names}, and not for {expected}")]
struct SomebodyElse {
    names: Names,
    expected: String,
}

/// As it is said to people: libraries show it to them in this way.
impl fmt::Debug for SomebodyElse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) identity: Identity,
    pub(super) expected: Expected,
}

impl Servers {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let certificate = EndEntityCert::try_from(certificate).map_err(in_words_of_tls)?;
        let (names, usage) = (Names::of(&certificate), KeyUsage::server_auth());
        let has = |role: &str| {
            let domain = self.identity.domain();
            domain.is_some_and(|domain| names.has(&format!("spiffe://{domain}/{role}")))
        };
        let is_it = match &self.expected {
            Expected::RootedIn(hash) => {
                let root = chain.iter().find(|part| Sha256::digest(part)[..] == hash[..]);
                let root = root.ok_or(CertificateError::UnknownIssuer)?;
                let anchor = webpki::anchor_from_trusted_cert(root).map_err(in_words_of_tls)?;
                path::check(&certificate, chain, &[anchor], now, usage)?;
                names.spiffe_id().is_some_and(|id| id.role() == super::names::Role::Registry)
            }
            expected => {
                self.identity.verify(&certificate, chain, now, usage)?;
                match expected {
                    Expected::Host(name) if self.identity.domain().is_none() => {
                        ServerName::try_from(&**name).is_ok_and(|name| {
                            certificate.verify_is_valid_for_subject_name(&name).is_ok()
                        })
                    }
                    Expected::Host(name) => !name.ends_with('*') && has(&format!("host/{name}")),
                    _ => has("registry"),
                }
            }
        };
        if is_it {
            return Ok(());
        }
        let somebody_else = SomebodyElse { names, expected: self.expected.to_string() };
        Err(CertificateError::Other(OtherError(Arc::new(somebody_else))).into())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Host(name) => write!(f, "the host {name}"),
            Expected::Registry | Expected::RootedIn(_) => f.write_str("a registry"),
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(certificate, chain, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls_13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Verifies clients.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) identity: Identity,
    /// Whether a client has to show a certificate. One that it shows has to be good in any case.
    pub(super) is_required: bool,
}

impl ClientCertVerifier for Peers {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let certificate = EndEntityCert::try_from(certificate).map_err(in_words_of_tls)?;
        self.identity.verify(&certificate, chain, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls_13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, &algorithms)
}

fn schemes() -> Vec<SignatureScheme> {
    rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
}

fn only_tls_13() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken".to_owned())
}
