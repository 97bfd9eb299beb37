//! `wharf host`

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use tokio::net::TcpListener;

use wharf_client::{Member, Role};
use wharf_host::{Advertise, Config, Doors, Host};
use wharf_net::principals::Principals;
use wharf_net::tls::{Clients, Tls};
use wharf_runtime::{CompilerProcess, Limits, Settings};

use crate::args::{HostArguments, Serving};
use crate::identity::machine;
use crate::listen::bind;
use crate::reloading::reload;
use crate::rights::check_listen;
use crate::shutdown::Shutdown;
use crate::values::check_place;
use crate::{access, supervisor};

pub(crate) async fn run(arguments: HostArguments, files: Option<u64>) -> anyhow::Result<()> {
    // An address that is of no use is refused before anything is bound.
    Advertise::new(arguments.serving.advertise.as_deref(), arguments.serving.listen)?;
    let principals = arguments.rights.load()?;
    let tls = arguments.tls.load()?;
    let secured = Secured::new(&arguments, tls.clone()).await?;
    let principals = principals.or_else(|| secured.principals(&arguments.serving));
    check_listens(&arguments.serving, principals.as_ref())?;
    let registry = match arguments.registry.as_str() {
        "none" => None,
        address => Some(arguments.access.client(address, secured.member.as_ref())?),
    };
    let mut shutdown = Shutdown::listen()?;
    reload(principals.clone(), tls)?;
    let listener = bind(arguments.serving.listen, "--listen").await?;
    let mut config = config(&arguments.serving, listener.local_addr()?, files)?;
    config.announce.registry = registry;
    let secrets = [
        &arguments.access.registry_certificate,
        &arguments.access.identity,
        &arguments.rights.principals,
        &arguments.tls.tls_key,
    ];
    config.plugins.granting.protected.extend(secrets.into_iter().flatten().cloned());
    secured.apply(&mut config, &arguments.registry, arguments.serving.name.as_deref())?;
    config.rpc.principals = principals.unwrap_or(config.rpc.principals);
    let http = http_listener(&arguments.serving).await?;
    let http_address = http.as_ref().map(TcpListener::local_addr).transpose()?;
    let is_encrypted = config.rpc.tls.is_some();
    let host = Host::start(listener, http, config)?;
    let mut out = std::io::stdout();
    writeln!(out, "host: {}", host.address())?;
    if let Some(address) = http_address {
        let scheme = if is_encrypted { "https" } else { "http" };
        writeln!(out, "http: {scheme}://{address}")?;
    }
    out.flush()?;
    supervisor::ready();
    shutdown.asked().await;
    supervisor::stopping();
    tracing::info!("shutting down: calls in flight finish first");
    shutdown.or_at_once(host.drain()).await;
    Ok(())
}

/// How a host proves who it is.
pub(crate) struct Secured {
    pub(crate) member: Option<Member>,
    pub(crate) tls: Option<Tls>,
}

impl Secured {
    async fn new(arguments: &HostArguments, tls: Option<Tls>) -> anyhow::Result<Self> {
        let HostArguments { serving, registry, access, join, .. } = arguments;
        if access.identity.is_some() && registry == "none" {
            anyhow::bail!(
                "--identity needs a registry that renews the certificate: say which with --registry"
            );
        }
        let name = serving.name.clone().unwrap_or_else(machine);
        let member = access.member_or_join(registry, join.as_deref(), &name).await?;
        match member {
            Some(member) => Secured::of(member),
            None => Ok(Secured { member: None, tls }),
        }
    }

    /// A host that is a member of a trust domain.
    pub(crate) fn of(member: Member) -> anyhow::Result<Self> {
        if member.id().role() != Role::Host {
            anyhow::bail!(
                "the identity is for {}, and not for a host: join with a token from 'wharf identity token --host NAME'",
                member.id()
            );
        }
        let tls = Tls::new(member.identity().clone(), Clients::Asked)?;
        Ok(Secured { member: Some(member), tls: Some(tls) })
    }

    /// Who may call if nothing else says so: whoever has a certificate of the trust domain.
    pub(crate) fn principals(&self, serving: &Serving) -> Option<Principals> {
        let certified =
            self.tls.as_ref().is_some_and(Tls::knows_its_clients) || self.member.is_some();
        (certified && serving.token.is_none()).then(Principals::certified)
    }

    /// Serves with TLS, under the name in the certificate, and keeps that new.
    pub(crate) fn apply(
        self,
        config: &mut Config,
        registry: &str,
        chosen: Option<&str>,
    ) -> anyhow::Result<()> {
        config.rpc.tls = self.tls;
        let Some(member) = self.member else { return Ok(()) };
        let name = member.id().name().to_owned();
        if chosen.is_some_and(|chosen| chosen != name) {
            anyhow::bail!(
                "--name {}: the certificate is for '{name}', and a host has the name of its certificate",
                chosen.unwrap_or_default()
            );
        }
        config.announce.name = name;
        tokio::spawn(access::keep(member, access::registry(registry, true)));
        Ok(())
    }
}

/// Refuses addresses where strangers could call everything, before anything is bound.
pub(crate) fn check_listens(
    serving: &Serving,
    principals: Option<&Principals>,
) -> anyhow::Result<()> {
    let principals = match (principals, serving.token.as_deref()) {
        (Some(principals), _) => principals.clone(),
        (None, Some(token)) => Principals::only(token.as_bytes()),
        (None, None) => Principals::open(),
    };
    check_listen("--listen", serving.listen, &principals, serving.anyone_may_call)?;
    match serving.http_listen.0 {
        Some(http) => check_listen("--http-listen", http, &principals, serving.anyone_may_call),
        None => Ok(()),
    }
}

/// What the flags say of a host that listens on `bound`, in a process that may open so many files.
pub(crate) fn config(
    serving: &Serving,
    bound: SocketAddr,
    files: Option<u64>,
) -> anyhow::Result<Config> {
    let advertise = Advertise::new(serving.advertise.as_deref(), bound)?;
    let name = serving.name.clone().unwrap_or_else(|| {
        let machine = gethostname::gethostname();
        format!("{}:{}", machine.to_string_lossy(), bound.port())
    });
    let mut config = Config::new(name, &serving.plugins, advertise);
    let limits = Limits {
        memory: usize::try_from(serving.memory).unwrap_or(usize::MAX),
        call_timeout: serving.call_timeout,
        ..Limits::default()
    };
    config.plugins.settings = Settings { limits, ..Settings::default() };
    config.plugins.cache = cache(serving.cache.as_deref());
    if let Some(told) = serving.cache.as_ref().and(config.plugins.cache.as_ref()) {
        check_place("--cache", told)?;
    }
    config.plugins.require_cache = serving.cache.is_some();
    config.plugins.granting.file.clone_from(&serving.grants);
    config.plugins.granting.shared_folder = serving.plugins_shared;
    config.plugins.granting.protected.extend(config.plugins.cache.clone());
    config.plugins.compatible = serving.compatible;
    config.plugins.guest_memory = serving.guest_memory;
    config.plugins.compiler = Some(CompilerProcess {
        command: vec![this_program()?.into(), "compile".into()],
        memory: serving.compile_memory,
        time: serving.compile_timeout,
    });
    config.rpc.max_connections = connections(serving.max_connections, files);
    config.rpc.max_unread = serving.max_unread;
    config.rpc.idle_timeout = serving.idle_timeout;
    config.rpc.drain_timeout = serving.drain_timeout;
    config.rpc.doors = Doors::only(&serving.doors);
    config.rpc.allowed_origins.clone_from(&serving.allow_origin);
    if let Some(token) = &serving.token {
        config.rpc.principals = Principals::only(token.as_bytes());
    }
    config.announce.metadata = serving.metadata.iter().cloned().collect();
    let most = wharf_registry_api::limits::METADATA - 2;
    if config.announce.metadata.len() > most {
        anyhow::bail!("--metadata: at most {most} are taken");
    }
    Ok(config)
}

/// Files that connections leave for the rest: plugins, the HTTP side, the registry, the cache.
const KEPT_FILES: u64 = 256;

/// How many connections there may be.
pub(crate) fn connections(wanted: u32, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted as usize };
    let most = files.saturating_sub(KEPT_FILES).max(files / 2);
    let allowed = u64::from(wanted).min(most);
    if allowed < u64::from(wanted) {
        tracing::warn!(
            files,
            connections = allowed,
            "this process may open too few files for --max-connections {wanted}: raise the limit ('ulimit -Hn', LimitNOFILE=)"
        );
    }
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

/// The program that runs, even if its file was replaced by another version in the meantime: what
/// compiles and what runs the code must be the same.
fn this_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe()
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
