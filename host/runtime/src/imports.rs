//! What a component imports, and which grant each import needs.

/// Something that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// `wasi:filesystem/types@0.2.6`
    pub name: String,
    /// Which grant it needs.
    pub need: Need,
}

/// What an import needs from the operator who runs the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// No grant: clocks, randomness, streams, the log.
    Nothing,
    /// Environment variables or arguments. Without a grant there are none.
    Environment,
    /// Directories. They must be granted.
    Directories,
    /// Outgoing HTTP requests. They must be granted.
    Http,
    /// Network connections. They must be granted.
    Network,
    /// Wharf does not provide it, so the component does not load.
    Unknown,
}

impl Need {
    /// What an import of this name needs.
    pub(crate) fn of(name: &str) -> Self {
        let interface = name.split('@').next().unwrap_or_default();
        match interface {
            "wasi:cli/environment" => Need::Environment,
            _ if interface.starts_with("wasi:filesystem/") => Need::Directories,
            "wasi:http/outgoing-handler" => Need::Http,
            "wasi:http/types" => Need::Nothing,
            // These only define types and a handle, which gives no access by itself.
            "wasi:sockets/network" | "wasi:sockets/instance-network" => Need::Nothing,
            _ if interface.starts_with("wasi:sockets/") => Need::Network,
            _ if ["wasi:cli/", "wasi:clocks/", "wasi:io/", "wasi:random/"]
                .iter()
                .any(|package| interface.starts_with(package)) =>
            {
                Need::Nothing
            }
            _ => Need::Unknown,
        }
    }

    /// The needs that have to be granted.
    pub const GRANTED: [Need; 3] = [Need::Directories, Need::Http, Need::Network];

    /// How a plugin's `.toml` file grants it under `[grants]`, and how the file grants nothing.
    /// `None` if it needs no grant.
    #[must_use]
    pub fn grant(self) -> Option<(&'static str, &'static str)> {
        match self {
            Need::Directories => Some((
                r#"dirs = [{ host = "/srv/data", guest = "/data", access = "read-only" }]"#,
                "dirs = []",
            )),
            Need::Http => Some((r#"http = ["api.example.com"]"#, "http = []")),
            Need::Network => Some((r#"tcp = ["10.0.0.7:5432"]"#, "tcp = []")),
            Need::Nothing | Need::Environment | Need::Unknown => None,
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Need::Nothing => "needs no grant",
            Need::Environment => "environment: needs no grant; empty unless 'env' fills it",
            Need::Directories => "directories: needs the grant 'dirs'",
            Need::Http => "outgoing HTTP: needs the grant 'http'",
            Need::Network => "outgoing TCP: needs the grant 'tcp'",
            Need::Unknown => "not provided by wharf",
        })
    }
}
