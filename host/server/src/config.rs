//! The config of a host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use wharf_net::principals::Principals;
use wharf_net::tls::Tls;
use wharf_registry_api::{Metadata, RegistryClient};
use wharf_runtime::{CompilerProcess, Settings};

use crate::doors::Doors;
use crate::plugins::Compatible;
use crate::plugins::granting::Granting;

/// The config of a host. Each part belongs to the module that uses it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How plugins are loaded and run.
    pub plugins: PluginsConfig,
    /// How callers are served.
    pub rpc: RpcConfig,
    /// What is announced about this host.
    pub announce: AnnounceConfig,
}

/// How plugins are loaded and run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginsConfig {
    /// The folder whose `*.wasm` files are served.
    pub folder: PathBuf,
    /// The settings of all plugins. A plugin's sidecar overrides them.
    pub settings: Settings,
    /// Where grants come from, and what they must not reach.
    pub granting: Granting,
    /// Where compiled code is kept between runs: a directory that only its owner can write to.
    pub cache: Option<PathBuf>,
    /// Whether the host refuses to start if the cache cannot be used. Otherwise it runs without a
    /// cache.
    pub require_cache: bool,
    /// The largest plugin that is loaded, in bytes; 256 MiB by default.
    pub max_size: u64,
    /// Whether a replacement may break those who call what it replaces. A plugin's sidecar overrides it.
    pub compatible: Compatible,
    /// How to start a process that compiles a plugin, with limits. `None`: plugins are compiled on
    /// threads of this process, without limits.
    pub compiler: Option<CompilerProcess>,
    /// Bytes that the guests of all plugins may take together. `None`: half of the machine's memory.
    pub guest_memory: Option<u64>,
}

/// How callers are served. Every limit of the RPC port is here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RpcConfig {
    /// The protocols that callers may speak; all by default.
    pub doors: Doors,
    /// Origins of web pages whose scripts may call over HTTP, as `https://app.example`; none by
    /// default.
    pub allowed_origins: Vec<String>,
    /// Who may call what. By default everybody may call everything.
    pub principals: Principals,
    /// TLS on the RPC port and the HTTP side. Without it, connections are not encrypted.
    pub tls: Option<Tls>,
    /// Connections that may be open at once; 1024 by default.
    pub max_connections: usize,
    /// Bytes of replies that wait for callers to read them, all connections together; 512 MiB by
    /// default.
    pub max_unread: u64,
    /// A connection without calls and frames is closed after this time; 5 minutes by default.
    pub idle_timeout: Duration,
    /// How long calls in flight may take once the host is told to stop; 10 seconds by default.
    pub drain_timeout: Duration,
    /// The limits of calls.
    pub calls: CallBounds,
}

/// The limits of calls, for every protocol.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallBounds {
    /// Calls in flight on one connection.
    pub max_calls: u32,
    /// The longest time that a call may take, even if its caller and plugin allow more; a day by
    /// default.
    pub max_timeout: Duration,
    /// Bytes of the arguments or the result of one call.
    pub max_message: u64,
    /// Bytes of arguments that all calls in flight may hold together; 1 GiB by default.
    pub max_held: u64,
}

/// What is announced about a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AnnounceConfig {
    /// The name of this host in the registry. Two running hosts must not share a name.
    pub name: String,
    /// The address where others reach the listener.
    pub advertise: Advertise,
    /// The registry that the services are announced to. `None`: they are not announced.
    pub registry: Option<RegistryClient>,
    /// Further metadata about this host. Programs that read the registry can select hosts by it.
    pub metadata: Metadata,
}

impl Config {
    /// A config with the default limits.
    #[must_use]
    pub fn new(name: impl Into<String>, plugins: impl Into<PathBuf>, advertise: Advertise) -> Self {
        Config {
            plugins: PluginsConfig {
                folder: plugins.into(),
                settings: Settings::default(),
                granting: Granting::default(),
                cache: None,
                require_cache: true,
                max_size: 256 * 1024 * 1024,
                compatible: Compatible::Any,
                compiler: None,
                guest_memory: None,
            },
            rpc: RpcConfig {
                doors: Doors::default(),
                allowed_origins: Vec::new(),
                principals: Principals::open(),
                tls: None,
                max_connections: 1024,
                max_unread: 512 * 1024 * 1024,
                idle_timeout: Duration::from_secs(300),
                drain_timeout: Duration::from_secs(10),
                calls: CallBounds::default(),
            },
            announce: AnnounceConfig {
                name: name.into(),
                advertise,
                registry: None,
                metadata: Metadata::new(),
            },
        }
    }
}

impl Default for CallBounds {
    fn default() -> Self {
        CallBounds {
            max_calls: wharf_wire::limits::MAX_CALLS,
            max_timeout: Duration::from_secs(24 * 3600),
            max_message: wharf_wire::limits::MAX_MESSAGE,
            max_held: 1024 * 1024 * 1024,
        }
    }
}

/// The address that a host announces. Others can connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise(String);

/// An address that others could not connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// The address is unspecified (`0.0.0.0` or `[::]`), and no other was given.
    #[error(
        "the host would announce {0}, but nobody can connect to that address: set a reachable one with --advertise HOST:PORT"
    )]
    Unspecified(String),
    /// The text is not an address.
    #[error("'{0}' is not an address to advertise: write HOST:PORT, as in 10.0.0.7:7400")]
    Malformed(String),
}

impl Advertise {
    /// The address where others reach another listener of this host, which is bound to `bound`. If
    /// `bound` is unspecified, this is the advertised host with the port of `bound`.
    pub(crate) fn beside(&self, bound: SocketAddr) -> String {
        match self.0.rsplit_once(':') {
            Some((host, _)) if bound.ip().is_unspecified() => format!("{host}:{}", bound.port()),
            _ => bound.to_string(),
        }
    }

    /// The address `named`, or else the address that the listener is bound to. If the port of
    /// `named` is 0, the listener's port is used.
    ///
    /// # Errors
    /// When nobody could connect to that address.
    pub fn new(named: Option<&str>, bound: SocketAddr) -> Result<Self, AdvertiseError> {
        let Some(named) = named else {
            if bound.ip().is_unspecified() {
                return Err(AdvertiseError::Unspecified(bound.to_string()));
            }
            return Ok(Advertise(bound.to_string()));
        };
        let malformed = || AdvertiseError::Malformed(named.to_owned());
        let (host, port) = named.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = port.parse().map_err(|_| malformed())?;
        let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip = in_brackets.unwrap_or(host).parse::<std::net::IpAddr>();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        let valid = match in_brackets {
            Some(_) => ip.as_ref().is_ok_and(std::net::IpAddr::is_ipv6),
            None => !host.is_empty() && host.chars().all(plain),
        };
        if !valid {
            return Err(malformed());
        }
        if ip.is_ok_and(|ip| ip.is_unspecified()) {
            return Err(AdvertiseError::Unspecified(named.to_owned()));
        }
        let port = if port == 0 { bound.port() } else { port };
        Ok(Advertise(format!("{host}:{port}")))
    }

    /// `host:port`
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertise(named: Option<&str>, bound: &str) -> Result<String, AdvertiseError> {
        Advertise::new(named, bound.parse().unwrap()).map(|a| a.as_str().to_owned())
    }

    #[test]
    fn nobody_is_sent_to_an_unspecified_address() {
        assert_eq!(advertise(None, "127.0.0.1:7400").unwrap(), "127.0.0.1:7400");
        assert_eq!(advertise(Some("db.example:0"), "0.0.0.0:7400").unwrap(), "db.example:7400");
        assert_eq!(advertise(Some("[::1]:9"), "0.0.0.0:7400").unwrap(), "[::1]:9");
        for (named, bound) in [
            (None, "0.0.0.0:7400"),
            (None, "[::]:7400"),
            (Some("0.0.0.0:7400"), "127.0.0.1:7400"),
            (Some("[::]:7400"), "127.0.0.1:7400"),
        ] {
            let error = advertise(named, bound).unwrap_err();
            assert!(matches!(error, AdvertiseError::Unspecified(_)), "{named:?} {bound}");
            assert!(error.to_string().contains("--advertise HOST:PORT"));
        }
        for bad in ["host", ":1", "host:x", "::1:80", "foo/bar:1"] {
            assert!(matches!(
                advertise(Some(bad), "127.0.0.1:1"),
                Err(AdvertiseError::Malformed(_))
            ));
        }
    }
}
