//! Loads one file: reads it and its sidecar, compiles it and starts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wharf_registry_api::limits;
use wharf_runtime::{Candidate, Engine, Grants, LoadError, Settings};
use wharf_schema::{Service, ServiceName};

use super::compatible::{Changes, Compatible};
use super::file::{self, ReadError};
use super::granting::{self, Granted, Granting, GrantingError};
use super::pin::Pin;
use super::sidecar::{self, Sidecar, SidecarError};
use super::table::{Occupied, Ready, Table};

/// Bytes of files that are loaded at the same time. A larger one is loaded alone.
const AT_ONCE: u32 = 512 * 1024 * 1024;

/// What all loads share.
#[derive(Clone)]
pub(super) struct Workshop {
    engine: Engine,
    /// The settings of all plugins. A sidecar overrides them.
    settings: Settings,
    max_size: u64,
    table: Arc<Table>,
    granting: Arc<Granting>,
    /// Whether replacements may break callers. A sidecar overrides it.
    compatible: Compatible,
    /// Bytes that may be loaded at the same time.
    room: Arc<Semaphore>,
}

/// One file that is being loaded.
pub(super) struct Load {
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) sidecar: PathBuf,
    pub(super) workshop: Workshop,
}

pub(super) struct Loaded {
    pub(super) file: String,
    pub(super) took: Duration,
    /// Its grants from now on. `None` if its settings could not be read.
    pub(super) grants: Option<Grants>,
    /// What it changes for callers. `None` if the file served nothing before.
    pub(super) changes: Option<Changes>,
    pub(super) result: Result<Ready, FileError>,
}

/// Why a file does not load.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error("its sidecar {file}: {source}")]
    SidecarUnread { file: String, source: ReadError },
    #[error("the service name {name} has a part of more than {max} bytes, which registries do not accept: shorten it", max = limits::NAME)]
    Name { name: String },
    #[error("none of its services is among those that its sidecar chooses: it exports {0}")]
    NoneChosen(String),
    #[error("{0}")]
    NoTool(String),
    #[error(
        "it is not the file that is pinned: its SHA-256 is {is}, and the pin says {pinned}; if the new one is meant, change the pin"
    )]
    Pin { is: Pin, pinned: Pin },
    #[error(transparent)]
    Granting(#[from] GrantingError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{}: remove one of the two files, or give this one another version", list(.0))]
    Occupied(Vec<Occupied>),
    #[error(
        "it breaks callers of what it replaces, and compatible = \"required\": {0}; serve it under a new version in another file, or say compatible = \"any\" in its sidecar"
    )]
    Incompatible(String),
    #[error(
        "this process has too many files open to load another plugin: raise the limit ('ulimit -Hn', LimitNOFILE=)"
    )]
    NoFiles,
    #[error("loading it failed inside the host: {0}")]
    Host(tokio::task::JoinError),
}

impl FileError {
    /// Whether trying again later may help although nothing about the file changes.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            FileError::Read(error) | FileError::SidecarUnread { source: error, .. } => {
                error.is_passing()
            }
            FileError::NoFiles => true,
            FileError::Load(error) => error.is_passing(),
            _ => false,
        }
    }

    /// The services that other files would have to give up first.
    pub(super) fn wants(&self) -> Vec<String> {
        match self {
            FileError::Occupied(occupied) => occupied.iter().map(|o| o.service.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

fn list(occupied: &[Occupied]) -> String {
    occupied.iter().map(Occupied::to_string).collect::<Vec<_>>().join("; ")
}

impl Workshop {
    pub(super) fn new(
        engine: Engine,
        settings: Settings,
        (max_size, compatible): (u64, Compatible),
        (table, granting): (Arc<Table>, Arc<Granting>),
    ) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE as usize));
        Workshop { engine, settings, max_size, table, granting, compatible, room }
    }
}

impl Load {
    /// Loads it. Dropping the future ends a compilation that has begun.
    pub(super) async fn run(self) -> Loaded {
        let start = Instant::now();
        let mut sidecar = self.sidecar().await;
        let mut pins = Vec::new();
        if let Ok(read) = &mut sidecar {
            match self.granted(read).await {
                Ok(granted) => (read.settings.grants, pins) = (granted.grants, granted.pins),
                Err(error) => sidecar = Err(error),
            }
        }
        let grants = sidecar.as_ref().ok().map(|sidecar| sidecar.settings.grants.clone());
        let mut changes = None;
        let result = self.load(sidecar, pins, &mut changes).await;
        Loaded { took: start.elapsed(), grants, changes, result, file: self.file }
    }

    async fn load(
        &self,
        sidecar: Result<Sidecar, FileError>,
        pins: Vec<Pin>,
        changes: &mut Option<Changes>,
    ) -> Result<Ready, FileError> {
        let Workshop { engine, max_size, table, room, .. } = &self.workshop;
        let len = file::len(&self.path).await.min(*max_size);
        let len = u32::try_from(len).unwrap_or(AT_ONCE);
        // The semaphore is never closed.
        let _room = room.acquire_many(len.min(AT_ONCE)).await.ok();
        leave_files_for_others()?;
        let bytes = file::read(&self.path, *max_size).await?;
        // Nothing is made of what is not what the operator has seen.
        let bytes = pinned(bytes, pins).await?;
        let mut candidate = Candidate::read(bytes).await?;
        if let Ok(sidecar) = &sidecar
            && let Err(exported) = candidate.choose(|name| sidecar.chooses(name))
        {
            return Err(FileError::NoneChosen(exported.join(", ")));
        }
        if let Some(service) = candidate.services().iter().find(|s| !can_be_announced(s.name())) {
            return Err(FileError::Name { name: service.name().to_string() });
        }
        // Record the services before loading, so that a failure can be reported against them.
        table.note_offers(&self.file, candidate.services().to_vec());
        *changes = self.changes(candidate.services()).await?;
        if let (Ok(sidecar), Some(changes)) = (&sidecar, changes)
            && sidecar.compatible.unwrap_or(self.workshop.compatible) == Compatible::Required
            && let Some(breaking) = changes.breaking()
        {
            return Err(FileError::Incompatible(breaking));
        }
        let tools = sidecar.as_ref().map(|sidecar| sidecar.tools.among(candidate.services()));
        let tools = tools.unwrap_or_else(|_| Ok(Vec::new())).map_err(FileError::NoTool)?;
        tracing::debug!(file = self.file, bytes = candidate.size(), "loading a plugin");
        let plugin = candidate.load(engine, &self.file, sidecar?.settings).await?;
        // Others may have been loaded in the meantime.
        leave_files_for_others()?;
        let services = plugin.services().to_vec();
        let describe = move || services.iter().map(|s| s.to_document().into()).collect();
        let documents = tokio::task::spawn_blocking(describe).await.map_err(FileError::Host)?;
        Ok(Ready { plugin, documents, tools })
    }

    /// What the file would change for callers. Comparing large types takes a while, so a thread that may
    /// block does it.
    async fn changes(&self, after: &[Arc<Service>]) -> Result<Option<Changes>, FileError> {
        let table = &self.workshop.table;
        let served = table.served_by(&self.file);
        if served.is_empty() {
            return Ok(None);
        }
        let before: Vec<Arc<Service>> = served.iter().map(|s| s.service.clone()).collect();
        // What this file gives up may go on in another one that waits for it.
        let mut after = after.to_vec();
        after.extend(table.waiting_for(&self.file, &before));
        let compare = move || Changes::between(&before, &after);
        let changes = tokio::task::spawn_blocking(compare).await.map_err(FileError::Host)?;
        Ok(Some(changes))
    }

    /// The grants that it really gets, and the pins that its file has to meet.
    async fn granted(&self, sidecar: &Sidecar) -> Result<Granted, FileError> {
        let question = granting::Question {
            granting: self.workshop.granting.clone(),
            plugin: self.file.clone(),
            sidecar: self.sidecar.clone(),
            asked: sidecar.settings.grants.clone(),
            pin: sidecar.pin,
            defaults: self.workshop.settings.grants.clone(),
        };
        Ok(question.answer().await?)
    }

    /// What the sidecar says. Without a sidecar, the settings of all plugins.
    async fn sidecar(&self) -> Result<Sidecar, FileError> {
        let defaults = &self.workshop.settings;
        let file = self.sidecar.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unread = |source| FileError::SidecarUnread { file: file.clone(), source };
        let bytes = match file::read(&self.sidecar, sidecar::MAX_SIZE).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(Sidecar::of(defaults)),
            Err(error) => return Err(unread(error)),
        };
        let text = String::from_utf8(bytes);
        let text = text.map_err(|error| unread(ReadError::Io(std::io::Error::other(error))))?;
        let folder = self.sidecar.parent().unwrap_or(Path::new("."));
        Ok(sidecar::parse(&text, &file, folder, defaults)?)
    }
}

/// The bytes of a file, if they are what each pin says. To hash a large file takes a while, so a thread
/// that may block does it.
async fn pinned(bytes: Vec<u8>, pins: Vec<Pin>) -> Result<Vec<u8>, FileError> {
    if pins.is_empty() {
        return Ok(bytes);
    }
    let hash = move || (Pin::of(&bytes), bytes);
    let (is, bytes) = tokio::task::spawn_blocking(hash).await.map_err(FileError::Host)?;
    match pins.into_iter().find(|pin| *pin != is) {
        Some(pinned) => Err(FileError::Pin { is, pinned }),
        None => Ok(bytes),
    }
}

/// Each loaded plugin keeps a file open, with its initial memory. Half of the files that may be open are
/// for connections and the HTTP side.
fn leave_files_for_others() -> Result<(), FileError> {
    if wharf_net::files::are_half_open() { Err(FileError::NoFiles) } else { Ok(()) }
}

/// Whether a registry accepts the name. A registry would refuse the whole declaration because of
/// one bad name.
fn can_be_announced(name: &ServiceName) -> bool {
    let version = name.version.as_ref().map(ToString::to_string).unwrap_or_default();
    let package = name.package.as_deref().unwrap_or_default();
    [name.interface.as_str(), package, &version].iter().all(|part| part.len() <= limits::NAME)
}
