//! `plugins/arith.toml` beside `plugins/arith.wasm`: how the operator wants the plugin to run.
//!
//! ```toml
//! services = ["demo:arith/*"]   # which of its services are served; all by default
//! sha256 = "ba7816bf..."        # what its file must have, by sha256sum
//! mcp = ["multiply"]            # methods that models may call as tools, or true for all; none by default
//! compatible = "required"       # a replacement that breaks callers is refused
//!
//! [limits]
//! memory = "64 MiB"        # of one instance
//! call-timeout = "2s"
//! start-timeout = "10s"
//! instances = 8
//! queue = 256              # calls that may wait for an instance
//! result-size = "1 MiB"
//!
//! [isolation]
//! reuse = 1                # calls per instance; 1 means a fresh instance for each call
//! high-water = "32 MiB"    # an instance that grew beyond this does not serve again
//!
//! [grants]
//! env = { GREETING = "hello" }
//! inherit-env = ["TZ"]     # with the value that the host has
//! dirs = [{ host = "/srv/data", guest = "/data", access = "read-only" }]
//! http = ["api.example.com"]
//! tcp = ["10.0.0.7:5432", "db.example.com:5432"]
//! ```

mod tools;
mod values;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use wharf_runtime::{DirGrant, Grants, HttpHost, Isolation, Limits, Settings, TcpAddress};
use wharf_schema::ServiceName;

pub(crate) use self::tools::ToolChoice;
use super::compatible::Compatible;
use super::pin::Pin;

use self::values::{
    Bounded, Count, GuestPath, InheritedName, Parsed, Size, Time, VariableName, VariableValue,
};

/// The largest sidecar that is read, in bytes.
pub(crate) const MAX_SIZE: u64 = 64 * 1024;

/// A mistake in a sidecar. `arith.toml, line 3, limits.memory: ...`
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}{}: {message}", if key.is_empty() { String::new() } else { format!(", {key}") })]
pub(crate) struct SidecarError {
    file: String,
    line: usize,
    key: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[derive(Default)]
struct Document {
    services: Option<Bounded<ServicePattern>>,
    sha256: Option<Pin>,
    mcp: ToolChoice,
    compatible: Option<Compatible>,
    limits: LimitsTable,
    isolation: IsolationTable,
    grants: GrantsTable,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LimitsTable {
    memory: Option<Size<{ 64 << 10 }, { 4 << 30 }>>,
    call_timeout: Option<Time>,
    start_timeout: Option<Time>,
    instances: Option<Count<1, 4096>>,
    queue: Option<Count<0, 1_000_000>>,
    result_size: Option<Size<1, { 1 << 30 }>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct IsolationTable {
    reuse: Option<Count<1, { u32::MAX }>>,
    high_water: Option<Size<{ 64 << 10 }, { 4 << 30 }>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct GrantsTable {
    env: BTreeMap<VariableName, VariableValue>,
    inherit_env: Bounded<InheritedName>,
    dirs: Option<Bounded<DirTable>>,
    http: Option<Bounded<Parsed<HttpHost>>>,
    tcp: Option<Bounded<Parsed<TcpAddress>>>,
}

/// What a file with the grants of several plugins says of one: its pin beside its grants.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct PluginTable {
    sha256: Option<Pin>,
    env: BTreeMap<VariableName, VariableValue>,
    inherit_env: Bounded<InheritedName>,
    dirs: Option<Bounded<DirTable>>,
    http: Option<Bounded<Parsed<HttpHost>>>,
    tcp: Option<Bounded<Parsed<TcpAddress>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DirTable {
    host: PathBuf,
    guest: GuestPath,
    #[serde(default)]
    access: Access,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum Access {
    #[default]
    ReadOnly,
    ReadWrite,
}

/// What a sidecar says.
#[derive(Debug, PartialEq)]
pub(crate) struct Sidecar {
    pub(crate) settings: Settings,
    /// Which services are served. `None`: all.
    services: Option<Vec<ServicePattern>>,
    /// Which methods are tools for models.
    pub(crate) tools: ToolChoice,
    /// What the plugin's file must have.
    pub(crate) pin: Option<Pin>,
    /// Whether a replacement may break callers. `None`: as the host says.
    pub(crate) compatible: Option<Compatible>,
}

impl Sidecar {
    /// Without a sidecar: the settings of all plugins, and all services.
    pub(crate) fn of(defaults: &Settings) -> Self {
        Sidecar {
            settings: defaults.clone(),
            services: None,
            tools: ToolChoice::None,
            pin: None,
            compatible: None,
        }
    }

    /// Whether the service with this full name is to be served.
    pub(crate) fn chooses(&self, service: &ServiceName) -> bool {
        let patterns = self.services.as_ref();
        patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(service)))
    }
}

/// Services by name, `demo:arith/arith@0.1.0` in full or in part, or all of a package: `demo:arith/*`.
#[derive(Clone, Debug, PartialEq)]
enum ServicePattern {
    Name(ServiceName),
    Package(String),
}

impl ServicePattern {
    fn matches(&self, service: &ServiceName) -> bool {
        match self {
            ServicePattern::Name(name) => name.matches(service),
            ServicePattern::Package(package) => service.package.as_ref() == Some(package),
        }
    }
}

impl<'de> Deserialize<'de> for ServicePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(package) = text.strip_suffix("/*").filter(|package| package.contains(':')) {
            return Ok(ServicePattern::Package(package.to_owned()));
        }
        let name = Some(&text).filter(|text| !text.contains('*'));
        let name = name.and_then(|text| ServiceName::parse(text).ok()).ok_or_else(|| {
            Error::custom(format!(
                "'{text}' is not a service: write it like \"demo:arith/arith\", or all of a package like \"demo:arith/*\""
            ))
        })?;
        Ok(ServicePattern::Name(name))
    }
}

/// Reads a sidecar. Its settings override `defaults`. Relative directories start at `folder`, where
/// the sidecar is.
///
/// # Errors
/// What is wrong with it: file, line and key.
pub(crate) fn parse(
    text: &str,
    file: &str,
    folder: &Path,
    defaults: &Settings,
) -> Result<Sidecar, SidecarError> {
    let document: Document = toml::from_str(text).map_err(|error| at(&error, text, file))?;
    let Settings { limits, isolation, grants } = defaults.clone();
    let own = document.limits;
    let limits = Limits {
        memory: own.memory.map_or(limits.memory, |size| size.0),
        call_timeout: own.call_timeout.map_or(limits.call_timeout, |time| time.0),
        start_timeout: own.start_timeout.map_or(limits.start_timeout, |time| time.0),
        instances: own.instances.map_or(limits.instances, |count| count.0 as usize),
        queue: own.queue.map_or(limits.queue, |count| count.0 as usize),
        result_size: own.result_size.map_or(limits.result_size, |size| size.0),
    };
    let own = document.isolation;
    let reuse = own.reuse.and_then(|count| NonZeroU32::new(count.0));
    let isolation = Isolation {
        reuse: reuse.or(isolation.reuse),
        high_water: own.high_water.map(|size| size.0).or(isolation.high_water),
    };
    let grants = document.grants.over(grants, folder);
    let services = document.services.map(|services| services.0);
    let settings = Settings { limits, isolation, grants };
    Ok(Sidecar {
        settings,
        services,
        tools: document.mcp,
        pin: document.sha256,
        compatible: document.compatible,
    })
}

/// Reads a file with the grants and pins of several plugins, each under the name of its file. Grants are
/// added to `defaults`.
///
/// # Errors
/// What is wrong with it: file, line and key.
pub(crate) fn parse_grants(
    text: &str,
    file: &str,
    folder: &Path,
    defaults: &Grants,
) -> Result<BTreeMap<String, (Grants, Option<Pin>)>, SidecarError> {
    let all: BTreeMap<String, PluginTable> =
        toml::from_str(text).map_err(|error| at(&error, text, file))?;
    let of = |(plugin, own): (String, PluginTable)| {
        let PluginTable { sha256, env, inherit_env, dirs, http, tcp } = own;
        let grants = GrantsTable { env, inherit_env, dirs, http, tcp };
        (plugin, (grants.over(defaults.clone(), folder), sha256))
    };
    Ok(all.into_iter().map(of).collect())
}

impl GrantsTable {
    /// These grants, in addition to others. Relative directories start at `folder`.
    fn over(self, grants: Grants, folder: &Path) -> Grants {
        let mut env = grants.env;
        for InheritedName(name) in self.inherit_env.0 {
            if let Ok(value) = std::env::var(&name) {
                env.insert(name, value);
            }
        }
        env.extend(self.env.into_iter().map(|(name, value)| (name.0, value.0)));
        let dir = |DirTable { host, guest, access }| DirGrant {
            host: folder.join(host),
            guest: guest.0,
            writable: matches!(access, Access::ReadWrite),
        };
        Grants {
            env,
            dirs: self.dirs.map(|dirs| dirs.0.into_iter().map(dir).collect()).or(grants.dirs),
            http: self.http.map(|hosts| hosts.0.into_iter().map(|h| h.0).collect()).or(grants.http),
            tcp: self.tcp.map(|all| all.0.into_iter().map(|a| a.0).collect()).or(grants.tcp),
        }
    }
}

fn at(error: &toml::de::Error, text: &str, file: &str) -> SidecarError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    // An error without its input prints the keys that lead to it.
    let mut plain = error.clone();
    plain.set_input(None);
    let plain = plain.to_string();
    let key = plain.lines().find_map(|l| l.strip_prefix("in `")?.strip_suffix('`'));
    SidecarError {
        file: file.to_owned(),
        line,
        key: key.unwrap_or_default().to_owned(),
        message: error.message().lines().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        parse(text, "arith.toml", Path::new("/plugins"), &Settings::default())
            .map(|sidecar| sidecar.settings)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let valid = r#"services = ["demo:a/*"]
            limits = { memory = "64 MiB", call-timeout = "2s", instances = 8, queue = 0, result-size = 4096 }
            [isolation]
            reuse = 1
            [grants]
            env = { GREETING = "hello" }
            dirs = [{ host = "a", guest = "/b", access = "read-only" }]
            http = ["api.example.com"]
            tcp = ["10.0.0.7:5432"]"#;
        read(valid).unwrap();
        // Bytes that matter to TOML come up often.
        let pieces: Vec<char> = "[]{}=\"'\n,.#-0123456789eE_xo :/\\Ω\u{0}".chars().collect();
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        for _ in 0..20_000 {
            let mut text: Vec<char> = valid.chars().collect();
            for _ in 0..=random(4) {
                let at = random(text.len());
                match random(3) {
                    0 => text[at] = pieces[random(pieces.len())],
                    1 => text.insert(at, pieces[random(pieces.len())]),
                    _ => text.truncate(at.max(1)),
                }
            }
            let _ = read(&text.into_iter().collect::<String>());
        }
    }

    #[test]
    fn services_are_chosen_by_name_and_by_package() {
        let chosen = |text: &str, service: &str| {
            let sidecar = parse(text, "x.toml", Path::new("/"), &Settings::default()).unwrap();
            sidecar.chooses(&ServiceName::parse(service).unwrap())
        };
        assert!(chosen("", "demo:a/x@1.0.0"));
        let text = r#"services = ["demo:a/*", "other:b/y", "plain"]"#;
        for (service, expected) in [
            ("demo:a/x@1.0.0", true),
            ("demo:b/x", false),
            ("other:b/y@2.0.0", true),
            ("other:b/z", false),
            ("plain", true),
        ] {
            assert_eq!(chosen(text, service), expected, "{service}");
        }
        let error = read(r#"services = ["demo:*"]"#).unwrap_err();
        assert!(error.contains("all of a package like \"demo:arith/*\""), "{error}");
    }

    #[test]
    fn everything_can_be_set_and_nothing_has_to_be() {
        assert_eq!(read(""), Ok(Settings::default()));
        let settings = read(
            r#"
            limits = { memory = "64 MiB", call-timeout = "2s", instances = 8, queue = 0, result-size = 4096 }
            [isolation]
            reuse = 1
            high-water = "32MiB"
            [grants]
            env = { GREETING = "hello" }
            dirs = [{ host = "data", guest = "/data" }, { host = "/srv", guest = "/srv", access = "read-write" }]
            http = ["api.example.com"]
            tcp = []
            "#,
        )
        .unwrap();
        assert_eq!(settings.limits.memory, 64 << 20);
        assert_eq!(settings.limits.call_timeout, Duration::from_secs(2));
        assert_eq!((settings.limits.instances, settings.limits.queue), (8, 0));
        assert_eq!(settings.limits.result_size, 4096);
        assert_eq!(settings.limits.start_timeout, Limits::default().start_timeout);
        assert_eq!(settings.isolation.reuse.map(NonZeroU32::get), Some(1));
        assert_eq!(settings.isolation.high_water, Some(32 << 20));
        assert_eq!(settings.grants.env["GREETING"], "hello");
        let dirs = settings.grants.dirs.unwrap();
        assert_eq!(dirs[0].host, Path::new("/plugins/data"));
        assert!(!dirs[0].writable && dirs[1].writable);
        assert_eq!(settings.grants.http.as_ref().map(|hosts| hosts.len()), Some(1));
        assert_eq!(settings.grants.tcp.as_ref().map(|addresses| addresses.len()), Some(0));
    }

    #[test]
    fn mistakes_are_refused_with_file_line_and_key() {
        for (text, expected) in [
            (
                "[limits]\nmemoy = 1",
                "arith.toml, line 2, limits: unknown field `memoy`, expected one of `memory`",
            ),
            (
                "\n\nlimit = {}",
                "arith.toml, line 3: unknown field `limit`, expected one of `services`",
            ),
            (
                "[limits]\n\nmemory = \"64 MB2\"",
                "arith.toml, line 3, limits.memory: '64 MB2' is not a size: write it like",
            ),
            (
                "[limits]\nmemory = 5",
                "arith.toml, line 2, limits.memory: 5 B is not between 64.0 KiB and 4.0 GiB",
            ),
            (
                "[limits]\nmemory = -1",
                "arith.toml, line 2, limits.memory: invalid value: integer `-1`, expected a size",
            ),
            (
                "[limits]\ncall-timeout = 5",
                "arith.toml, line 2, limits.call-timeout: invalid type: integer `5`, expected a string",
            ),
            (
                "[limits]\ncall-timeout = \"5\"",
                "arith.toml, line 2, limits.call-timeout: '5' is not a time: write it like",
            ),
            (
                "[limits]\ncall-timeout = \"0s\"",
                "arith.toml, line 2, limits.call-timeout: '0s' must be above zero",
            ),
            (
                "[limits]\ninstances = 0",
                "arith.toml, line 2, limits.instances: 0 is not between 1 and 4096",
            ),
            (
                "[isolation]\nreuse = 0",
                "arith.toml, line 2, isolation.reuse: 0 is not between 1 and",
            ),
            (
                "[grants]\nhttp = [\n\"http://x\"]",
                "arith.toml, line 2, grants.http: 'http://x' is not an HTTP host",
            ),
            (
                "[grants]\ntcp = [\"db\"]",
                "arith.toml, line 2, grants.tcp: 'db' is not a TCP address",
            ),
            (
                "[grants]\ndirs = [{ host = \"a\", guest = \"b\" }]",
                "arith.toml, line 2, grants.dirs.guest: 'b' is not an absolute path in the plugin",
            ),
            (
                "[grants]\ndirs = [{ host = \"a\", guest = \"/b\", access = \"all\" }]",
                "arith.toml, line 2, grants.dirs.access: unknown variant `all`, expected `read-only` or `read-write`",
            ),
            (
                "[grants]\ninherit-env = [\"WHARF_TOKEN\"]",
                "arith.toml, line 2, grants.inherit-env: WHARF_TOKEN is this host's own",
            ),
            (
                "[grants]\nenv = { \"A=B\" = \"\" }",
                "arith.toml, line 2, grants.env: \"A=B\" is not a valid variable name",
            ),
            ("[limits\n", "arith.toml, line 1"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
