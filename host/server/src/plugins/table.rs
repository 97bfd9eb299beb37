//! The services that are served now, by name. Their plugins can be replaced.
//!
//! A call never looks up a name. A connection resolves a method once to the [`Slot`] of its
//! service. Each call then reads from the slot which plugin serves at that moment, without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::watch;
use wharf_registry_api::{Condition, EndpointSpec, Metadata};
use wharf_runtime::Plugin;
use wharf_schema::{Service, ServiceName};

/// All services of a host.
pub(crate) struct Table {
    /// The whole map is replaced at once. It is read without a lock.
    services: ArcSwap<BTreeMap<String, Arc<Slot>>>,
    /// Its lock serialises changes. Only changes and reports need the files.
    files: Mutex<BTreeMap<String, PluginFile>>,
    generations: AtomicU64,
    /// Counts the changes of what must be announced.
    revision: watch::Sender<u64>,
}

/// One version of one service. It outlives the plugins that serve it.
pub(crate) struct Slot {
    pub(crate) name: ServiceName,
    served: ArcSwapOption<Served>,
}

/// A plugin that serves a service.
pub(crate) struct Served {
    pub(crate) plugin: Plugin,
    /// Index into the plugin's services.
    pub(crate) service_index: usize,
    pub(crate) service: Arc<Service>,
    /// The encoded description of the service.
    pub(crate) document: Bytes,
    /// A different number for every load of every plugin.
    pub(crate) generation: u64,
    pub(crate) file: String,
}

/// What is known about a file of the plugins folder.
#[derive(Clone, Debug)]
struct PluginFile {
    report: FileReport,
    /// The services that it would serve. Empty until the file has been read.
    offers: Vec<Arc<Service>>,
}

/// The state and the services of a file of the plugins folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The full names of the services that it serves.
    pub services: Vec<String>,
    /// Its state.
    pub state: FileState,
}

/// The state of a file of the plugins folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It is being read and compiled. Its previous version, if any, continues to serve.
    Compiling,
    /// It serves.
    Serving,
    /// It does not load, for this reason. Its previous version, if any, continues to serve.
    Refused(String),
    /// It was removed. It serves until the registry has accepted its withdrawal.
    Withdrawing,
}

impl Slot {
    /// The plugin that serves now. A call keeps it until the call ends.
    pub(crate) fn served(&self) -> arc_swap::Guard<Option<Arc<Served>>> {
        self.served.load()
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        Table {
            services: ArcSwap::default(),
            files: Mutex::default(),
            generations: AtomicU64::new(1),
            revision: watch::channel(0).0,
        }
    }

    /// Finds the service with a name. If there are several versions, it is the newest.
    pub(crate) fn find(&self, name: &ServiceName) -> Found {
        let services = self.services.load();
        let mut matching: Vec<&Arc<Slot>> =
            services.values().filter(|slot| name.matches(&slot.name)).collect();
        // If several packages have an interface with this name, the name must include the package.
        let packages: std::collections::BTreeSet<_> =
            matching.iter().map(|slot| &slot.name.package).collect();
        if packages.len() > 1 {
            return Found::Ambiguous(matching.iter().map(|slot| slot.name.to_string()).collect());
        }
        matching.sort_by(|a, b| a.name.version.cmp(&b.name.version));
        match matching.pop() {
            Some(slot) => Found::One(slot.clone()),
            None => Found::None,
        }
    }

    /// The short names of all services, for suggestions.
    pub(crate) fn short_names(&self) -> Vec<String> {
        self.services.load().values().map(|slot| slot.name.interface.clone()).collect()
    }

    /// Makes a plugin serve all its services, and replaces the previous version of `file`. Returns
    /// the names of the services that only the previous version served.
    ///
    /// # Errors
    /// When another file serves one of the services. The other file keeps it, and nothing changes.
    pub(crate) fn serve(&self, file: &str, plugin: &Plugin) -> Result<Vec<String>, String> {
        let mut files = self.files();
        let mut services = BTreeMap::clone(&self.services.load());
        for service in plugin.services() {
            let name = service.name().to_string();
            let served = services.get(&name).and_then(|slot| slot.served.load_full());
            if let Some(other) = served.filter(|served| served.file != file) {
                return Err(format!(
                    "{} serves {name} already: remove one of the two files, or give this one another version",
                    other.file
                ));
            }
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let mut names = Vec::new();
        for (service_index, service) in plugin.services().iter().enumerate() {
            let name = service.name().to_string();
            let slot = services.entry(name.clone()).or_insert_with(|| {
                let name = service.name().clone();
                Arc::new(Slot { name, served: ArcSwapOption::empty() })
            });
            slot.served.store(Some(Arc::new(Served {
                plugin: plugin.clone(),
                service_index,
                service: service.clone(),
                document: service.to_document().into(),
                generation,
                file: file.to_owned(),
            })));
            names.push(name);
        }
        let before = files.get(file).map(|file| file.report.services.clone()).unwrap_or_default();
        let freed: Vec<String> = before.into_iter().filter(|name| !names.contains(name)).collect();
        for gone in &freed {
            if let Some(slot) = services.remove(gone) {
                slot.served.store(None);
            }
        }
        self.services.store(Arc::new(services));
        let report = FileReport { services: names, state: FileState::Serving };
        files.insert(file.to_owned(), PluginFile { report, offers: plugin.services().to_vec() });
        drop(files);
        self.announce_change();
        Ok(freed)
    }

    /// Sets the state of a file. Its previous version, if any, continues to serve.
    pub(crate) fn note(&self, file: &str, state: FileState) {
        let mut files = self.files();
        let before = files.remove(file);
        let services = before.map(|file| file.report.services).unwrap_or_default();
        // The services of the new version are not known yet.
        let offers = Vec::new();
        files
            .insert(file.to_owned(), PluginFile { report: FileReport { services, state }, offers });
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

    /// Records why a file does not load. Its previous version, if any, continues to serve.
    pub(crate) fn refuse(&self, file: &str, reason: String) {
        let mut files = self.files();
        let (services, offers) = match files.remove(file) {
            Some(file) => (file.report.services, file.offers),
            None => (Vec::new(), Vec::new()),
        };
        let report = FileReport { services, state: FileState::Refused(reason) };
        files.insert(file.to_owned(), PluginFile { report, offers });
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
        let mut services = BTreeMap::clone(&self.services.load());
        for name in names {
            if let Some(slot) = services.remove(name) {
                slot.served.store(None);
            }
        }
        self.services.store(Arc::new(services));
    }

    /// The state of each file.
    pub(crate) fn files_report(&self) -> BTreeMap<String, FileReport> {
        self.files().iter().map(|(name, file)| (name.clone(), file.report.clone())).collect()
    }

    /// The files that were refused.
    pub(crate) fn refused_files(&self) -> Vec<String> {
        let files = self.files();
        let refused =
            files.iter().filter(|(_, file)| matches!(file.report.state, FileState::Refused(_)));
        refused.map(|(file, _)| file.clone()).collect()
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
        self.services.load().values().filter_map(|slot| slot.served.load_full()).collect()
    }

    /// The endpoints to announce, and the revision that they belong to. They include the services
    /// that are served, and the services of files that are being compiled or were refused.
    pub(crate) fn endpoints(&self) -> (u64, Vec<EndpointSpec>) {
        let files = self.files();
        let revision = *self.revision.borrow();
        let services = self.services.load();
        let mut announced = BTreeMap::<String, EndpointSpec>::new();
        for (name, slot) in &**services {
            let Some(served) = slot.served.load_full() else { continue };
            let state = files.get(&served.file).map(|file| &file.report.state);
            let reason = match state {
                Some(FileState::Withdrawing) => continue,
                Some(FileState::Refused(reason)) => {
                    Some(format!("its replacement does not load: {reason}"))
                }
                _ => None,
            };
            let spec = endpoint(&served.service, Condition::Serving, reason.as_deref());
            announced.insert(name.clone(), spec);
        }
        for file in files.values() {
            let (condition, reason) = match &file.report.state {
                FileState::Compiling => (Condition::Compiling, None),
                FileState::Refused(reason) => (Condition::Refused, Some(reason.as_str())),
                FileState::Serving | FileState::Withdrawing => continue,
            };
            for service in &file.offers {
                announced
                    .entry(service.name().to_string())
                    .or_insert_with(|| endpoint(service, condition, reason));
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

/// The service with a name.
pub(crate) enum Found {
    /// This service.
    One(Arc<Slot>),
    /// The name fits several services, which have these names.
    Ambiguous(Vec<String>),
    /// No service has this name.
    None,
}
