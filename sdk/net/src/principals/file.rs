//! The file of principals.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use governor::Quota;
use serde::Deserialize;
use toml::Spanned;

use super::{Calls, Known, Pattern, Principal, Scopes, Written};
use crate::Secret;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The most principals in one file. A secret that is shown is compared with all of them.
const MAX_PRINCIPALS: usize = 1_000;

/// The most patterns of one principal.
const MAX_PATTERNS: usize = 1_000;

/// The shortest secret, in bytes. A shorter one can be guessed.
const MIN_SECRET: usize = 16;

/// What stands before the hash of a secret, in hexadecimal digits.
const HASHED: &str = "blake3:";

const MAX_NAME: usize = 128;

/// Why a file of principals cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrincipalsError {
    /// It cannot be read.
    #[error("the principals {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content is not valid.
    #[error("the principals {path} cannot be used: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Content {
    anonymous: Written,
    principals: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    anonymous: Anonymous,
    #[serde(default)]
    principal: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Anonymous {
    #[serde(default)]
    calls: Vec<Spanned<String>>,
    #[serde(default)]
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    secret: Option<String>,
    certificate: Option<String>,
    #[serde(default)]
    calls: Vec<Spanned<String>>,
    #[serde(default)]
    scopes: Vec<Scope>,
    announces: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    hosts: Vec<String>,
    rate: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    connections: Option<NonZeroU32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Scope {
    Read,
    Write,
    Admin,
}

pub(super) fn read(path: &Path) -> Result<Content, PrincipalsError> {
    use std::io::Read;

    let unreadable = |source| PrincipalsError::Unreadable { path: path.to_owned(), source };
    let invalid = |what: String| PrincipalsError::Invalid { path: path.to_owned(), what };
    // Whoever can change it may do everything.
    if path.exists() {
        crate::private::check_edited(path).map_err(|error| invalid(error.to_string()))?;
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(invalid(format!("it has more than {MAX_FILE} bytes")));
    }
    if crate::private::others_may_read(path) {
        tracing::warn!(
            "other users of this machine may read the principals {path}: run 'chmod 600 {path}'",
            path = path.display()
        );
    }
    parse(&text).map_err(invalid)
}

impl Content {
    /// The principals. Those that were written in the same way before stay the same, with what is left
    /// of their rate.
    pub(super) fn known(self, before: Option<&Known>) -> Known {
        let principal = |written: Written| {
            let same = before.and_then(|known| {
                known.all().find(|principal| principal.written == written).cloned()
            });
            same.unwrap_or_else(|| Principal::new(written))
        };
        Known {
            is_open: false,
            anonymous: principal(self.anonymous),
            principals: self.principals.into_iter().map(principal).collect::<Vec<Arc<_>>>(),
            certified: Calls::default(),
        }
    }
}

fn parse(text: &str) -> Result<Content, String> {
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let file: File = toml::from_str(text).map_err(|error| {
        // The error's Display shows the faulty line, which may contain a secret.
        match error.span() {
            Some(span) => format!("line {}: {}", line(span.start), error.message()),
            None => error.message().to_owned(),
        }
    })?;
    if file.principal.is_empty()
        && file.anonymous.calls.is_empty()
        && file.anonymous.scopes.is_empty()
    {
        // It is more likely to be half written than to be meant.
        return Err(
            "nobody may do anything: write a [[principal]], or what [anonymous] may".to_owned()
        );
    }
    if file.principal.len() > MAX_PRINCIPALS {
        return Err(format!(
            "{} principals, at most {MAX_PRINCIPALS} are allowed",
            file.principal.len()
        ));
    }
    let patterns = |key: &str, patterns: Vec<Spanned<String>>| {
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("{key}: at most {MAX_PATTERNS} patterns are allowed"));
        }
        let parsed = patterns.into_iter().map(|pattern| {
            let line = line(pattern.span().start);
            let parsed = Pattern::parse(pattern.get_ref(), line);
            parsed.map_err(|error| format!("line {line}: {key}: {error}"))
        });
        parsed.collect::<Result<Vec<_>, _>>()
    };
    let calls = |written| patterns("calls", written).map(Calls::new);
    let announces = |written| {
        let patterns = patterns("announces", written)?;
        match patterns.iter().find(|pattern| pattern.is_method()) {
            Some(pattern) => Err(format!(
                "line {}: announces: '{}' is a method: hosts announce services, as in \"demo:*\"",
                pattern.line(),
                pattern.text()
            )),
            None => Ok(Calls::new(patterns)),
        }
    };
    let anonymous = Written {
        scopes: match &file.anonymous.scopes[..] {
            [] => Scopes::default(),
            [Scope::Read] => Scopes { read: true, ..Scopes::default() },
            _ => return Err("anonymous may have the scope \"read\", and no other".to_owned()),
        },
        ..Written::anonymous(calls(file.anonymous.calls)?)
    };
    let mut principals = Vec::<Written>::new();
    for entry in file.principal {
        let at = line(entry.name.span().start);
        let (name, calls) = (entry.name.get_ref().clone(), calls(entry.calls.clone())?);
        let announces = entry.announces.clone().map(announces).transpose()?;
        let written = entry
            .written(name, calls, announces)
            .and_then(|written| {
                let twice = |other: &&Written| other.name == written.name;
                if let Some(other) = principals.iter().find(twice) {
                    return Err(format!("there is another principal '{}'", other.name));
                }
                let same = |other: &&Written| {
                    other.secret == written.secret && other.certificate == written.certificate
                };
                match principals.iter().find(same) {
                    Some(other) => {
                        let what = if written.secret.is_some() { "secret" } else { "certificate" };
                        Err(format!("'{}' and '{}' have the same {what}", other.name, written.name))
                    }
                    None => Ok(written),
                }
            })
            .map_err(|what| format!("line {at}: {what}"))?;
        principals.push(written);
    }
    Ok(Content { anonymous, principals })
}

impl Entry {
    fn written(
        self,
        name: String,
        calls: Calls,
        announces: Option<Calls>,
    ) -> Result<Written, String> {
        let bad = |what: &str| Err(format!("the principal '{name}' {what}"));
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(
                "a principal has no name, or one that is too long or has control characters"
                    .to_owned(),
            );
        }
        if name == "anonymous" {
            return Err(
                "'anonymous' is who shows nothing: say what they may do in [anonymous]".to_owned()
            );
        }
        let has = |scope| self.scopes.contains(&scope);
        let scopes =
            Scopes { read: has(Scope::Read), write: has(Scope::Write), admin: has(Scope::Admin) };
        if calls.is_nothing() && scopes == Scopes::default() {
            return bad(
                "may do nothing: give it calls for hosts, as in calls = [\"demo:arith/*\"], or scopes for registries (\"read\", \"write\", \"admin\")",
            );
        }
        if scopes.write && self.hosts.is_empty() {
            return bad(
                "has the scope \"write\" and no hosts: say which names it may write, as in hosts = [\"edge-*\"], or give it the scope \"admin\"",
            );
        }
        if !scopes.write && !self.hosts.is_empty() {
            return bad("has hosts, but not the scope \"write\": add it, or remove the hosts");
        }
        if !scopes.write && announces.is_some() {
            return bad("has announces, but not the scope \"write\": add it, or remove them");
        }
        if self.burst.is_some() && self.rate.is_none() {
            return bad("has a burst, but no rate: give it both, or neither");
        }
        let quota =
            self.rate.map(|rate| Quota::per_second(rate).allow_burst(self.burst.unwrap_or(rate)));
        let secret = match (&self.secret, &self.certificate) {
            (Some(text), None) => match secret(text) {
                Some(secret) => Some(secret),
                None => {
                    return bad(
                        "needs a secret of at least 16 printable ASCII characters without spaces, or its hash (blake3: and 64 hexadecimal digits): take the output of 'openssl rand -hex 32'",
                    );
                }
            },
            (None, Some(name)) if is_in_certificates(name) => None,
            (None, Some(_)) => {
                return bad(
                    "has a certificate that is no name: write the name that its certificates have, as in \"spiffe://acme.internal/caller/shop\" (* at the end stands for anything) or \"shop.example\"",
                );
            }
            _ => return bad("has to have either a secret or a certificate"),
        };
        let (certificate, hosts) = (self.certificate, self.hosts);
        let max_connections = self.connections;
        let written = Written {
            name,
            secret,
            certificate,
            calls,
            scopes,
            announces,
            hosts,
            quota,
            max_connections,
            is_shared: false,
        };
        Ok(written)
    }
}

/// Whether certificates can have a name like this.
fn is_in_certificates(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match name.strip_prefix("spiffe://") {
        Some(rest) => {
            let rest = rest.strip_suffix('*').unwrap_or(rest);
            rest.contains('/') && rest.split('/').all(|part| part.chars().all(plain))
        }
        None => !name.is_empty() && name.chars().all(plain),
    }
}

fn secret(text: &str) -> Option<Secret> {
    match text.strip_prefix(HASHED) {
        Some(digits) => Secret::of_hash(digits),
        None => is_hard_to_guess(text).then(|| Secret::new(text.as_bytes())),
    }
}

/// Whether a secret is long enough not to be guessed, and can be sent in a header.
#[must_use]
pub fn is_hard_to_guess(secret: &str) -> bool {
    secret.len() >= MIN_SECRET && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn with(rest: &str) -> String {
        format!("[[principal]]\nname = 'a'\nsecret = '{SECRET}'\n{rest}")
    }

    fn known(text: &str) -> Known {
        parse(text).unwrap().known(None)
    }

    #[test]
    fn scopes_say_who_may_do_what_in_a_registry() {
        let known_ = known(&with("scopes = ['write']\nhosts = ['edge-*', 'db']"));
        assert!(!known_.anonymous().may_read());
        let principal = known_.recognise(Some(SECRET.as_bytes()), None).unwrap();
        assert!(principal.may_write("edge-7") && principal.may_write("db"));
        assert!(!principal.may_write("db-2") && !principal.may_write("Edge-7"));
        assert!(!principal.may_read() && principal.calls().is_nothing());
        let admin = known(&with("scopes = ['admin']"));
        let admin = admin.recognise(Some(SECRET.as_bytes()), None).unwrap();
        assert!(admin.may_read() && admin.may_write("anything"));
        assert!(known("[anonymous]\nscopes = ['read']").anonymous().may_read());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("principals.toml");
        std::fs::write(&path, with("calls = ['*']")).unwrap();
        read(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("run 'chmod go-w "), "{error}");
    }

    #[test]
    fn a_secret_may_be_written_as_its_hash() {
        let hash = blake3::hash(SECRET.as_bytes());
        let text = with("calls = ['*']").replace(SECRET, &format!("blake3:{hash}"));
        assert_eq!(known(&text).recognise(Some(SECRET.as_bytes()), None).unwrap().name(), "a");
    }

    #[test]
    fn whoever_asks_too_often_is_told_when_to_come_back() {
        let known = known(&with("scopes = ['read']\nrate = 1\nburst = 2"));
        let principal = known.recognise(Some(SECRET.as_bytes()), None).unwrap();
        assert_eq!((principal.count(), principal.count()), (Ok(()), Ok(())));
        let wait = principal.count().unwrap_err();
        let second = std::time::Duration::from_secs(1);
        assert!(!wait.is_zero() && wait <= second, "{wait:?}");
    }

    #[test]
    fn a_principal_has_no_more_connections_than_it_may_and_pays_under_its_name() {
        let known = known(&with("scopes = ['read']\nconnections = 2"));
        let principal = known.recognise(Some(SECRET.as_bytes()), None).unwrap();
        let (first, second) = (principal.connect(), principal.connect());
        assert!(first.is_some() && second.is_some() && principal.connect().is_none());
        drop(first);
        assert!(principal.connect().is_some());
        assert_eq!(principal.payer().map(|name| &**name), Some("a"));
        assert!(known.anonymous().payer().is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line_and_no_secret_is_shown() {
        let twice = format!("{}\n{}", with("scopes = ['read']"), with("scopes = ['read']"));
        let same = twice.replacen("'a'", "'b'", 1);
        for (text, reason) in [
            (with(""), "line 2: the principal 'a' may do nothing"),
            (with("scopes = ['write']"), "say which names it may write"),
            (with("scopes = ['read']\nhosts = ['x']"), "not the scope \"write\""),
            (with("scopes = ['read']\nburst = 3"), "no rate"),
            (with("scopes = ['read']\nannounces = ['demo:*']"), "has announces, but not the scope"),
            (
                with("scopes = ['write']\nhosts = ['x']\nannounces = ['a.b']"),
                "line 6: announces: 'a.b' is a method",
            ),
            (with("scopes = ['root']"), "line 4: unknown variant `root`"),
            (with("scopes = ['read']\nscope = 1"), "unknown field `scope`"),
            (with("calls = ['*',\n 'Arith']"), "line 5: calls: 'Arith' is no pattern"),
            (with("calls = ['*']").replace(SECRET, "short"), "at least 16"),
            (with("calls = ['*']").replace(SECRET, "blake3:0123456789abcdef"), "64 hexadecimal"),
            (with("calls = ['*']").replace("'a'", "'anonymous'"), "say what they may do in"),
            ("[anonymous]\nscopes = ['admin']".to_owned(), "and no other"),
            (String::new(), "nobody may do anything"),
            ("[anonymous]".to_owned(), "nobody may do anything"),
            (twice, "line 6: there is another principal 'a'"),
            (same, "have the same secret"),
            (with("certificate = 'x'\ncalls = ['*']"), "either a secret or a certificate"),
            (
                "[[principal]]\nname = 'a'\ncertificate = 'spiffe://acme'\ncalls = ['*']"
                    .to_owned(),
                "has a certificate that is no name",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }
}
