//! What a process shows of itself, and whom it believes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, SignatureScheme};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};

use super::files::{self, TlsError};
use super::names::{Names, TrustDomain};
use super::path;

/// How long after its end a certificate is believed while nobody gives out new ones.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// The most roots that are believed at once.
const MAX_ROOTS: usize = 64;

/// What a process shows of itself, and whom it believes. Clones share it. Both may change while
/// connections are open.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
    is_hidden: bool,
}

struct Shared {
    /// Peers are known by their names in this trust domain; without one, by DNS names.
    domain: Option<TrustDomain>,
    current: ArcSwap<Current>,
    changes: watch::Sender<()>,
    /// Whether those who give out certificates do not answer.
    issuer_is_away: AtomicBool,
}

#[derive(Clone, Default)]
struct Current {
    shown: Option<Arc<CertifiedKey>>,
    names: Names,
    roots: Roots,
}

/// A peer that was believed when its connection began.
#[derive(Clone)]
pub struct Believed {
    identity: Identity,
    chain: Arc<[CertificateDer<'static>]>,
}

/// The certificates of authorities that are believed.
#[derive(Clone, Default)]
pub struct Roots {
    certificates: Arc<[CertificateDer<'static>]>,
    anchors: Arc<[TrustAnchor<'static>]>,
}

impl Identity {
    /// Shows nothing, and believes these authorities. Peers are known by their names in `domain`; without
    /// one, by DNS names.
    #[must_use]
    pub fn anonymous(domain: Option<TrustDomain>, roots: Roots) -> Self {
        let current = Current { roots, ..Current::default() };
        let shared = Arc::new(Shared {
            domain,
            current: ArcSwap::from_pointee(current),
            changes: watch::Sender::default(),
            issuer_is_away: AtomicBool::new(false),
        });
        Identity { shared, is_hidden: false }
    }

    /// The same, which shows nothing. For asking whoever refuses a certificate that has ended.
    #[must_use]
    pub fn hidden(&self) -> Self {
        Identity { shared: self.shared.clone(), is_hidden: true }
    }

    /// Reads what is believed, and what is shown if that is given: a certificate, the chain from it to
    /// its authority, and its private key, all in one PEM file. Peers are known by DNS names.
    ///
    /// # Errors
    /// When a file cannot be read, or cannot be used.
    pub fn load(authorities: &Path, shown: Option<&Path>) -> Result<Self, TlsError> {
        let roots = Roots::new(files::certificates("authorities", authorities)?)?;
        let identity = Identity::anonymous(None, roots.clone());
        if let Some(path) = shown {
            let chain = files::certificates("certificate", path)?;
            identity.replace(chain, files::key(path)?, roots)?;
        }
        Ok(identity)
    }

    /// Shows this certificate from now on, and believes these authorities. Open connections stay, unless
    /// their peers are not believed any more.
    ///
    /// # Errors
    /// When the key does not belong to the certificate, or one of them cannot be used.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Roots,
    ) -> Result<(), TlsError> {
        let names = {
            let first =
                chain.first().ok_or_else(|| TlsError::unfit("certificate", &"it is empty"))?;
            let parsed = EndEntityCert::try_from(first);
            Names::of(&parsed.map_err(|error| TlsError::unfit("certificate", &error))?)
        };
        let shown = CertifiedKey::from_der(chain, key, &path::provider())
            .map_err(|error| TlsError::unfit("certificate with its key", &error))?;
        self.shared.current.store(Arc::new(Current { shown: Some(Arc::new(shown)), names, roots }));
        self.shared.changes.send_replace(());
        Ok(())
    }

    /// As [`Identity::replace`], out of PEM.
    ///
    /// # Errors
    /// As [`Identity::replace`].
    pub fn replace_pem(&self, chain: &str, key: &str, roots: &str) -> Result<(), TlsError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>();
        let chain = chain.map_err(|error| TlsError::unfit("certificate", &error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| TlsError::unfit("private key", &error))?;
        self.replace(chain, key, Roots::from_pem(roots)?)
    }

    /// Believes these authorities from now on.
    pub fn believe(&self, roots: &Roots) {
        self.shared
            .current
            .rcu(|current| Current { roots: roots.clone(), ..Current::clone(current) });
        self.shared.changes.send_replace(());
    }

    /// Notes whether those who give out certificates answer. While they do not, certificates are believed
    /// for a day after their end: nobody can have a new one.
    pub fn note_issuer(&self, answers: bool) {
        self.shared.issuer_is_away.store(!answers, Ordering::Relaxed);
    }

    /// Within which trust domain peers are known by their names.
    #[must_use]
    pub fn domain(&self) -> Option<&TrustDomain> {
        self.shared.domain.as_ref()
    }

    /// The names that it shows.
    #[must_use]
    pub fn names(&self) -> Names {
        self.shared.current.load().names.clone()
    }

    /// The authorities that are believed.
    #[must_use]
    pub fn roots(&self) -> Roots {
        self.shared.current.load().roots.clone()
    }

    /// Whether a certificate is believed now. While nobody gives out new ones, it may have ended.
    pub(super) fn verify(
        &self,
        certificate: &EndEntityCert<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let current = self.shared.current.load();
        let verify = |at| path::check(certificate, chain, &current.roots.anchors, at, usage);
        match verify(now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                time,
                not_after,
            })) if self.shared.domain.is_some()
                && self.shared.issuer_is_away.load(Ordering::Relaxed) =>
            {
                let since = time.as_secs().saturating_sub(not_after.as_secs());
                if since < GRACE.as_secs() {
                    return verify(not_after);
                }
                Err(CertificateError::ExpiredContext { time, not_after }.into())
            }
            verified => verified,
        }
    }

    pub(super) fn shown(&self) -> Option<Arc<CertifiedKey>> {
        if self.is_hidden { None } else { self.shared.current.load().shown.clone() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.names()).finish()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }

    fn has_certs(&self) -> bool {
        self.shown().is_some()
    }
}

impl Believed {
    /// The certificates that a peer showed, and that this identity verified.
    #[must_use]
    pub fn new(identity: &Identity, chain: &[CertificateDer<'static>]) -> Self {
        Believed { identity: identity.clone(), chain: chain.into() }
    }

    /// Completes when the peer is not believed any more, because its authority is not. Its certificate may
    /// end meanwhile: what was verified at the beginning of a connection stays. A peer that showed none is
    /// never in doubt.
    pub async fn lost(&self) {
        let shared = &self.identity.shared;
        let mut changes = shared.changes.subscribe();
        while self.chain.is_empty() || shared.current.load().roots.lead_to(&self.chain) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl fmt::Debug for Believed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Believed")
    }
}

impl Roots {
    /// These authorities.
    ///
    /// # Errors
    /// When there are too many, or one cannot be read.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        if certificates.len() > MAX_ROOTS {
            return Err(TlsError::unfit(
                "authorities",
                &format!("at most {MAX_ROOTS} are allowed"),
            ));
        }
        let anchor = |certificate| {
            webpki::anchor_from_trusted_cert(certificate)
                .map(|anchor| anchor.to_owned())
                .map_err(|error| TlsError::unfit("certificate of an authority", &error))
        };
        let anchors = certificates.iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        Ok(Roots { certificates: certificates.into(), anchors: anchors.into() })
    }

    /// The authorities in a PEM text.
    ///
    /// # Errors
    /// As [`Roots::new`], and when it is not PEM or has none.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::unfit("authorities", &error))?;
        if certificates.is_empty() {
            return Err(TlsError::unfit("authorities", &"there is no certificate"));
        }
        Roots::new(certificates)
    }

    /// Their certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Whether a chain leads to one of them, whenever it is or was valid.
    fn lead_to(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((first, rest)) = chain.split_first() else { return false };
        let Ok(certificate) = EndEntityCert::try_from(first) else { return false };
        let usages = [KeyUsage::client_auth(), KeyUsage::server_auth()];
        usages.into_iter().any(|usage| {
            match path::check(&certificate, rest, &self.anchors, UnixTime::now(), usage) {
                Ok(()) => true,
                // As of its last second.
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) => path::check(&certificate, rest, &self.anchors, not_after, usage).is_ok(),
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) => path::check(&certificate, rest, &self.anchors, not_before, usage).is_ok(),
                Err(_) => false,
            }
        })
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl Eq for Roots {}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.certificates.len()).finish()
    }
}
