//! Tells when the sources of a project have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::project::{FILE, Project};

/// Changes that come within this time of each other are one: editors write several files at once, and
/// some in several steps.
const TOGETHER: Duration = Duration::from_millis(60);

/// Watches what a project's component is made of.
pub(super) struct Watching {
    changed: mpsc::Receiver<()>,
    /// Watches for as long as it is kept.
    _watcher: RecommendedWatcher,
}

impl Watching {
    /// Begins to watch. What is not there is not watched.
    ///
    /// # Errors
    /// When the system cannot.
    pub(super) fn start(project: &Project) -> anyhow::Result<Self> {
        let mut wanted = project.watch.clone();
        wanted.extend([project.root.join(FILE), project.sidecar()]);
        let directories: Vec<PathBuf> =
            wanted.iter().filter(|path| path.is_dir()).cloned().collect();
        let (send, changed) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // What cannot be told counts as a change.
                let is_change = event.map_or(true, |event| {
                    let is_wanted =
                        |path: &PathBuf| wanted.iter().any(|wanted| path.starts_with(wanted));
                    let is_access = matches!(event.kind, EventKind::Access(_));
                    event.need_rescan() || !is_access && event.paths.iter().any(is_wanted)
                });
                if is_change {
                    // If one waits already, this one is told with it.
                    let _ = send.try_send(());
                }
            })?;
        // A file is watched by its directory, since editors replace files.
        let parents = project.watch.iter().filter(|path| !path.is_dir()).filter_map(|p| p.parent());
        let parents = parents.filter(|parent| parent.is_dir());
        let parents: BTreeSet<&Path> = parents.chain([project.root.as_path()]).collect();
        for (path, mode) in directories
            .iter()
            .map(|path| (path.as_path(), RecursiveMode::Recursive))
            .chain(parents.into_iter().map(|path| (path, RecursiveMode::NonRecursive)))
        {
            watcher
                .watch(path, mode)
                .with_context(|| format!("{} cannot be watched", path.display()))?;
        }
        Ok(Watching { changed, _watcher: watcher })
    }

    /// Completes when something has changed and then stays as it is for a moment. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as the watcher.
        if self.changed.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(TOGETHER, self.changed.recv()).await {}
    }
}
