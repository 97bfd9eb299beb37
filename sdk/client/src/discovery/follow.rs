//! The task that follows one service.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use wharf_registry_api::{
    Endpoint, RegistryClient, RegistryError, Watch, WatchEvent, retry_pauses,
};

use super::kept::ListFile;
use super::listing::Listing;
use crate::balance::KnownNodes;
use crate::endpoints::Endpoints;

/// If the registry does not answer for this long when a client starts, calls use the saved list
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// A saved list that is not older than this counts like a list that this process received: if the
/// registry says that there are no endpoints any more, that is doubted at first.
const FRESH: Duration = Duration::from_secs(3600);

/// How often a call that waits for a list looks whether somebody follows at all.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The shortest time between two writes of a list.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A service that was not called for this long is not followed again until the next call. The time
/// is shorter for a service without endpoints, because its name may be wrong.
const UNUSED: Duration = Duration::from_secs(600);
const UNUSED_AND_EMPTY: Duration = Duration::from_secs(60);

/// A service that is followed. Dropping it ends that.
pub(crate) struct Followed {
    shared: Arc<Shared>,
    plan: Plan,
    /// It is started again if the runtime that it ran on has ended.
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What a follower begins with.
struct Plan {
    registry: RegistryClient,
    endpoints: Arc<Endpoints>,
    service: String,
    file: Option<ListFile>,
    /// Whether a list that is suddenly empty is doubted.
    doubts: bool,
}

struct Shared {
    current: ArcSwapOption<KnownNodes>,
    news: watch::Sender<News>,
    begun: Instant,
    /// When it was last used, in seconds since `begun`.
    used: AtomicU64,
    wanted: Notify,
    at_rest: AtomicBool,
    /// Whether the current list still has to be saved.
    unsaved: watch::Sender<bool>,
}

/// What is known of a service.
#[derive(Clone)]
pub(crate) enum News {
    /// The registry has not answered yet.
    Nothing,
    /// The registry does not answer, and has never answered.
    Failed(Arc<RegistryError>),
    /// The last list.
    List(Arc<KnownNodes>),
}

impl Followed {
    pub(super) fn start(
        registry: RegistryClient,
        endpoints: Arc<Endpoints>,
        service: &str,
        (file, doubts): (Option<ListFile>, bool),
    ) -> Self {
        let shared = Arc::new(Shared {
            current: ArcSwapOption::empty(),
            news: watch::Sender::new(News::Nothing),
            begun: Instant::now(),
            used: AtomicU64::new(0),
            wanted: Notify::new(),
            at_rest: AtomicBool::new(false),
            unsaved: watch::Sender::new(false),
        });
        let service = service.to_owned();
        let plan = Plan { registry, endpoints, service, file, doubts };
        let followed = Followed { shared, plan, task: Mutex::default() };
        followed.run();
        followed
    }

    /// Follows, if nobody does.
    fn run(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // Outside of a runtime, the call itself fails.
        let Ok(runtime) = Handle::try_current() else { return };
        let Plan { registry, endpoints, service, file, doubts } = &self.plan;
        let follower = Follower {
            registry: registry.clone(),
            endpoints: endpoints.clone(),
            service: service.clone(),
            file: file.clone(),
            shared: self.shared.clone(),
            listing: Listing::default(),
            doubts: *doubts,
            kept: None,
            written: None,
            heard: false,
        };
        *task = Some(runtime.spawn(follower.run()));
    }

    /// The current list, if there is one.
    pub(crate) fn current(&self) -> Option<Arc<KnownNodes>> {
        self.shared.current.load_full()
    }

    /// Whether this list is the current one.
    pub(crate) fn is_current(&self, list: &Arc<KnownNodes>) -> bool {
        self.shared.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, list))
    }

    /// Records that the service is used.
    pub(crate) fn touch(&self, now: Instant) {
        let seconds = now.saturating_duration_since(self.shared.begun).as_secs();
        if self.shared.used.load(Ordering::Relaxed) != seconds {
            self.shared.used.store(seconds, Ordering::Relaxed);
            self.run();
        }
    }

    /// Completes when the current list is saved, if lists are saved at all.
    pub(super) async fn saved(&self) {
        // The task holds the sender. Without the task, nothing is saved any more.
        let _ = self.shared.unsaved.subscribe().wait_for(|unsaved| !unsaved).await;
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.shared.at_rest.load(Ordering::Relaxed)
    }

    /// What is known, as soon as anything is.
    pub(super) async fn news(&self, deadline: Instant) -> News {
        let mut news = self.shared.news.subscribe();
        loop {
            self.run();
            self.shared.wanted.notify_one();
            let known = news.wait_for(|news| !matches!(news, News::Nothing));
            // If the runtime of the follower ends, nobody says so.
            let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
            match tokio::time::timeout_at(look_again.into(), known).await {
                Ok(Ok(news)) => return news.clone(),
                Err(_) if look_again < deadline => {}
                Ok(Err(_)) | Err(_) => return News::Nothing,
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

struct Follower {
    registry: RegistryClient,
    endpoints: Arc<Endpoints>,
    service: String,
    file: Option<ListFile>,
    shared: Arc<Shared>,
    listing: Listing,
    /// Whether a list that is suddenly empty is doubted.
    doubts: bool,
    /// The list in the file.
    kept: Option<Vec<Endpoint>>,
    written: Option<Instant>,
    /// Whether the current watch has reached a bookmark.
    heard: bool,
}

impl Follower {
    async fn run(mut self) {
        self.read_file().await;
        let mut pauses = retry_pauses();
        loop {
            match self.watch().await {
                Ok(watch) => {
                    if let Err(error) = self.follow(watch).await {
                        self.failed(error);
                    }
                }
                Err(error) => self.failed(error),
            }
            self.listing.interrupted();
            if std::mem::take(&mut self.heard) {
                pauses = retry_pauses();
            }
            if self.is_unused(Instant::now()) {
                self.rest().await;
                pauses = retry_pauses();
            } else if let Some(pause) = pauses.next() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Begins a watch. If the registry answers the first one slowly, calls use the saved list
    /// meanwhile.
    async fn watch(&mut self) -> Result<Watch, RegistryError> {
        let (registry, service) = (self.registry.clone(), self.service.clone());
        let watching = registry.watch(Some(&service), self.listing.index());
        let mut watching = std::pin::pin!(watching);
        if self.is_silent() && self.kept.is_some() {
            if let Ok(watch) = tokio::time::timeout(PATIENCE, &mut watching).await {
                return watch;
            }
            self.recall();
        }
        watching.await
    }

    /// Whether callers have no list yet.
    fn is_silent(&self) -> bool {
        self.shared.current.load().is_none()
    }

    /// Follows a watch until it ends. Returns an error unless it ended normally.
    async fn follow(&mut self, mut watch: Watch) -> Result<(), RegistryError> {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            let unsaved = *self.shared.unsaved.borrow();
            let write_at = unsaved.then(|| match self.written {
                Some(written) => written + WRITE_EVERY,
                None => now,
            });
            // A registry may answer and still not complete its list.
            let recall_at = (self.is_silent() && self.kept.is_some()).then(|| begun + PATIENCE);
            let due = [self.listing.doubted_until(), write_at, recall_at].into_iter().flatten();
            let due = due.fold(self.unused_at(), Instant::min);
            tokio::select! {
                event = watch.next() => match event? {
                    None | Some(WatchEvent::Goodbye) => return Ok(()),
                    Some(event) => {
                        let bookmark = matches!(event, WatchEvent::Bookmark(_));
                        self.heard |= bookmark;
                        let first = bookmark && self.is_silent();
                        if self.listing.apply(event, Instant::now()) || first {
                            self.shared.unsaved.send_replace(true);
                            self.tell();
                        }
                    }
                },
                () = tokio::time::sleep_until(due.into()) => {
                    let now = Instant::now();
                    if self.listing.doubted_until().is_some_and(|until| until <= now)
                        && self.listing.settle(now)
                    {
                        self.shared.unsaved.send_replace(true);
                        self.tell();
                    }
                    if recall_at.is_some_and(|at| at <= now) {
                        self.recall();
                    }
                    if write_at.is_some_and(|at| at <= now) {
                        self.write_file(now).await;
                    }
                    if self.is_unused(now) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Gives the believed list to callers.
    fn tell(&self) {
        let current = self.shared.current.load_full().unwrap_or_default();
        let list = Arc::new(KnownNodes::of(self.listing.believed(), &self.endpoints, &current));
        self.shared.current.store(Some(list.clone()));
        self.shared.news.send_replace(News::List(list));
    }

    /// The registry does not answer: calls keep the last list, or use the saved one.
    fn failed(&mut self, error: RegistryError) {
        tracing::debug!(service = self.service, %error, "the registry does not answer");
        if !self.is_silent() || self.recall() {
            return;
        }
        self.shared.news.send_replace(News::Failed(Arc::new(error)));
    }

    fn recall(&mut self) -> bool {
        let Some(kept) = self.kept.clone() else { return false };
        let endpoints = kept.len();
        let service = &self.service;
        tracing::warn!(
            service,
            endpoints,
            "the registry does not answer: using the last saved list"
        );
        self.listing.recall(kept);
        self.tell();
        true
    }

    async fn read_file(&mut self) {
        let Some(file) = self.file.clone() else { return };
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        let Some((kept, age)) = read.ok().flatten().filter(|(kept, _)| !kept.is_empty()) else {
            return;
        };
        if age <= FRESH && self.doubts {
            self.listing.recall(kept.clone());
        }
        self.kept = Some(kept);
    }

    async fn write_file(&mut self, now: Instant) {
        self.written = Some(now);
        let believed = self.listing.believed().to_vec();
        if self.kept.as_deref().unwrap_or_default() != believed {
            self.kept = Some(believed.clone()).filter(|kept| !kept.is_empty());
            if let Some(file) = self.file.clone() {
                let _ = tokio::task::spawn_blocking(move || file.write(&believed)).await;
            }
        }
        self.shared.unsaved.send_replace(false);
    }

    fn unused_at(&self) -> Instant {
        let used = Duration::from_secs(self.shared.used.load(Ordering::Relaxed));
        let empty = self.listing.believed().is_empty();
        // One second more, because uses are recorded in whole seconds.
        let unused = if empty { UNUSED_AND_EMPTY } else { UNUSED } + Duration::from_secs(1);
        self.shared.begun + used + unused
    }

    fn is_unused(&self, now: Instant) -> bool {
        self.unused_at() <= now
    }

    /// Stops following until the service is used again.
    async fn rest(&mut self) {
        let believed = self.listing.believed().to_vec();
        self.listing = Listing::default();
        self.listing.recall(believed);
        self.shared.current.store(None);
        self.shared.news.send_replace(News::Nothing);
        self.shared.at_rest.store(true, Ordering::Relaxed);
        // The notification may be left over from an earlier call.
        let mut used = self.shared.used.load(Ordering::Relaxed);
        loop {
            self.shared.wanted.notified().await;
            let now = self.shared.used.load(Ordering::Relaxed);
            if std::mem::replace(&mut used, now) != now || !self.is_unused(Instant::now()) {
                break;
            }
        }
        self.shared.at_rest.store(false, Ordering::Relaxed);
    }
}
