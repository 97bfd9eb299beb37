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
    /// It belongs to a version of WASI that Wharf does not run, so the component does not load.
    OtherWasi,
    /// Wharf does not provide it, so the component does not load.
    Unknown,
}

/// The interfaces of WASI 0.2 that Wharf provides, and what each needs.
const PROVIDED: [(&str, Need); 29] = [
    ("wasi:cli/environment", Need::Environment),
    ("wasi:cli/exit", Need::Nothing),
    ("wasi:cli/stderr", Need::Nothing),
    ("wasi:cli/stdin", Need::Nothing),
    ("wasi:cli/stdout", Need::Nothing),
    ("wasi:cli/terminal-input", Need::Nothing),
    ("wasi:cli/terminal-output", Need::Nothing),
    ("wasi:cli/terminal-stderr", Need::Nothing),
    ("wasi:cli/terminal-stdin", Need::Nothing),
    ("wasi:cli/terminal-stdout", Need::Nothing),
    ("wasi:clocks/monotonic-clock", Need::Nothing),
    ("wasi:clocks/wall-clock", Need::Nothing),
    ("wasi:filesystem/preopens", Need::Directories),
    ("wasi:filesystem/types", Need::Directories),
    ("wasi:http/outgoing-handler", Need::Http),
    ("wasi:http/types", Need::Nothing),
    ("wasi:io/error", Need::Nothing),
    ("wasi:io/poll", Need::Nothing),
    ("wasi:io/streams", Need::Nothing),
    ("wasi:random/insecure", Need::Nothing),
    ("wasi:random/insecure-seed", Need::Nothing),
    ("wasi:random/random", Need::Nothing),
    // These only define types and a handle, which gives no access by itself.
    ("wasi:sockets/instance-network", Need::Nothing),
    ("wasi:sockets/network", Need::Nothing),
    ("wasi:sockets/ip-name-lookup", Need::Network),
    ("wasi:sockets/tcp", Need::Network),
    ("wasi:sockets/tcp-create-socket", Need::Network),
    ("wasi:sockets/udp", Need::Network),
    ("wasi:sockets/udp-create-socket", Need::Network),
];

impl Need {
    /// What an import of this name needs.
    pub(crate) fn of(name: &str) -> Self {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        let provided = PROVIDED.iter().find(|(known, _)| *known == interface);
        match provided {
            Some((_, need)) if is_provided(version) => *need,
            _ if interface.starts_with("wasi:") && !is_provided(version) => Need::OtherWasi,
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
            Need::Nothing | Need::Environment | Need::OtherWasi | Need::Unknown => None,
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
            Need::OtherWasi => "not provided by wharf, which runs WASI 0.2",
            Need::Unknown => "not provided by wharf",
        })
    }
}

/// Whether a version of WASI is provided: any release of 0.2.
fn is_provided(version: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    version.strip_prefix("0.2.").is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_judged_by_its_version_too() {
        for (name, need) in [
            ("wasi:random/random@0.2.0", Need::Nothing),
            ("wasi:random/random@0.2.12", Need::Nothing),
            ("wasi:random/random@0.2.0-rc-2023-11-10", Need::OtherWasi),
            ("wasi:random/random@0.3.0", Need::OtherWasi),
            ("wasi:random/random", Need::OtherWasi),
            ("wasi:http/types@0.3.0", Need::OtherWasi),
            ("wasi:clocks/timezone@0.2.0", Need::Unknown),
            ("wasi:keyvalue/store@0.2.0", Need::Unknown),
            ("wasi:sockets/tcp@0.2.6", Need::Network),
            ("demo:inventory/stock@1.0.0", Need::Unknown),
        ] {
            assert_eq!(Need::of(name), need, "{name}");
        }
    }
}
