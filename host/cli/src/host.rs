//! `wharf host`

use std::io::Write;
use std::net::SocketAddr;

use wharf_host::{Advertise, Config, Host as RunningHost};
use wharf_registry_api::RegistryClient;
use wharf_runtime::Limits;

use crate::args::{Host, Serving};
use crate::listen::bind;
use crate::shutdown::Shutdown;

pub(crate) async fn run(arguments: Host) -> anyhow::Result<()> {
    let registry = match arguments.registry.as_str() {
        "none" => None,
        address => Some(RegistryClient::new(address)?),
    };
    // An address that is of no use is refused before anything is bound.
    Advertise::new(arguments.serving.advertise.as_deref(), arguments.serving.listen)?;
    let mut shutdown = Shutdown::listen()?;
    let listener = bind(arguments.serving.listen, "--listen").await?;
    let mut config = config(&arguments.serving, listener.local_addr()?)?;
    config.registry = registry;
    let host = RunningHost::start(listener, config)?;
    let mut out = std::io::stdout();
    writeln!(out, "host: {}", host.address())?;
    out.flush()?;
    shutdown.asked().await;
    tracing::info!("shutting down: calls in flight finish first");
    shutdown.or_at_once(host.drain()).await;
    Ok(())
}

/// What the flags say of a host that listens on `bound`.
pub(crate) fn config(serving: &Serving, bound: SocketAddr) -> anyhow::Result<Config> {
    let advertise = Advertise::new(serving.advertise.as_deref(), bound)?;
    let name = serving.name.clone().unwrap_or_else(|| {
        let machine = gethostname::gethostname();
        format!("{}:{}", machine.to_string_lossy(), bound.port())
    });
    let mut config = Config::new(name, &serving.plugins, advertise);
    config.limits = Limits {
        memory: serving.memory as usize * 1024 * 1024,
        call_timeout: serving.call_timeout,
        ..Limits::default()
    };
    config.max_connections = serving.max_connections as usize;
    config.idle_timeout = serving.idle_timeout;
    config.drain_timeout = serving.drain_timeout;
    config.token.clone_from(&serving.token);
    Ok(config)
}
