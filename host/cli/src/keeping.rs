//! What the flags say of a registry: its store, who may write, its TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use etcetera::BaseStrategy;
use wharf_net::principals::Principals;
use wharf_net::tls::Tls;
use wharf_registry::identity::Issuer;
use wharf_registry::{Config, EtcdConfig, Store, etcd};

use crate::args::Keeping;
use crate::values::check_place;

/// A registry's config, for an address to listen on; everything is read before anything is bound.
///
/// `default` is the store unless the flags name one.
pub(crate) fn config(
    keeping: &Keeping,
    principals: Option<Principals>,
    tls: Option<Tls>,
    issuer: Option<Issuer>,
    (listen, default): (SocketAddr, Store),
) -> anyhow::Result<Config> {
    let guarded = principals.is_some()
        || issuer.is_some()
        || tls.as_ref().is_some_and(Tls::knows_its_clients);
    if !listen.ip().is_loopback() && !guarded && !keeping.anyone_may_write {
        anyhow::bail!(
            "whoever reaches {listen} could register anything: give the registry --identity, --principals or --tls-client-authorities, listen on loopback, or say --anyone-may-write"
        );
    }
    let store = match keeping.store.as_deref() {
        None => default,
        Some(memory) if memory.eq_ignore_ascii_case("memory") => Store::Memory,
        Some(url) if url.starts_with("etcd://") || url.starts_with("etcds://") => {
            cluster(url, keeping)?
        }
        Some(url)
            if url.contains("://") || url.starts_with("etcd:") || url.starts_with("etcds:") =>
        {
            anyhow::bail!(
                "--store {}: write a file, memory, or etcd://HOST:PORT,HOST:PORT (etcds:// with TLS)",
                without_secret(url)
            )
        }
        Some(path) => {
            let path = PathBuf::from(path);
            check_place("--store", &path)?;
            Store::File(path)
        }
    };
    let for_etcd = keeping.etcd_authorities.is_some() || keeping.etcd_certificate.is_some();
    if for_etcd && matches!(store, Store::Memory | Store::File(_)) {
        anyhow::bail!(
            "--etcd-authorities and --etcd-certificate are for --store etcds://HOST:PORT"
        );
    }
    let shortest_drop = keeping.shortest_deregister;
    Ok(Config { store, shortest_drop, principals, tls, issuer, ..Config::with_ttl(keeping.ttl) })
}

/// A cluster by its URL: `etcd://HOST:PORT,HOST:PORT/PREFIX`, `etcds` for TLS.
fn cluster(url: &str, keeping: &Keeping) -> anyhow::Result<Store> {
    use anyhow::Context;

    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (members, prefix) = match rest.split_once('/') {
        Some((members, prefix)) => (members, prefix.trim_matches('/')),
        None => (rest, ""),
    };
    if members.contains('@') {
        anyhow::bail!(
            "--store {}: a user and a password do not belong into the address, where others see them: set WHARF_ETCD_USER to NAME:PASSWORD",
            without_secret(url)
        );
    }
    let has_files = keeping.etcd_authorities.is_some() || keeping.etcd_certificate.is_some();
    if scheme == "etcd" && has_files {
        anyhow::bail!(
            "--etcd-authorities and --etcd-certificate are for TLS: write --store etcds://{rest}"
        );
    }
    let endpoints: Vec<String> = members.split(',').map(str::to_owned).collect();
    let port =
        |member: &String| member.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
    if !endpoints.iter().all(port) {
        anyhow::bail!(
            "--store {url}: write the cluster's members as etcd://10.0.0.1:2379,10.0.0.2:2379, with etcds:// for TLS, and /PREFIX behind them for another one than /wharf"
        );
    }
    let read = |path: &Option<PathBuf>| {
        let path = path.as_ref();
        path.map(|path| {
            std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
        })
        .transpose()
    };
    read(&keeping.etcd_authorities)?;
    let certificate = read(&keeping.etcd_certificate)?;
    if let Some((pem, path)) = certificate.as_ref().zip(keeping.etcd_certificate.as_ref())
        && !String::from_utf8_lossy(pem).contains("PRIVATE KEY-----")
    {
        anyhow::bail!(
            "--etcd-certificate {}: there is no private key in it: put the certificate and its key into one file",
            path.display()
        );
    }
    let user = std::env::var("WHARF_ETCD_USER").ok();
    let user = user.map(|user| match user.split_once(':') {
        Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        None => Err(anyhow::anyhow!("WHARF_ETCD_USER is not NAME:PASSWORD")),
    });
    Ok(Store::Etcd(EtcdConfig {
        endpoints,
        prefix: format!("/{}", if prefix.is_empty() { "wharf" } else { prefix }),
        credentials: etcd::Credentials {
            encrypted: scheme == "etcds",
            authorities: keeping.etcd_authorities.clone(),
            certificate: keeping.etcd_certificate.clone(),
            user: user.transpose()?,
        },
    }))
}

/// An address without what may be a secret in it.
fn without_secret(url: &str) -> String {
    match (url.split_once(':'), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, hosts))) => format!("{scheme}://...@{hosts}"),
        _ => url.to_owned(),
    }
}

/// Where records are kept unless a flag says: where users' state is (XDG Base Directory
/// Specification), in a file for each port.
pub(crate) fn default_file(listen: SocketAddr) -> anyhow::Result<Store> {
    let base = etcetera::choose_base_strategy().ok();
    // Where a system has no place for state, it is kept with the data.
    let Some(base) = base.map(|base| base.state_dir().unwrap_or_else(|| base.data_dir())) else {
        anyhow::bail!(
            "there is no home directory to keep the registry's records in: say --store FILE, or --store memory"
        );
    };
    Ok(Store::File(base.join("wharf").join(format!("registry-{}.redb", listen.port()))))
}
