//! Logs what is refused, for whoever wonders why something is not registered. Callers decide how much that
//! is, so only so many lines are written.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{Method, StatusCode};
use governor::{DefaultDirectRateLimiter, Quota};

/// The most lines a second.
const LINES: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// The longest path and the longest reason in a line, in bytes.
const LONGEST: [usize; 2] = [200, 400];

/// Why a request is refused. Its answer carries this.
#[derive(Clone)]
pub(super) struct Why(pub(super) String);

/// What was asked for, and by whom.
pub(super) struct Asked {
    pub(super) peer: Option<IpAddr>,
    pub(super) method: Method,
    pub(super) path: String,
}

/// Writes the lines.
pub(super) struct Refusals {
    limiter: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        let limiter = DefaultDirectRateLimiter::direct(Quota::per_second(LINES));
        Refusals { limiter, left_out: AtomicU64::new(0) }
    }
}

impl Refusals {
    pub(super) fn log(&self, asked: &Asked, status: StatusCode, why: &Why) {
        if self.limiter.check().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let left_out = (left_out > 0).then_some(left_out);
        let Asked { peer, method, path } = asked;
        let peer = peer.map(tracing::field::display);
        let cut = |text: &str, at: usize| text[..text.floor_char_boundary(at)].to_owned();
        let (path, why) = (cut(path, LONGEST[0]), cut(&why.0, LONGEST[1]));
        let status = status.as_u16();
        tracing::info!(peer, %method, path, status, why, left_out, "a request was refused");
    }
}
