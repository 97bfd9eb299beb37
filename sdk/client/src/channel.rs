//! One way to an address: a connection that is made when it is wanted, and made again when it is lost.
//!
//! A task of its own connects, so no call waits for an endpoint that is known to be down, unless
//! there is no other; and a call that is dropped does not stop the connecting.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use wharf_registry_api::retry_pauses;

use crate::connection::{Connection, Leaving, Settings};
use crate::error::{ConnectError, Failure};

/// How long connecting may take at most, whatever the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The shortest pause between two attempts, however many calls would like one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// A connection that held for so long was a good one: when it is lost, pauses begin anew.
const HELD: Duration = Duration::from_secs(10);

/// Connecting that takes longer than this is not waited for where there is somebody else.
pub(crate) const SLOW_CONNECT: Duration = Duration::from_millis(250);

/// One that did not even hold for so long is as good as none.
const USELESS: Duration = Duration::from_secs(1);

/// Whether a call can be sent this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// At once.
    Ready,
    /// Nobody has tried, or nothing speaks against it.
    Untried,
    /// It could not be connected to, or was lost.
    Down,
}

/// The way. Dropped, it is connected no more; a connection closes when its calls have ended.
pub(crate) struct Channel {
    shared: Arc<Shared>,
    /// Begun when a connection is wanted first.
    task: OnceLock<JoinHandle<()>>,
}

struct Shared {
    address: Arc<str>,
    settings: Arc<Settings>,
    connection: ArcSwapOption<Connection>,
    standing: watch::Sender<Standing>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct Standing {
    down: bool,
    /// Since when it is being connected, while it is.
    connecting: Option<Instant>,
    /// Attempts to connect that failed, ever.
    failures: u64,
    last: Option<Arc<ConnectError>>,
}

impl Channel {
    pub(crate) fn new(address: Arc<str>, settings: Arc<Settings>) -> Self {
        let shared = Arc::new(Shared {
            address,
            settings,
            connection: ArcSwapOption::empty(),
            standing: watch::Sender::default(),
            wanted: Notify::new(),
        });
        Channel { shared, task: OnceLock::new() }
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

    /// Lets it be connected in the background, if nobody has tried. One that is down comes back by
    /// itself, when its pause is over.
    pub(crate) fn start(&self) {
        if self.condition() == LinkState::Untried {
            self.want();
        }
    }

    fn want(&self) {
        self.task.get_or_init(|| tokio::spawn(keep(self.shared.clone())));
        self.shared.wanted.notify_one();
    }

    /// An open connection; waits for the next attempt to make one, and not for more.
    ///
    /// # Errors
    /// What that attempt came to, or that the time is over.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Failure> {
        let begun = Instant::now();
        let mut standing = self.shared.standing.subscribe();
        let failures = standing.borrow_and_update().failures;
        loop {
            if let Some(connection) = self.ready() {
                return Ok(connection);
            }
            self.want();
            match tokio::time::timeout_at(deadline.into(), standing.changed()).await {
                Ok(Ok(())) => {
                    let standing = standing.borrow_and_update();
                    if standing.failures > failures
                        && let Some(error) = &standing.last
                    {
                        return Err(Failure::Connect(error.clone()));
                    }
                }
                // The task ends with the channel, which is still there, or with the runtime.
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
        if let Some(task) = self.task.get() {
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

    /// Tells those who wait that this attempt came to nothing.
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

/// Connects when somebody wants it, and after a loss until it works again.
async fn keep(shared: Arc<Shared>) {
    let mut pauses = retry_pauses();
    let mut lost = false;
    loop {
        if !lost {
            shared.wanted.notified().await;
        }
        shared.standing.send_modify(|standing| standing.connecting = Some(Instant::now()));
        match Connection::open(&shared.address, &shared.settings, CONNECT_TIMEOUT).await {
            Ok((connection, leaving)) => {
                shared.connection.store(Some(Arc::new(connection)));
                shared.standing.send_modify(|standing| {
                    (standing.down, standing.connecting) = (false, None);
                });
                // Whoever wanted it has it: that is no reason to connect once more.
                let _ = shared.wanted.notified().now_or_never();
                let since = Instant::now();
                let leaving = leaving.await;
                shared.connection.store(None);
                let held = since.elapsed();
                if held >= HELD || leaving == Ok(Leaving::Idle) {
                    pauses = retry_pauses();
                }
                match leaving {
                    // What nobody used is connected again when somebody does.
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
            // A call that has nowhere else to go does not wait for the pause's end.
            let _ = tokio::time::timeout(pause, shared.wanted.notified()).await;
        }
    }
}
