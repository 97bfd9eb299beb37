//! Makes the registry clients of commands: with their token, their certificate, and the authorities
//! that they trust.

use anyhow::Context;
use wharf_registry_api::{RegistryClient, RegistryOptions};

use crate::args::{Asked, Identity};

impl Identity {
    /// A client of the registry, or registries, at `address`.
    pub(crate) fn client(&self, address: &str) -> anyhow::Result<RegistryClient> {
        let mut options =
            RegistryOptions { token: self.registry_token.clone(), ..Default::default() };
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
        Ok(RegistryClient::with_options(address, options)?)
    }
}

impl Asked {
    /// A client of the registry that the command asks.
    pub(crate) fn client(&self) -> anyhow::Result<RegistryClient> {
        self.identity.client(&self.registry)
    }
}
