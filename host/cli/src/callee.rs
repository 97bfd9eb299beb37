//! The client of the commands that call hosts.

use std::time::Duration;

use wharf_client::{Client, Identity, Member};

use crate::args::Callee;
use crate::values::with_port;

impl Callee {
    /// A client of these hosts. Each call takes at most `timeout`.
    pub(crate) async fn client(&self, timeout: Duration) -> anyhow::Result<Client> {
        let mut builder = Client::builder().timeout(timeout).without_doubt();
        if let Some(token) = &self.token {
            builder = builder.token(token.as_str());
        }
        let member = self.asked.member().await?;
        if let Some(identity) = self.identity(member.as_ref())? {
            builder = builder.identity(&identity);
        }
        if let Some(name) = &self.host_name {
            builder = builder.host_name(name);
        }
        Ok(match &self.direct {
            Some(address) => builder.direct(&with_port(address, wharf_host::DEFAULT_PORT)),
            None => builder.registry_client(self.asked.client(member.as_ref())?),
        })
    }

    /// What a call shows to hosts, and whom it believes.
    fn identity(&self, member: Option<&Member>) -> anyhow::Result<Option<Identity>> {
        if let Some(member) = member {
            return Ok(Some(member.identity().clone()));
        }
        let Some(authorities) = &self.host_authorities else { return Ok(None) };
        Ok(Some(Identity::load(authorities, self.host_certificate.as_deref())?))
    }
}
