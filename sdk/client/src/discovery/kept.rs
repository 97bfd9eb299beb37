//! The last good list of each service, in a file: with it a client starts while every registry is
//! away.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use wharf_net::private;
use wharf_registry_api::Endpoint;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

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
        // Several processes may follow the same service.
        let new = self.folder.join(format!(".{}.{}.new", self.service, std::process::id()));
        std::fs::write(&new, serde_json::to_vec(&content)?)?;
        std::fs::rename(&new, &self.path)
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
}
