//! A member of a trust domain: joins it, and keeps its certificate new.
//!
//! The way is that of SPIFFE (<https://spiffe.io>): a member shows a token once, gets a certificate for a day,
//! renews it with the certificate that it has, and believes the authorities that its registry lists.

mod folder;
mod keep;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wharf_net::private::PrivateError;
use wharf_net::tls::{
    CertificateRequest, Chain, Expected, Identity, RequestError, Role, Roots, SpiffeId,
    SpiffeIdError, TlsError,
};
use wharf_registry_api::{
    CertificateOrder, GrantedCertificate, JoinToken, JoinTokenError, RegistryClient, RegistryError,
    RegistryOptions, Renewal,
};

use self::folder::{Folder, Held};

/// A member of a trust domain. Clones share its identity.
///
/// What it has stands in a folder that only its owner can read, so that it needs its token only once.
#[derive(Clone, Debug)]
pub struct Member {
    id: SpiffeId,
    folder: Arc<Folder>,
    identity: Identity,
}

/// Why a program does not become a member of a trust domain, or is none any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The folder cannot be read or written.
    #[error("the identity in {folder} cannot be used")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner can reach the folder.
    #[error("the folder of an identity has to be private")]
    Private(#[from] PrivateError),
    /// Its content is not that of a member.
    #[error("the identity in {folder} cannot be used: {why}")]
    Content {
        /// The folder.
        folder: String,
        /// What is wrong.
        why: String,
    },
    /// The token is none.
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    /// The token does not say which name to take, and none was given.
    #[error("the join token is for '{0}': say which name to take")]
    Nameless(String),
    /// A name cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] SpiffeIdError),
    /// The registry does not give out a certificate.
    #[error("no certificate from the registry")]
    Refused(#[from] RegistryError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A request cannot be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// TLS cannot be spoken.
    #[error("TLS cannot be spoken")]
    Speak(#[source] std::io::Error),
}

impl Member {
    /// The member whose identity is in this folder.
    ///
    /// # Errors
    /// When there is none, or others can reach it.
    pub fn open(folder: &Path) -> Result<Self, MemberError> {
        let folder = Folder::at(folder);
        let held = folder.read()?;
        let id = Chain::from_pem(&held.chain)?.names().spiffe_id();
        let id = id.ok_or_else(|| folder.content("its certificate names no member"))?;
        let identity = Identity::anonymous(Some(id.domain().clone()), Roots::default());
        let member = Member { id, folder: Arc::new(folder), identity };
        member.show(&held)?;
        Ok(member)
    }

    /// Whether there is an identity in this folder.
    #[must_use]
    pub fn is_in(folder: &Path) -> bool {
        Folder::at(folder).exists()
    }

    /// Joins the trust domain of a token, at a registry, `https://10.0.0.2:8500`. The registry has to prove
    /// first that it belongs to the domain. If the token allows several names, `name` says which to take.
    ///
    /// # Errors
    /// When the token is not valid any more, or the registry does not answer.
    ///
    /// # Cancel safety
    /// Nothing is written unless it completes.
    pub async fn join(
        folder: &Path,
        registry: &str,
        token: &str,
        name: Option<&str>,
    ) -> Result<Self, MemberError> {
        let parsed: JoinToken = token.parse()?;
        let claims = &parsed.claims;
        let role = [Role::Host, Role::Caller, Role::Registry];
        let role = role.into_iter().find(|role| role.as_str() == claims.role);
        let role = role.ok_or(JoinTokenError)?;
        Folder::at(folder).check_free(role)?;
        let name = match (name, claims.only_name()) {
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => return Err(MemberError::Nameless(claims.name.clone())),
        };
        let id = SpiffeId::new(&claims.domain.parse()?, role, name)?;
        let root = claims.root_hash().ok_or(JoinTokenError)?;
        let identity = Identity::anonymous(Some(id.domain().clone()), Roots::default());
        let client = client(registry, &identity, &Expected::RootedIn(root))?;
        let request = CertificateRequest::new(&id)?;
        let order = CertificateOrder {
            request: request.pem().to_owned(),
            token: Some(token.trim().to_owned()),
            renewal: None,
        };
        let granted = client.order_certificate(&order).await?;
        let member = Member { id, folder: Arc::new(Folder::at(folder)), identity };
        member.take(&request, granted)?;
        Ok(member)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What it shows, and whom it believes.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A client of the registry at this address, which has to belong to the trust domain.
    ///
    /// # Errors
    /// When the address is not valid, or not https.
    pub fn registry(&self, address: &str) -> Result<RegistryClient, MemberError> {
        client(address, &self.identity, &Expected::Registry)
    }

    /// The options of such a client, to which others can be added.
    ///
    /// # Errors
    /// None in practice: when TLS cannot be spoken.
    pub fn registry_options(&self) -> Result<RegistryOptions, MemberError> {
        options(&self.identity, &Expected::Registry)
    }

    /// Whether its certificate has to be renewed.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.left().is_zero()
    }

    /// How long until its certificate has to be renewed.
    fn left(&self) -> Duration {
        let due = self.folder.read().map_or(SystemTime::UNIX_EPOCH, |held| held.renew_at);
        due.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// Renews its certificate. One that ended some days ago can still be renewed.
    ///
    /// # Errors
    /// When the registry does not answer, or refuses.
    ///
    /// # Cancel safety
    /// Nothing is written unless it completes.
    pub async fn renew(&self, registry: &str) -> Result<(), MemberError> {
        self.renew_at(&self.issuer(registry)?).await
    }

    /// A client of a registry that need not accept our certificate: it may have ended.
    fn issuer(&self, address: &str) -> Result<RegistryClient, MemberError> {
        client(address, &self.identity.hidden(), &Expected::Registry)
    }

    async fn renew_at(&self, registry: &RegistryClient) -> Result<(), MemberError> {
        let held = self.folder.read()?;
        self.folder.check_free(self.id.role())?;
        let request = CertificateRequest::new(&self.id)?;
        let signature = CertificateRequest::sign_with(&held.key, request.pem().as_bytes())?;
        let order = CertificateOrder {
            request: request.pem().to_owned(),
            token: None,
            renewal: Some(Renewal {
                certificate: held.chain,
                signature: STANDARD.encode(signature),
            }),
        };
        let granted = registry.order_certificate(&order).await?;
        self.take(&request, granted)
    }

    fn take(
        &self,
        request: &CertificateRequest,
        granted: GrantedCertificate,
    ) -> Result<(), MemberError> {
        let held = Held {
            key: request.key(),
            chain: granted.certificate,
            roots: granted.roots,
            renew_at: SystemTime::now() + Duration::from_millis(granted.renew_in_ms),
        };
        // What cannot be used must not take the place of what can.
        let (chain, roots) = (Chain::from_pem(&held.chain)?, Roots::from_pem(&held.roots)?);
        let is_ours = match self.id.role() {
            Role::Registry => chain.names().spiffe_id().as_ref() == Some(&self.id),
            _ => roots.member(&chain, Duration::ZERO)? == self.id,
        };
        if !is_ours {
            return Err(self
                .folder
                .content("the certificate that was given out is for somebody else"));
        }
        self.folder.write(&held, self.id.role())?;
        self.show(&held)
    }

    /// Shows what another process has renewed in the same folder. Returns below which root it is.
    fn follow_folder(&self) -> Result<String, MemberError> {
        let held = self.folder.read()?;
        let chain = Chain::from_pem(&held.chain)?;
        if self.id.role() != Role::Registry && !chain.is_shown_by(&self.identity) {
            self.show(&held)?;
        }
        Ok(chain.root_hash().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn show(&self, held: &Held) -> Result<(), MemberError> {
        if self.id.role() == Role::Registry {
            // Its certificate issues others, and is shown to nobody.
            self.identity.believe(&Roots::from_pem(&held.roots)?);
            return Ok(());
        }
        Ok(self.identity.replace_pem(&held.chain, &held.key, &held.roots)?)
    }
}

fn client(
    address: &str,
    identity: &Identity,
    expected: &Expected,
) -> Result<RegistryClient, MemberError> {
    Ok(RegistryClient::with_options(address, options(identity, expected)?)?)
}

fn options(identity: &Identity, expected: &Expected) -> Result<RegistryOptions, MemberError> {
    let tls = identity.client_config(expected).map_err(MemberError::Speak)?;
    Ok(RegistryOptions { tls: Some(tls), ..RegistryOptions::default() })
}
