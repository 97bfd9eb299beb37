//! Two lanes for compilations: a quick one for small components, and a slow one for large components
//! and for small ones that take long.
//!
//! A component's size does not tell how long it takes. So a compilation in the quick lane that takes
//! long moves to the slow one, or, if that is full, is ended and begins again there. No component keeps
//! a small one waiting for longer than that.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::LARGE;
use super::process::{Compiled, CompilerProcess};
use crate::error::CompileError;

/// How long a compilation may stay in the quick lane while the slow one has room.
const QUICK: Duration = Duration::from_secs(3);

/// How long it may stay there at most.
const MOST: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Lanes {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    bounds: (Duration, Duration),
}

impl Lanes {
    /// Lanes for a machine with so many cores.
    pub(super) fn new(cores: usize) -> Self {
        Lanes::with(cores, (QUICK, MOST))
    }

    fn with(cores: usize, bounds: (Duration, Duration)) -> Self {
        // A compilation uses several cores if they are free, at a lower priority than calls.
        let slow = cores.saturating_sub(1).clamp(1, 4);
        Lanes {
            quick: Arc::new(Semaphore::new(cores.clamp(1, 4))),
            slow: Arc::new(Semaphore::new(slow)),
            bounds,
        }
    }

    /// Compiles a component in its lane.
    pub(super) async fn compile(
        &self,
        process: &CompilerProcess,
        component: &[u8],
    ) -> Result<Compiled, CompileError> {
        if component.len() < LARGE
            && let Some(compiled) = self.quickly(process, component).await
        {
            return compiled;
        }
        let _place = place(&self.slow).await;
        process.compile(component).await
    }

    /// Compiles a component in the quick lane. `None` if it takes too long for it.
    async fn quickly(
        &self,
        process: &CompilerProcess,
        component: &[u8],
    ) -> Option<Result<Compiled, CompileError>> {
        let (quick, most) = self.bounds;
        let in_quick_lane = place(&self.quick).await;
        let mut compiling = pin!(process.compile(component));
        tokio::select! {
            compiled = &mut compiling => return Some(compiled),
            () = tokio::time::sleep(quick) => {}
        }
        let _in_slow_lane = tokio::select! {
            compiled = &mut compiling => return Some(compiled),
            place = place(&self.slow) => place,
            () = tokio::time::sleep(most.saturating_sub(quick)) => return None,
        };
        drop(in_quick_lane);
        Some(compiling.await)
    }
}

/// A place in a lane. The semaphores are never closed, so there always is one.
async fn place(lane: &Semaphore) -> Option<SemaphorePermit<'_>> {
    lane.acquire().await.ok()
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsString;
    use std::time::Instant;

    use super::*;

    fn process(script: &str) -> CompilerProcess {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        CompilerProcess { command, memory: 64 << 20, time: Duration::from_secs(60) }
    }

    #[tokio::test]
    async fn components_that_take_long_do_not_keep_out_one_that_does_not() {
        let lanes = Lanes::with(1, (Duration::from_millis(50), Duration::from_millis(200)));
        let slow: Vec<_> = (0..4)
            .map(|_| {
                let lanes = lanes.clone();
                tokio::spawn(async move { lanes.compile(&process("sleep 50"), b"x").await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        assert!(lanes.compile(&process("cat"), b"x").await.is_ok());
        // It waits for each of the four at most once, and not for any of them to end.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        for slow in slow {
            slow.abort();
        }
    }
}
