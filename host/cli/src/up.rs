//! `wharf up`: registry and host in one process.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use wharf_host::{Advertise, FileState, Host};
use wharf_net::principals::Principals;
use wharf_registry::Store;
use wharf_schema::printable;

use crate::args::Up;
use crate::host::Secured;
use crate::listen::{bind, bind_dns};
use crate::reloading::reload;
use crate::secure::Secure;
use crate::shutdown::Shutdown;
use crate::{keeping, supervisor};

/// How long announcing to the registry in the same process may take.
const ANNOUNCING: Duration = Duration::from_secs(5);

pub(crate) async fn run(arguments: Up, files: Option<u64>) -> anyhow::Result<()> {
    let plugins = arguments.serving.plugins.clone();
    // Another folder that is not there was most likely mistyped.
    if plugins.as_os_str() == crate::args::PLUGINS {
        std::fs::create_dir_all(&plugins)
            .with_context(|| format!("the folder {} cannot be created", plugins.display()))?;
    }
    let greeted = async |running: Running<'_>| {
        greet(&running, &plugins)?;
        supervisor::ready();
        std::future::pending::<anyhow::Result<()>>().await
    };
    serve(arguments, files, greeted).await
}

/// A registry and a host that run.
pub(crate) struct Running<'r> {
    pub(crate) host: &'r Host,
    /// The address of the registry, as a URL.
    pub(crate) registry: &'r str,
    /// The same of the host's HTTP side.
    http: Option<String>,
    dns: Option<SocketAddr>,
    /// The identity that callers may use.
    caller: Option<&'r Path>,
}

impl Running<'_> {
    /// The flags of commands that call this host, with a space before them.
    pub(crate) fn flags(&self) -> String {
        let (_, address) = self.registry.split_once("://").unwrap_or_default();
        let default = address == format!("127.0.0.1:{}", wharf_registry_api::DEFAULT_PORT);
        let mut flags =
            if default { String::new() } else { format!(" --registry {}", self.registry) };
        if let Some(caller) = self.caller {
            flags.push_str(&format!(" --identity {}", caller.display()));
        }
        flags
    }
}

/// Runs both until a signal comes, and `beside` once they are up. When that ends, so does everything.
pub(crate) async fn serve(
    arguments: Up,
    files: Option<u64>,
    beside: impl AsyncFnOnce(Running<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    Advertise::new(arguments.serving.advertise.as_deref(), arguments.serving.listen)?;
    // By default the records are kept in memory: the only host declares itself again after a
    // restart.
    let principals = arguments.rights.load()?;
    let secure = arguments.secure.then(|| Secure::open(&arguments)).transpose()?;
    let tls = arguments.tls.load()?;
    let for_host = match (&principals, &secure, &arguments.serving.token) {
        (None, Some(_), None) => Some(Principals::certified()),
        _ => principals.clone(),
    };
    crate::host::check_listens(&arguments.serving, for_host.as_ref())?;
    let registry_config = keeping::config(
        &arguments.keeping,
        principals.clone(),
        tls.clone(),
        secure.as_ref().map(|secure| secure.issuer.clone()),
        (arguments.registry_listen, Store::Memory),
    )?;
    let is_encrypted = tls.is_some() || secure.is_some();
    let mut shutdown = Shutdown::listen()?;
    reload(principals.clone(), tls.clone())?;
    let scheme = if is_encrypted { "https" } else { "http" };
    let registry = tokio::select! {
        registry = wharf_registry::Registry::open(registry_config) => registry?,
        () = shutdown.asked() => return Ok(()),
    };
    let registry_listener = bind(arguments.registry_listen, "--registry-listen").await?;
    let listener = bind(arguments.serving.listen, "--listen").await?;
    let dns = bind_dns(&arguments.keeping).await?;
    let dns_address = dns.as_ref().map(|dns| dns.connections.local_addr()).transpose()?;

    let mut registry_address = registry_listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut registry = tokio::spawn(registry.with_dns(dns).serve(registry_listener, async {
        let _ = stopped.await;
    }));

    if registry_address.ip().is_unspecified() {
        registry_address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let registry_url = format!("{scheme}://{registry_address}");
    let mut config = crate::host::config(&arguments.serving, listener.local_addr()?, files)?;
    let secrets = [
        &arguments.access.registry_certificate,
        &arguments.access.identity,
        &arguments.rights.principals,
        &arguments.tls.tls_key,
        &arguments.keeping.etcd_certificate,
    ];
    config.plugins.granting.protected.extend(secrets.into_iter().flatten().cloned());
    config.rpc.principals = for_host.unwrap_or(config.rpc.principals);
    let (secured, caller) = match &secure {
        Some(secure) => {
            config.plugins.granting.protected.push(secure.folder().to_owned());
            let caller = secure.caller(&registry_url).await?;
            (Secured::of(secure.host(&registry_url).await?)?, Some(caller))
        }
        None => (Secured { member: None, tls }, None),
    };
    config.announce.registry =
        Some(arguments.access.client(&registry_url, secured.member.as_ref())?);
    secured.apply(&mut config, &registry_url, None)?;
    let http = crate::host::http_listener(&arguments.serving).await?;
    let http_address = http.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?;
    let host = Host::start(listener, http, config)?;
    let up = async {
        host.ready().await;
        // Print that everything is up only once the services are registered.
        if tokio::time::timeout(ANNOUNCING, host.announced()).await.is_err() {
            tracing::error!("the services are not announced; see the errors above");
        }
    };
    let beside = async {
        up.await;
        let running = Running {
            host: &host,
            registry: &registry_url,
            http: http_address.map(|address| format!("{scheme}://{address}")),
            dns: dns_address,
            caller: caller.as_deref(),
        };
        beside(running).await
    };
    let mut ended = tokio::select! {
        ended = beside => return ended,
        () = shutdown.asked() => None,
        // Without its registry the process is useless, so it ends. A supervisor can restart it.
        ended = &mut registry => Some(ended),
    };
    supervisor::stopping();
    tracing::info!("shutting down: calls in flight finish first");
    let ending = async {
        host.drain().await;
        drop(stop);
        if ended.is_none() {
            ended = Some(registry.await);
        }
    };
    shutdown.or_at_once(ending).await;
    match ended {
        Some(ended) => Ok(ended??),
        None => Ok(()),
    }
}

/// Prints the addresses, and a command to try. Scripts may read the first three lines.
fn greet(running: &Running<'_>, plugins: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "registry: {}", running.registry)?;
    writeln!(out, "host: {}", running.host.address())?;
    if let Some(http) = &running.http {
        writeln!(out, "http: {http}")?;
    }
    if let Some(dns) = running.dns {
        writeln!(out, "dns: {dns}")?;
    }
    let files = running.host.files();
    for (file, report) in &files {
        match &report.state {
            FileState::Refused(reason) => {
                writeln!(out, "  {} does not load: {}", printable(file), printable(reason))?;
            }
            _ => writeln!(out, "  {} serves {}", printable(file), report.services.join(", "))?,
        }
    }
    if files.is_empty() {
        writeln!(out, "  {} is empty: drop a .wasm component into it", plugins.display())?;
    }
    let flags = running.flags();
    writeln!(out, "try: wharf services{flags}")?;
    if files.values().flat_map(|report| &report.services).any(|s| s.contains("/arith@")) {
        writeln!(out, "     wharf call{flags} Arith.Multiply '{{\"a\":7,\"b\":8}}'")?;
    }
    out.flush()
}
