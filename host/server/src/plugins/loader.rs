//! Loads the plugins of the folder into the table of services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use wharf_net::chain;
use wharf_registry_api::limits;
use wharf_runtime::{Candidate, Engine, Grants, LoadError, Origin, Plugin, Settings};
use wharf_schema::{Service, ServiceName};

use super::folder::{Change, Folder, sidecar_of};
use super::sidecar::{self, SidecarError};
use super::table::{FileState, Table};
use crate::metrics::Metrics;

/// How many files are loaded at once. The engine compiles on fewer threads; meanwhile, other files
/// are read and started.
const AT_ONCE: usize = 4;

/// How long a removed plugin continues to serve while the registry does not accept its withdrawal.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// Loads, replaces and removes plugins when their files change.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    /// The settings of all plugins. A sidecar overrides them.
    pub(crate) settings: Settings,
    pub(crate) max_size: u64,
    pub(crate) folder: Folder,
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Arc<Metrics>,
    /// The revision of the table that the registry accepted last.
    pub(crate) announced: watch::Receiver<u64>,
    /// Set once the files that existed at the start are loaded or refused.
    pub(crate) ready: watch::Sender<bool>,
}

/// Files that wait or are being loaded. Each has at most one load at a time.
#[derive(Default)]
struct Queue {
    waiting: BTreeSet<String>,
    loading: BTreeSet<String>,
    /// Files that changed again while they were loaded, and whether they still exist.
    stale: BTreeMap<String, bool>,
}

struct Loaded {
    file: String,
    took: Duration,
    /// Its grants from now on. `None` if its settings could not be read.
    grants: Option<Grants>,
    result: Result<Plugin, FileError>,
}

/// Why a file does not load.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("it has {len} bytes, but at most {max} are allowed")]
    TooLarge { len: u64, max: u64 },
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error("its sidecar {file} cannot be read: {source}")]
    SidecarUnread { file: String, source: std::io::Error },
    #[error("the service name {name} has a part of more than {max} bytes, which registries do not accept: shorten it", max = limits::NAME)]
    Name { name: String },
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
        let mut withdrawals = JoinSet::<Option<Vec<String>>>::new();
        let mut files = HashMap::<tokio::task::Id, String>::new();
        let first = self.folder.first_scan().await;
        self.take(first, &mut queue, &mut withdrawals);
        loop {
            while queue.loading.len() < AT_ONCE
                && let Some(file) = queue.waiting.pop_first()
            {
                queue.loading.insert(file.clone());
                self.table.note(&file, FileState::Compiling);
                let load = Load {
                    engine: self.engine.clone(),
                    settings: self.settings.clone(),
                    max_size: self.max_size,
                    path: self.folder.path_of(&file),
                    sidecar: self.folder.path_of(&sidecar_of(&file)),
                    table: self.table.clone(),
                    file: file.clone(),
                };
                let task = loads.spawn(load.run());
                files.insert(task.id(), file);
            }
            if queue.loading.is_empty() && !self.ready.send_replace(true) {
                self.engine.prune_cache();
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
                        let (took, grants) = (Duration::ZERO, None);
                        self.finish(Loaded { file, took, grants, result }, &mut queue);
                    }
                },
                Some(ended) = withdrawals.join_next() => {
                    if let Ok(Some(services)) = ended {
                        self.freed(&services, &mut queue);
                    }
                }
            }
        }
    }

    fn take(
        &self,
        changes: Vec<Change>,
        queue: &mut Queue,
        withdrawals: &mut JoinSet<Option<Vec<String>>>,
    ) {
        for change in changes {
            match change {
                Change::Present(file) if queue.loading.contains(&file) => {
                    queue.stale.insert(file, true);
                }
                Change::Present(file) => {
                    queue.waiting.insert(file);
                }
                Change::Absent(file) => {
                    queue.waiting.remove(&file);
                    if queue.loading.contains(&file) {
                        queue.stale.insert(file.clone(), false);
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
        let Loaded { file, took, grants, result } = loaded;
        queue.loading.remove(&file);
        if let Some(is_there) = queue.stale.remove(&file) {
            // The file changed while it was loaded. If it still exists, load it again.
            if is_there {
                queue.waiting.insert(file);
            }
            return;
        }
        let serving = self.table.served_by(&file);
        let before: Vec<Arc<Service>> = serving.iter().map(|s| s.service.clone()).collect();
        let result = result.and_then(|plugin| {
            let freed = self.table.serve(&file, &plugin).map_err(FileError::Occupied)?;
            Ok((plugin, freed))
        });
        match result {
            Ok((plugin, freed)) => {
                self.metrics.loaded(plugin.origin());
                self.freed(&freed, queue);
                let services: Vec<String> =
                    plugin.services().iter().map(|service| service.name().to_string()).collect();
                let services = services.join(", ");
                let compiled = matches!(plugin.origin(), Origin::Compiled(_));
                if before.is_empty() {
                    tracing::info!(file, services, ?took, compiled, "loaded a plugin");
                } else {
                    self.metrics.swapped();
                    let changes = changes(&before, plugin.services());
                    tracing::info!(file, services, ?took, compiled, changes, "replaced a plugin");
                }
            }
            Err(error) => {
                let reason = chain(&error);
                // The plugin that serves must not keep grants that the operator has revoked, even
                // if the file does not load with the new grants.
                let revoked = grants.is_some_and(|grants| {
                    serving.iter().any(|served| *served.plugin.grants() != grants)
                });
                if revoked {
                    self.freed(&self.table.end(&file), queue);
                    tracing::warn!(
                        file,
                        "its grants were changed, and it cannot be loaded with the new ones: it no longer serves"
                    );
                }
                let goes_on = !before.is_empty() && !revoked;
                tracing::error!(file, goes_on, "a plugin does not load: {reason}");
                self.metrics.refused();
                self.table.refuse(&file, reason);
            }
        }
    }

    /// These services are no longer served. Drops their series. Tries the refused files again: a
    /// file may have been refused because another one served the same service.
    fn freed(&self, services: &[String], queue: &mut Queue) {
        if !services.is_empty() {
            self.metrics.forget(services);
            queue.waiting.extend(self.table.refused_files());
        }
    }
}

async fn withdraw(
    table: Arc<Table>,
    mut announced: watch::Receiver<u64>,
    revision: u64,
    file: String,
) -> Option<Vec<String>> {
    let taken = announced.wait_for(|announced| *announced >= revision);
    // The file is gone, so its service ends, even if the registry does not accept the withdrawal in
    // time. Calls in flight still finish.
    let _ = tokio::time::timeout(WITHDRAWAL, taken).await;
    let freed = table.end_withdrawal(&file)?;
    tracing::info!(file, "a removed plugin no longer serves");
    Some(freed)
}

/// One file that is being loaded.
struct Load {
    engine: Engine,
    settings: Settings,
    max_size: u64,
    file: String,
    path: PathBuf,
    sidecar: PathBuf,
    table: Arc<Table>,
}

impl Load {
    async fn run(self) -> Loaded {
        let start = Instant::now();
        let settings = self.settings().await;
        let grants = settings.as_ref().ok().map(|settings| settings.grants.clone());
        let result = self.load(settings).await;
        Loaded { took: start.elapsed(), grants, result, file: self.file }
    }

    async fn load(&self, settings: Result<Settings, FileError>) -> Result<Plugin, FileError> {
        let bytes = read(&self.path, self.max_size).await?;
        let candidate = Candidate::read(bytes).await?;
        if let Some(service) = candidate.services().iter().find(|s| !can_be_announced(s.name())) {
            return Err(FileError::Name { name: service.name().to_string() });
        }
        // Record the services before loading, so that a failure can be reported against them.
        self.table.note_offers(&self.file, candidate.services().to_vec());
        tracing::debug!(file = self.file, bytes = candidate.size(), "loading a plugin");
        Ok(candidate.load(&self.engine, &self.file, settings?).await?)
    }

    /// The settings in the sidecar. Without a sidecar, the settings of all plugins.
    async fn settings(&self) -> Result<Settings, FileError> {
        let file = name(&self.sidecar);
        let unread = |source| FileError::SidecarUnread { file: file.clone(), source };
        let bytes = match read(&self.sidecar, sidecar::MAX_SIZE).await {
            Ok(bytes) => bytes,
            Err(FileError::Read(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(self.settings.clone());
            }
            Err(error) => return Err(unread(std::io::Error::other(error))),
        };
        let text =
            String::from_utf8(bytes).map_err(|error| unread(std::io::Error::other(error)))?;
        let folder = self.sidecar.parent().unwrap_or(Path::new("."));
        Ok(sidecar::parse(&text, &file, folder, &self.settings)?)
    }
}

/// Whether a registry accepts the name. A registry would refuse the whole declaration because of
/// one bad name.
fn can_be_announced(name: &ServiceName) -> bool {
    let version = name.version.as_ref().map(ToString::to_string).unwrap_or_default();
    let package = name.package.as_deref().unwrap_or_default();
    [name.interface.as_str(), package, &version].iter().all(|part| part.len() <= limits::NAME)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

async fn read(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    use std::io::Read;

    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        // Opening a pipe would block until something writes to it.
        if !std::fs::metadata(&path)?.is_file() {
            return Err(FileError::Read(std::io::Error::other("it is not a regular file")));
        }
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        let mut bytes = Vec::new();
        // Read one byte more than allowed, to detect a file that has grown in the meantime.
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(FileError::TooLarge { len: len.max(bytes.len() as u64), max });
        }
        Ok(bytes)
    });
    read.await.map_err(std::io::Error::other)?
}

/// What a replacement changed, for the log. Methods are compared by name and signature.
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
