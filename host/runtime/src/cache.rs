//! Compiled code, kept between runs so that a restart compiles nothing.
//!
//! Compiled code is machine code that will be executed, so it is only taken from a directory that
//! nobody else could have written to, and only if it is, byte for byte, what was put there. An entry
//! is named by the component's content and the engine's settings; what does not fit is compiled
//! again.

use std::fs::{DirBuilder, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Begins an entry; another format gets another.
const MAGIC: &[u8; 8] = b"wharfA\0\x01";

/// The largest entry that is read, in bytes.
pub(crate) const MAX_ENTRY: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes that all entries may take together; beyond that the ones unused for longest go.
const MAX_TOTAL: u64 = 4 * 1024 * 1024 * 1024;

/// After so many new bytes, entries are looked through.
const PRUNE_AFTER: u64 = MAX_TOTAL / 16;

/// An entry that was not used for this long goes.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A file that is being written is younger than this. An older one was left by a process that was killed.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// A directory of compiled components.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    /// Bytes that were written since entries were looked through.
    grown: Arc<AtomicU64>,
    /// Of wasmtime's version and our settings of it.
    engine: [u8; 32],
}

/// Where compiled code is kept. What is there gets executed, so it has to be a directory that only its
/// owner can change.
#[derive(Clone, Copy)]
pub struct CacheDirectory<'a> {
    /// The directory; it is made if it does not exist.
    pub path: &'a Path,
    /// Refuses a directory that somebody else could change.
    pub check: fn(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
}

/// A directory that compiled code cannot be kept in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It cannot be made or looked at.
    #[error("the cache directory {} cannot be used", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else could put code into it.
    #[error(
        "the cache directory {} is not safe, and what is in the cache gets executed",
        path.display()
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        #[source]
        why: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The name of a component's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(blake3::Hash);

impl Cache {
    /// Opens a directory, or makes it, for its owner only.
    pub(crate) fn open(directory: CacheDirectory<'_>, engine: &Engine) -> Result<Self, CacheError> {
        let CacheDirectory { path, check } = directory;
        let unusable = |source| CacheError::Unusable { path: path.to_owned(), source };
        make(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        check(&path).map_err(|why| CacheError::Unsafe { path: path.clone(), why })?;
        let mut hasher = Blake(blake3::Hasher::new());
        hasher.write(env!("CARGO_PKG_VERSION").as_bytes());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache { path, grown: Arc::default(), engine: *hasher.0.finalize().as_bytes() })
    }

    /// By which name a component is kept.
    pub(crate) fn key(&self, component: &[u8]) -> Key {
        Key(blake3::keyed_hash(&self.engine, component))
    }

    /// What was compiled before, if it is there and as it was.
    pub(crate) fn load(&self, key: Key, engine: &Engine) -> Option<Component> {
        let path = self.entry(key);
        let code = match read(&path, key) {
            Ok(code) => code?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(entry = %path.display(), %error, "an entry of the cache cannot be read; its component is compiled again");
                return None;
            }
        };
        match deserialize(engine, &code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(entry = %path.display(), "an entry of the cache does not fit this engine; its component is compiled again: {error:#}");
                None
            }
        }
    }

    /// Keeps what was compiled; that it cannot be kept is no more than logged.
    pub(crate) fn store(&self, key: Key, code: &[u8]) {
        let path = self.entry(key);
        let stored = (|| {
            let digest = blake3::keyed_hash(key.0.as_bytes(), code);
            // Whole or not at all, also for another host that reads it at this moment.
            static WRITTEN: AtomicU64 = AtomicU64::new(0);
            let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
            let name = format!(".{}.{}.{number}", key.0.to_hex(), std::process::id());
            let temporary = self.path.join(name);
            let mut file = create(&temporary)?;
            let written = [MAGIC, &digest.as_bytes()[..], code]
                .iter()
                .try_for_each(|part| file.write_all(part));
            written.and_then(|()| std::fs::rename(&temporary, &path)).inspect_err(|_| {
                // The first error is the one to tell.
                let _ = std::fs::remove_file(&temporary);
            })
        })();
        match stored {
            Err(error) => {
                tracing::warn!(entry = %path.display(), %error, "compiled code is not kept; the next start compiles it again");
            }
            Ok(()) => {
                let grown = self.grown.fetch_add(code.len() as u64, Ordering::Relaxed);
                if grown + code.len() as u64 > PRUNE_AFTER {
                    self.prune();
                }
            }
        }
    }

    /// Removes what was used longest ago, until the rest is within its bound.
    pub(crate) fn prune(&self) {
        self.grown.store(0, Ordering::Relaxed);
        self.prune_to(MAX_TOTAL);
    }

    fn prune_to(&self, max: u64) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        let mut total = 0u64;
        for (used, len, path) in entries {
            let unused = used.elapsed().unwrap_or_default();
            let is_temporary = path.extension().is_none_or(|extension| extension != EXTENSION);
            if is_temporary {
                // It may be of a process that still writes to it.
                if unused > UNFINISHED {
                    remove(&path);
                }
                continue;
            }
            total = total.saturating_add(len);
            if total > max || unused > UNUSED {
                remove(&path);
            }
        }
    }

    fn entry(&self, key: Key) -> PathBuf {
        self.path.join(format!("{}.{EXTENSION}", key.0.to_hex()))
    }
}

/// What the names of entries end with.
const EXTENSION: &str = "wharfc";

fn remove(path: &Path) {
    if std::fs::remove_file(path).is_ok() {
        tracing::debug!(entry = %path.display(), "removed an entry of the cache that is too much, too old or unfinished");
    }
}

/// An entry's code, if the entry is whole.
fn read(path: &Path, key: Key) -> std::io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    // The time of its last use, for `prune`; that it cannot be set does no harm.
    let _ = file.set_modified(SystemTime::now());
    let mut bytes = Vec::new();
    let len = file.take(MAX_ENTRY).read_to_end(&mut bytes)?;
    let start = MAGIC.len() + blake3::OUT_LEN;
    let whole = len >= start && {
        let (head, code) = bytes.split_at(start);
        let digest = blake3::keyed_hash(key.0.as_bytes(), code);
        &head[..MAGIC.len()] == MAGIC && &head[MAGIC.len()..] == digest.as_bytes()
    };
    if !whole {
        tracing::warn!(entry = %path.display(), "an entry of the cache is damaged; its component is compiled again");
        return Ok(None);
    }
    bytes.drain(..start);
    Ok(Some(bytes))
}

/// Takes compiled code: from the cache, or from the process that has just compiled it.
#[expect(unsafe_code, reason = "the one place where compiled code is taken from outside")]
pub(crate) fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are what `Engine::precompile_component` returned to this program. They come
    // from a child process over a pipe, from a thread of this process, or from the cache: then their
    // digest was stored with them, in a directory that was checked to be writable by its owner only.
    // wasmtime compares its own version and settings before it takes them.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(unix)]
fn make(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).create(path)
}

#[cfg(unix)]
fn create(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> std::io::Result<File> {
    File::create(path)
}

/// Lets wasmtime's settings be hashed so that the result depends on nothing else.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.finalize();
        digest.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_unused_for_longest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let directory = CacheDirectory { path: &path, check: |_| Ok(()) };
        let cache = Cache::open(directory, &Engine::default()).unwrap();
        let now = SystemTime::now();
        for age in 0..4 {
            let path = cache.path.join(format!("{age}.wharfc"));
            std::fs::write(&path, [0; 10]).unwrap();
            let used = now - std::time::Duration::from_secs(age);
            File::options().write(true).open(&path).unwrap().set_modified(used).unwrap();
        }
        cache.prune_to(25);
        let left = |age: u64| cache.path.join(format!("{age}.wharfc")).exists();
        assert_eq!([0, 1, 2, 3].map(left), [true, true, false, false]);
    }

    #[test]
    fn what_nobody_used_for_long_and_what_was_left_unfinished_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let directory = CacheDirectory { path: &path, check: |_| Ok(()) };
        let cache = Cache::open(directory, &Engine::default()).unwrap();
        let hour = Duration::from_secs(3600);
        for (name, age, stays) in [
            ("used.wharfc", hour * 24, true),
            ("old.wharfc", UNUSED + hour, false),
            (".abc.1.2", hour / 2, true),
            (".abc.1.3", hour * 2, false),
        ] {
            let path = cache.path.join(name);
            std::fs::write(&path, [0; 10]).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            cache.prune();
            assert_eq!(path.exists(), stays, "{name}");
        }
    }

    #[test]
    fn a_directory_that_does_not_pass_the_check_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let open = |check| Cache::open(CacheDirectory { path: &path, check }, &Engine::default());
        open(|_| Ok(())).unwrap();
        let error = open(|_| Err("others can write to it".into())).unwrap_err();
        assert!(matches!(error, CacheError::Unsafe { .. }), "{error}");
    }
}
