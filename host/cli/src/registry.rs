//! `wharf registry`

use std::io::Write;
use std::net::SocketAddr;

use wharf_client::Member;
use wharf_registry::Store;
use wharf_registry::identity::{DomainFolder, Issuer, IssuerOptions};

use crate::args::{Issuing, RegistryServing};
use crate::host::connections;
use crate::identity::machine;
use crate::listen::{bind, bind_dns};
use crate::reloading::reload;
use crate::shutdown::Shutdown;
use crate::{access, keeping, supervisor};

pub(crate) async fn run(arguments: RegistryServing, files: Option<u64>) -> anyhow::Result<()> {
    let default = match arguments.keeping.store {
        Some(_) => Store::Memory,
        None => keeping::default_file(arguments.listen)?,
    };
    let principals = arguments.rights.load()?;
    let issuer = arguments.issuing.issuer(arguments.listen).await?;
    let scheme =
        if issuer.is_some() || arguments.tls.tls_certificate.is_some() { "https" } else { "http" };
    let tls = arguments.tls.load()?;
    let listen = arguments.listen;
    let mut config =
        keeping::config(&arguments.keeping, principals, tls, issuer, (listen, default))?;
    config.max_connections = connections(arguments.max_connections, files);
    let (principals, tls) = (config.principals.clone(), config.tls.clone());
    let mut shutdown = Shutdown::listen()?;
    reload(principals, tls)?;
    let listener = bind(arguments.listen, "--listen").await?;
    let dns = bind_dns(&arguments.keeping).await?;
    let dns_address = dns.as_ref().map(|dns| dns.connections.local_addr()).transpose()?;
    let registry = tokio::select! {
        registry = wharf_registry::Registry::open_on(&listener, config) => registry?,
        () = shutdown.asked() => return Ok(()),
    };
    let mut out = std::io::stdout();
    writeln!(out, "registry: {scheme}://{}", listener.local_addr()?)?;
    if let Some(address) = dns_address {
        writeln!(out, "dns: {address}")?;
    }
    out.flush()?;
    supervisor::ready();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serve = registry.with_dns(dns).serve(listener, async {
        let _ = stopped.await;
    });
    let mut serve = std::pin::pin!(serve);
    tokio::select! {
        served = &mut serve => served?,
        () = shutdown.asked() => {
            supervisor::stopping();
            drop(stop);
            let ending = async {
                if let Err(error) = serve.await {
                    tracing::error!(%error, "the registry failed");
                }
            };
            shutdown.or_at_once(ending).await;
        }
    }
    Ok(())
}

impl Issuing {
    /// What gives out certificates, if there is a trust domain.
    async fn issuer(&self, listen: SocketAddr) -> anyhow::Result<Option<Issuer>> {
        let Some(path) = &self.identity else { return Ok(None) };
        let folder = DomainFolder::at(path);
        if let Some(at) = &self.join_at {
            let member = match (folder.exists(), &self.join) {
                (false, Some(token)) => access::join(path, at, token, "registry").await?,
                _ => Member::open(path)?,
            };
            tokio::spawn(access::keep(member, at.clone()));
        }
        let mut options = IssuerOptions::default();
        options.life = self.certificate_life;
        options.names = certificate_names(&self.certificate_name, listen);
        Ok(Some(Issuer::open(folder, options)?))
    }
}

/// The names in a registry's certificate: as told, and those by which this machine calls itself.
pub(crate) fn certificate_names(told: &[String], listen: SocketAddr) -> Vec<String> {
    let mut names = told.to_vec();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.push(machine());
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names.sort();
    names.dedup();
    names
}
