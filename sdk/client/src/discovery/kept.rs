//! The last good list of each service, in a file: with it a client starts while every registry is
//! away.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use wharf_net::private;
use wharf_registry_api::Endpoint;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The lists of a registry that was not asked for this long are removed.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// The most registries whose lists are kept.
const MAX_REGISTRIES: usize = 64;

/// A file that is being written is younger than this.
const UNFINISHED: Duration = Duration::from_secs(600);

/// Where lists are kept unless told otherwise: where users' caches are (on Unix by the XDG Base
/// Directory Specification); `None` where there is no such place.
pub(crate) fn default_folder() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("wharf/lists"))
}

/// The file of one service of one registry.
#[derive(Clone, Debug)]
pub(crate) struct ListFile {
    folder: PathBuf,
    path: PathBuf,
    registry: String,
    service: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<'c> {
    /// A name in the file system cannot hold every address, so the file says whose it is.
    #[serde(borrow)]
    registry: std::borrow::Cow<'c, str>,
    service: std::borrow::Cow<'c, str>,
    endpoints: std::borrow::Cow<'c, [Endpoint]>,
}

impl ListFile {
    /// The file below `folder`; `None` for a name that could not be a service's.
    pub(crate) fn new(folder: &Path, registry: &str, service: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if service.is_empty() || service.len() > 128 || !service.chars().all(plain) {
            return None;
        }
        let whose: String = registry.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        let whose = &whose[..whose.len().min(128)];
        let folder = folder.join(whose);
        let path = folder.join(format!("{service}.json"));
        let (registry, service) = (registry.to_owned(), service.to_owned());
        Some(ListFile { folder, path, registry, service })
    }

    /// The list, if there is one that can be trusted, and how old it is.
    pub(crate) fn read(&self) -> Option<(Vec<Endpoint>, Duration)> {
        // Whoever could write to it would say where calls, and what is in them, go.
        private::check(&self.folder).ok()?;
        let file = std::fs::File::open(&self.path).ok()?;
        let age = file.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).ok()?;
        let content: Content<'_> = serde_json::from_slice(&text).ok()?;
        let ours = content.registry == self.registry && content.service == self.service;
        ours.then(|| (content.endpoints.into_owned(), age))
    }

    /// Keeps a list, whole or not at all; an empty one is nothing to keep.
    pub(crate) fn write(&self, endpoints: &[Endpoint]) {
        let written = if endpoints.is_empty() {
            std::fs::remove_file(&self.path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
        } else {
            self.replace(endpoints)
        };
        if let Err(error) = written {
            let path = self.path.display();
            tracing::debug!(%path, %error, "a list of endpoints cannot be kept");
        }
    }

    fn replace(&self, endpoints: &[Endpoint]) -> std::io::Result<()> {
        private::make(&self.folder)?;
        private::check(&self.folder).map_err(std::io::Error::other)?;
        let content = Content {
            registry: self.registry.as_str().into(),
            service: self.service.as_str().into(),
            endpoints: endpoints.into(),
        };
        // Several processes may follow the same service, and several clients of one process.
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
        let new = self.folder.join(format!(".{}.{process}.{number}.new", self.service));
        std::fs::write(&new, serde_json::to_vec(&content)?)?;
        std::fs::rename(&new, &self.path)?;
        // Once is enough for a process.
        static PRUNED: AtomicBool = AtomicBool::new(false);
        if !PRUNED.swap(true, Ordering::Relaxed)
            && let Some(all) = self.folder.parent()
        {
            prune(all, &self.folder, SystemTime::now());
        }
        Ok(())
    }
}

/// Removes what processes left that were killed while they wrote to `current`, and the folders of
/// registries that nobody asked for long, or that are too many.
fn prune(all: &Path, current: &Path, now: SystemTime) {
    let age = |path: &Path| {
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.ok().and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default()
    };
    let listed = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for file in listed(current) {
        let is_new = file.extension().is_some_and(|extension| extension == "new");
        if is_new && age(&file) > UNFINISHED {
            let _ = std::fs::remove_file(&file);
        }
    }
    // A folder changes whenever a list in it is replaced.
    let mut folders: Vec<(Duration, PathBuf)> = listed(all)
        .into_iter()
        .filter(|path| path.is_dir() && path != current)
        .map(|path| (age(&path), path))
        .collect();
    folders.sort_unstable();
    for (place, (age, folder)) in folders.into_iter().enumerate() {
        if place >= MAX_REGISTRIES || age > FORGOTTEN {
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<Endpoint> {
        let endpoint = serde_json::json!({
            "service": "arith", "fingerprint": "", "host": "h", "address": "h:1", "state": "serving"
        });
        vec![serde_json::from_value(endpoint).unwrap()]
    }

    #[test]
    fn a_list_comes_back_as_it_was_kept_and_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = |registry, service| ListFile::new(folder.path(), registry, service).unwrap();
        let arith = file("http://r:1", "arith");
        assert_eq!(arith.read(), None);
        arith.write(&endpoints());
        assert_eq!(arith.read().unwrap().0, endpoints());
        assert_eq!(file("http://r:1", "other").read(), None);
        // Another registry whose name looks the same in the file system.
        assert_eq!(file("http://r_1", "arith").read(), None);
        arith.write(&[]);
        assert_eq!(arith.read(), None);
        for bad in ["", "../x", "a b", &"a".repeat(200)] {
            assert!(ListFile::new(folder.path(), "r", bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn clients_of_one_process_tear_no_list_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = || ListFile::new(folder.path(), "r", "arith").unwrap();
        file().write(&endpoints());
        std::thread::scope(|scope| {
            for count in 1..5usize {
                let list: Vec<_> = (0..50 * count).flat_map(|_| endpoints()).collect();
                scope.spawn(move || (0..200).for_each(|_| file().replace(&list).unwrap()));
            }
            for _ in 0..2000 {
                let (list, _) = file().read().expect("a whole list, at any time");
                assert!(list.len() == 1 || list.len() % 50 == 0);
            }
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_write_to_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = ListFile::new(folder.path(), "r", "arith").unwrap();
        file.write(&endpoints());
        std::fs::write(file.folder.join("arith.json"), b"{ torn").unwrap();
        assert_eq!(file.read(), None, "a torn file is as good as none");
        file.write(&endpoints());
        std::fs::set_permissions(&file.folder, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(file.read(), None);
    }

    #[test]
    fn leftovers_and_lists_of_registries_that_nobody_asks_are_removed() {
        let all = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let later = now + FORGOTTEN + Duration::from_secs(60);
        let folder = |name: &str| {
            let path = all.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let current = folder("current");
        let (left, being_written) = (current.join(".a.1.new"), current.join(".a.2.new"));
        std::fs::write(&left, "").unwrap();
        let many: Vec<PathBuf> =
            (0..MAX_REGISTRIES + 5).map(|n| folder(&format!("registry-{n}"))).collect();
        prune(all.path(), &current, now);
        assert_eq!(many.iter().filter(|path| path.exists()).count(), MAX_REGISTRIES);
        assert!(left.exists(), "somebody may be writing to it");
        prune(all.path(), &current, later);
        assert!(!left.exists() && many.iter().all(|path| !path.exists()));
        std::fs::write(&being_written, "").unwrap();
        prune(all.path(), &current, SystemTime::now());
        assert!(current.exists() && being_written.exists());
    }
}
