//! Which of a service's endpoints a call is sent to.
//!
//! Of those that serve the version that is meant, two are drawn at random, and the one that has less
//! to do is asked (the power of two choices; Mitzenmacher 2001). Those that failed often are left out
//! for a while, those that cannot be connected to are tried in the background.

mod load;
mod node;
mod outlier;
mod selection;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::node::{InFlight, Node};
pub(crate) use self::selection::{KnownNodes, Wanted, direct, select};

use self::node::Fitness;

/// For how long a node that has refused a method for good is not asked for it.
const REFUSED: Duration = Duration::from_secs(5);

/// The nodes that would do for a method, by one list, and how they are chosen among.
pub(crate) struct Selection {
    nodes: Vec<Arc<Node>>,
    /// Those that do not serve the method after all, and until when that is believed.
    refused: Mutex<Vec<(Arc<Node>, Instant)>>,
    /// Whether there are any of these.
    some_refused: AtomicBool,
}

impl Selection {
    fn new(nodes: Vec<Arc<Node>>) -> Self {
        Selection { nodes, refused: Mutex::default(), some_refused: AtomicBool::new(false) }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The node to ask next, other than those that were asked; `None` when all were.
    pub(crate) fn pick(&self, now: Instant, asked: &[Arc<Node>]) -> Option<&Arc<Node>> {
        if asked.is_empty() {
            if let [only] = &self.nodes[..] {
                return Some(only);
            }
            // Nearly always, both that are drawn will do.
            if let Some((a, b)) = draw_two(&self.nodes) {
                // If one will not, taking the other would leave no choice: whoever is fit is drawn
                // among instead.
                if let (Fitness::Fit(x), Fitness::Fit(y)) =
                    (self.fitness(a, now), self.fitness(b, now))
                {
                    return Some(if x <= y { a } else { b });
                }
            }
        }
        let (mut fit, mut untried, mut unfit, mut down) = (vec![], vec![], vec![], vec![]);
        for node in self.nodes.iter().filter(|node| !asked.iter().any(|a| a.is_same(node))) {
            match self.fitness(node, now) {
                Fitness::Fit(weight) => fit.push((node, weight)),
                Fitness::Untried => untried.push((node, 0.0)),
                Fitness::Unfit(weight) => unfit.push((node, weight)),
                Fitness::Down => down.push((node, 0.0)),
            }
        }
        if !fit.is_empty() {
            // Next time they will be there; this call need not wait for them.
            untried.iter().for_each(|(node, _)| node.endpoint.start());
        }
        let groups = [fit, untried, unfit, down];
        groups.into_iter().find(|group| !group.is_empty()).and_then(|group| {
            match draw_two(&group) {
                Some((a, b)) => Some(if a.1 <= b.1 { a.0 } else { b.0 }),
                None => group.first().map(|only| only.0),
            }
        })
    }

    /// Whether a call need not wait for a connection, since somebody else is ready to be asked.
    pub(crate) fn has_other_ready(&self, node: &Node, asked: &[Arc<Node>]) -> bool {
        self.nodes.iter().any(|other| {
            !other.is_same(node)
                && !asked.iter().any(|asked| asked.is_same(other))
                && other.endpoint.is_connected()
        })
    }

    /// A node does not serve the method, whatever the list says.
    pub(crate) fn refuse(&self, node: &Arc<Node>, now: Instant) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|(other, until)| now < *until && !other.is_same(node));
        refused.push((node.clone(), now + REFUSED));
        self.some_refused.store(true, Ordering::Relaxed);
    }

    fn fitness(&self, node: &Node, now: Instant) -> Fitness {
        let fitness = node.fitness(now);
        match fitness {
            Fitness::Fit(weight) if self.has_refused(node, now) => Fitness::Unfit(weight),
            _ => fitness,
        }
    }

    fn has_refused(&self, node: &Node, now: Instant) -> bool {
        if !self.some_refused.load(Ordering::Relaxed) {
            return false;
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().any(|(other, until)| now < *until && other.is_same(node))
    }

    /// A node failed once too often: it is left out for a while, unless too many are already.
    pub(crate) fn eject(&self, node: &Node, now: Instant, one_at_a_time: &Mutex<()>) {
        let _guard = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let ejected = self.nodes.iter().filter(|node| node.is_ejected(now)).count();
        if ejected < outlier::most_ejected(self.nodes.len()) && !node.is_ejected(now) {
            let time = node.eject(now);
            let address = node.endpoint.address();
            tracing::warn!(%address, service = %node.name, ?time, "an endpoint fails again and again, and is left out for a while");
        }
    }
}

/// Two different ones at random; `None` where there are no two.
fn draw_two<T>(all: &[T]) -> Option<(&T, &T)> {
    if all.len() < 2 {
        return None;
    }
    let first = fastrand::usize(..all.len());
    let second = (first + fastrand::usize(1..all.len())) % all.len();
    Some((all.get(first)?, all.get(second)?))
}
