//! `wharf registry`

use std::io::Write;

use wharf_registry::Config;

use crate::args::Registry;
use crate::listen::bind;
use crate::shutdown::Shutdown;

pub(crate) async fn run(arguments: Registry) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let listener = bind(arguments.listen, "--listen").await?;
    let mut out = std::io::stdout();
    writeln!(out, "registry: http://{}", listener.local_addr()?)?;
    out.flush()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let config = Config::with_ttl(arguments.ttl);
    let serve = wharf_registry::run(listener, config, async {
        let _ = stopped.await;
    });
    let mut serve = std::pin::pin!(serve);
    tokio::select! {
        served = &mut serve => served?,
        () = shutdown.asked() => {
            drop(stop);
            let ending = async {
                if let Err(error) = serve.await {
                    tracing::error!(%error, "the registry ended badly");
                }
            };
            shutdown.or_at_once(ending).await;
        }
    }
    Ok(())
}
