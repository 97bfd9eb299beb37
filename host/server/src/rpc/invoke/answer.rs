//! The answer of a call that runs in a task of its own. Whatever becomes of the task, it is answered or
//! counted as cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use wharf_wire::Status;

use super::methods::ResolvedMethod;
use super::{CallFailure, Outcome};

/// Where an outcome goes.
pub(super) enum Finish {
    /// To the connection that has the call under this id.
    Connection(u64, mpsc::UnboundedSender<(u64, Outcome)>),
    /// To whoever waits for this one call.
    Alone(oneshot::Sender<Outcome>),
}

impl Finish {
    fn send(self, outcome: Outcome) {
        // The caller may be gone.
        let _ = match self {
            Finish::Connection(id, sender) => sender.send((id, outcome)).map_err(drop),
            Finish::Alone(sender) => sender.send(outcome).map_err(drop),
        };
    }
}

/// Answers one call. If it is dropped before, the call's task was cancelled, or has panicked.
pub(super) struct Answer {
    method: Arc<ResolvedMethod>,
    arrived: Instant,
    /// `None` once the call is answered.
    finish: Option<Finish>,
    /// The calls of the host that run.
    running: Arc<AtomicU64>,
}

impl Answer {
    pub(super) fn new(
        method: Arc<ResolvedMethod>,
        arrived: Instant,
        finish: Finish,
        running: Arc<AtomicU64>,
    ) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Answer { method, arrived, finish: Some(finish), running }
    }

    pub(super) fn method(&self) -> &ResolvedMethod {
        &self.method
    }

    pub(super) fn give(mut self, outcome: Outcome) {
        if let Some(finish) = self.finish.take() {
            finish.send(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        let Some(finish) = self.finish.take() else { return };
        let took = self.arrived.elapsed();
        if !std::thread::panicking() {
            self.method.metrics.answered(Status::Cancelled, took);
            return;
        }
        self.method.metrics.answered(Status::Internal, took);
        let message =
            format!("{}: the call ended inside the host without a result", self.method.name);
        let failure =
            CallFailure { not_executed: false, ..CallFailure::refused(Status::Internal, message) };
        finish.send(Err(failure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::Door;
    use crate::metrics::{Memory, Metrics};

    #[tokio::test]
    async fn a_task_that_panics_is_answered_and_one_that_is_cancelled_is_counted() {
        let metrics = Metrics::new().unwrap();
        let method = Arc::new(ResolvedMethod {
            name: "arith.multiply".to_owned(),
            metrics: metrics.method(Door::Wharf, "demo:arith/arith@0.1.0", "multiply"),
        });
        let (finish, mut finished) = mpsc::unbounded_channel();
        let running = Arc::new(AtomicU64::new(0));
        let answer = |id| {
            let finish = Finish::Connection(id, finish.clone());
            Answer::new(method.clone(), Instant::now(), finish, running.clone())
        };
        let panics = answer(1);
        let task = tokio::spawn(async move {
            let _answer = panics;
            panic!("injected");
        });
        assert!(task.await.unwrap_err().is_panic());
        let (id, outcome) = finished.recv().await.unwrap();
        let failure = outcome.unwrap_err();
        assert_eq!((id, failure.status, failure.not_executed), (1, Status::Internal, false));
        assert!(failure.message.contains("arith.multiply: the call ended"), "{}", failure.message);

        let waits = answer(2);
        let task = tokio::spawn(async move {
            let _answer = waits;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(finished.try_recv().is_err(), "nobody waits for it");
        assert_eq!(running.load(Ordering::Relaxed), 0);
        let text = metrics.render(std::iter::empty(), Memory::default()).unwrap();
        assert!(
            text.lines().any(|line| line.contains("CANCELLED") && line.ends_with(" 1")),
            "{text}"
        );
    }
}
