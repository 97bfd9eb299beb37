//! The loads: how many callers, on how many connections, make which calls.

use std::time::Duration;

/// A load on a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Callers of each connection; each waits for its answer before it calls again.
    pub(crate) in_flight: usize,
    pub(crate) work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The product of two integers.
    Multiply,
    /// This many bytes to the server and back.
    Echo(usize),
}

/// The result of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) calls: u64,
    pub(crate) took: Duration,
    /// The median latency of a call; `None` if calls are not timed one by one.
    pub(crate) p50: Option<Duration>,
}

impl Load {
    pub(crate) fn all() -> impl Iterator<Item = Load> {
        let multiply =
            |connections, in_flight| Load { connections, in_flight, work: Work::Multiply };
        let echo = Load { connections: 1, in_flight: 8, work: Work::Echo(64 * 1024) };
        [multiply(1, 1), multiply(1, 64), multiply(1, 256), multiply(8, 32), echo].into_iter()
    }

    pub(crate) fn name(&self) -> String {
        let work = match self.work {
            Work::Multiply => "multiply".to_owned(),
            Work::Echo(bytes) => format!("echo of {} KiB", bytes / 1024),
        };
        match self.connections {
            1 => format!("{work}, {} in flight", self.in_flight),
            several => format!("{work}, {several} connections x {}", self.in_flight),
        }
    }
}

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(crate) fn calls_per_second(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }
}
