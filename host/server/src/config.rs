//! How a host behaves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use wharf_net::Secret;
use wharf_registry_api::{Metadata, RegistryClient};
use wharf_runtime::Settings;

/// How a host behaves: each part is for the one that uses it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How plugins are loaded and run.
    pub plugins: PluginsConfig,
    /// How callers are served.
    pub rpc: RpcConfig,
    /// What others are told of this host.
    pub announce: AnnounceConfig,
}

/// How plugins are loaded and run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginsConfig {
    /// The folder whose `*.wasm` files are served.
    pub folder: PathBuf,
    /// How a plugin is run whose sidecar says nothing else.
    pub settings: Settings,
    /// Where compiled code is kept between runs: a directory that only its owner can write.
    pub cache: Option<PathBuf>,
    /// Whether a cache that cannot be used keeps the host from starting; otherwise it goes without.
    pub require_cache: bool,
    /// The largest file that is taken for a plugin, in bytes; 256 MiB unless told otherwise.
    pub max_size: u64,
}

/// How callers are served. Every bound of the RPC port is here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RpcConfig {
    /// What a caller must show in its Hello; `None` asks for nothing.
    pub token: Option<Secret>,
    /// Connections that may be open at once; 1024 unless told otherwise.
    pub max_connections: usize,
    /// A connection without calls and frames is closed after this; 5 minutes unless told otherwise.
    pub idle_timeout: Duration,
    /// How long calls in flight may take once the host is told to stop; 10 seconds unless told otherwise.
    pub drain_timeout: Duration,
    /// What calls may take.
    pub calls: CallBounds,
}

/// What calls may take, whatever their protocol.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallBounds {
    /// Calls in flight on one connection.
    pub max_calls: u32,
    /// The longest that a call may take, whatever caller and plugin allow; a day unless told otherwise.
    pub max_timeout: Duration,
    /// Bytes of arguments or result of one call.
    pub max_message: u64,
    /// Bytes of arguments that all calls in flight may hold together; 1 GiB unless told otherwise.
    pub max_held: u64,
}

/// What others are told of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AnnounceConfig {
    /// By which the registry knows this host; no two running hosts may share one.
    pub name: String,
    /// Where others reach the listener.
    pub advertise: Advertise,
    /// Where to announce what is served; `None` announces nowhere.
    pub registry: Option<RegistryClient>,
    /// What the registry is told of this host beside its address, for whoever chooses by it.
    pub metadata: Metadata,
}

impl Config {
    /// A config with the default bounds.
    #[must_use]
    pub fn new(name: impl Into<String>, plugins: impl Into<PathBuf>, advertise: Advertise) -> Self {
        Config {
            plugins: PluginsConfig {
                folder: plugins.into(),
                settings: Settings::default(),
                cache: None,
                require_cache: true,
                max_size: 256 * 1024 * 1024,
            },
            rpc: RpcConfig {
                token: None,
                max_connections: 1024,
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

/// The address that a host announces: one that others can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise(String);

/// An address that would lead nobody here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// The listener takes connections on all addresses, and none of them was named.
    #[error(
        "the host would announce {0}, where nobody can connect to: name its reachable address with --advertise HOST:PORT"
    )]
    Unspecified(String),
    /// Not an address.
    #[error("'{0}' is not an address to advertise: write HOST:PORT, as in 10.0.0.7:7400")]
    Malformed(String),
}

impl Advertise {
    /// Where others reach what is bound to `bound`: there, or on this host's address with its port.
    pub(crate) fn beside(&self, bound: SocketAddr) -> String {
        match self.0.rsplit_once(':') {
            Some((host, _)) if bound.ip().is_unspecified() => format!("{host}:{}", bound.port()),
            _ => bound.to_string(),
        }
    }

    /// What was named, or else where the listener is bound. A named port of 0 stands for the
    /// listener's.
    ///
    /// # Errors
    /// When that would be an address that nobody can connect to.
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
