//! Who may do what: tokens from a file, their scopes, and how often each may ask.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::Deserialize;
use tokio::sync::watch;
use wharf_net::Secret;
use wharf_registry_api::limits;

/// The largest file of tokens that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The most tokens in one file. Each request is compared with all of them.
const MAX_TOKENS: usize = 1_000;

/// The shortest secret, in bytes. A shorter one can be guessed.
const MIN_SECRET: usize = 16;

/// A file of tokens as it was read last; clones share it.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: Arc<PathBuf>,
    tokens: Arc<watch::Sender<Arc<Tokens>>>,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("the tokens {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content is not valid.
    #[error("the tokens {path} cannot be used: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
}

impl TokenFile {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// When it cannot be read, or its content is not valid.
    pub fn load(path: &Path) -> Result<Self, TokenFileError> {
        let tokens = Arc::new(watch::Sender::new(Arc::new(read(path)?)));
        Ok(TokenFile { path: Arc::new(path.to_owned()), tokens })
    }

    /// Reads the file again. Its tokens apply to requests from now on.
    ///
    /// # Errors
    /// As [`TokenFile::load`]. The previous tokens then stay in force.
    pub fn reload(&self) -> Result<(), TokenFileError> {
        self.tokens.send_replace(Arc::new(read(&self.path)?));
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<Tokens> {
        self.tokens.borrow().clone()
    }

    /// Notifies when the tokens change.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Tokens>> {
        self.tokens.subscribe()
    }
}

/// All known tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    anonymous_reads: bool,
    tokens: Vec<Arc<Token>>,
}

/// One token.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) name: String,
    secret: Secret,
    read: bool,
    write: bool,
    admin: bool,
    hosts: Vec<String>,
    rate: Option<DefaultDirectRateLimiter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileContent {
    #[serde(default)]
    anonymous: Anonymous,
    #[serde(default)]
    token: Vec<TokenContent>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Anonymous {
    #[default]
    None,
    Read,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenContent {
    name: String,
    secret: String,
    scopes: Vec<Scope>,
    #[serde(default)]
    hosts: Vec<String>,
    rate: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Scope {
    Read,
    Write,
    Admin,
}

impl Tokens {
    /// Whether everybody may read lists.
    pub(crate) fn anonymous_reads(&self) -> bool {
        self.anonymous_reads
    }

    /// Whether there still is a token with this secret that may read.
    pub(crate) fn still_reads(&self, token: &Token) -> bool {
        self.tokens.iter().any(|known| known.secret == token.secret && known.may_read())
    }

    /// The token with this secret. The time that this takes does not reveal which token matches, or
    /// whether any does: all hashes are compared, each in constant time.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<&Arc<Token>> {
        let shown = Secret::new(secret);
        self.tokens.iter().fold(
            None,
            |found, token| {
                if token.secret == shown { Some(token) } else { found }
            },
        )
    }
}

impl Token {
    pub(crate) fn may_read(&self) -> bool {
        self.read || self.admin
    }

    /// Whether it may write anything at all.
    pub(crate) fn writes(&self) -> bool {
        self.write || self.admin
    }

    pub(crate) fn may_write(&self, host: &str) -> bool {
        let own = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => host.starts_with(prefix),
            None => host == pattern,
        };
        self.admin || (self.write && self.hosts.iter().any(own))
    }

    /// Counts a request. If the token asks too often, the error says how long it has to wait.
    pub(crate) fn admit(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.check()
            .map_err(|until| until.wait_time_from(governor::clock::DefaultClock::default().now()))
    }
}

fn read(path: &Path) -> Result<Tokens, TokenFileError> {
    let unreadable = |source| TokenFileError::Unreadable { path: path.to_owned(), source };
    let invalid = |what: String| TokenFileError::Invalid { path: path.to_owned(), what };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE {
        return Err(invalid(format!("it has {length} bytes, at most {MAX_FILE} are read")));
    }
    if wharf_net::private::others_may_read(path) {
        tracing::warn!(
            "other users of this machine may read the tokens file {path}: run 'chmod 600 {path}'",
            path = path.display()
        );
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text).map_err(invalid)
}

fn parse(text: &str) -> Result<Tokens, String> {
    let content: FileContent = toml::from_str(text).map_err(|error| {
        // The error's Display shows the faulty line, which may contain a secret.
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        match line {
            Some(line) => format!("line {line}: {}", error.message()),
            None => error.message().to_owned(),
        }
    })?;
    if content.token.len() > MAX_TOKENS {
        return Err(format!("{} tokens, at most {MAX_TOKENS} are allowed", content.token.len()));
    }
    let tokens = content.token.into_iter().map(token).collect::<Result<Vec<_>, _>>()?;
    for (position, token) in tokens.iter().enumerate() {
        let before = &tokens[..position];
        if before.iter().any(|other| other.name == token.name) {
            return Err(format!("two tokens have the name '{}'", token.name));
        }
        if let Some(other) = before.iter().find(|other| other.secret == token.secret) {
            return Err(format!("'{}' and '{}' have the same secret", other.name, token.name));
        }
    }
    let anonymous_reads = matches!(content.anonymous, Anonymous::Read);
    Ok(Tokens { anonymous_reads, tokens: tokens.into_iter().map(Arc::new).collect() })
}

fn token(content: TokenContent) -> Result<Token, String> {
    let TokenContent { name, secret, scopes, hosts, rate, burst } = content;
    let bad = |what: &str| Err(format!("the token '{name}' {what}"));
    if name.is_empty() || name.len() > limits::NAME || name.contains(char::is_control) {
        return Err(
            "a token has no name, or one that is too long or has control characters".to_owned()
        );
    }
    if secret.len() < MIN_SECRET || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return bad(
            "needs a secret of at least 16 printable ASCII characters without spaces: take the output of 'openssl rand -hex 32'",
        );
    }
    if scopes.is_empty() {
        return bad("has no scopes: give it \"read\", \"write\" or \"admin\"");
    }
    let write = scopes.contains(&Scope::Write);
    if write && hosts.is_empty() {
        return bad(
            "has the scope \"write\" and no hosts: say which names it may write, as in hosts = [\"edge-*\"], or give it the scope \"admin\"",
        );
    }
    if !write && !hosts.is_empty() {
        return bad("has hosts, but not the scope \"write\": add it, or remove the hosts");
    }
    if burst.is_some() && rate.is_none() {
        return bad("has a burst, but no rate: give it both, or neither");
    }
    let rate = rate.map(|rate| {
        RateLimiter::direct(Quota::per_second(rate).allow_burst(burst.unwrap_or(rate)))
    });
    let secret = Secret::new(secret.as_bytes());
    let [read, admin] = [Scope::Read, Scope::Admin].map(|scope| scopes.contains(&scope));
    Ok(Token { name, secret, read, write, admin, hosts, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn with(rest: &str) -> String {
        format!("[[token]]\nname = 'a'\nsecret = '{SECRET}'\n{rest}")
    }

    #[test]
    fn scopes_say_who_may_do_what() {
        let tokens = parse(&with("scopes = ['write']\nhosts = ['edge-*', 'db']")).unwrap();
        assert!(!tokens.anonymous_reads());
        assert!(tokens.find(b"0123456789abcdeF").is_none());
        let token = tokens.find(SECRET.as_bytes()).unwrap();
        assert!(token.may_write("edge-7") && token.may_write("db"));
        assert!(!token.may_write("db-2") && !token.may_write("Edge-7") && !token.may_read());
        let tokens = parse(&with("scopes = ['admin']")).unwrap();
        let admin = tokens.find(SECRET.as_bytes()).unwrap();
        assert!(admin.may_read() && admin.may_write("anything"));
        assert!(parse("anonymous = 'read'").unwrap().anonymous_reads());
    }

    #[test]
    fn a_token_that_asks_too_often_is_told_when_to_come_back() {
        let tokens = parse(&with("scopes = ['read']\nrate = 1\nburst = 2")).unwrap();
        let token = tokens.find(SECRET.as_bytes()).unwrap();
        assert_eq!((token.admit(), token.admit()), (Ok(()), Ok(())));
        let wait = token.admit().unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_no_secret_is_shown() {
        let twice = format!("{}\n{}", with("scopes = ['read']"), with("scopes = ['read']"));
        let same = twice.replacen("'a'", "'b'", 1);
        for (text, reason) in [
            (with("scopes = []"), "has no scopes"),
            (with("scopes = ['write']"), "say which names it may write"),
            (with("scopes = ['read']\nhosts = ['x']"), "not the scope \"write\""),
            (with("scopes = ['read']\nburst = 3"), "no rate"),
            (with("scopes = ['root']"), "line 4: unknown variant `root`"),
            (with("scopes = ['read']\nscope = 1"), "unknown field `scope`"),
            (with("scopes = ['read']").replace(SECRET, "short"), "at least 16"),
            (twice, "two tokens have the name 'a'"),
            (same, "have the same secret"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }
}
