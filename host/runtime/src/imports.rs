//! What a component imports, and what each import asks of its operator.

/// Something that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// `wasi:filesystem/types@0.2.6`
    pub name: String,
    /// What that asks of its operator.
    pub need: Need,
}

/// What an import asks of whoever runs the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Nothing: clocks, randomness, streams, the log.
    Nothing,
    /// Environment variables or arguments; without a grant there are none.
    Environment,
    /// Directories; they have to be granted.
    Directories,
    /// HTTP requests to others; it has to be granted.
    Http,
    /// The network; it has to be granted.
    Network,
    /// Something that Wharf does not provide: the component cannot be loaded.
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
            // A name for types, and a handle that leads nowhere by itself.
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

    /// How a plugin's `.toml` file grants it, under `[grants]`, and how it says that there is to be
    /// nothing; none for what needs no grant.
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
