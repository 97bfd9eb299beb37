//! The clock that interrupts guests. It ticks while a guest runs, and rests while none runs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

/// How often running guests are interrupted, to check their deadline and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// The longest rest before the clock checks whether its engine still exists.
const REST: Duration = Duration::from_secs(10);

/// The clock rests after this many ticks without a running guest.
const REST_AFTER: u32 = 200;

/// A handle to the clock. Guests keep it ticking, and it rests when no guest runs.
///
/// A quick call only reads one flag, which is nearly always set already. It writes nothing, so
/// quick calls do not contend for a cache line.
#[derive(Clone)]
pub(crate) struct Clock {
    hands: Arc<Hands>,
    thread: Thread,
}

/// A guest that did not finish in its first poll.
struct Waiting(Arc<Hands>);

impl Waiting {
    fn new(clock: &Clock) -> Self {
        clock.hands.waiting.fetch_add(1, Ordering::SeqCst);
        clock.wake();
        Waiting(clock.hands.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The flags that the clock's thread and its users share.
#[derive(Default)]
struct Hands {
    /// A guest has begun, or was running at a tick, since the thread last checked.
    active: AtomicBool,
    /// How many guests did not finish in their first poll and still run.
    waiting: AtomicUsize,
    /// The thread has stopped ticking, or is about to.
    resting: AtomicBool,
}

impl Clock {
    /// Starts the thread that ticks for an engine, for as long as the engine exists.
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let hands = Arc::<Hands>::default();
        let ticking = hands.clone();
        let thread = std::thread::Builder::new()
            .name("wharf-epoch".into())
            .spawn(move || tick(&engine, &ticking))?;
        Ok(Clock { hands, thread: thread.thread().clone() })
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.hands.resting.load(Ordering::SeqCst)
    }

    /// Runs a guest: the clock ticks until the future ends, or is dropped.
    pub(crate) async fn during<F: Future>(&self, mut guest: Pin<&mut F>) -> F::Output {
        let mut waiting = None;
        self.guest_begins();
        std::future::poll_fn(|cx| {
            let polled = guest.as_mut().poll(cx);
            if polled.is_pending() {
                // The guest may wait in a host call until the clock would rest, and then compute
                // again. The count keeps the clock ticking. A quick call never comes here.
                waiting.get_or_insert_with(|| Waiting::new(self));
            }
            polled
        })
        .await
    }

    fn guest_begins(&self) {
        if self.hands.active.load(Ordering::Relaxed) {
            // The thread ticks many more times before it rests. If this guest still runs at the
            // next tick, the tick sets the flag again.
            return;
        }
        self.hands.active.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the thread if it rests. The caller sets `active` or `waiting` first, then this reads
    /// `resting`. The thread does the reverse: it sets `resting` first, then reads the other two.
    /// So either the thread sees the guest, or this sees that the thread rests.
    fn wake(&self) {
        if self.hands.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// A tick interrupted a guest, so the guest still runs.
    pub(crate) fn guest_runs(&self) {
        self.hands.active.store(true, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which does nothing but this")]
fn tick(engine: &EngineWeak, hands: &Hands) {
    let mut idle = 0;
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        std::thread::sleep(TICK);
        let waiting = || hands.waiting.load(Ordering::SeqCst) > 0;
        let busy = hands.active.swap(false, Ordering::SeqCst) || waiting();
        idle = if busy { 0 } else { idle + 1 };
        if idle >= REST_AFTER {
            hands.resting.store(true, Ordering::SeqCst);
            if !hands.active.load(Ordering::SeqCst) && !waiting() {
                // Not for ever: if the engine is dropped, nothing unparks this thread.
                std::thread::park_timeout(REST);
            }
            hands.resting.store(false, Ordering::SeqCst);
        }
    }
}
