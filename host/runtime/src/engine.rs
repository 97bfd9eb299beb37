//! The one wasmtime engine of a process, and the clock that interrupts its guests.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, EngineWeak};

use crate::instance::State;

/// How often running guests are interrupted, to look at their deadline and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Native stack that a guest may use before it is told that its stack overflowed.
const GUEST_STACK: usize = 512 * 1024;

/// How long the clock rests at most before it looks whether its engine still exists.
const REST: Duration = Duration::from_secs(10);

/// Ticks without any guest running after which the clock rests.
const REST_AFTER: u32 = 200;

/// Compiles and runs plugins. One serves a whole process; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) clock: Clock,
}

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
    /// Runs a guest: the clock ticks until the future ends, or is dropped.
    pub(crate) async fn during<F: Future>(&self, guest: F) -> F::Output {
        let mut guest = pin!(guest);
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

/// An engine that cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not support this machine, or a setting of ours.
    #[error("the WebAssembly engine cannot start: {0}")]
    Wasmtime(String),
    /// No thread for the clock.
    #[error("no thread for the engine's clock")]
    Thread(#[from] std::io::Error),
}

impl Engine {
    /// An engine, with the thread that ticks for it as long as a clone of it lives.
    ///
    /// # Errors
    /// When the machine supports no engine.
    pub fn new() -> Result<Self, EngineError> {
        let mut config = Config::new();
        config
            // Five times as fast a call, for plugins without async exports: all of ours.
            .concurrency_support(false)
            .epoch_interruption(true)
            .wasm_component_model_fixed_length_lists(true)
            .max_wasm_stack(GUEST_STACK);
        let failed = |error: wasmtime::Error| EngineError::Wasmtime(format!("{error:#}"));
        let wasmtime = wasmtime::Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(failed)?;
        let (weak, hands) = (wasmtime.weak(), Arc::<Hands>::default());
        let ticking = hands.clone();
        let thread = std::thread::Builder::new()
            .name("wharf-epoch".into())
            .spawn(move || tick(&weak, &ticking))?;
        let clock = Clock { hands, thread: thread.thread().clone() };
        Ok(Engine { wasmtime, linker, clock })
    }

    /// Whether the clock rests since no guest has run for a while; for tests of just that.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.clock.hands.resting.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
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
