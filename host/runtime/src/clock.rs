//! The clock that interrupts guests: it ticks while any runs, and rests while none does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

/// How often running guests are interrupted, to look at their deadline and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// How long the clock rests at most before it looks whether its engine still exists.
const REST: Duration = Duration::from_secs(10);

/// Ticks without any guest running after which the clock rests.
const REST_AFTER: u32 = 200;

/// The clock as its users see it: guests keep it going, and it rests when none runs.
///
/// A quick call only looks at one flag, which is nearly always set already: such calls share no cache
/// line that any of them writes.
#[derive(Clone)]
pub(crate) struct Clock {
    hands: Arc<Hands>,
    thread: Thread,
}

/// A guest that did not come to its end at once.
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

/// What the clock's thread and its users tell each other.
#[derive(Default)]
struct Hands {
    /// A guest began, or was seen running at a tick, since the thread looked last.
    active: AtomicBool,
    /// Guests that did not come to their end at once.
    waiting: AtomicUsize,
    /// The thread has stopped ticking, or is about to.
    resting: AtomicBool,
}

impl Clock {
    /// Starts the thread that ticks for an engine, for as long as that exists.
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
                // In a host call it may wait for longer than the clock goes on by itself, and
                // compute again after that. A quick call never comes here.
                waiting.get_or_insert_with(|| Waiting::new(self));
            }
            polled
        })
        .await
    }

    fn guest_begins(&self) {
        if self.hands.active.load(Ordering::Relaxed) {
            // The thread ticks on for many ticks before it rests, and at the next one this guest
            // is seen running.
            return;
        }
        self.hands.active.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// What keeps the clock going is written before this looks whether it rests; the thread does it
    /// the other way round. So either it sees the one, or we see the other.
    fn wake(&self) {
        if self.hands.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// A guest was interrupted by a tick: it runs still.
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
                // Not for ever: an engine that is gone unparks nobody.
                std::thread::park_timeout(REST);
            }
            hands.resting.store(false, Ordering::SeqCst);
        }
    }
}
