//! The services that are served now, by name. Their plugins can be replaced.
//!
//! A call never looks up a name. A connection resolves a method once to the [`Slot`](super::slot::Slot) of its
//! service. Each call then reads from the slot which plugin serves at that moment, without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;
use wharf_registry_api::{Condition, EndpointSpec, Metadata};
use wharf_runtime::{Plugin, WeakPlugin};
use wharf_schema::{Service, ServiceName};

use super::names::{Found, Names};
use super::slot::Served;

/// All services of a host.
pub(crate) struct Table {
    /// All names are replaced at once. They are read without a lock.
    services: ArcSwap<Names>,
    /// Its lock serialises changes. Only changes and reports need the files.
    files: Mutex<BTreeMap<String, PluginFile>>,
    generations: AtomicU64,
    /// All plugins that are loaded, by file. A version that was replaced stays loaded while its calls
    /// finish.
    loaded: Mutex<Vec<(String, WeakPlugin)>>,
    /// Counts the changes of what must be announced.
    revision: watch::Sender<u64>,
    /// Counts the changes of what is served.
    version: AtomicU64,
    /// Whether every file that was there at the start is loaded or refused.
    is_complete: AtomicBool,
}

/// What is known about a file of the plugins folder.
#[derive(Clone, Debug)]
struct PluginFile {
    report: FileReport,
    /// The services that it would serve. Empty until the file has been read.
    offers: Vec<Arc<Service>>,
    /// The full names of the services that it does not serve because other files do.
    wants: Vec<String>,
}

/// The state and the services of a file of the plugins folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The full names of the services that it serves.
    pub services: Vec<String>,
    /// Its state.
    pub state: FileState,
    /// The services that it has and does not serve, each with the reason.
    pub left_out: Vec<String>,
    /// How often it was loaded or refused so far.
    pub attempts: u64,
}

/// A service that another file serves already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occupied {
    pub(crate) service: String,
    /// The other file.
    pub(crate) file: String,
}

impl std::fmt::Display for Occupied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} serves {} already", self.file, self.service)
    }
}

/// A plugin that is ready to serve.
pub(crate) struct Ready {
    pub(crate) plugin: Plugin,
    /// The encoded description of each of its services.
    pub(crate) documents: Vec<Bytes>,
    /// The positions of the methods of each of its services that are tools for models.
    pub(crate) tools: Vec<Box<[usize]>>,
}

/// What changed when a plugin began to serve.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    /// The services that only the previous version served.
    pub(crate) freed: Vec<String>,
    /// The services that it does not serve because other files do.
    pub(crate) occupied: Vec<Occupied>,
}

/// The state of a file of the plugins folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It is being read and compiled since this time. Its previous version, if any, continues to
    /// serve.
    Compiling(SystemTime),
    /// It serves.
    Serving,
    /// It does not load, for this reason. Its previous version, if any, continues to serve.
    Refused(String),
    /// It was removed. It serves until the registry has accepted its withdrawal.
    Withdrawing,
}

impl Table {
    pub(crate) fn new() -> Self {
        Table {
            services: ArcSwap::default(),
            files: Mutex::default(),
            generations: AtomicU64::new(1),
            loaded: Mutex::default(),
            revision: watch::channel(0).0,
            version: AtomicU64::new(0),
            is_complete: AtomicBool::new(false),
        }
    }

    /// How many plugins were loaded so far. While it stays the same, a name means the same service, if
    /// it is served at all.
    pub(crate) fn loads(&self) -> u64 {
        self.generations.load(Ordering::Acquire)
    }

    /// Whether every file that was there at the start is loaded or refused. Before that, a service that
    /// is not here may come.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Every file that was there at the start is loaded or refused.
    pub(crate) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// How often what is served has changed. What is made of the services afterwards is at least as new.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Replaces all names at once. The caller holds the lock on the files.
    fn replace(&self, services: Names) {
        self.services.store(Arc::new(services));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Finds the service with a name.
    pub(crate) fn find(&self, name: &ServiceName, is_seen: impl Fn(&ServiceName) -> bool) -> Found {
        self.services.load().find(name, is_seen)
    }

    /// The end of an error's message, which suggests a similar service, if there is one. This takes
    /// time.
    pub(crate) fn similar(
        &self,
        interface: &str,
        is_seen: impl Fn(&ServiceName) -> bool,
    ) -> String {
        self.services.load().similar(interface, is_seen)
    }

    /// Makes a plugin serve its services, and replaces the previous version of `file`. A service that
    /// another file serves stays there, and the others are served.
    ///
    /// # Errors
    /// When other files serve all of its services. Then nothing changes.
    pub(crate) fn serve(&self, file: &str, ready: &Ready) -> Result<Takeover, Vec<Occupied>> {
        let Ready { plugin, documents, tools } = ready;
        let mut files = self.files();
        let mut services = Names::clone(&self.services.load());
        let mut occupied = Vec::new();
        let occupant = |service: &Service| {
            let name = service.name().to_string();
            let served = services.get(&name).and_then(|slot| slot.served.load_full());
            let other = served.filter(|served| served.file != file)?;
            Some(Occupied { service: name, file: other.file.clone() })
        };
        let all = plugin.services().iter().enumerate();
        let free: Vec<(usize, &Arc<Service>)> = all
            .filter(|(_, service)| match occupant(service) {
                Some(other) => {
                    occupied.push(other);
                    false
                }
                None => true,
            })
            .collect();
        if free.is_empty() {
            return Err(occupied);
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let mut names = Vec::new();
        for (service_index, service) in free {
            let slot = services.get_or_add(service.name());
            slot.served.store(Some(Arc::new(Served {
                plugin: plugin.clone(),
                service_index,
                service: service.clone(),
                document: documents.get(service_index).cloned().unwrap_or_default(),
                tools: tools.get(service_index).cloned().unwrap_or_default(),
                generation,
                file: file.to_owned(),
            })));
            names.push(service.name().to_string());
        }
        let before = files.get(file).map(|file| file.report.clone());
        let (before, attempts) =
            before.map(|report| (report.services, report.attempts)).unwrap_or_default();
        let freed: Vec<String> = before.into_iter().filter(|name| !names.contains(name)).collect();
        for gone in &freed {
            if let Some(slot) = services.remove(gone) {
                slot.served.store(None);
            }
        }
        self.replace(services);
        let left_out = occupied.iter().map(Occupied::to_string).collect();
        let wants = occupied.iter().map(|occupied| occupied.service.clone()).collect();
        let report = FileReport {
            services: names,
            state: FileState::Serving,
            left_out,
            attempts: attempts + 1,
        };
        let offers = plugin.services().to_vec();
        files.insert(file.to_owned(), PluginFile { report, offers, wants });
        drop(files);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|(_, plugin)| plugin.upgrade().is_some());
        loaded.push((file.to_owned(), plugin.downgrade()));
        drop(loaded);
        self.announce_change();
        Ok(Takeover { freed, occupied })
    }

    /// Sets the state of a file. Its previous version, if any, continues to serve.
    pub(crate) fn note(&self, file: &str, state: FileState) {
        let mut files = self.files();
        let before = files.remove(file);
        let before = before.map(|file| (file.report.services, file.report.attempts));
        let (services, attempts) = before.unwrap_or_default();
        // The services of the new version are not known yet.
        let offers = Vec::new();
        let report = FileReport { services, state, left_out: Vec::new(), attempts };
        files.insert(file.to_owned(), PluginFile { report, offers, wants: Vec::new() });
        drop(files);
        self.announce_change();
    }

    /// Sets the services that a file would serve, while it is being compiled.
    pub(crate) fn note_offers(&self, file: &str, offers: Vec<Arc<Service>>) {
        let mut files = self.files();
        let Some(file) = files.get_mut(file) else { return };
        file.offers = offers;
        drop(files);
        self.announce_change();
    }

    /// Stops serving a file at once. Returns the names of its services.
    pub(crate) fn end(&self, file: &str) -> Vec<String> {
        let mut files = self.files();
        let Some(file) = files.get_mut(file) else { return Vec::new() };
        let freed = std::mem::take(&mut file.report.services);
        self.remove(&freed);
        freed
    }

    /// Records why a file does not load. Its previous version, if any, continues to serve. `wants` are
    /// the services that other files would have to give up first.
    pub(crate) fn refuse(&self, file: &str, reason: String, wants: Vec<String>) {
        let mut files = self.files();
        let before = files.remove(file);
        let before = before.map(|file| (file.report.services, file.report.attempts, file.offers));
        let (services, attempts, offers) = before.unwrap_or_default();
        let state = FileState::Refused(reason);
        let report = FileReport { services, state, left_out: Vec::new(), attempts: attempts + 1 };
        files.insert(file.to_owned(), PluginFile { report, offers, wants });
        drop(files);
        self.announce_change();
    }

    /// Stops announcing the services of a file. Returns the revision without them, if it served
    /// any.
    pub(crate) fn begin_withdrawal(&self, file: &str) -> Option<u64> {
        let mut files = self.files();
        let report = &mut files.get_mut(file)?.report;
        if report.services.is_empty() {
            files.remove(file);
            drop(files);
            // It may have been announced as refused or compiling.
            self.announce_change();
            return None;
        }
        report.state = FileState::Withdrawing;
        drop(files);
        Some(self.announce_change())
    }

    /// Stops serving a file that was withdrawn, unless it came back in the meantime. Returns the
    /// names of its services. Calls in flight finish.
    pub(crate) fn end_withdrawal(&self, file: &str) -> Option<Vec<String>> {
        let mut files = self.files();
        if files.get(file)?.report.state != FileState::Withdrawing {
            return None;
        }
        let PluginFile { report, .. } = files.remove(file)?;
        self.remove(&report.services);
        Some(report.services)
    }

    /// Removes services. The caller must hold the lock on the files.
    fn remove(&self, names: &[String]) {
        let mut services = Names::clone(&self.services.load());
        for name in names {
            if let Some(slot) = services.remove(name) {
                slot.served.store(None);
            }
        }
        self.replace(services);
    }

    /// The state of each file.
    pub(crate) fn files_report(&self) -> BTreeMap<String, FileReport> {
        self.files().iter().map(|(name, file)| (name.clone(), file.report.clone())).collect()
    }

    /// The files that would serve one of these services, and do not because another file did.
    pub(crate) fn files_that_want(&self, services: &[String]) -> Vec<String> {
        let files = self.files();
        let want =
            files.iter().filter(|(_, file)| file.wants.iter().any(|name| services.contains(name)));
        want.map(|(file, _)| file.clone()).collect()
    }

    /// Those of these services that other files would serve, if this one did not.
    pub(crate) fn waiting_for(&self, file: &str, services: &[Arc<Service>]) -> Vec<Arc<Service>> {
        let is_wanted = |wanted: &String| services.iter().any(|s| s.name().to_string() == *wanted);
        let files = self.files();
        let others = files.iter().filter(|(name, _)| *name != file);
        let offers = others.flat_map(|(_, other)| {
            other.offers.iter().filter(|offer| {
                let name = offer.name().to_string();
                other.wants.contains(&name) && is_wanted(&name)
            })
        });
        offers.cloned().collect()
    }

    /// The services that a file serves now.
    pub(crate) fn served_by(&self, file: &str) -> Vec<Arc<Served>> {
        let names = self.files().get(file).map(|f| f.report.services.clone()).unwrap_or_default();
        let services = self.services.load();
        let slots = names.iter().filter_map(|name| services.get(name));
        slots.filter_map(|slot| slot.served.load_full()).collect()
    }

    /// All services that are served now, ordered by name.
    pub(crate) fn all_served(&self) -> Vec<Arc<Served>> {
        self.services
            .load()
            .iter()
            .map(|(_, slot)| slot)
            .filter_map(|slot| slot.served.load_full())
            .collect()
    }

    /// All plugins that are loaded, with their files. Replaced versions whose calls finish are among
    /// them.
    pub(crate) fn loaded(&self) -> Vec<(String, Plugin)> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let living =
            loaded.iter().filter_map(|(file, plugin)| Some((file.clone(), plugin.upgrade()?)));
        living.collect()
    }

    /// The endpoints to announce, and the revision that they belong to. They include the services
    /// that are served, and the services of files that are being compiled or were refused.
    pub(crate) fn endpoints(&self) -> (u64, Vec<EndpointSpec>) {
        let files = self.files();
        let revision = *self.revision.borrow();
        let services = self.services.load();
        let mut announced = BTreeMap::<String, EndpointSpec>::new();
        for (name, slot) in services.iter() {
            let Some(served) = slot.served.load_full() else { continue };
            let state = files.get(&served.file).map(|file| &file.report.state);
            let reason = match state {
                Some(FileState::Withdrawing) => continue,
                Some(FileState::Refused(reason)) => {
                    Some(format!("its replacement does not load: {reason}"))
                }
                Some(FileState::Compiling(since)) => {
                    let since = humantime::format_rfc3339_seconds(*since);
                    Some(format!("its replacement has been compiling since {since}"))
                }
                Some(FileState::Serving) | None => None,
            };
            let spec = endpoint(&served.service, Condition::Serving, reason.as_deref());
            announced.insert(name.clone(), spec);
        }
        for file in files.values() {
            let (condition, reason) = match &file.report.state {
                FileState::Compiling(_) => (Condition::Compiling, None),
                FileState::Refused(reason) => (Condition::Refused, Some(reason.as_str())),
                FileState::Serving | FileState::Withdrawing => continue,
            };
            for service in &file.offers {
                announced
                    .entry(service.name().to_string())
                    .or_insert_with(|| endpoint(service, condition, reason));
            }
        }
        for (name, file) in files.iter() {
            for wanted in &file.wants {
                if let Some(spec) = announced.get_mut(wanted) {
                    let reason = format!("{name} has this service too, and does not serve it");
                    spec.reason.get_or_insert_with(|| one_line(&reason));
                }
            }
        }
        (revision, announced.into_values().collect())
    }

    /// Changes whenever [`Table::endpoints`] may have changed.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn announce_change(&self) -> u64 {
        let mut now = 0;
        self.revision.send_modify(|revision| {
            *revision += 1;
            now = *revision;
        });
        now
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, PluginFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn endpoint(service: &Service, condition: Condition, reason: Option<&str>) -> EndpointSpec {
    let name = service.name();
    EndpointSpec {
        service: name.interface.clone(),
        package: name.package.clone(),
        version: name.version.as_ref().map(ToString::to_string),
        fingerprint: service.fingerprint().to_string(),
        condition,
        reason: reason.map(one_line),
        tags: Vec::new(),
        metadata: Metadata::new(),
    }
}

/// A reason in the form that the registry accepts: one line, cut to the largest length.
fn one_line(reason: &str) -> String {
    let reason = &reason[..reason.floor_char_boundary(wharf_registry_api::limits::REASON)];
    reason.replace(char::is_control, " ")
}
