//! `wharf registry`

use std::io::Write;

use wharf_registry::Store;

use crate::args::RegistryArguments;
use crate::keeping;
use crate::listen::bind;
use crate::reloading::reload;
use crate::shutdown::Shutdown;

pub(crate) async fn run(arguments: RegistryArguments) -> anyhow::Result<()> {
    let default = match arguments.keeping.store {
        Some(_) => Store::Memory,
        None => keeping::default_file(arguments.listen)?,
    };
    let principals = arguments.rights.load()?;
    let config = keeping::config(&arguments.keeping, principals, arguments.listen, default)?;
    let (principals, tls) = (config.principals.clone(), config.tls.clone());
    let mut shutdown = reload(principals, tls, Shutdown::listen()?)?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let listener = bind(arguments.listen, "--listen").await?;
    let registry = tokio::select! {
        registry = wharf_registry::Registry::open_on(&listener, config) => registry?,
        () = shutdown.asked() => return Ok(()),
    };
    let mut out = std::io::stdout();
    writeln!(out, "registry: {scheme}://{}", listener.local_addr()?)?;
    out.flush()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serve = registry.serve(listener, async {
        let _ = stopped.await;
    });
    let mut serve = std::pin::pin!(serve);
    tokio::select! {
        served = &mut serve => served?,
        () = shutdown.asked() => {
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
