//! Keeps a panic where it happened. A panic under a call, in the engine or in a data path, ends that call
//! and its instance, and nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// Runs a future. If it panics, returns what the panic says. What the future owns was dropped then.
///
/// The future is passed by reference. By value, it would take its full size in each future that
/// contains it.
pub(crate) async fn contained<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, String> {
    std::future::poll_fn(|cx| {
        // Nothing is seen again of what a panic has left half changed: the future is not polled
        // again, its instance is dropped, and all else is behind locks that are held for a few
        // assignments.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(words(&*panic))),
        }
    })
    .await
}

/// Drops a value that may panic while it is dropped. That is logged, and goes no further.
pub(crate) fn drop_value<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(panic = words(&*panic), "ending an instance failed inside the host");
    }
}

/// What a panic says, in one line.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    let text = &text[..text.floor_char_boundary(MAX_WORDS)];
    text.replace(char::is_control, " ")
}

/// The most bytes of a panic's text.
const MAX_WORDS: usize = 300;

/// Panics for the tests, at the stages of a call.
#[cfg(test)]
pub(crate) mod inject {
    use std::sync::Mutex;

    /// Where a call may panic.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Stage {
        Begin,
        Guest,
        Result,
        Instantiate,
        EndInstance,
    }

    /// By the name of the plugin, since tests run beside each other.
    static ARMED: Mutex<Vec<(Stage, String)>> = Mutex::new(Vec::new());

    /// The next call of `plugin` that reaches `stage` panics there.
    pub(crate) fn arm(stage: Stage, plugin: &str) {
        ARMED.lock().unwrap().push((stage, plugin.to_owned()));
    }

    /// Panics if this stage of this plugin is armed.
    pub(crate) fn reach(stage: Stage, plugin: &str) {
        let armed = {
            let mut armed = ARMED.lock().unwrap();
            let at = armed.iter().position(|(s, name)| *s == stage && name == plugin);
            at.map(|at| armed.remove(at))
        };
        assert!(armed.is_none(), "injected at {stage:?}");
    }

    /// Whether nothing of `plugin` is armed any more.
    pub(crate) fn is_done(plugin: &str) -> bool {
        ARMED.lock().unwrap().iter().all(|(_, name)| name != plugin)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;

    use super::inject::{self, Stage};
    use crate::{Candidate, Engine, InvokeError, MethodIndex, Plugin, Settings};

    const SEVEN: &str = r#"(component
        (core module $m (func (export "f") (result i32) i32.const 7))
        (core instance $i (instantiate $m))
        (func $f (result u32) (canon lift (core func $i "f")))
        (instance $x (export "f" (func $f)))
        (export "a:b/x" (instance $x)))"#;

    async fn call(plugin: &Plugin) -> Result<Bytes, InvokeError> {
        let (method, now) = (MethodIndex { service: 0, method: 0 }, Instant::now());
        plugin.clone().call(method, Bytes::new(), now, now + Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn a_panic_at_any_stage_of_a_call_ends_that_call_alone() {
        let engine = Engine::new(None).unwrap();
        for codec in [true, false] {
            for stage in [Stage::Begin, Stage::Guest, Stage::Result] {
                let candidate = Candidate::read(wat::parse_str(SEVEN).unwrap()).await.unwrap();
                let candidate = if codec { candidate } else { candidate.without_codec() };
                let name = format!("{stage:?}-{codec}");
                let plugin = candidate.load(&engine, &name, Settings::default()).await.unwrap();
                assert_eq!(plugin.uses_codec(), codec);
                inject::arm(stage, &name);
                let error = call(&plugin).await.unwrap_err();
                assert!(matches!(error, InvokeError::Panicked(_)), "{stage:?}: {error}");
                assert!(error.to_string().contains("injected at"), "{error}");
                assert!(!error.not_executed());
                for _ in 0..3 {
                    assert_eq!(&call(&plugin).await.unwrap()[..], [7], "{stage:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_panic_while_instances_are_made_and_ended_loses_no_instance_and_no_call() {
        let engine = Engine::new(None).unwrap();
        let settings = || {
            let mut settings = Settings::default();
            settings.isolation.reuse = std::num::NonZeroU32::new(1);
            settings.limits.instances = 2;
            settings
        };
        for stage in [Stage::Instantiate, Stage::EndInstance] {
            let name = format!("{stage:?}");
            let candidate = Candidate::read(wat::parse_str(SEVEN).unwrap()).await.unwrap();
            let plugin = candidate.load(&engine, &name, settings()).await.unwrap();
            inject::arm(stage, &name);
            let mut failed = 0;
            // Each call uses an instance up, so that others are made and ended.
            for _ in 0..50 {
                failed += u32::from(call(&plugin).await.is_err());
            }
            assert!(inject::is_done(&name), "{stage:?} was never reached");
            assert!(failed <= 1, "{stage:?}: {failed} calls failed");
        }
        let candidate = Candidate::read(wat::parse_str(SEVEN).unwrap()).await.unwrap();
        inject::arm(Stage::Instantiate, "first");
        let error = candidate.load(&engine, "first", settings()).await.unwrap_err().to_string();
        assert!(
            error.contains("its first instance does not start: the call failed inside"),
            "{error}"
        );
    }
}
