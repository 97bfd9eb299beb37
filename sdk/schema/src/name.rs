//! The spellings of services and methods.
//!
//! `arith.multiply`, `Arith.Multiply` (net/rpc's) and `demo:arith/arith@0.1.0.multiply` name the
//! same method: names are compared in kebab-case.

use std::collections::HashMap;

use heck::{ToKebabCase, ToLowerCamelCase, ToUpperCamelCase};
use semver::{Version, VersionReq};

/// Converts `Multiply`, `multiply`, `wordCounts` or `word_counts` to WIT's spelling.
#[must_use]
pub fn kebab(name: &str) -> String {
    name.to_kebab_case()
}

/// Finds which of `names` a spelling means. An equal name comes first, then a name that is equal in
/// kebab-case (WIT allows words in capitals, `get-HTTP`). The last resort is the only name with the
/// same letters and digits, because `posXY` does not show how `pos-x-y` is divided.
#[must_use]
pub fn find_name<'n>(names: impl Iterator<Item = &'n str> + Clone, wanted: &str) -> Option<usize> {
    if let Some(exact) = names.clone().position(|name| name == wanted) {
        return Some(exact);
    }
    let wanted_kebab = kebab(wanted);
    // Nearly all names are in kebab-case already, and then none has to be converted.
    if let Some(same) = names.clone().position(|name| name == wanted_kebab) {
        return Some(same);
    }
    if let Some(same) = names.clone().position(|name| kebab(name) == wanted_kebab) {
        return Some(same);
    }
    let wanted = letters(wanted);
    let mut alike = names.enumerate().filter(|(_, name)| letters(name) == wanted);
    alike.next().map(|(index, _)| index).filter(|_| alike.next().is_none())
}

fn letters(name: &str) -> String {
    name.replace(['-', '_'], "").to_lowercase()
}

/// Many names, to be found as [`find_name`] does, in a time that does not grow with their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    exact: HashMap<String, usize>,
    kebab: HashMap<String, usize>,
    /// `None` where several names have the same letters.
    letters: HashMap<String, Option<usize>>,
}

impl NameIndex {
    pub(crate) fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut index = NameIndex::default();
        for (place, name) in names.enumerate() {
            index.exact.entry(name.to_owned()).or_insert(place);
            index.kebab.entry(kebab(name)).or_insert(place);
            index
                .letters
                .entry(letters(name))
                .and_modify(|other| *other = None)
                .or_insert(Some(place));
        }
        index
    }

    pub(crate) fn find(&self, wanted: &str) -> Option<usize> {
        let known = self.exact.get(wanted).or_else(|| self.kebab.get(&kebab(wanted)));
        known.copied().or_else(|| self.letters.get(&letters(wanted)).copied().flatten())
    }
}

/// A WIT name as a field of a JSON object: `word-counts` is `wordCounts`.
#[must_use]
pub fn lower_camel(name: &str) -> String {
    name.to_lower_camel_case()
}

/// A WIT name as Go's net/rpc spells services and methods: `word-counts` is `WordCounts`.
#[must_use]
pub fn net_rpc(name: &str) -> String {
    name.to_upper_camel_case()
}

/// The longest name of a service or method, in bytes. It is the wire protocol's limit.
const MAX_NAME: usize = 512;

/// A name that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No dot, or nothing on one side of it.
    #[error("'{0}' is not a method: write SERVICE.METHOD, for example arith.multiply")]
    NotAMethod(String),
    /// Neither a version nor a requirement after the `@`.
    #[error(
        "'{0}' has no valid version after its '@': write it as in demo:arith/arith@0.1.0, or which \
         would do, as in demo:arith/arith@^0.1"
    )]
    BadVersion(String),
    /// An empty name.
    #[error("a service's name is empty")]
    Empty,
    /// A character that no name has.
    #[error("'{}' has the character {character:?}, which no name has: letters, digits, '-' and '_' are allowed", .name.escape_debug())]
    Character {
        /// The name.
        name: String,
        /// The character.
        character: char,
    },
    /// A name that is too long.
    #[error("a name of {0} bytes; at most {MAX_NAME} are allowed")]
    TooLong(usize),
}

/// A service's name, in full or in part. A part that is left out matches anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// `demo:arith`, if it is given.
    pub package: Option<String>,
    /// `arith`
    pub interface: String,
    /// `0.1.0`, if it is given.
    pub version: Option<Version>,
    /// The accepted versions, `^0.1`, if they are given. The full name of a service never has them.
    pub requirement: Option<VersionReq>,
}

impl ServiceName {
    /// Parses `arith`, `Arith`, `arith@0.1.0`, `demo:arith/arith@0.1.0` or `demo:arith/arith@^0.1`.
    ///
    /// # Errors
    /// On a name that is empty or too long, or a version that is not valid.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.len() > MAX_NAME {
            return Err(NameError::TooLong(name.len()));
        }
        let (path, version, requirement) = match name.split_once('@') {
            // A bare `0.1` is neither a version nor a requirement. To accept any 0.1, write `^0.1`.
            Some((path, text)) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                let version = Version::parse(text);
                (path, Some(version.map_err(|_| NameError::BadVersion(name.to_owned()))?), None)
            }
            Some((path, text)) => {
                let requirement = VersionReq::parse(text);
                (path, None, Some(requirement.map_err(|_| NameError::BadVersion(name.to_owned()))?))
            }
            None => (name, None, None),
        };
        check(name, path, &[':', '/', '.'])?;
        let (package, interface) = match path.rsplit_once('/') {
            Some((package, interface)) => (Some(kebab_package(package)), kebab(interface)),
            None => (None, kebab(path)),
        };
        if interface.is_empty() {
            return Err(NameError::Empty);
        }
        Ok(ServiceName { package, interface, version, requirement })
    }

    /// Whether `self`, which may be a partial name, means the service with the full name `full`.
    #[must_use]
    pub fn matches(&self, full: &ServiceName) -> bool {
        self.interface == full.interface
            && (self.package.is_none() || self.package == full.package)
            && self.version.as_ref().is_none_or(|wanted| {
                full.version.as_ref().is_some_and(|version| is_version(wanted, version))
            })
            && self.requirement.as_ref().is_none_or(|requirement| {
                full.version.as_ref().is_some_and(|version| requirement.matches(version))
            })
    }
}

/// Names are compared in kebab-case, which drops what is no letter and no digit. So anything else is
/// refused before: `kit!` is not `kit`.
fn check(name: &str, part: &str, also: &[char]) -> Result<(), NameError> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || also.contains(&c);
    match part.chars().find(|c| !is_of_name(*c)) {
        Some(character) => Err(NameError::Character { name: name.to_owned(), character }),
        None => Ok(()),
    }
}

/// Whether a version is the one that is wanted. Build metadata matters only if it is given.
fn is_version(wanted: &Version, version: &Version) -> bool {
    wanted == version
        || (wanted.build.is_empty() && wanted.cmp_precedence(version) == std::cmp::Ordering::Equal)
}

/// `Demo:Arith` as `demo:arith`; the colon stays.
fn kebab_package(package: &str) -> String {
    package.split(':').map(kebab).collect::<Vec<_>>().join(":")
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(package) = &self.package {
            write!(f, "{package}/")?;
        }
        f.write_str(&self.interface)?;
        match (&self.version, &self.requirement) {
            (Some(version), _) => write!(f, "@{version}"),
            (None, Some(requirement)) => write!(f, "@{requirement}"),
            (None, None) => Ok(()),
        }
    }
}

/// A method's name: its service, a dot, and the method in kebab-case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MethodPath {
    /// The service.
    pub service: ServiceName,
    /// The method, in kebab-case.
    pub method: String,
}

impl MethodPath {
    /// Parses `arith.multiply` and its other spellings. The last dot separates service and method.
    ///
    /// # Errors
    /// When there is no dot, a side is empty, the name is too long or the version is not valid.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.len() > MAX_NAME {
            return Err(NameError::TooLong(name.len()));
        }
        let not_a_method = || NameError::NotAMethod(name.to_owned());
        let (service, method) = name.rsplit_once('.').ok_or_else(not_a_method)?;
        check(name, method, &[])?;
        let method = kebab(method);
        // `demo:arith/arith@0.1.0` is a service and not a method: a number follows its last dot.
        if method.is_empty()
            || service.is_empty()
            || method.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(not_a_method());
        }
        Ok(MethodPath { service: ServiceName::parse(service)?, method })
    }
}

impl std::fmt::Display for MethodPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.service, self.method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_name_the_same_method() {
        let full = ServiceName::parse("demo:arith/arith@0.1.0").unwrap();
        for spelling in [
            "arith.multiply",
            "Arith.Multiply",
            "arith@0.1.0.multiply",
            "demo:arith/arith.multiply",
            "demo:arith/arith@0.1.0.multiply",
        ] {
            let path = MethodPath::parse(spelling).unwrap();
            assert!(path.service.matches(&full), "{spelling}");
            assert_eq!(path.method, "multiply", "{spelling}");
        }
        assert_eq!(MethodPath::parse("TextKit.WordCounts").unwrap().method, "word-counts");
    }

    #[test]
    fn a_requirement_means_the_versions_that_it_allows() {
        let full = ServiceName::parse("demo:arith/arith@0.1.3").unwrap();
        for (requirement, allows) in
            [("^0.1.0", true), ("=0.1.0", false), ("*", true), (">0.2", false)]
        {
            let name = format!("demo:arith/arith@{requirement}.multiply");
            let path = MethodPath::parse(&name).unwrap();
            assert_eq!(path.service.matches(&full), allows, "{name}");
            assert_eq!(path.to_string(), name);
        }
        for bad in ["arith@0.1", "arith@", "arith@^x"] {
            assert!(matches!(ServiceName::parse(bad), Err(NameError::BadVersion(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_given_must_match() {
        let full = ServiceName::parse("demo:arith/arith@0.1.0").unwrap();
        for other in ["arithmetic", "acme:arith/arith", "arith@0.2.0"] {
            assert!(!ServiceName::parse(other).unwrap().matches(&full), "{other}");
        }
    }

    #[test]
    fn build_metadata_matters_only_if_it_is_given() {
        let full = ServiceName::parse("demo:arith/arith@2.3.4-rc.1+build.7").unwrap();
        for (wanted, matches) in [
            ("arith@2.3.4-rc.1", true),
            ("arith@2.3.4-rc.1+build.7", true),
            ("arith@2.3.4-rc.1+build.8", false),
            ("arith@2.3.4", false),
        ] {
            assert_eq!(ServiceName::parse(wanted).unwrap().matches(&full), matches, "{wanted}");
        }
        assert!(MethodPath::parse("arith@2.3.4-rc.1.m").unwrap().service.matches(&full));
    }

    #[test]
    fn names_that_name_nothing_say_so() {
        for bad in ["arith", "", ".", "arith.", ".multiply", "demo:arith/arith@0.1.0"] {
            assert!(MethodPath::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            MethodPath::parse("arith").unwrap_err().to_string(),
            "'arith' is not a method: write SERVICE.METHOD, for example arith.multiply"
        );
    }

    #[test]
    fn a_name_with_a_character_that_no_name_has_is_refused_and_not_taken_for_another() {
        for bad in ["kit\0.add", "\"kit\".add", "kit!!.add", "kit.!!add", "kit .add", "kit.add\n"] {
            assert!(matches!(MethodPath::parse(bad), Err(NameError::Character { .. })), "{bad:?}");
        }
        assert_eq!(
            MethodPath::parse("kit\0.add").unwrap_err().to_string(),
            "'kit\\0' has the character '\\0', which no name has: letters, digits, '-' and '_' are \
             allowed"
        );
        assert_eq!(
            ServiceName::parse("proto.HelloService").unwrap().interface,
            "proto-hello-service"
        );
    }

    #[test]
    fn a_spelling_finds_the_name_that_it_came_from() {
        let names = ["a-bc", "ab-c", "pos-x-y", "dim-2", "get-HTTP"];
        let find = |wanted: &str| find_name(names.into_iter(), wanted);
        let index = NameIndex::new(names.into_iter());
        for wanted in ["ABC", "abc", "getHttp", "GET_HTTP", "missing", "dim2", ""] {
            assert_eq!(index.find(wanted), find(wanted), "{wanted}");
        }
        for (index, name) in names.iter().enumerate() {
            assert_eq!(find(name), Some(index), "{name}");
            assert_eq!(find(&lower_camel(name)), Some(index), "{name}");
            assert_eq!(find(&net_rpc(name)), Some(index), "{name}");
        }
        assert_eq!(find("ABC"), None, "it could be either of two");
        assert!(MethodPath::parse(&format!("a.{}", "b".repeat(600))).is_err());
    }

    #[test]
    fn names_are_written_back_as_they_are_read() {
        let name = "demo:text-kit/text-kit@1.2.3-rc.1";
        assert_eq!(ServiceName::parse(name).unwrap().to_string(), name);
        assert_eq!(net_rpc("text-kit"), "TextKit");
        assert_eq!(lower_camel("longest-word"), "longestWord");
    }
}
