//! Which of a service's endpoints a call is sent to.
//!
//! Of those that serve the version that is meant, two are drawn at random, and the one that has less
//! to do is asked (the power of two choices; Mitzenmacher 2001). Those that failed often are left out
//! for a while, those that cannot be connected to are tried in the background.

mod load;
mod node;
mod outlier;
mod selection;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub(crate) use self::node::Node;
pub(crate) use self::selection::{Listed, Wanted, direct, select};

use self::node::Fitness;

/// The nodes that would do for a call, and how they are chosen among.
pub(crate) struct Selection {
    nodes: Vec<Arc<Node>>,
}

impl Selection {
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
                if let (Fitness::Fit(x), Fitness::Fit(y)) = (a.fitness(now), b.fitness(now)) {
                    return Some(if x <= y { a } else { b });
                }
            }
        }
        let (mut fit, mut unfit, mut down) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.nodes.iter().filter(|node| !asked.iter().any(|a| a.is_same(node))) {
            match node.fitness(now) {
                Fitness::Fit(weight) => fit.push((node, weight)),
                Fitness::Unfit(weight) => unfit.push((node, weight)),
                Fitness::Down => down.push((node, 0.0)),
            }
        }
        [fit, unfit, down].into_iter().find(|group| !group.is_empty()).and_then(|group| {
            match draw_two(&group) {
                Some((a, b)) => Some(if a.1 <= b.1 { a.0 } else { b.0 }),
                None => group.first().map(|only| only.0),
            }
        })
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
