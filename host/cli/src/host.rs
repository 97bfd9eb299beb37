//! `wharf host`

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use tokio::net::TcpListener;

use wharf_host::{Advertise, Config, Host};
use wharf_net::Secret;
use wharf_runtime::{Limits, Settings};

use crate::args::{HostArguments, Serving};
use crate::listen::bind;
use crate::shutdown::Shutdown;

pub(crate) async fn run(arguments: HostArguments) -> anyhow::Result<()> {
    let registry = match arguments.registry.as_str() {
        "none" => None,
        address => Some(arguments.identity.client(address)?),
    };
    // An address that is of no use is refused before anything is bound.
    Advertise::new(arguments.serving.advertise.as_deref(), arguments.serving.listen)?;
    let mut shutdown = Shutdown::listen()?;
    let listener = bind(arguments.serving.listen, "--listen").await?;
    let mut config = config(&arguments.serving, listener.local_addr()?)?;
    config.announce.registry = registry;
    let http = http_listener(&arguments.serving).await?;
    let http_address = http.as_ref().map(TcpListener::local_addr).transpose()?;
    let host = Host::start(listener, http, config)?;
    let mut out = std::io::stdout();
    writeln!(out, "host: {}", host.address())?;
    if let Some(address) = http_address {
        writeln!(out, "http: http://{address}")?;
    }
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
    let limits = Limits {
        memory: serving.memory as usize * 1024 * 1024,
        call_timeout: serving.call_timeout,
        ..Limits::default()
    };
    config.plugins.settings = Settings { limits, ..Settings::default() };
    config.plugins.cache = cache(serving.cache.as_deref());
    config.plugins.require_cache = serving.cache.is_some();
    config.rpc.max_connections = serving.max_connections as usize;
    config.rpc.idle_timeout = serving.idle_timeout;
    config.rpc.drain_timeout = serving.drain_timeout;
    let token = serving.token.as_deref().filter(|token| !token.is_empty());
    config.rpc.token = token.map(|token| Secret::new(token.as_bytes()));
    config.announce.metadata = serving.metadata.iter().cloned().collect();
    let most = wharf_registry_api::limits::METADATA - 1;
    if config.announce.metadata.len() > most {
        anyhow::bail!("--metadata: at most {most} are taken");
    }
    Ok(config)
}

/// The listener of the HTTP side, unless there is to be none.
pub(crate) async fn http_listener(serving: &Serving) -> anyhow::Result<Option<TcpListener>> {
    match serving.http_listen.0 {
        Some(address) => Ok(Some(bind(address, "--http-listen").await?)),
        None => Ok(None),
    }
}

/// Where compiled code is kept: as told, or where users' caches are (on Unix by the XDG Base Directory
/// Specification).
fn cache(told: Option<&Path>) -> Option<PathBuf> {
    match told {
        Some(none) if none == Path::new("none") => None,
        Some(path) => Some(path.to_owned()),
        None => Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("wharf")),
    }
}
