//! Who asks, and what they may do: principals, from one file for hosts and registries alike.
//!
//! A principal is a name with rights. It is shown by a secret, in the Hello or as a bearer token (RFC 6750),
//! or by a client certificate. The file is read again when it changes. Whoever was found before keeps the rights of that
//! time until [`Principals::withdrawn`] completes.

mod file;
mod guesses;
mod principal;
mod rights;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

pub use self::file::{PrincipalsError, is_hard_to_guess};
use self::guesses::Guesses;
pub use self::principal::{Connected, Principal};
use self::principal::{Scopes, Written};
pub use self::rights::{Callee, Calls, Pattern};
use crate::tls::Names;
use crate::{Secret, chain};

/// How often the file is looked at. It is read once two looks in a row have found the same.
const LOOK: Duration = Duration::from_secs(1);

/// All principals, as they were read last. Clones share them.
#[derive(Clone, Debug)]
pub struct Principals {
    path: Option<Arc<PathBuf>>,
    known: Arc<watch::Sender<Arc<Known>>>,
    /// The file as it was when it was read last. Held while it is read, so that a later content is never
    /// followed by an earlier one.
    read: Arc<Mutex<Option<Stamp>>>,
    guesses: Arc<Guesses>,
}

/// The principals of one moment.
#[derive(Debug)]
pub struct Known {
    /// Whether nobody is asked who they are.
    is_open: bool,
    anonymous: Arc<Principal>,
    principals: Vec<Arc<Principal>>,
    /// What callers may call whose certificate is good, and belongs to no principal.
    certified: Calls,
}

/// A secret that belongs to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is not known")]
pub struct UnknownSecret;

impl Default for Principals {
    fn default() -> Self {
        Self::open()
    }
}

impl Principals {
    /// Everybody may do everything, and nobody is asked.
    #[must_use]
    pub fn open() -> Self {
        let anonymous = Principal::new(Written::anonymous(Calls::everything()));
        Self::of(None, Known { is_open: true, anonymous, ..Known::default() })
    }

    /// Whoever shows a good certificate may call everything. Nobody else may do anything.
    #[must_use]
    pub fn certified() -> Self {
        Self::of(None, Known { certified: Calls::everything(), ..Known::default() })
    }

    /// One principal, which may call and read everything. Nobody else may do anything.
    #[must_use]
    pub fn only(secret: &[u8]) -> Self {
        let principal = Principal::new(Written {
            name: "token".to_owned(),
            secret: Some(Secret::new(secret)),
            is_shared: true,
            scopes: Scopes { read: true, ..Scopes::default() },
            ..Written::anonymous(Calls::everything())
        });
        Self::of(None, Known { principals: vec![principal], ..Known::default() })
    }

    /// Reads a file of principals.
    ///
    /// # Errors
    /// When it cannot be read, or its content is not valid.
    pub fn load(path: &Path) -> Result<Self, PrincipalsError> {
        let stamp = stamp(path);
        let known = file::read(path)?.known(None);
        let principals = Self::of(Some(Arc::new(path.to_owned())), known);
        *principals.last_read() = stamp;
        Ok(principals)
    }

    fn of(path: Option<Arc<PathBuf>>, known: Known) -> Self {
        let known = Arc::new(watch::Sender::new(Arc::new(known)));
        Principals { path, known, read: Arc::default(), guesses: Arc::default() }
    }

    /// Reads the file again. Principals that are written as before stay the same.
    ///
    /// # Errors
    /// As [`Principals::load`]. The previous principals then stay in force.
    pub fn reload(&self) -> Result<(), PrincipalsError> {
        if let Some(path) = &self.path {
            let mut last = self.last_read();
            *last = stamp(path);
            let read = file::read(path)?;
            self.known.send_modify(|known| *known = Arc::new(read.known(Some(known))));
        }
        Ok(())
    }

    /// Reads the file again whenever it changes, for ever. What cannot be read is logged, and leaves
    /// everything as it was.
    pub async fn follow(self) {
        let Some(path) = self.path.clone() else { return };
        let mut looked = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = stamp(&path);
            let before = std::mem::replace(&mut looked, now);
            // It may be missing for a moment while it is replaced, or be written just now.
            if now.is_none() || now != before || now == *self.last_read() {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!(path = %path.display(), "the principals were read again"),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the principals stay as they were");
                }
            }
        }
    }

    fn last_read(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a secret that belongs to nobody, and tells the log. Returns how long its answer has to be
    /// held back, so that secrets cannot be guessed quickly. Right secrets from the same address are not
    /// delayed: others may be behind it.
    #[must_use]
    pub fn note_wrong(&self, peer: IpAddr) -> Duration {
        self.guesses.note(peer)
    }

    /// The principals of this moment.
    #[must_use]
    pub fn known(&self) -> Arc<Known> {
        self.known.borrow().clone()
    }

    /// Completes when this principal is not known any more, or its rights have changed. `names` are those in
    /// the certificate of whoever was found, if it showed one: they may belong to somebody else then.
    pub async fn withdrawn(&self, principal: &Arc<Principal>, names: Option<&Names>) {
        let mut changes = self.known.subscribe();
        if changes.wait_for(|known| !known.has(principal, names)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What tells one content of a file from another. Some tools keep the time of the last write, so on Unix
/// there are also the times of the last change and the file's number.
type Stamp = (SystemTime, u64, [i128; 3]);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let more = {
        use std::os::unix::fs::MetadataExt;

        [metadata.ino().into(), metadata.ctime().into(), metadata.ctime_nsec().into()]
    };
    #[cfg(not(unix))]
    let more = [0; 3];
    Some((metadata.modified().ok()?, metadata.len(), more))
}

impl Default for Known {
    /// Nobody may do anything.
    fn default() -> Self {
        let anonymous = Principal::new(Written::anonymous(Calls::default()));
        let (principals, certified) = (Vec::new(), Calls::default());
        Known { is_open: false, anonymous, principals, certified }
    }
}

impl Known {
    /// Whether nobody is asked who they are, and everybody may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Who asks without a secret.
    #[must_use]
    pub fn anonymous(&self) -> &Arc<Principal> {
        &self.anonymous
    }

    /// Who shows this secret, or else a certificate with these names. Where nobody is asked, any secret will do.
    ///
    /// # Errors
    /// When the secret belongs to nobody.
    pub fn recognise(
        &self,
        shown: Option<&[u8]>,
        names: Option<&Arc<Names>>,
    ) -> Result<Arc<Principal>, UnknownSecret> {
        match (shown.filter(|shown| !shown.is_empty() && !self.is_open), names) {
            (Some(secret), _) => self.find(secret).cloned().ok_or(UnknownSecret),
            (None, Some(names)) if !self.is_open => Ok(self.of_certificate(names)),
            (None, _) => Ok(self.anonymous.clone()),
        }
    }

    /// Whose certificate has these names: a principal, or else whom it names.
    fn of_certificate(&self, names: &Arc<Names>) -> Arc<Principal> {
        match self.listed(names) {
            Some(principal) => principal.clone(),
            None => Principal::certified(names, self.certified.clone()),
        }
    }

    fn listed(&self, names: &Names) -> Option<&Arc<Principal>> {
        let has = |written: &String| names.has(written);
        self.principals.iter().find(|p| p.written.certificate.as_ref().is_some_and(has))
    }

    /// The principal with this secret. The time that this takes does not reveal which one it is, or
    /// whether there is one: all hashes are compared, each in constant time.
    fn find(&self, secret: &[u8]) -> Option<&Arc<Principal>> {
        let shown = Some(Secret::new(secret));
        self.principals.iter().fold(None, |found, principal| {
            if principal.written.secret == shown { Some(principal) } else { found }
        })
    }

    /// The principal with this name; `anonymous` for nobody in particular.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Principal>> {
        self.all().find(|principal| principal.name() == name)
    }

    /// The names of all principals, with `anonymous`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|principal| principal.name())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.principals.iter().chain([&self.anonymous])
    }

    /// Whether this principal still has the rights that it had, if its certificate has these names.
    #[must_use]
    pub fn has(&self, principal: &Principal, names: Option<&Names>) -> bool {
        if let Some(names) = names.filter(|_| principal.written.certificate.is_some()) {
            return self.listed(names).is_some_and(|listed| listed.id == principal.id);
        }
        match &principal.certified {
            Some(names) => {
                !self.is_open
                    && self.listed(names).is_none()
                    && principal.written.calls == self.certified
            }
            None => self.all().any(|known| known.id == principal.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str =
        "[[principal]]\nname = 'shop'\nsecret = '0123456789abcdef'\ncalls = ['arith']\n";
    const DESK: &str = "[[principal]]\nname = 'desk'\nsecret = 'fedcba9876543210'\ncalls = ['*']\n";

    #[tokio::test]
    async fn whoever_is_written_as_before_stays_who_he_is_and_others_are_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("principals.toml");
        std::fs::write(&path, format!("{SHOP}{DESK}")).unwrap();
        let principals = Principals::load(&path).unwrap();
        let known = principals.known();
        let of = |secret: &str| known.recognise(Some(secret.as_bytes()), None).unwrap();
        let (shop, desk) = (of("0123456789abcdef"), of("fedcba9876543210"));
        assert_eq!((shop.name(), desk.name()), ("shop", "desk"));
        assert!(known.recognise(Some(b"0123456789abcdeF"), None).is_err());
        assert_eq!(known.recognise(None, None).unwrap().name(), "anonymous");
        // Anywhere else in the file, and the other one may call something else.
        std::fs::write(&path, format!("\n{}{SHOP}", DESK.replace("'*'", "'textkit'"))).unwrap();
        principals.reload().unwrap();
        principals.withdrawn(&desk, None).await;
        assert!(principals.known().has(&shop, None) && !principals.known().has(&desk, None));
        std::fs::write(&path, "nonsense").unwrap();
        principals.reload().unwrap_err();
        assert!(principals.known().has(&shop, None));
    }

    #[tokio::test]
    async fn whose_certificate_belongs_to_another_one_now_is_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("principals.toml");
        let all = "[[principal]]\nname='all'\ncertificate='spiffe://acme/*'\ncalls=['*']\n";
        let one =
            "[[principal]]\nname='one'\ncertificate='spiffe://acme/caller/one'\ncalls=['a']\n";
        std::fs::write(&path, all).unwrap();
        let principals = Principals::load(&path).unwrap();
        let names = |uri: &str| Arc::new(Names::of_uri(uri));
        let (first, other) = (names("spiffe://acme/caller/one"), names("spiffe://acme/caller/two"));
        let who = principals.known().recognise(None, Some(&first)).unwrap();
        assert_eq!(who.name(), "all");
        std::fs::write(&path, format!("{one}{all}")).unwrap();
        principals.reload().unwrap();
        principals.withdrawn(&who, Some(&first)).await;
        assert!(principals.known().has(&who, Some(&other)));
        assert_eq!(principals.known().recognise(None, Some(&first)).unwrap().name(), "one");
    }

    #[test]
    fn where_nobody_is_asked_everybody_is_the_same() {
        let open = Principals::open().known();
        assert!(open.recognise(Some(b"whatever"), None).unwrap().calls().is_everything());
        let only = Principals::only(b"secret").known();
        assert!(only.recognise(Some(b"secret"), None).unwrap().calls().is_everything());
        assert!(only.recognise(None, None).unwrap().calls().is_nothing());
        assert!(only.recognise(Some(b"other"), None).is_err());
    }
}
