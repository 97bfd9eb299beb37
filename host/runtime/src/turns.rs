//! Which guest computes next. Plugins take turns, no matter how many calls each of them has.
//!
//! A call that does not finish in its first poll goes to the guests' threads ([`crate::threads`]).
//! There, each period of computing, at most one tick of the clock, needs a turn. There are fewer
//! turns than cores. A free turn goes to the next plugin in a circle, not to the next call, so a
//! plugin with a hundred loops gets as much time as a plugin with a single long call. Quick calls
//! end where they arrived and need no turn. (This is round robin over flows, as in Nagle's fair
//! queueing, RFC 970.)

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::oneshot;

thread_local! {
    static NEEDS_TURNS: Cell<bool> = const { Cell::new(false) };
}

/// The turns that plugins share. Clones share them too.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<Rota>>);

/// One plugin that takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow(u64);

struct Rota {
    free: usize,
    next_flow: u64,
    /// The queue of each plugin that waits. No queue is empty.
    waiting: BTreeMap<Flow, VecDeque<oneshot::Sender<Turn>>>,
    /// The plugin that had the last turn.
    last: Flow,
}

/// The right to compute. Dropping it passes it on to the next plugin.
struct Turn(Option<Turns>);

/// Whether guests that compute on this thread take turns.
pub(crate) fn are_needed_on_this_thread() -> bool {
    NEEDS_TURNS.get()
}

/// From now on, guests that compute on this thread take turns.
pub(crate) fn needed_on_this_thread() {
    NEEDS_TURNS.set(true);
}

impl Turns {
    pub(crate) fn new(turns: usize) -> Self {
        let (waiting, last) = (BTreeMap::new(), Flow(0));
        Turns(Arc::new(Mutex::new(Rota { free: turns, next_flow: 1, waiting, last })))
    }

    /// Adds a plugin.
    pub(crate) fn flow(&self) -> Flow {
        let mut state = self.state();
        state.next_flow += 1;
        Flow(state.next_flow)
    }

    /// Runs a guest. On the guests' threads, each poll of it needs a turn of its plugin. If it `begins`
    /// with work of the host that nothing can interrupt, its first poll needs none: a turn would keep
    /// all other guests waiting for the whole of that work.
    pub(crate) async fn run<F: Future>(
        &self,
        flow: Flow,
        mut guest: Pin<&mut F>,
        mut begins: bool,
    ) -> F::Output {
        let mut place: Option<oneshot::Receiver<Turn>> = None;
        std::future::poll_fn(|cx| {
            let turn = if NEEDS_TURNS.get() && !std::mem::take(&mut begins) {
                match place.as_mut().map(|place| pin!(place).poll(cx)) {
                    None => match self.take(flow) {
                        Ok(turn) => Some(turn),
                        Err(queued) => {
                            let place = place.insert(queued);
                            match pin!(place).poll(cx) {
                                Poll::Ready(Ok(turn)) => Some(turn),
                                Poll::Ready(Err(_)) => None,
                                Poll::Pending => return Poll::Pending,
                            }
                        }
                    },
                    Some(Poll::Ready(Ok(turn))) => Some(turn),
                    // A sender is only dropped together with all turns.
                    Some(Poll::Ready(Err(_))) => None,
                    Some(Poll::Pending) => return Poll::Pending,
                }
            } else {
                None
            };
            place = None;
            let polled = guest.as_mut().poll(cx);
            drop(turn);
            polled
        })
        .await
    }

    /// Returns a turn, or a place in the queue for one.
    fn take(&self, flow: Flow) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut state = self.state();
        if state.free > 0 {
            state.free -= 1;
            state.last = flow;
            return Ok(Turn(Some(self.clone())));
        }
        let (give, place) = oneshot::channel();
        state.waiting.entry(flow).or_default().push_back(give);
        Err(place)
    }

    /// Gives a turn to the next plugin that waits for one.
    fn pass_on(&self) {
        let mut turn = Turn(Some(self.clone()));
        loop {
            let Some(next) = self.state().next() else {
                turn.0 = None;
                return;
            };
            match next.send(turn) {
                Ok(()) => return,
                // That guest no longer waits.
                Err(refused) => turn = refused,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Rota> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rota {
    /// Takes the first waiting guest of the plugin that follows the one with the last turn. If no
    /// guest waits, the turn becomes free.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let after = (std::ops::Bound::Excluded(self.last), std::ops::Bound::Unbounded);
        let flow = self.waiting.range(after).next().or_else(|| self.waiting.iter().next());
        let Some(flow) = flow.map(|(flow, _)| *flow) else {
            self.free += 1;
            return None;
        };
        let queue = self.waiting.get_mut(&flow)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&flow);
        }
        self.last = flow;
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a guest that needs three turns, and logs each turn that it gets.
    async fn three_turns(turns: Turns, flow: Flow, log: Arc<Mutex<Vec<Flow>>>) {
        let mut left = 3;
        let guest = std::future::poll_fn(|cx| {
            log.lock().unwrap().push(flow);
            left -= 1;
            cx.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        turns.run(flow, pin!(guest), false).await;
    }

    #[tokio::test]
    async fn a_plugin_with_many_calls_gets_no_more_than_one_with_a_single_call() {
        needed_on_this_thread();
        let turns = Turns::new(1);
        let (many, single) = (turns.flow(), turns.flow());
        let log = Arc::default();
        let held = turns.take(many).ok();
        let tasks: Vec<_> = [many, many, many, many, single]
            .map(|flow| tokio::spawn(three_turns(turns.clone(), flow, Arc::clone(&log))))
            .into_iter()
            .collect();
        tokio::task::yield_now().await;
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 15);
        // If turns went to the next call, the third turn of `single` would be the fifteenth in all.
        // On one thread, `single` asks for its next turn only after another turn has begun, so it
        // gets every third.
        let singles = log.iter().take(8).filter(|flow| **flow == single).count();
        assert_eq!(singles, 3, "{log:?}");
    }

    #[tokio::test]
    async fn a_guest_that_begins_with_work_of_the_host_needs_a_turn_only_after_it() {
        needed_on_this_thread();
        let turns = Turns::new(1);
        let flow = turns.flow();
        let held = turns.take(flow).ok();
        let mut polls = 0;
        let mut guest = pin!(std::future::poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut run = pin!(turns.run(flow, guest.as_mut(), true));
        let once = std::future::poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_pending()));
        assert!(once.await, "it was polled, and goes on");
        let again = std::future::poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_pending()));
        assert!(again.await, "it waits for its turn");
        drop(held);
        run.await;
    }

    #[tokio::test]
    async fn a_turn_that_nobody_waits_for_any_more_is_not_lost() {
        needed_on_this_thread();
        let turns = Turns::new(1);
        let flow = turns.flow();
        let held = turns.take(flow).ok();
        let waiting = tokio::spawn(three_turns(turns.clone(), flow, Arc::default()));
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(held);
        assert_eq!(turns.state().free, 1);
    }
}
