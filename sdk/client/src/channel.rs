//! One channel to an address: a connection that is opened on demand, and reopened after it is lost.
//!
//! A separate task connects. So no call waits for an endpoint that is known to be down, unless
//! there is no other. And dropping a call does not stop the connecting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use wharf_registry_api::retry_pauses;

use crate::connection::{Connection, Leaving};
use crate::error::{ConnectError, Failure};
use crate::settings::Settings;

/// The longest time that connecting may take, whatever the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The shortest pause between two attempts, however many calls are waiting.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// A connection that lasted this long was good: after it is lost, the backoff starts again.
const HELD: Duration = Duration::from_secs(10);

/// If connecting takes longer than this, calls go to another endpoint, if there is one.
pub(crate) const SLOW_CONNECT: Duration = Duration::from_millis(250);

/// How often a call that waits for a connection looks whether somebody is connecting at all.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A connection that lasted less than this counts as a failed attempt.
const USELESS: Duration = Duration::from_secs(1);

/// Whether a call can be sent through the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// At once.
    Ready,
    /// There is no connection, but the endpoint is not known to be down.
    Untried,
    /// Connecting failed or takes too long, or the connection was lost.
    Down,
}

/// The channel. Dropping it ends the connecting. An open connection closes after its calls have
/// ended.
pub(crate) struct Channel {
    shared: Arc<Shared>,
    /// Started when a connection is first needed, and again if the runtime that it ran on has ended.
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    address: Arc<str>,
    /// The host's name, by which it is verified.
    host: Arc<str>,
    settings: Arc<Settings>,
    connection: ArcSwapOption<Connection>,
    standing: watch::Sender<Standing>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct Standing {
    down: bool,
    /// When the current attempt to connect began, if one is running.
    connecting: Option<Instant>,
    /// All attempts to connect that have failed so far.
    failures: u64,
    last: Option<Arc<ConnectError>>,
}

impl Channel {
    pub(crate) fn new(address: Arc<str>, host: Arc<str>, settings: Arc<Settings>) -> Self {
        let shared = Arc::new(Shared {
            address,
            host,
            settings,
            connection: ArcSwapOption::empty(),
            standing: watch::Sender::default(),
            wanted: Notify::new(),
        });
        Channel { shared, task: Mutex::default() }
    }

    /// An open connection, if there is one.
    pub(crate) fn ready(&self) -> Option<Arc<Connection>> {
        self.shared.ready()
    }

    pub(crate) fn condition(&self) -> LinkState {
        if self.shared.is_ready() {
            return LinkState::Ready;
        }
        let standing = self.shared.standing.borrow();
        let slow = standing.connecting.is_some_and(|since| since.elapsed() > SLOW_CONNECT);
        if standing.down || slow { LinkState::Down } else { LinkState::Untried }
    }

    /// Connects in the background, unless the channel is connected or down. A channel that is down
    /// reconnects by itself after its backoff.
    pub(crate) fn start(&self) {
        match self.condition() {
            LinkState::Ready => {}
            LinkState::Untried => self.want(),
            LinkState::Down if self.task().as_ref().is_some_and(JoinHandle::is_finished) => {
                self.want();
            }
            LinkState::Down => {}
        }
    }

    fn want(&self) {
        let mut task = self.task();
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            // Outside of a runtime, the call itself fails.
            let Ok(runtime) = Handle::try_current() else { return };
            self.shared.standing.send_modify(|standing| {
                (standing.down, standing.connecting) = (false, None);
            });
            *task = Some(runtime.spawn(keep(self.shared.clone())));
        }
        drop(task);
        self.shared.wanted.notify_one();
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection. Waits for one attempt to connect, not for more.
    ///
    /// # Errors
    /// The failure of that attempt, or that the deadline passed.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Failure> {
        let begun = Instant::now();
        let mut standing = self.shared.standing.subscribe();
        let failures = standing.borrow_and_update().failures;
        loop {
            if let Some(connection) = self.ready() {
                return Ok(connection);
            }
            self.want();
            // If the runtime of the task ends, nobody says so.
            let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
            match tokio::time::timeout_at(look_again.into(), standing.changed()).await {
                Ok(Ok(())) => {
                    let standing = standing.borrow_and_update();
                    if standing.failures > failures
                        && let Some(error) = &standing.last
                    {
                        return Err(Failure::Connect(error.clone()));
                    }
                }
                Err(_) if look_again < deadline => {}
                // The task ends with the channel, which still exists.
                Ok(Err(_)) => {
                    let reason = "the client ended".to_owned();
                    return Err(Failure::ConnectionLost { reason, not_executed: true });
                }
                Err(_) => {
                    let waited = begun.elapsed();
                    return Err(Failure::Connect(Arc::new(ConnectError::TimedOut(waited))));
                }
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(task) = self.task().take() {
            task.abort();
        }
    }
}

impl Shared {
    fn is_ready(&self) -> bool {
        self.connection.load().as_ref().is_some_and(|connection| connection.is_open())
    }

    fn ready(&self) -> Option<Arc<Connection>> {
        self.connection.load_full().filter(|connection| connection.is_open())
    }

    /// Tells waiting calls that this attempt failed.
    fn failed(&self, error: ConnectError) {
        tracing::debug!(address = %self.address, %error, "cannot connect");
        self.standing.send_modify(|standing| {
            standing.down = true;
            standing.connecting = None;
            standing.failures += 1;
            standing.last = Some(Arc::new(error));
        });
    }
}

/// Connects on demand. After a loss, retries until it is connected again.
async fn keep(shared: Arc<Shared>) {
    let mut pauses = retry_pauses();
    let mut lost = false;
    loop {
        if !lost {
            shared.wanted.notified().await;
        }
        shared.standing.send_modify(|standing| standing.connecting = Some(Instant::now()));
        let to = (&*shared.address, &*shared.host);
        match Connection::open(to, &shared.settings, CONNECT_TIMEOUT).await {
            Ok((connection, leaving)) => {
                shared.connection.store(Some(Arc::new(connection)));
                shared.standing.send_modify(|standing| {
                    (standing.down, standing.connecting) = (false, None);
                });
                // The waiting calls now have their connection, so their request must not trigger
                // another one.
                let _ = shared.wanted.notified().now_or_never();
                let since = Instant::now();
                let leaving = leaving.await;
                shared.connection.store(None);
                let held = since.elapsed();
                if held >= HELD || leaving == Ok(Leaving::Idle) {
                    pauses = retry_pauses();
                }
                match leaving {
                    // An idle connection is reopened only on demand.
                    Ok(Leaving::Idle) => {
                        lost = false;
                        continue;
                    }
                    Ok(Leaving::Refused(why)) => shared.failed(ConnectError::Refused(why)),
                    Ok(Leaving::Lost(why)) if held < USELESS => {
                        shared.failed(ConnectError::Lost(why));
                    }
                    Ok(Leaving::Lost(_)) | Err(_) => {
                        shared.standing.send_modify(|standing| standing.down = true);
                    }
                }
            }
            Err(error) => shared.failed(error),
        }
        lost = true;
        tokio::time::sleep(SHORTEST_PAUSE).await;
        if let Some(pause) = pauses.next() {
            // A call that has no other endpoint ends the pause early.
            let _ = tokio::time::timeout(pause, shared.wanted.notified()).await;
        }
    }
}
