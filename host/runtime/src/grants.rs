//! What a plugin may access outside of itself: nothing, unless the operator grants it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::imports::{Import, Need};

/// What one plugin may access. The default is nothing. Clocks, randomness and the log are always
/// available.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Environment variables, with their values.
    pub env: BTreeMap<String, String>,
    /// Directories. `None`: a component that imports `wasi:filesystem` does not load. An empty
    /// list: it loads, and finds no directory.
    pub dirs: Option<Vec<DirGrant>>,
    /// Hosts that HTTP requests may go to. `None` and an empty list: as for `dirs`, but for
    /// `wasi:http`.
    pub http: Option<Arc<[HttpHost]>>,
    /// Addresses that TCP connections may go to. `None` and an empty list: as for `dirs`, but for
    /// `wasi:sockets`.
    pub tcp: Option<Arc<[TcpAddress]>>,
}

/// A directory that a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirGrant {
    /// Its path on the host.
    pub host: PathBuf,
    /// The path under which the plugin sees it.
    pub guest: String,
    /// Whether the plugin may also write to it.
    pub writable: bool,
}

/// A host that HTTP requests may go to: `api.example.com` on the default port of the scheme, or
/// `api.example.com:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHost {
    host: String,
    port: Option<u16>,
}

/// An address that TCP connections may go to: `10.0.0.7:5432` or `db.example.com:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAddress {
    host: TcpHost,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TcpHost {
    Ip(IpAddr),
    Name(String),
}

/// A text that is not a host or an address. The message says how to write one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The text is not an [`HttpHost`].
    #[error("'{0}' is not an HTTP host: write HOST or HOST:PORT, as in api.example.com")]
    Http(String),
    /// The text is not a [`TcpAddress`].
    #[error("'{0}' is not a TCP address: write HOST:PORT, as in 10.0.0.7:5432")]
    Tcp(String),
}

impl Grants {
    /// Whether everything that `others` allow is allowed here too.
    #[must_use]
    pub fn cover(&self, others: &Grants) -> bool {
        fn all<T: PartialEq>(wanted: Option<&[T]>, has: Option<&[T]>) -> bool {
            wanted.is_none_or(|wanted| {
                has.is_some_and(|has| wanted.iter().all(|grant| has.contains(grant)))
            })
        }
        others.env.iter().all(|(name, value)| self.env.get(name) == Some(value))
            && all(others.dirs.as_deref(), self.dirs.as_deref())
            && all(others.http.as_deref(), self.http.as_deref())
            && all(others.tcp.as_deref(), self.tcp.as_deref())
    }

    /// The imports that these grants do not cover. With any of them, the component does not load.
    #[must_use]
    pub fn missing<'i>(&self, imports: &'i [Import]) -> Vec<&'i Import> {
        let met = |import: &&Import| match import.need {
            Need::Http => self.http.is_some(),
            Need::Network => self.tcp.is_some(),
            Need::Directories => self.dirs.is_some(),
            // A guest with a standard library always imports the environment, so it is allowed.
            // Without a grant it is empty.
            Need::Nothing | Need::Environment => true,
            Need::OtherWasi | Need::Unknown => false,
        };
        imports.iter().filter(|import| !met(import)).collect()
    }

    /// Whether a plugin may look up a name. It may look up only the names in granted addresses.
    pub(crate) fn may_look_up(&self, name: &str) -> bool {
        let granted = self.tcp.iter().flat_map(|addresses| addresses.iter());
        let mut names = granted.filter_map(|address| match &address.host {
            TcpHost::Name(name) => Some(name),
            TcpHost::Ip(_) => None,
        });
        names.any(|granted| granted.eq_ignore_ascii_case(name.trim_end_matches('.')))
            // Looking up an IP address sends no query.
            || name.parse::<IpAddr>().is_ok()
    }

    /// Adds the grants to the WASI context that an instance is made with.
    ///
    /// # Errors
    /// When a directory cannot be opened: which one, and why.
    pub(crate) fn apply(&self, wasi: &mut WasiCtxBuilder) -> Result<(), String> {
        for (name, value) in &self.env {
            wasi.env(name, value);
        }
        for DirGrant { host, guest, writable } in self.dirs.iter().flatten() {
            let permissions = if *writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(host, guest, permissions).map_err(|error| {
                format!("the granted directory {} cannot be opened: {error}", host.display())
            })?;
        }
        let addresses = self.tcp.clone().filter(|addresses| !addresses.is_empty());
        wasi.allow_udp(false).allow_tcp(addresses.is_some());
        if let Some(addresses) = addresses {
            // `may_look_up` decides which names.
            wasi.allow_ip_name_lookup(true);
            wasi.socket_addr_check(move |address, for_what| {
                let addresses = addresses.clone();
                Box::pin(async move {
                    match for_what {
                        // Before it connects, a socket is bound to a local address that the system
                        // picks.
                        SocketAddrUse::TcpBind => {
                            address.ip().is_unspecified() && address.port() == 0
                        }
                        SocketAddrUse::TcpConnect => is_granted(&addresses, address).await,
                        _ => false,
                    }
                })
            });
        }
        Ok(())
    }
}

async fn is_granted(addresses: &[TcpAddress], wanted: SocketAddr) -> bool {
    for address in addresses.iter().filter(|address| address.port == wanted.port()) {
        match &address.host {
            TcpHost::Ip(ip) if *ip == wanted.ip().to_canonical() => return true,
            TcpHost::Ip(_) => {}
            TcpHost::Name(name) => {
                // A name is resolved at each use, because its addresses can change.
                let resolved = tokio::net::lookup_host((name.as_str(), address.port)).await;
                if resolved.is_ok_and(|mut all| all.any(|found| found.ip() == wanted.ip())) {
                    return true;
                }
            }
        }
    }
    false
}

impl HttpHost {
    /// Whether this grant allows a request to `host` and `port`. `default` is the default port of
    /// the scheme.
    pub(crate) fn allows(&self, host: &str, port: Option<u16>, default: u16) -> bool {
        self.host.eq_ignore_ascii_case(host.trim_end_matches('.'))
            && self.port.unwrap_or(default) == port.unwrap_or(default)
    }
}

impl FromStr for HttpHost {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let error = || GrantError::Http(text.to_owned());
        if text.contains(['/', '@', '*', '?', '#']) {
            return Err(error());
        }
        let authority: http::uri::Authority = text.parse().map_err(|_| error())?;
        let has_port = authority.as_str() != authority.host();
        let port = authority.port_u16().filter(|port| *port > 0);
        if authority.host().is_empty() || (has_port && port.is_none()) {
            return Err(error());
        }
        Ok(HttpHost { host: authority.host().to_owned(), port })
    }
}

impl FromStr for TcpAddress {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let error = || GrantError::Tcp(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            let usable = address.port() > 0 && !address.ip().is_unspecified();
            let host = TcpHost::Ip(address.ip().to_canonical());
            return usable.then_some(TcpAddress { host, port: address.port() }).ok_or_else(error);
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(error)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(plain)
            // Only digits and dots: that is a mistyped IP address.
            && name.contains(|c: char| c.is_ascii_alphabetic());
        is_name.then(|| TcpAddress { host: TcpHost::Name(name.to_owned()), port }).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_addresses_are_read_or_refused_with_a_word_on_how_to_write_them() {
        for good in ["api.example.com", "localhost:8080", "127.0.0.1", "[::1]:80"] {
            assert!(good.parse::<HttpHost>().is_ok(), "{good}");
        }
        for bad in ["", "http://x", "a/b", "user@x", "*.x", "x:0", "x:", "x:y", "x:70000"] {
            let error = bad.parse::<HttpHost>().unwrap_err().to_string();
            assert!(error.contains("write HOST or HOST:PORT"), "{bad}: {error}");
        }
        for good in ["10.0.0.7:5432", "db.example.com:5432", "[::1]:1"] {
            assert!(good.parse::<TcpAddress>().is_ok(), "{good}");
        }
        for bad in ["", "db", "10.0.0.7", "0.0.0.0:1", "1.2.3:4", "db:0", "a b:1", ":1"] {
            let error = bad.parse::<TcpAddress>().unwrap_err().to_string();
            assert!(error.contains("write HOST:PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_host_without_a_port_means_the_schemes_own() {
        let host: HttpHost = "Api.example.com".parse().unwrap();
        assert!(host.allows("api.example.com", None, 443));
        assert!(host.allows("api.example.com.", Some(443), 443));
        assert!(!host.allows("api.example.com", Some(8443), 443));
        assert!(!host.allows("evil-api.example.com", None, 443));
        let host: HttpHost = "localhost:8080".parse().unwrap();
        assert!(host.allows("localhost", Some(8080), 80));
        assert!(!host.allows("localhost", None, 80));
    }

    #[tokio::test]
    async fn connections_go_only_where_they_are_granted() {
        let granted: Vec<TcpAddress> =
            ["127.0.0.1:5432", "localhost:5433"].iter().map(|a| a.parse().unwrap()).collect();
        for (wanted, expected) in [
            ("127.0.0.1:5432", true),
            ("[::ffff:127.0.0.1]:5432", true),
            ("127.0.0.1:5433", true),
            ("127.0.0.1:5434", false),
            ("127.0.0.2:5432", false),
        ] {
            assert_eq!(is_granted(&granted, wanted.parse().unwrap()).await, expected, "{wanted}");
        }
    }

    #[test]
    fn only_granted_names_are_looked_up() {
        let tcp = Some(["db.example.com:5432".parse().unwrap()].into());
        let grants = Grants { tcp, ..Grants::default() };
        assert!(grants.may_look_up("DB.example.com."));
        assert!(grants.may_look_up("10.0.0.1"));
        assert!(!grants.may_look_up("secret.attacker.example"));
    }
}
