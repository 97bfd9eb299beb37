//! What a host holds of a connection's large arguments. A call whose arguments have no room waits before
//! it is sent, and holds up no other.

use tokio::sync::{Semaphore, SemaphorePermit};
use wharf_wire::{Negotiated, limits};

/// Bytes that one permit stands for.
const UNIT: u64 = 1024;

/// The credit for arguments that go in chunks. The host counts them until their call has ended, and so
/// do we.
pub(super) struct Credit {
    permits: Semaphore,
    all: u32,
    /// Arguments beyond this many bytes need credit.
    small: u64,
}

impl Credit {
    pub(super) fn new(agreed: &Negotiated) -> Self {
        // A permit too many could not be given back.
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u64;
        let units = (agreed.window / UNIT).clamp(1, most);
        let all = u32::try_from(units).unwrap_or(u32::MAX);
        let small = limits::largest_whole(agreed.chunk) as u64;
        Credit { permits: Semaphore::new(all as usize), all, small }
    }

    pub(super) fn is_needed_for(&self, len: u64) -> bool {
        len > self.small
    }

    /// Waits for credit for `len` bytes, in the order of those who wait. Arguments beyond the whole
    /// credit go alone. Dropping what is returned gives it back.
    ///
    /// Cancel safe: nothing is taken if the future is dropped.
    pub(super) async fn take(&self, len: u64) -> Option<SemaphorePermit<'_>> {
        let units = u32::try_from(len.div_ceil(UNIT)).unwrap_or(u32::MAX);
        // It is never closed.
        self.permits.acquire_many(units.min(self.all)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use wharf_wire::{Hello, negotiate};

    use super::*;

    #[tokio::test]
    async fn large_arguments_wait_in_their_order_and_any_size_has_its_turn() {
        let hello = Hello { window: 100 * UNIT, ..Hello::ours() };
        let credit = Credit::new(&negotiate(&hello).unwrap());
        assert!(!credit.is_needed_for(1000) && !credit.is_needed_for(73_728));
        assert!(credit.is_needed_for(73_729));
        let mut cx = Context::from_waker(Waker::noop());
        let all = credit.take(1 << 40).await;
        let mut large = Box::pin(credit.take(90 * UNIT));
        let mut small = Box::pin(credit.take(20 * UNIT));
        assert!(large.as_mut().poll(&mut cx).is_pending());
        assert!(small.as_mut().poll(&mut cx).is_pending());
        drop(all);
        let large = large.await;
        assert!(small.as_mut().poll(&mut cx).is_pending(), "it does not fit beside the large one");
        drop(large);
        assert!(small.await.is_some());
        for window in [0, u64::MAX] {
            let hello = Hello { window, ..Hello::ours() };
            assert!(Credit::new(&negotiate(&hello).unwrap()).take(u64::MAX).await.is_some());
        }
    }
}
