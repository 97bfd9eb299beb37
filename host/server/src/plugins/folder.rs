//! The plugins folder: which plugins are in it, and when a change of one of them is complete.
//!
//! A plugin is a `.wasm` file and the `.toml` file of the same name, if there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::settling::{self, Happened, Settling};

/// How often the folder is scanned even without events, to find changes that no event reported.
const RESCAN: Duration = Duration::from_secs(30);

/// The same, if the system reports no events at all.
const POLL: Duration = Duration::from_millis(400);

/// If a file was written less than this long before the start, its writer may not have finished.
const JUST_NOW: Duration = Duration::from_secs(1);

/// The longest time that the start waits for such files.
const STARTING: Duration = Duration::from_secs(5);

/// The most events that may wait to be read. If there are more, the folder is scanned instead.
const EVENTS: usize = 1024;

/// Distinguishes one version of a plugin from another without reading its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    component: Stamp,
    sidecar: Option<Stamp>,
}

/// The same, for one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// A completed change of a plugin. The name is that of its `.wasm` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new, or has new content or another sidecar.
    Present(String),
    /// It is gone.
    Absent(String),
}

/// Watches a folder.
pub(crate) struct Folder {
    path: PathBuf,
    /// The inode of the folder itself.
    inode: u64,
    events: mpsc::Receiver<notify::Result<Event>>,
    /// Kept for as long as events are wanted.
    watcher: Option<RecommendedWatcher>,
    /// Set when an event did not fit into the queue.
    lost: Arc<AtomicBool>,
    next_rescan: Instant,
    settling: Settling,
    known: BTreeMap<String, Version>,
}

impl Folder {
    /// Begins to watch. The first [`Folder::scan`] finds what is already there.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn watch(path: &Path) -> std::io::Result<Self> {
        std::fs::read_dir(path)?;
        let (send, events) = mpsc::channel(EVENTS);
        let lost = Arc::new(AtomicBool::new(false));
        let handler = {
            let lost = lost.clone();
            move |event| {
                if send.try_send(event).is_err() {
                    lost.store(true, Ordering::Relaxed);
                }
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(folder = %path.display(), %error, "the system does not report changes of the plugins folder; it is scanned every {POLL:?} instead");
            })
            .ok();
        let closing_is_told = cfg!(target_os = "linux") && watcher.is_some();
        Ok(Folder {
            path: path.to_owned(),
            inode: inode(&std::fs::metadata(path)?),
            events,
            watcher,
            lost,
            next_rescan: Instant::now() + RESCAN,
            settling: Settling::new(closing_is_told),
            known: BTreeMap::new(),
        })
    }

    /// The path of a file in the folder.
    pub(crate) fn path_of(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// Warns at the start about sidecars without a plugin: their names may be mistyped.
    fn warn_of_strays(&self) {
        let listed = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        for file in listed.filter_map(|entry| name_with(&entry.path(), ".toml")) {
            self.warn_if_stray(&file);
        }
    }

    fn warn_if_stray(&self, file: &str) {
        let plugin = plugin_of(file);
        let is_stray = plugin != file && stamp(&self.path_of(file)).is_some();
        if is_stray && stamp(&self.path_of(&plugin)).is_none() {
            tracing::warn!(file, "there is no {plugin}, so this file has no effect");
        }
    }

    /// Finds the plugins that are there at the start. Waits for files that were written just now
    /// and still change from one scan to the next. Their writers began before this host watched, so
    /// there may be no event to wait for.
    pub(crate) async fn first_scan(&mut self) -> Vec<Change> {
        let give_up = Instant::now() + STARTING;
        loop {
            let before = self.known.clone();
            self.scan();
            let fresh = |stamp: Stamp| {
                let age = stamp.modified.and_then(|modified| modified.elapsed().ok());
                age.is_none_or(|age| age < JUST_NOW)
            };
            let moving = self.known.iter().any(|(file, version)| {
                (fresh(version.component) || version.sidecar.is_some_and(fresh))
                    && before.get(file).is_none_or(|before| before != version)
            });
            if !moving || Instant::now() >= give_up {
                self.warn_of_strays();
                return self.known.keys().cloned().map(Change::Present).collect();
            }
            tokio::time::sleep(settling::QUIET).await;
        }
    }

    /// The plugins whose files differ from what was seen last, settled or not.
    fn scan(&mut self) -> Vec<Change> {
        let listed = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = listed.filter_map(|entry| name_with(&entry.path(), ".wasm"));
        let names: BTreeSet<String> = names.chain(self.known.keys().cloned()).collect();
        names.into_iter().filter_map(|file| self.look(file)).collect()
    }

    /// Waits for the next changes. Cancel-safe.
    pub(crate) async fn changes(&mut self) -> Vec<Change> {
        loop {
            let path = self.path.clone();
            let size = |file: &str| stamp(&path.join(file)).map_or(0, |stamp| stamp.len);
            let settled = self.settling.settled(Instant::now(), size);
            settled.iter().for_each(|file| self.warn_if_stray(file));
            let plugins: BTreeSet<String> = settled.iter().map(|file| plugin_of(file)).collect();
            // A plugin is looked at only when both of its files are complete.
            let complete = plugins.into_iter().filter(|plugin| {
                let gone = stamp(&path.join(plugin)).is_none();
                let whole = !self.settling.is_pending(&sidecar_of(plugin));
                !self.settling.is_pending(plugin) && (whole || gone)
            });
            let complete: Vec<String> = complete.collect();
            let changes: Vec<Change> =
                complete.into_iter().filter_map(|file| self.look(file)).collect();
            if !changes.is_empty() {
                return changes;
            }
            if self.lost.swap(false, Ordering::Relaxed) {
                self.settling.events_were_lost();
                self.look_through();
            }
            let wake = self.settling.next().map_or(self.next_rescan, |n| n.min(self.next_rescan));
            tokio::select! {
                event = self.events.recv(), if self.watcher.is_some() => match event {
                    Some(Ok(event)) => self.hear(&event),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "watching the plugins folder failed; scanning it");
                        self.settling.events_were_lost();
                        self.look_through();
                    }
                    None => self.stop_watching(),
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    if Instant::now() >= self.next_rescan {
                        self.look_through();
                    }
                }
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        if event.need_rescan() {
            self.settling.events_were_lost();
            self.look_through();
        }
        if matches!(event.kind, EventKind::Remove(_)) && event.paths.contains(&self.path) {
            // A folder that takes its place is another one, even if it gets the same inode number.
            self.inode = 0;
            self.next_rescan = Instant::now() + POLL;
            return;
        }
        let what = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Happened::Closed,
            EventKind::Access(_) => return,
            EventKind::Create(_) => Happened::Created,
            EventKind::Modify(ModifyKind::Data(_)) => Happened::Written,
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Happened::Moved,
            _ => Happened::Placed,
        };
        for file in event
            .paths
            .iter()
            .filter_map(|path| name_with(path, ".wasm").or_else(|| name_with(path, ".toml")))
        {
            self.settling.happened(&file, what, Instant::now());
        }
    }

    /// Starts to settle every plugin that differs from what was seen last. A file that is being
    /// written keeps that state.
    fn look_through(&mut self) {
        self.watch_anew_if_replaced();
        let is_watched = self.watcher.is_some() && self.inode != 0;
        self.next_rescan = Instant::now() + if is_watched { RESCAN } else { POLL };
        let known = self.known.clone();
        for change in self.scan() {
            let (Change::Present(file) | Change::Absent(file)) = change;
            self.settling.happened(&file, Happened::Placed, Instant::now());
        }
        self.known = known;
    }

    /// Watches the folder again if it was removed and created again: the new folder is not watched
    /// yet.
    fn watch_anew_if_replaced(&mut self) {
        let Some(inode) = std::fs::metadata(&self.path).ok().as_ref().map(inode) else {
            self.inode = 0;
            return;
        };
        if std::mem::replace(&mut self.inode, inode) == inode {
            return;
        }
        self.settling.events_were_lost();
        let watching =
            self.watcher.as_mut().map(|w| w.watch(&self.path, RecursiveMode::NonRecursive));
        if let Some(Err(error)) = watching {
            tracing::warn!(folder = %self.path.display(), %error, "the new plugins folder cannot be watched; it is scanned every {POLL:?} instead");
            self.stop_watching();
        }
    }

    fn stop_watching(&mut self) {
        self.watcher = None;
        self.settling.closing_is_not_told();
    }

    /// Whether a plugin's files differ from what was seen last. Remembers what is there now.
    fn look(&mut self, file: String) -> Option<Change> {
        let component = stamp(&self.path_of(&file));
        let sidecar = stamp(&self.path_of(&sidecar_of(&file)));
        match component.map(|component| Version { component, sidecar }) {
            Some(version) if self.known.insert(file.clone(), version) != Some(version) => {
                Some(Change::Present(file))
            }
            Some(_) => None,
            None => self.known.remove(&file).map(|_| Change::Absent(file)),
        }
    }
}

/// The name of a file with this ending, `arith.wasm`. Hidden files do not count: they are
/// temporary.
fn name_with(path: &Path, ending: &str) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    (name.ends_with(ending) && !name.starts_with('.')).then(|| name.to_owned())
}

/// `arith.wasm`, for itself and for `arith.toml`.
fn plugin_of(file: &str) -> String {
    let stem = file.strip_suffix(".toml");
    stem.map_or_else(|| file.to_owned(), |stem| format!("{stem}.wasm"))
}

/// `arith.toml`, for `arith.wasm`.
pub(crate) fn sidecar_of(plugin: &str) -> String {
    format!("{}.toml", plugin.strip_suffix(".wasm").unwrap_or(plugin))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some(Stamp { len: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata) })
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}
