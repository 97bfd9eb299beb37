//! Load balancing: which of a service's endpoints a call is sent to.
//!
//! Of the endpoints that serve the wanted version, two are drawn at random, and the less loaded one
//! is called (the power of two choices; Mitzenmacher 2001). Endpoints that failed often are ejected
//! for a while. Endpoints without a connection are connected in the background.

mod load;
mod node;
mod outlier;
mod selection;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::node::{InFlight, NetRpcName, Node};
pub(crate) use self::selection::{KnownNodes, Wanted, direct, net_rpc_nodes, select};

use self::node::Fitness;

/// How long a node that refused a method is avoided for that method.
const REFUSED: Duration = Duration::from_secs(5);

/// The nodes of one list that can serve a method, and the choice among them.
pub(crate) struct Selection {
    nodes: Vec<Arc<Node>>,
    /// Nodes that do not serve the method although they are listed, and until when to avoid them.
    refused: Mutex<Vec<(Arc<Node>, Instant)>>,
    /// Whether any node was ever added to `refused`. It saves taking the lock.
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

    /// The next node to call, other than those in `asked`; `None` if there is no other.
    pub(crate) fn pick(&self, now: Instant, asked: &[Arc<Node>]) -> Option<&Arc<Node>> {
        if asked.is_empty() {
            if let [only] = &self.nodes[..] {
                return Some(only);
            }
            // Nearly always, both drawn nodes are fit.
            if let Some((a, b)) = draw_two(&self.nodes) {
                // If only one is fit, taking it would leave no choice. So the draw is repeated
                // below, among the fit nodes only.
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
            // Connect them in the background. This call does not wait; a later one can use them.
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

    /// Whether a call need not wait for this node's connection, because another node is connected.
    pub(crate) fn has_other_ready(&self, node: &Node, asked: &[Arc<Node>]) -> bool {
        self.nodes.iter().any(|other| {
            !other.is_same(node)
                && !asked.iter().any(|asked| asked.is_same(other))
                && other.endpoint.is_connected()
        })
    }

    /// Records that a node does not serve the method, although it is listed.
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

    /// Ejects a node that failed too often, unless too many nodes are ejected already.
    pub(crate) fn eject(&self, node: &Node, now: Instant, one_at_a_time: &Mutex<()>) {
        let _guard = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let ejected = self.nodes.iter().filter(|node| node.is_ejected(now)).count();
        if ejected < outlier::most_ejected(self.nodes.len()) && !node.is_ejected(now) {
            let time = node.eject(now);
            let address = node.endpoint.address();
            tracing::warn!(%address, service = %node.name, ?time, "an endpoint failed repeatedly and is ejected for a while");
        }
    }
}

/// Two different elements at random; `None` if there are fewer than two.
fn draw_two<T>(all: &[T]) -> Option<(&T, &T)> {
    if all.len() < 2 {
        return None;
    }
    let first = fastrand::usize(..all.len());
    let second = (first + fastrand::usize(1..all.len())) % all.len();
    Some((all.get(first)?, all.get(second)?))
}
