//! The folder of a trust domain.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `issuer.pem` | the issuer's key, its certificate, and the chain to its root |
//! | `roots.pem` | the roots that members believe |
//! | `root.pem` | the root's key and certificate; only `wharf identity root` needs it, so it may be kept elsewhere |
//! | `next.pem`, `next-issuer.pem` | the same for the next root, while roots are exchanged |

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wharf_net::private::{self, PrivateError};
use wharf_net::tls::{Chain, Role, SpiffeId, TlsError, TrustDomain};
use wharf_registry_api::{JoinClaims, JoinToken};

use super::making::{self, Made};

const ISSUER: &str = "issuer.pem";
const ROOT: &str = "root.pem";
const ROOTS: &str = "roots.pem";
const NEXT: &str = "next.pem";
const NEXT_ISSUER: &str = "next-issuer.pem";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The folder of a trust domain.
#[derive(Clone, Debug)]
pub struct DomainFolder(PathBuf);

/// Why a trust domain cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// There is one already.
    #[error("{} has a trust domain already", .0.display())]
    Exists(PathBuf),
    /// A file is missing, cannot be read, or cannot be written.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can reach it.
    #[error("the folder of a trust domain has to be private")]
    Private(#[from] PrivateError),
    /// A file has something else in it than it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
    /// It can only be done where the domain was made.
    #[error("{} is the folder of a registry that joined: only the folder that 'wharf identity init' made can do this", .0.display())]
    Joined(PathBuf),
    /// The exchange of roots is at another step.
    #[error("{0}")]
    Step(&'static str),
}

/// What an issuer needs of the folder.
pub(super) struct Contents {
    pub(super) domain: TrustDomain,
    /// The issuer's private key, in PEM.
    pub(super) key: String,
    /// Its certificate and the chain to its root, in PEM.
    pub(super) chain: String,
    /// The roots to believe, in PEM.
    pub(super) roots: String,
}

impl DomainFolder {
    /// The folder at this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        DomainFolder(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether there is an issuer in it.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.join(ISSUER).exists()
    }

    /// Makes a trust domain: its root and its issuer.
    ///
    /// # Errors
    /// When there is one, or the folder cannot be written or is not private.
    pub fn init(&self, domain: &TrustDomain) -> Result<(), DomainError> {
        private::make(&self.0).map_err(|source| self.file("", source))?;
        private::check(&self.0)?;
        if self.exists() || self.0.join(ROOT).exists() {
            return Err(DomainError::Exists(self.0.clone()));
        }
        let root = making::root(domain)?;
        self.write(ROOT, &[&root.key, &root.certificate])?;
        self.write(ROOTS, &[&root.certificate])?;
        self.write_issuer(ISSUER, &making::issuer(domain, &root)?, &root)
    }

    /// Writes what a registry that joined was given.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_joined(&self, key: &str, chain: &str, roots: &str) -> Result<(), DomainError> {
        private::make(&self.0).map_err(|source| self.file("", source))?;
        self.write(ROOTS, &[roots])?;
        self.write(ISSUER, &[key, chain])
    }

    /// A token that lets a member in.
    ///
    /// # Errors
    /// When the folder has no issuer, or that of a registry that joined.
    pub fn token(&self, role: Role, name: &str, life: Duration) -> Result<JoinToken, DomainError> {
        let contents = self.read()?;
        let chain = self.chain(&contents)?;
        if chain.certificates().len() != 2 {
            return Err(DomainError::Joined(self.0.clone()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = JoinClaims {
            domain: contents.domain.to_string(),
            role: role.as_str().to_owned(),
            name: name.to_owned(),
            expires: (now + life).as_secs(),
            root: making::hexadecimal(&chain.root_hash()),
        };
        let text = claims.to_text().map_err(|error| self.content(ISSUER, &error))?;
        let signature =
            wharf_net::tls::CertificateRequest::sign_with(&contents.key, text.as_bytes())
                .map_err(|error| self.content(ISSUER, &error))?;
        Ok(JoinToken::new(claims, text, signature))
    }

    /// Begins the exchange of roots: makes the next root, and lets members believe both.
    ///
    /// # Errors
    /// When an exchange has begun, or the folder is that of a registry that joined.
    pub fn add_root(&self) -> Result<(), DomainError> {
        let contents = self.read()?;
        if !self.0.join(ROOT).exists() {
            return Err(DomainError::Joined(self.0.clone()));
        }
        if self.0.join(NEXT).exists() {
            return Err(DomainError::Step("there is a next root already: use it"));
        }
        let next = making::root(&contents.domain)?;
        self.write_issuer(NEXT_ISSUER, &making::issuer(&contents.domain, &next)?, &next)?;
        self.write(ROOTS, &[&contents.roots, &next.certificate])?;
        // Last: what is interrupted before is begun again.
        self.write(NEXT, &[&next.key, &next.certificate])
    }

    /// Gives out certificates below the next root. Members believe both roots.
    ///
    /// # Errors
    /// When no exchange has begun.
    pub fn use_root(&self) -> Result<(), DomainError> {
        if !self.0.join(NEXT).exists() {
            return Err(DomainError::Step("there is no next root: add one"));
        }
        for (from, to) in [(NEXT_ISSUER, ISSUER), (NEXT, ROOT)] {
            let path = self.0.join(from);
            if from == NEXT_ISSUER && !path.exists() {
                // It was interrupted after this step.
                continue;
            }
            std::fs::rename(&path, self.0.join(to)).map_err(|source| self.file(from, source))?;
        }
        Ok(())
    }

    /// Ends the exchange: members believe only the root that is in use.
    ///
    /// # Errors
    /// When the next root is not in use yet.
    pub fn drop_roots(&self) -> Result<(), DomainError> {
        if self.0.join(NEXT).exists() {
            return Err(DomainError::Step("the next root is not in use yet: use it first"));
        }
        let root = self.text(ROOT)?;
        let (_, certificate) = self.split(ROOT, &root)?;
        self.write(ROOTS, &[certificate])
    }

    pub(super) fn read(&self) -> Result<Contents, DomainError> {
        private::check(&self.0)?;
        let (issuer, roots) = (self.text(ISSUER)?, self.text(ROOTS)?);
        let (key, chain) = self.split(ISSUER, &issuer)?;
        let names = Chain::from_pem(chain).map_err(|error| self.content(ISSUER, &error))?.names();
        let id = names.spiffe_id().filter(|id| id.role() == Role::Registry);
        let id: SpiffeId =
            id.ok_or_else(|| self.content(ISSUER, &"its certificate is no issuer's"))?;
        Ok(Contents {
            domain: id.domain().clone(),
            key: key.to_owned(),
            chain: chain.to_owned(),
            roots,
        })
    }

    pub(super) fn chain(&self, contents: &Contents) -> Result<Chain, DomainError> {
        let chain: Result<Chain, TlsError> = Chain::from_pem(&contents.chain);
        chain.map_err(|error| self.content(ISSUER, &error))
    }

    /// What changes when the folder does.
    pub(super) fn stamp(&self) -> Option<[SystemTime; 2]> {
        let modified = |name| std::fs::metadata(self.0.join(name)).ok()?.modified().ok();
        Some([modified(ISSUER)?, modified(ROOTS)?])
    }

    fn write_issuer(&self, name: &str, made: &Made, root: &Made) -> Result<(), DomainError> {
        self.write(name, &[&made.key, &made.certificate, &root.certificate])
    }

    /// Writes a file that only its owner can read, as a whole or not at all.
    fn write(&self, name: &str, parts: &[&str]) -> Result<(), DomainError> {
        private::write(&self.0.join(name), parts.concat().as_bytes())
            .map_err(|source| self.file(name, source))
    }

    fn text(&self, name: &str) -> Result<String, DomainError> {
        use std::io::Read;

        let read = || {
            let mut text = String::new();
            let file = std::fs::File::open(self.0.join(name))?;
            file.take(MAX_FILE).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|source| self.file(name, source))
    }

    /// The private key, and the certificates behind it.
    fn split<'t>(&self, name: &str, text: &'t str) -> Result<(&'t str, &'t str), DomainError> {
        let at = text.find("-----BEGIN CERTIFICATE-----").filter(|_| text.contains("PRIVATE KEY"));
        at.map(|at| text.split_at(at))
            .ok_or_else(|| self.content(name, &"it should have a private key and a certificate"))
    }

    fn file(&self, name: &str, source: io::Error) -> DomainError {
        DomainError::File { path: self.0.join(name), source }
    }

    fn content(&self, name: &str, why: &impl ToString) -> DomainError {
        DomainError::Content { path: self.0.join(name), why: why.to_string() }
    }
}
