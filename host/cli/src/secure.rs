//! `wharf up --secure`: a trust domain for one machine, and a member for each who needs one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_client::{Member, Role, TrustDomain};
use wharf_registry::identity::{DomainFolder, Issuer, IssuerOptions};

use crate::args::Up;
use crate::identity::{machine, state};
use crate::registry::certificate_names;

/// How long the tokens last that the members show at once.
const TOKEN: Duration = Duration::from_secs(60);

/// A trust domain for one machine.
pub(crate) struct Secure {
    folder: PathBuf,
    domain: DomainFolder,
    pub(crate) issuer: Issuer,
    host: String,
}

impl Secure {
    /// The trust domain of the last start, or a new one.
    pub(crate) fn open(arguments: &Up) -> anyhow::Result<Self> {
        let folder = state()?.join(format!("secure-{}", arguments.registry_listen.port()));
        let domain = DomainFolder::at(folder.join("domain"));
        if !domain.exists() {
            let name: TrustDomain = machine().to_ascii_lowercase().parse()?;
            domain.init(&name)?;
        }
        let mut options = IssuerOptions::default();
        options.names = certificate_names(&[], arguments.registry_listen);
        let issuer = Issuer::open(domain.clone(), options)?;
        let host = arguments.serving.name.clone().unwrap_or_else(machine);
        Ok(Secure { folder, domain, issuer, host })
    }

    /// Where everything of it is kept.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The host of this process, once the registry serves.
    pub(crate) async fn host(&self, registry: &str) -> anyhow::Result<Member> {
        self.member("host", (Role::Host, &self.host), registry).await
    }

    /// The folder with which this user calls, once the registry serves.
    pub(crate) async fn caller(&self, registry: &str) -> anyhow::Result<PathBuf> {
        self.member("caller", (Role::Caller, "up"), registry).await?;
        Ok(self.folder.join("caller"))
    }

    async fn member(
        &self,
        folder: &str,
        (role, name): (Role, &str),
        registry: &str,
    ) -> anyhow::Result<Member> {
        let path = self.folder.join(folder);
        if let Ok(member) = Member::open(&path)
            && member.id().name() == name
            && *member.id().domain() == self.issuer.domain()
        {
            if !member.is_due() {
                return Ok(member);
            }
            if member.renew(registry).await.is_ok() {
                return Ok(member);
            }
        }
        let token = self.domain.token(role, name, TOKEN)?.to_string();
        Ok(Member::join(&path, registry, &token, None).await?)
    }
}
