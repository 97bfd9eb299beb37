//! `plugins/arith.toml` beside `plugins/arith.wasm`: how the operator wants the plugin to run.
//!
//! ```toml
//! services = ["demo:arith/*"]   # which of its services are served; all by default
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

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, de};
use wharf_runtime::{DirGrant, Grants, HttpHost, Isolation, Limits, Settings, TcpAddress};
use wharf_schema::ServiceName;

/// The largest sidecar that is read, in bytes.
pub(crate) const MAX_SIZE: u64 = 64 * 1024;

/// The most entries in a list of grants.
const MAX_GRANTS: usize = 256;

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
    inherit_env: Bounded<VariableName>,
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
    /// The variables that it wants from this process.
    pub(crate) inherited: Vec<String>,
}

impl Sidecar {
    /// Without a sidecar: the settings of all plugins, and all services.
    pub(crate) fn of(defaults: &Settings) -> Self {
        Sidecar { settings: defaults.clone(), services: None, inherited: Vec::new() }
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
    let inherited = document.grants.inherit_env.0.iter().map(|name| name.0.clone()).collect();
    let grants = document.grants.over(grants, folder);
    let services = document.services.map(|services| services.0);
    Ok(Sidecar { settings: Settings { limits, isolation, grants }, services, inherited })
}

/// Reads a file with the grants of several plugins, each under the name of its file. They are added to
/// `defaults`.
///
/// # Errors
/// What is wrong with it: file, line and key.
pub(crate) fn parse_grants(
    text: &str,
    file: &str,
    folder: &Path,
    defaults: &Grants,
) -> Result<BTreeMap<String, Grants>, SidecarError> {
    let all: BTreeMap<String, GrantsTable> =
        toml::from_str(text).map_err(|error| at(&error, text, file))?;
    let of = |(plugin, own): (String, GrantsTable)| (plugin, own.over(defaults.clone(), folder));
    Ok(all.into_iter().map(of).collect())
}

impl GrantsTable {
    /// These grants, in addition to others. Relative directories start at `folder`.
    fn over(self, grants: Grants, folder: &Path) -> Grants {
        let mut env = grants.env;
        for VariableName(name) in self.inherit_env.0 {
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

/// `"64 MiB"`, or a number of bytes.
struct Size<const MIN: usize, const MAX: usize>(usize);

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Size<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, as in \"64 MiB\"")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
                let unexpected = de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
                let size = bytesize::ByteSize::from_str(text);
                size.map(|size| size.as_u64()).map_err(|_| {
                    E::custom(format!(
                        "'{text}' is not a size: write it like \"64 MiB\" or \"512 KiB\""
                    ))
                })
            }
        }

        let bytes = deserializer.deserialize_any(Bytes)?;
        let size = usize::try_from(bytes).ok().filter(|size| (MIN..=MAX).contains(size));
        size.map(Size).ok_or_else(|| {
            let text = |bytes: usize| bytesize::ByteSize::b(bytes as u64).display().iec();
            let (given, min, max) = (bytesize::ByteSize::b(bytes), text(MIN), text(MAX));
            Error::custom(format!("{} is not between {min} and {max}", given.display().iec()))
        })
    }
}

/// `"500ms"`
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A longer time is a mistake.
        const MAX: Duration = Duration::from_secs(24 * 3600);
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_duration(&text).map_err(|_| {
            Error::custom(format!(
                "'{text}' is not a time: write it like \"500ms\", \"10s\" or \"2m\""
            ))
        })?;
        if time.is_zero() || time > MAX {
            return Err(Error::custom(format!("'{text}' must be above zero and at most a day")));
        }
        Ok(Time(time))
    }
}

/// A number within bounds.
struct Count<const MIN: u32, const MAX: u32>(u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = i64::deserialize(deserializer)?;
        let within = u32::try_from(count).ok().filter(|count| (MIN..=MAX).contains(count));
        within
            .map(Count)
            .ok_or_else(|| Error::custom(format!("{count} is not between {MIN} and {MAX}")))
    }
}

/// A list with a bounded number of entries.
struct Bounded<T>(Vec<T>);

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Bounded(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::deserialize(deserializer)?;
        if entries.len() > MAX_GRANTS {
            let message = format!("{} entries, at most {MAX_GRANTS} are allowed", entries.len());
            return Err(Error::custom(message));
        }
        Ok(Bounded(entries))
    }
}

/// A value that is written as a string.
struct Parsed<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Parsed).map_err(Error::custom)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct VariableName(String);

impl<'de> Deserialize<'de> for VariableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::custom(format!("{name:?} is not a valid variable name")));
        }
        Ok(VariableName(name))
    }
}

struct VariableValue(String);

impl<'de> Deserialize<'de> for VariableValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        if value.contains('\0') {
            return Err(Error::custom("the value of a variable must not contain a zero byte"));
        }
        Ok(VariableValue(value))
    }
}

struct GuestPath(String);

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        if !path.starts_with('/') {
            let message =
                format!("'{path}' is not an absolute path in the plugin: write it like \"/data\"");
            return Err(Error::custom(message));
        }
        Ok(GuestPath(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        parse(text, "arith.toml", Path::new("/plugins"), &Settings::default())
            .map(|sidecar| sidecar.settings)
            .map_err(|error| error.to_string())
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
