//! What is served at the moment: services by name, and how their plugins can be replaced.
//!
//! A call never looks a name up. A connection resolves a method once to its service's [`Slot`],
//! and each call reads from it what serves at that moment, without a lock.

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
    /// Replaced as a whole; read without a lock.
    services: ArcSwap<BTreeMap<String, Arc<Slot>>>,
    /// Serialises changes, and holds what only they need.
    files: Mutex<BTreeMap<String, PluginFile>>,
    generations: AtomicU64,
    /// Counts the changes of what is to be announced.
    revision: watch::Sender<u64>,
}

/// The place of one service in one version. It outlives the plugins that serve it.
pub(crate) struct Slot {
    pub(crate) name: ServiceName,
    served: ArcSwapOption<Served>,
}

/// A plugin at work for a service.
pub(crate) struct Served {
    pub(crate) plugin: Plugin,
    /// Index into the plugin's services.
    pub(crate) service_index: usize,
    pub(crate) service: Arc<Service>,
    /// The service's description, ready to be sent.
    pub(crate) document: Bytes,
    /// Different for every load of every plugin.
    pub(crate) generation: u64,
    pub(crate) file: String,
}

/// What is known of a file of the plugins folder.
#[derive(Clone, Debug)]
struct PluginFile {
    report: FileReport,
    /// What it would serve, once that is known.
    offers: Vec<Arc<Service>>,
}

/// What became of a file of the plugins folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The services that it serves, by their whole names.
    pub services: Vec<String>,
    /// How it does.
    pub state: FileState,
}

/// How a file of the plugins folder does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It is being read and compiled; what it served before goes on.
    Compiling,
    /// It serves.
    Serving,
    /// It does not load, for this reason; what it served before goes on.
    Refused(String),
    /// It was removed, and is withdrawn before it ends.
    Withdrawing,
}

impl Slot {
    /// What serves at this moment; a call keeps it until it ends.
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

    /// The service that a name means; of several versions the newest.
    pub(crate) fn find(&self, name: &ServiceName) -> Found {
        let services = self.services.load();
        let mut matching: Vec<&Arc<Slot>> =
            services.values().filter(|slot| name.matches(&slot.name)).collect();
        // Different packages may have interfaces of one name: then a name must say which.
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

    /// Puts a plugin to work for all its services, in the place of what `file` served before; the
    /// names of the services that it served and that the plugin does not.
    ///
    /// # Errors
    /// When another file serves one of them: the first stays. Nothing is changed then.
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

    /// Notes how a file does that keeps serving what it served before.
    pub(crate) fn note(&self, file: &str, state: FileState) {
        let mut files = self.files();
        let before = files.remove(file);
        let services = before.map(|file| file.report.services).unwrap_or_default();
        // What it served goes on, and what it would serve is about to be known.
        let offers = Vec::new();
        files
            .insert(file.to_owned(), PluginFile { report: FileReport { services, state }, offers });
        drop(files);
        self.announce_change();
    }

    /// Notes what a file would serve that is being compiled.
    pub(crate) fn note_offers(&self, file: &str, offers: Vec<Arc<Service>>) {
        let mut files = self.files();
        let Some(file) = files.get_mut(file) else { return };
        file.offers = offers;
        drop(files);
        self.announce_change();
    }

    /// Ends what a file serves, at once; the names of its services.
    pub(crate) fn end(&self, file: &str) -> Vec<String> {
        let mut files = self.files();
        let Some(file) = files.get_mut(file) else { return Vec::new() };
        let freed = std::mem::take(&mut file.report.services);
        self.remove(&freed);
        freed
    }

    /// Notes why a file does not load; what it served before goes on.
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

    /// Stops announcing what a file serves; the revision that says so, if it served anything.
    pub(crate) fn begin_withdrawal(&self, file: &str) -> Option<u64> {
        let mut files = self.files();
        let report = &mut files.get_mut(file)?.report;
        if report.services.is_empty() {
            files.remove(file);
            drop(files);
            // It may have been announced as one that does not load.
            self.announce_change();
            return None;
        }
        report.state = FileState::Withdrawing;
        drop(files);
        Some(self.announce_change())
    }

    /// Ends what a file served, unless it came back in the meantime; the names of its services. Calls
    /// in flight finish.
    pub(crate) fn end_withdrawal(&self, file: &str) -> Option<Vec<String>> {
        let mut files = self.files();
        if files.get(file)?.report.state != FileState::Withdrawing {
            return None;
        }
        let PluginFile { report, .. } = files.remove(file)?;
        self.remove(&report.services);
        Some(report.services)
    }

    /// Takes services out; the caller holds the lock on the files.
    fn remove(&self, names: &[String]) {
        let mut services = BTreeMap::clone(&self.services.load());
        for name in names {
            if let Some(slot) = services.remove(name) {
                slot.served.store(None);
            }
        }
        self.services.store(Arc::new(services));
    }

    /// What became of each file.
    pub(crate) fn files_report(&self) -> BTreeMap<String, FileReport> {
        self.files().iter().map(|(name, file)| (name.clone(), file.report.clone())).collect()
    }

    /// The files that do not load.
    pub(crate) fn refused_files(&self) -> Vec<String> {
        let files = self.files();
        let refused =
            files.iter().filter(|(_, file)| matches!(file.report.state, FileState::Refused(_)));
        refused.map(|(file, _)| file.clone()).collect()
    }

    /// What serves for a file.
    pub(crate) fn served_by(&self, file: &str) -> Vec<Arc<Served>> {
        let names = self.files().get(file).map(|f| f.report.services.clone()).unwrap_or_default();
        let services = self.services.load();
        let slots = names.iter().filter_map(|name| services.get(name));
        slots.filter_map(|slot| slot.served.load_full()).collect()
    }

    /// All that serves at this moment, in the order of names.
    pub(crate) fn all_served(&self) -> Vec<Arc<Served>> {
        self.services.load().values().filter_map(|slot| slot.served.load_full()).collect()
    }

    /// What is to be announced, and the revision that it belongs to: what is served, and what would
    /// be, if its file were compiled already or did load.
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

    /// Changes whenever [`Table::endpoints`] may have.
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

/// A reason as the registry takes it: one line, cut to its bound.
fn one_line(reason: &str) -> String {
    let reason = &reason[..reason.floor_char_boundary(wharf_registry_api::limits::REASON)];
    reason.replace(char::is_control, " ")
}

/// What a name means.
pub(crate) enum Found {
    /// This service.
    One(Arc<Slot>),
    /// Any of these.
    Ambiguous(Vec<String>),
    /// Nothing.
    None,
}
