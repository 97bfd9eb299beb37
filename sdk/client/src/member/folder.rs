//! Where a member keeps its certificate.
//!
//! `member.pem` has its private key, its certificate and the chain, `roots.pem` the authorities that it
//! believes. For a registry it is `issuer.pem`, which the registry itself reads.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wharf_net::private;
use wharf_net::tls::Role;

use super::MemberError;

const MEMBER: &str = "member.pem";
const ISSUER: &str = "issuer.pem";
/// What a trust domain's own folder has.
const ROOT: &str = "root.pem";
const ROOTS: &str = "roots.pem";

/// What stands before the time of the renewal, in seconds since 1970, in the first line.
const RENEW_AT: &str = "renew-at: ";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// What a member has.
pub(super) struct Held {
    /// Its private key, in PEM.
    pub(super) key: String,
    /// Its certificate and the chain, in PEM.
    pub(super) chain: String,
    /// The authorities that it believes, in PEM.
    pub(super) roots: String,
    pub(super) renew_at: SystemTime,
}

/// The file of a member, and that of one of the other kind.
fn names(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Registry => (ISSUER, MEMBER),
        Role::Host | Role::Caller => (MEMBER, ISSUER),
    }
}

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Folder(path.to_owned())
    }

    pub(super) fn exists(&self) -> bool {
        self.file().is_some()
    }

    fn file(&self) -> Option<PathBuf> {
        [MEMBER, ISSUER].map(|name| self.0.join(name)).into_iter().find(|path| path.exists())
    }

    pub(super) fn read(&self) -> Result<Held, MemberError> {
        let path = self.file().ok_or_else(|| {
            self.failed(io::Error::new(
                io::ErrorKind::NotFound,
                "there is none: join a trust domain first, with a token from 'wharf identity token'",
            ))
        })?;
        private::check(&self.0)?;
        let text = self.text(&path)?;
        let (begin, certificates) =
            (text.find("-----BEGIN"), text.find("-----BEGIN CERTIFICATE-----"));
        let (Some(begin), Some(certificates)) = (begin, certificates) else {
            return Err(self.content("it should have a private key and a certificate"));
        };
        let renew_at = text.strip_prefix(RENEW_AT).and_then(|rest| rest.lines().next());
        let renew_at = renew_at.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0);
        Ok(Held {
            key: text[begin..certificates].to_owned(),
            chain: text[certificates..].to_owned(),
            roots: self.text(&self.0.join(ROOTS))?,
            renew_at: UNIX_EPOCH.checked_add(Duration::from_secs(renew_at)).unwrap_or(UNIX_EPOCH),
        })
    }

    /// Refuses a folder that is a trust domain's own, or of a member of another kind: its key would be lost.
    pub(super) fn check_free(&self, role: Role) -> Result<(), MemberError> {
        let (_, other) = names(role);
        if self.0.join(other).exists() || self.0.join(ROOT).exists() {
            return Err(self.content("there is another identity in it: name another folder"));
        }
        Ok(())
    }

    pub(super) fn write(&self, held: &Held, role: Role) -> Result<(), MemberError> {
        let renew_at = held.renew_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = format!("{RENEW_AT}{renew_at}\n{}{}", held.key, held.chain);
        let (name, _) = names(role);
        private::make(&self.0).map_err(|error| self.failed(error))?;
        private::check(&self.0)?;
        self.write_roots(&held.roots)?;
        private::write(&self.0.join(name), text.as_bytes()).map_err(|error| self.failed(error))
    }

    pub(super) fn write_roots(&self, roots: &str) -> Result<(), MemberError> {
        private::write(&self.0.join(ROOTS), roots.as_bytes()).map_err(|error| self.failed(error))
    }

    fn text(&self, path: &Path) -> Result<String, MemberError> {
        use std::io::Read;

        let read = || {
            let mut text = String::new();
            std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> MemberError {
        MemberError::Folder { folder: self.0.display().to_string(), source }
    }

    pub(super) fn content(&self, why: &str) -> MemberError {
        MemberError::Content { folder: self.0.display().to_string(), why: why.to_owned() }
    }
}
