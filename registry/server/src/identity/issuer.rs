//! Gives out certificates.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base64::Engine;
use rcgen::{KeyPair, SanType};
use wharf_net::chain;
use wharf_net::tls::{Chain, Clients, Identity, Role, Roots, SpiffeId, Tls, TlsError, TrustDomain};
use wharf_registry_api::{CertificateOrder, GrantedCertificate, JoinToken, Renewal, TrustBundle};

use super::folder::{Contents, DomainError, DomainFolder};
use super::{joined, making};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long a certificate lasts that is made to see whether the folder fits together.
const SAMPLE: Duration = Duration::from_secs(60);

/// How long after its end a certificate can be renewed.
const LATE: Duration = Duration::from_secs(7 * 24 * 3600);

/// When it is said that the issuer's own certificate ends.
const NEAR: Duration = Duration::from_secs(24 * 3600);

/// How much longer than members' certificates those of joined registries last.
const ISSUER_LIVES: u32 = 7;

/// How a registry gives out certificates.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuerOptions {
    /// How long members' certificates last; a day by default.
    pub life: Duration,
    /// DNS names and IP addresses in the registry's own certificate, for clients that know no SPIFFE.
    pub names: Vec<String>,
}

impl Default for IssuerOptions {
    fn default() -> Self {
        IssuerOptions { life: Duration::from_secs(24 * 3600), names: Vec::new() }
    }
}

/// Gives out certificates. Clones share it.
#[derive(Clone)]
pub struct Issuer(Arc<Shared>);

struct Shared {
    folder: DomainFolder,
    options: IssuerOptions,
    state: ArcSwap<State>,
    /// What the registry itself shows.
    identity: Identity,
    tls: Tls,
}

/// What was read from the folder.
struct State {
    domain: TrustDomain,
    issuer: rcgen::Issuer<'static, KeyPair>,
    chain: Chain,
    chain_pem: String,
    roots: Roots,
    roots_pem: String,
    /// When the issuer's own certificate ends.
    ends: SystemTime,
    stamp: Option<[SystemTime; 2]>,
}

/// Why a certificate is not given out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The order is not valid.
    #[error("{0}")]
    Invalid(String),
    /// It may not have what it asks for.
    #[error("{0}")]
    Forbidden(String),
    /// The issuer's own certificate ends too soon.
    #[error(
        "the certificate of this registry's issuer ends in {0:?}: renew it, or ask another registry"
    )]
    Ending(Duration),
    /// It cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
}

impl Issuer {
    /// Opens the folder of a trust domain.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(folder: DomainFolder, options: IssuerOptions) -> Result<Self, DomainError> {
        let state = State::read(&folder)?;
        let identity = Identity::anonymous(Some(state.domain.clone()), state.roots.clone());
        let unfit = |error: TlsError| DomainError::Content {
            path: folder.path().to_owned(),
            why: chain(&error),
        };
        let tls = Tls::new(identity.clone(), Clients::Asked).map_err(unfit)?;
        let state = ArcSwap::from_pointee(state);
        let issuer = Issuer(Arc::new(Shared { folder, options, state, identity, tls }));
        issuer.show_itself()?;
        Ok(issuer)
    }

    /// The TLS of the registry's listener.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.0.tls
    }

    /// The trust domain.
    #[must_use]
    pub fn domain(&self) -> TrustDomain {
        self.0.state.load().domain.clone()
    }

    /// Reads the folder again when it changes, and renews the registry's own certificate, for ever.
    pub async fn follow(self) {
        let renewal = self.0.options.life * 2 / 3;
        let mut renewed = SystemTime::now();
        let mut told = false;
        loop {
            tokio::time::sleep(LOOK.min(renewal)).await;
            let stamp = self.0.folder.stamp();
            let has_changed = stamp.is_some() && stamp != self.0.state.load().stamp;
            // By the clock on the wall, which machines that slept or had a wrong time set forward. If it was
            // set back, the certificate may not have begun.
            let is_new = renewed.elapsed().is_ok_and(|since| since < renewal);
            let left = self.0.state.load().left(Duration::MAX);
            if left < NEAR && !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    ?left,
                    "the issuer's own certificate ends soon: exchange the root with 'wharf identity root'"
                );
            }
            if !has_changed && is_new {
                continue;
            }
            let shown = self.reload();
            match shown {
                Ok(()) if has_changed => tracing::info!("the trust domain was read again"),
                Ok(()) => tracing::debug!("the registry's own certificate was renewed"),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the trust domain stays as it was");
                    tokio::time::sleep(LOOK * 10).await;
                    continue;
                }
            }
            renewed = SystemTime::now();
        }
    }

    fn reload(&self) -> Result<(), DomainError> {
        self.0.state.store(Arc::new(State::read(&self.0.folder)?));
        self.show_itself()
    }

    /// Gives the registry itself a new certificate.
    fn show_itself(&self) -> Result<(), DomainError> {
        let (state, options) = (self.0.state.load(), &self.0.options);
        let key = KeyPair::generate()?;
        let id = SpiffeId::registry(&state.domain);
        let names = options.names.iter().filter_map(|name| match name.parse::<IpAddr>() {
            Ok(ip) => Some(SanType::IpAddress(ip)),
            Err(_) => name.clone().try_into().ok().map(SanType::DnsName),
        });
        let names: Vec<SanType> = names.collect();
        let life = state.left(options.life);
        let certificate = making::member(&id, &key, &names, life, &state.issuer)?;
        let shown = certificate + &state.chain_pem;
        let replaced = self.0.identity.replace_pem(&shown, &key.serialize_pem(), &state.roots_pem);
        replaced.map_err(|error| DomainError::Content {
            path: self.0.folder.path().to_owned(),
            why: chain(&error),
        })
    }

    /// Whom members believe.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        let state = self.0.state.load();
        TrustBundle {
            domain: state.domain.to_string(),
            roots: state.roots_pem.clone(),
            root: making::hexadecimal(&state.chain.root_hash()),
            refresh_in_ms: millis(self.refresh()),
        }
    }

    /// How often members ask for the bundle.
    fn refresh(&self) -> Duration {
        (self.0.options.life / 20).clamp(Duration::from_millis(200), Duration::from_secs(60))
    }

    /// Gives out a certificate to whoever has a token for its name, or had one with that name before.
    ///
    /// # Errors
    /// Why it does not.
    pub fn grant(&self, order: &CertificateOrder) -> Result<GrantedCertificate, Refusal> {
        let state = self.0.state.load();
        let requested = making::read(&order.request).map_err(|why| {
            Refusal::Invalid(format!("the signing request cannot be used: {why}"))
        })?;
        let id = &requested.id;
        if *id.domain() != state.domain {
            let (asked, ours) = (id.domain(), &state.domain);
            let why = format!("this registry gives out certificates for {ours}, not for {asked}");
            return Err(Refusal::Forbidden(why));
        }
        match (&order.token, &order.renewal) {
            (Some(token), None) => state.check_token(token, id)?,
            (None, Some(renewal)) => state.check_renewal(renewal, &order.request, id)?,
            _ => {
                let why = "show either a join token or an earlier certificate";
                return Err(Refusal::Invalid(why.to_owned()));
            }
        }
        let is_registry = id.role() == Role::Registry;
        let life = self.0.options.life;
        let whole = if is_registry { life * ISSUER_LIVES } else { life };
        let life = state.left(whole);
        if life < whole / 3 {
            // What the member has, or gets elsewhere, lasts longer.
            return Err(Refusal::Ending(life));
        }
        let certificate = if is_registry {
            if state.is_joined() {
                let why = "this registry has joined itself: ask the one that was started with the folder of 'wharf identity init'";
                return Err(Refusal::Forbidden(why.to_owned()));
            }
            making::joined_issuer(&state.domain, &requested.key, life, &state.issuer)?
        } else {
            let others = making::other_names(id)?;
            making::member(id, &requested.key, &others, life, &state.issuer)?
        };
        tracing::info!(name = %id, renewed = order.renewal.is_some(), "a certificate was given out");
        Ok(GrantedCertificate {
            certificate: certificate + &state.chain_pem,
            roots: state.roots_pem.clone(),
            renew_in_ms: millis(life * 2 / 3),
            expires_in_ms: millis(life),
        })
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Issuer").field(&self.domain()).finish()
    }
}

impl State {
    fn read(folder: &DomainFolder) -> Result<Self, DomainError> {
        let stamp = folder.stamp();
        let contents = folder.read()?;
        let chain = folder.chain(&contents)?;
        let Contents { domain, key, chain: chain_pem, roots: roots_pem } = contents;
        let unfit = |why: String| DomainError::Content { path: folder.path().to_owned(), why };
        let roots = Roots::from_pem(&roots_pem).map_err(|error| unfit(error.to_string()))?;
        let ends = chain.certificates().first().and_then(|der| end(der));
        let ends =
            ends.ok_or_else(|| unfit("the issuer's certificate cannot be read".to_owned()))?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&chain_pem, KeyPair::from_pem(&key)?)?;
        // What does not fit together would be found out by those who get its certificates.
        let id = SpiffeId::registry(&domain);
        let sample = making::member(&id, &KeyPair::generate()?, &[], SAMPLE, &issuer)?;
        Chain::from_pem(&(sample + &chain_pem))
            .and_then(|sample| roots.member(&sample, Duration::ZERO))
            .map_err(|error| {
                unfit(format!("issuer.pem and roots.pem do not fit together: {error}"))
            })?;
        Ok(State { domain, issuer, chain, chain_pem, roots, roots_pem, ends, stamp })
    }

    /// A life that does not outlast the issuer's own.
    fn left(&self, life: Duration) -> Duration {
        let left = self.ends.duration_since(SystemTime::now()).unwrap_or_default();
        life.min(left)
    }

    fn is_joined(&self) -> bool {
        self.chain.certificates().len() > 2
    }

    fn check_token(&self, text: &str, id: &SpiffeId) -> Result<(), Refusal> {
        let token: JoinToken =
            text.parse().map_err(|error| Refusal::Invalid(format!("the token: {error}")))?;
        // The domain's issuer signs tokens. It stands right below the root.
        let position = self.chain.certificates().len() - 2;
        let signed = token.signed_text().as_bytes();
        let forbidden = |why: String| Err(Refusal::Forbidden(why));
        if !self.chain.has_signed(position, signed, &token.signature) {
            return forbidden(
                "the join token was not signed by this trust domain's issuer: make a new one with 'wharf identity token'".to_owned(),
            );
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if token.lasts(now.as_secs()).is_none() {
            return forbidden(
                "the join token has ended: make a new one with 'wharf identity token'".to_owned(),
            );
        }
        let claims = &token.claims;
        if claims.role != id.role().as_str() || !claims.allows(id.name()) {
            return forbidden(format!(
                "the join token is for the {} '{}', and not for {id}",
                claims.role, claims.name
            ));
        }
        Ok(())
    }

    fn check_renewal(
        &self,
        renewal: &Renewal,
        request: &str,
        id: &SpiffeId,
    ) -> Result<(), Refusal> {
        let earlier = Chain::from_pem(&renewal.certificate)
            .map_err(|error| Refusal::Invalid(format!("the earlier certificate: {error}")))?;
        let member = self.member(&earlier, id).map_err(|error| {
            Refusal::Forbidden(format!(
                "{}: join again with a token from 'wharf identity token'",
                chain(&error)
            ))
        })?;
        let signature = base64::engine::general_purpose::STANDARD.decode(&renewal.signature);
        let signature =
            signature.map_err(|_| Refusal::Invalid("the signature is not base64".to_owned()))?;
        if !earlier.has_signed(0, request.as_bytes(), &signature) {
            let why = "the request is not signed with the key of the earlier certificate";
            return Err(Refusal::Forbidden(why.to_owned()));
        }
        if member == *id {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!(
            "the earlier certificate is for {member}, and not for {id}"
        )))
    }

    /// Whose earlier certificate this is. That of a registry issues others itself.
    fn member(&self, earlier: &Chain, id: &SpiffeId) -> Result<SpiffeId, TlsError> {
        if id.role() != Role::Registry {
            return self.roots.member(earlier, LATE);
        }
        let unfit = |why: &str| TlsError::unfit("certificate", &why);
        joined::check(&earlier.certificates(), &self.roots, LATE).map_err(unfit)?;
        earlier.names().spiffe_id().ok_or_else(|| unfit("it names no member of a trust domain"))
    }
}

/// When a certificate ends.
fn end(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
