//! Brings the plugins folder and the table of services together.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use wharf_runtime::{Engine, Limits, LoadError, Plugin};
use wharf_schema::Service;

use crate::folder::{Change, Folder};
use crate::table::{FileState, Table};

/// Files that are compiled at once; each compiles on all cores by itself.
const AT_ONCE: usize = 2;

/// How long a removed plugin serves on while the registry does not take its withdrawal.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// Loads, replaces and removes plugins as their files come and go.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) max_size: u64,
    pub(crate) folder: Folder,
    pub(crate) table: Arc<Table>,
    /// The revision of the table that the registry has taken.
    pub(crate) announced: watch::Receiver<u64>,
    /// Set once the files that were there at the start are loaded or refused.
    pub(crate) ready: watch::Sender<bool>,
}

/// Files on their way: at most one load for each.
#[derive(Default)]
struct Queue {
    waiting: BTreeSet<String>,
    loading: BTreeSet<String>,
    /// Changed again while they were loaded.
    stale: BTreeSet<String>,
}

struct Loaded {
    file: String,
    took: Duration,
    result: Result<Plugin, FileError>,
}

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("it has {len} bytes, and at most {max} are taken for a plugin")]
    TooLarge { len: u64, max: u64 },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{0}")]
    Occupied(String),
    #[error("loading it failed inside the host: {0}")]
    Host(tokio::task::JoinError),
}

impl Loader {
    /// Runs for as long as the host does.
    pub(crate) async fn run(mut self) {
        let mut queue = Queue::default();
        let mut loads = JoinSet::<Loaded>::new();
        let mut withdrawals = JoinSet::<bool>::new();
        let mut files = HashMap::<tokio::task::Id, String>::new();
        let first = self.folder.first_scan().await;
        self.take(first, &mut queue, &mut withdrawals);
        loop {
            while queue.loading.len() < AT_ONCE
                && let Some(file) = queue.waiting.pop_first()
            {
                queue.loading.insert(file.clone());
                self.table.note(&file, FileState::Loading);
                let path = self.folder.path_of(&file);
                let (engine, limits) = (self.engine.clone(), self.limits.clone());
                let task = loads.spawn(load(engine, limits, self.max_size, file.clone(), path));
                files.insert(task.id(), file);
            }
            if queue.loading.is_empty() {
                self.ready.send_replace(true);
            }
            tokio::select! {
                changes = self.folder.changes() => {
                    self.take(changes, &mut queue, &mut withdrawals);
                }
                Some(loaded) = loads.join_next_with_id() => match loaded {
                    Ok((task, loaded)) => {
                        files.remove(&task);
                        self.finish(loaded, &mut queue);
                    }
                    Err(error) => {
                        let Some(file) = files.remove(&error.id()) else { continue };
                        let result = Err(FileError::Host(error));
                        self.finish(Loaded { file, took: Duration::ZERO, result }, &mut queue);
                    }
                },
                Some(ended) = withdrawals.join_next() => {
                    if ended.is_ok_and(|ended| ended) {
                        // What it served is free for a file that was refused because of it.
                        queue.waiting.extend(self.table.refused_files());
                    }
                }
            }
        }
    }

    fn take(&self, changes: Vec<Change>, queue: &mut Queue, withdrawals: &mut JoinSet<bool>) {
        for change in changes {
            match change {
                Change::Present(file) if queue.loading.contains(&file) => {
                    queue.stale.insert(file);
                }
                Change::Present(file) => {
                    queue.waiting.insert(file);
                }
                Change::Absent(file) => {
                    queue.waiting.remove(&file);
                    if queue.loading.contains(&file) {
                        queue.stale.insert(file.clone());
                    }
                    let Some(revision) = self.table.begin_withdrawal(&file) else { continue };
                    tracing::info!(file, "a plugin was removed: withdrawing it");
                    let (table, announced) = (self.table.clone(), self.announced.clone());
                    withdrawals.spawn(withdraw(table, announced, revision, file));
                }
            }
        }
    }

    fn finish(&self, loaded: Loaded, queue: &mut Queue) {
        let Loaded { file, took, result } = loaded;
        queue.loading.remove(&file);
        if queue.stale.remove(&file) {
            // What was loaded is not the file's content any more; if it is still there, again.
            if self.folder.path_of(&file).exists() {
                queue.waiting.insert(file);
            }
            return;
        }
        let before = self.table.services_of(&file);
        let result = result.and_then(|plugin| {
            self.table.serve(&file, &plugin).map_err(FileError::Occupied)?;
            Ok(plugin)
        });
        match result {
            Ok(plugin) => {
                let services: Vec<String> =
                    plugin.services().iter().map(|service| service.name().to_string()).collect();
                let freed =
                    |service: &Arc<Service>| !services.contains(&service.name().to_string());
                if before.iter().any(freed) {
                    queue.waiting.extend(self.table.refused_files());
                }
                let services = services.join(", ");
                if before.is_empty() {
                    tracing::info!(file, services, ?took, "loaded a plugin");
                } else {
                    let changes = changes(&before, plugin.services());
                    tracing::info!(file, services, ?took, changes, "replaced a plugin");
                }
            }
            Err(error) => {
                let reason = chain(&error);
                let goes_on = !before.is_empty();
                tracing::error!(file, goes_on, "a plugin does not load: {reason}");
                self.table.note(&file, FileState::Refused(reason));
            }
        }
    }
}

async fn withdraw(
    table: Arc<Table>,
    mut announced: watch::Receiver<u64>,
    revision: u64,
    file: String,
) -> bool {
    let taken = announced.wait_for(|announced| *announced >= revision);
    // Whether the registry took it, went away or does not answer: the file is gone, and so its
    // service ends. Calls in flight finish all the same.
    let _ = tokio::time::timeout(WITHDRAWAL, taken).await;
    let ended = table.end_withdrawal(&file);
    if ended {
        tracing::info!(file, "a removed plugin has ended");
    }
    ended
}

async fn load(
    engine: Engine,
    limits: Limits,
    max_size: u64,
    file: String,
    path: PathBuf,
) -> Loaded {
    let start = Instant::now();
    let result = async {
        let bytes = read(&path, max_size).await?;
        Ok(Plugin::load(&engine, &file, bytes, limits).await?)
    };
    let result = result.await;
    Loaded { took: start.elapsed(), result, file }
}

async fn read(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    use std::io::Read;

    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that grew from one that just fits.
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(FileError::TooLarge { len: len.max(bytes.len() as u64), max });
        }
        Ok(bytes)
    });
    read.await.map_err(std::io::Error::other)?
}

/// What a replacement changed, for the log: methods by name and signature.
fn changes(before: &[Arc<Service>], after: &[Arc<Service>]) -> String {
    let methods = |services: &[Arc<Service>]| -> HashMap<String, Option<_>> {
        let all = services.iter().flat_map(|service| {
            service.methods().iter().map(|method| {
                let name = format!("{}.{}", service.name().interface, method.name);
                (name, method.signature.as_ref().ok().map(|s| s.fingerprint))
            })
        });
        all.collect()
    };
    let (before, after) = (methods(before), methods(after));
    let mut changes: Vec<String> = Vec::new();
    for (name, signature) in &after {
        match before.get(name) {
            None => changes.push(format!("added {name}")),
            Some(old) if old != signature => changes.push(format!("changed {name}")),
            Some(_) => {}
        }
    }
    changes
        .extend(before.keys().filter(|n| !after.contains_key(*n)).map(|n| format!("removed {n}")));
    changes.sort_unstable();
    if changes.is_empty() { "the same methods".to_owned() } else { changes.join(", ") }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Some messages contain their cause's already.
    texts.dedup_by(|next, text| text.contains(next.as_str()));
    texts.join(": ")
}
