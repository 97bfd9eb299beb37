//! Loads the plugins of the folder into the table of services.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use wharf_net::chain;
use wharf_runtime::{Engine, Origin, Settings};
use wharf_schema::Service;

use super::compatible::Compatible;
use super::folder::{Change, Folder, sidecar_of};
use super::granting::Granting;
use super::load::{FileError, Load, Loaded, Workshop};
use super::table::{FileState, Table};
use crate::metrics::Metrics;

/// How many files are loaded at once. The engine compiles fewer at a time; meanwhile, other files are
/// read and started. It is large, so that files which take long do not keep out those which do not.
const AT_ONCE: usize = 64;

/// How long a removed plugin continues to serve while the registry does not accept its withdrawal.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// When a file is tried again that was refused for a reason which may pass: after the first time, then
/// after twice as long each, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Loads, replaces and removes plugins when their files change.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    /// The settings of all plugins. A sidecar overrides them.
    pub(crate) settings: Settings,
    pub(crate) max_size: u64,
    /// Whether replacements may break callers. A sidecar overrides it.
    pub(crate) compatible: Compatible,
    pub(crate) granting: Arc<Granting>,
    pub(crate) folder: Folder,
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Arc<Metrics>,
    /// The revision of the table that the registry accepted last.
    pub(crate) announced: watch::Receiver<u64>,
    /// Set once the files that existed at the start are loaded or refused.
    pub(crate) ready: watch::Sender<bool>,
}

/// Files that wait, are being loaded, or will be tried again. Each has at most one load at a time.
#[derive(Default)]
struct Queue {
    waiting: BTreeSet<String>,
    loading: HashMap<String, AbortHandle>,
    retries: HashMap<String, Retry>,
    loads: JoinSet<Loaded>,
    withdrawals: JoinSet<Option<Vec<String>>>,
}

/// A file that was refused for a reason that may pass.
struct Retry {
    at: Instant,
    pause: Duration,
    reason: String,
}

impl Queue {
    /// Something happened to a file: a load that runs has read what is not there any more.
    fn forget(&mut self, file: &str) {
        self.waiting.remove(file);
        self.retries.remove(file);
        if let Some(load) = self.loading.remove(file) {
            // This ends its compilation too.
            load.abort();
        }
    }

    /// When the next file is to be tried again.
    fn next_retry(&self) -> Option<Instant> {
        let waiting = self.retries.iter().filter(|(file, _)| !self.loading.contains_key(*file));
        waiting.map(|(_, retry)| retry.at).min()
    }

    /// Queues the files whose time has come.
    fn retry(&mut self, now: Instant) {
        let due = self.retries.iter();
        let due = due
            .filter(|(file, retry)| retry.at <= now && !self.loading.contains_key(file.as_str()));
        let due: Vec<String> = due.map(|(file, _)| file.clone()).collect();
        for file in due {
            // Its pause is kept until it is loaded, to grow if it is refused again.
            if let Some(retry) = self.retries.get_mut(&file) {
                retry.at = now + RETRY.1 * 2;
            }
            self.waiting.insert(file);
        }
    }

    /// Will try a file again. Returns whether the reason is new.
    fn retry_later(&mut self, file: &str, reason: &str) -> bool {
        let before = self.retries.remove(file);
        let pause = before.as_ref().map_or(RETRY.0, |retry| (retry.pause * 2).min(RETRY.1));
        let is_new = before.is_none_or(|before| before.reason != reason);
        let retry = Retry { at: Instant::now() + pause, pause, reason: reason.to_owned() };
        self.retries.insert(file.to_owned(), retry);
        is_new
    }
}

impl Loader {
    /// Runs for as long as the host does.
    pub(crate) async fn run(mut self) {
        let mut queue = Queue::default();
        let workshop = Workshop::new(
            self.engine.clone(),
            self.settings.clone(),
            (self.max_size, self.compatible),
            (self.table.clone(), self.granting.clone()),
        );
        let mut files = HashMap::<tokio::task::Id, String>::new();
        let first = self.folder.first_scan().await;
        self.take(first, &mut queue);
        loop {
            while queue.loading.len() < AT_ONCE
                && let Some(file) = queue.waiting.pop_first()
            {
                self.table.note(&file, FileState::Compiling(SystemTime::now()));
                let load = Load {
                    path: self.folder.path_of(&file),
                    sidecar: self.folder.path_of(&sidecar_of(&file)),
                    file: file.clone(),
                    workshop: workshop.clone(),
                };
                let task = queue.loads.spawn(load.run());
                files.insert(task.id(), file.clone());
                queue.loading.insert(file, task);
            }
            if queue.loading.is_empty() {
                self.table.complete();
            }
            if queue.loading.is_empty() && !self.ready.send_replace(true) {
                self.engine.prune_cache();
            }
            let retry = queue.next_retry();
            tokio::select! {
                changes = self.folder.changes() => self.take(changes, &mut queue),
                Some(loaded) = queue.loads.join_next_with_id() => {
                    let (task, loaded) = match loaded {
                        Ok((task, loaded)) => (task, Ok(loaded)),
                        Err(error) => (error.id(), Err(error)),
                    };
                    let Some(file) = files.remove(&task) else { continue };
                    if queue.loading.get(&file).is_none_or(|load| load.id() != task) {
                        // The file changed while it was loaded.
                        continue;
                    }
                    queue.loading.remove(&file);
                    let loaded = loaded.unwrap_or_else(|error| {
                        let result = Err(FileError::Host(error));
                        Loaded { file, took: Duration::ZERO, grants: None, changes: None, result }
                    });
                    self.finish(loaded, &mut queue);
                }
                Some(ended) = queue.withdrawals.join_next() => {
                    if let Ok(Some(services)) = ended {
                        self.freed(&services, &mut queue);
                    }
                }
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now).into()), if retry.is_some() => {
                    queue.retry(Instant::now());
                }
            }
        }
    }

    fn take(&self, changes: Vec<Change>, queue: &mut Queue) {
        for change in changes {
            match change {
                Change::Present(file) => {
                    queue.forget(&file);
                    queue.waiting.insert(file);
                }
                Change::Absent(file) => {
                    queue.forget(&file);
                    let Some(revision) = self.table.begin_withdrawal(&file) else { continue };
                    tracing::info!(file, "a plugin was removed: withdrawing it");
                    let (table, announced) = (self.table.clone(), self.announced.clone());
                    queue.withdrawals.spawn(withdraw(table, announced, revision, file));
                }
            }
        }
    }

    fn finish(&self, loaded: Loaded, queue: &mut Queue) {
        let Loaded { file, took, grants, changes, result } = loaded;
        let serving = self.table.served_by(&file);
        let before: Vec<Arc<Service>> = serving.iter().map(|s| s.service.clone()).collect();
        let result = result.and_then(|ready| {
            let takeover = self.table.serve(&file, &ready).map_err(FileError::Occupied)?;
            Ok((ready.plugin, takeover))
        });
        match result {
            Ok((plugin, takeover)) => {
                queue.retries.remove(&file);
                self.metrics.loaded(plugin.origin());
                self.freed(&takeover.freed, queue);
                for occupied in &takeover.occupied {
                    tracing::warn!(
                        file,
                        "{occupied}, so this file serves only its others: remove one of the two, \
                         give one another version, or choose services in a sidecar"
                    );
                }
                let served = self.table.served_by(&file);
                let services: Vec<String> =
                    served.iter().map(|served| served.service.name().to_string()).collect();
                let services = services.join(", ");
                let compiled = matches!(plugin.origin(), Origin::Compiled(_));
                if before.is_empty() {
                    tracing::info!(file, services, ?took, compiled, "loaded a plugin");
                } else {
                    self.metrics.swapped();
                    let changes = changes.unwrap_or_default();
                    let all = changes.all();
                    tracing::info!(
                        file,
                        services,
                        ?took,
                        compiled,
                        changes = all,
                        "replaced a plugin"
                    );
                    if let Some(breaking) = changes.breaking() {
                        tracing::warn!(file, "the replacement breaks callers: {breaking}");
                    }
                }
            }
            Err(error) => {
                let reason = chain(&error);
                // The plugin that serves must not keep grants that the operator has revoked, even
                // if the file does not load with the new grants.
                let revoked = grants.is_some_and(|grants| {
                    serving.iter().any(|served| !grants.cover(served.plugin.grants()))
                });
                if revoked {
                    self.freed(&self.table.end(&file), queue);
                    tracing::warn!(
                        file,
                        "grants were taken from it, and it cannot be loaded with the new ones: it no longer serves"
                    );
                }
                let goes_on = !before.is_empty() && !revoked;
                let passing = error.is_passing();
                if !passing {
                    queue.retries.remove(&file);
                }
                let is_new = !passing || queue.retry_later(&file, &reason);
                if is_new {
                    tracing::error!(
                        file,
                        goes_on,
                        tried_again = passing,
                        "a plugin does not load: {reason}"
                    );
                    self.metrics.refused();
                }
                self.table.refuse(&file, reason, error.wants());
            }
        }
    }

    /// These services are no longer served. Drops their series, and tries the files again that did
    /// not serve one of them because another file did.
    fn freed(&self, services: &[String], queue: &mut Queue) {
        if services.is_empty() {
            return;
        }
        self.metrics.forget(services);
        for file in self.table.files_that_want(services) {
            if !queue.loading.contains_key(&file) {
                queue.waiting.insert(file);
            }
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
