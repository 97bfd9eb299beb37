//! Makes the clients of commands: with their token, their identity, and the authorities that they trust.

use std::time::Duration;

use anyhow::Context;
use wharf_client::{Member, MemberError, Role};
use wharf_registry_api::{Code, RegistryClient, RegistryOptions};

use crate::args::{Access, Asked, REGISTRY};
use crate::values::check_place;

/// How long a command waits for a new certificate, if it still has one that may do.
const RENEWING: Duration = Duration::from_secs(2);

impl Access {
    /// A client of the registry, or registries, at `address`, for whom `member` is if it is one.
    pub(crate) fn client(
        &self,
        address: &str,
        member: Option<&Member>,
    ) -> anyhow::Result<RegistryClient> {
        let options = match member {
            Some(member) => member.registry_options()?,
            None => RegistryOptions::default(),
        };
        let mut options = RegistryOptions { token: self.registry_token.clone(), ..options };
        for (path, into) in [
            (&self.registry_authorities, &mut options.authorities),
            (&self.registry_certificate, &mut options.certificate),
        ] {
            if let Some(path) = path {
                let pem = std::fs::read(path)
                    .with_context(|| format!("{} cannot be read", path.display()))?;
                *into = Some(pem);
            }
        }
        Ok(RegistryClient::with_options(&registry(address, member.is_some()), options)?)
    }

    /// The member whose identity the command uses, with a certificate that is new enough.
    pub(crate) async fn member(&self, registry: &str) -> anyhow::Result<Option<Member>> {
        let Some(folder) = &self.identity else { return Ok(None) };
        let member = no_registry(Member::open(folder)?)?;
        if member.is_due() {
            let registry = self::registry(registry, true);
            // What there is may still do.
            match tokio::time::timeout(RENEWING, member.renew(&registry)).await {
                Ok(Err(error)) if is_refused(&error) => return Err(error.into()),
                Ok(Err(error)) => {
                    tracing::debug!(error = %wharf_net::chain(&error), "not renewed");
                }
                Ok(Ok(())) | Err(_) => {}
            }
        }
        Ok(Some(member))
    }

    /// The same for a server. It joins with a token if there is no identity yet, or none that can be renewed.
    pub(crate) async fn member_or_join(
        &self,
        address: &str,
        token: Option<&str>,
        name: &str,
    ) -> anyhow::Result<Option<Member>> {
        let (Some(folder), address) = (&self.identity, registry(address, true)) else {
            return Ok(None);
        };
        check_place("--identity", folder)?;
        let member = match (Member::is_in(folder), token) {
            (false, Some(token)) => join(folder, &address, token, name).await?,
            _ => no_registry(Member::open(folder)?)?,
        };
        if member.is_due() {
            let renewed = member.renew(&address).await;
            match (renewed, token) {
                (Ok(()), _) => {}
                (Err(error), Some(token)) if is_refused(&error) => {
                    return join(folder, &address, token, name).await.map(Some);
                }
                (Err(error), None) if is_refused(&error) => return Err(error.into()),
                // It is tried again while the server runs.
                (Err(error), _) => {
                    tracing::warn!(error = %wharf_net::chain(&error), "the certificate is not renewed");
                }
            }
        }
        Ok(Some(member))
    }
}

/// Refuses the folder of a registry, which no other command has any business with.
fn no_registry(member: Member) -> anyhow::Result<Member> {
    if member.id().role() == Role::Registry {
        anyhow::bail!(
            "--identity: this is the folder of a registry: give hosts and callers folders of their own, with tokens from 'wharf identity token'"
        );
    }
    Ok(member)
}

/// Joins with the token's name, or with this one if the token leaves the choice.
pub(crate) async fn join(
    folder: &std::path::Path,
    registry: &str,
    token: &str,
    name: &str,
) -> anyhow::Result<Member> {
    let member = match Member::join(folder, registry, token, None).await {
        Err(MemberError::Nameless(_)) => Member::join(folder, registry, token, Some(name)).await?,
        joined => joined?,
    };
    tracing::info!(member = %member.id(), "joined the trust domain");
    Ok(member)
}

/// Keeps a member's certificate new while the process lives.
pub(crate) async fn keep(member: Member, registry: String) {
    if let Err(error) = member.keep(&registry).await {
        tracing::error!(error = %wharf_net::chain(&error), "the certificate will not be renewed");
    }
}

/// Whether a registry answered, and will not change its mind.
fn is_refused(error: &MemberError) -> bool {
    let MemberError::Refused(error) = error else { return false };
    error.problem().is_some_and(|problem| problem.code == Code::Forbidden)
}

/// The address of a registry. The usual one is encrypted for whoever has an identity.
pub(crate) fn registry(address: &str, has_identity: bool) -> String {
    match address == REGISTRY && has_identity {
        true => address.replacen("http://", "https://", 1),
        false => address.to_owned(),
    }
}

impl Asked {
    /// A client of the registry that the command asks.
    pub(crate) fn client(&self, member: Option<&Member>) -> anyhow::Result<RegistryClient> {
        self.access.client(&self.registry, member)
    }

    /// The member whose identity the command uses.
    pub(crate) async fn member(&self) -> anyhow::Result<Option<Member>> {
        self.access.member(&self.registry).await
    }
}
