//! The endpoints that a client connects to: one per address, whatever services it has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use crate::channel::{Channel, LinkState};
use crate::connection::{Connection, Settings};
use crate::error::Failure;

/// All endpoints that are in use.
pub(crate) struct Endpoints {
    settings: Arc<Settings>,
    by_address: Mutex<HashMap<Arc<str>, Weak<Endpoint>>>,
}

/// An address, and the connections to it.
pub(crate) struct Endpoint {
    address: Arc<str>,
    channels: Box<[Channel]>,
    turn: AtomicUsize,
}

impl Endpoints {
    pub(crate) fn new(settings: Settings) -> Self {
        Endpoints { settings: Arc::new(settings), by_address: Mutex::default() }
    }

    /// The endpoint at an address. It lives for as long as it is referenced.
    pub(crate) fn at(&self, address: &str) -> Arc<Endpoint> {
        let mut all = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(address).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, endpoint| endpoint.strong_count() > 0);
        let address: Arc<str> = address.into();
        let channel = |_| Channel::new(address.clone(), self.settings.clone());
        let endpoint = Arc::new(Endpoint {
            address: address.clone(),
            channels: (0..self.settings.connections.get()).map(channel).collect(),
            turn: AtomicUsize::new(0),
        });
        all.insert(address, Arc::downgrade(&endpoint));
        endpoint
    }
}

impl Endpoint {
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.condition() == LinkState::Ready
    }

    /// Ready if one of its channels is ready. Otherwise down if one of them is down.
    pub(crate) fn condition(&self) -> LinkState {
        let mut down = false;
        for channel in &self.channels {
            match channel.condition() {
                LinkState::Ready => return LinkState::Ready,
                LinkState::Untried => {}
                LinkState::Down => down = true,
            }
        }
        if down { LinkState::Down } else { LinkState::Untried }
    }

    /// Connects in the background, unless it is connected or down.
    pub(crate) fn start(&self) {
        self.channels.iter().for_each(Channel::start);
    }

    /// An open connection, if there is one. Several connections take turns.
    pub(crate) fn connection_at_hand(&self) -> Option<Arc<Connection>> {
        let several = match &*self.channels {
            [only] => return only.ready(),
            several => several,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = &several[turn % several.len()];
        first.ready().or_else(|| {
            // Use another one meanwhile.
            first.start();
            several.iter().find_map(Channel::ready)
        })
    }

    /// An open connection, as soon as there is one.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Failure> {
        if let Some(connection) = self.connection_at_hand() {
            return Ok(connection);
        }
        // The channel that was just started.
        let turn = self.turn.load(Ordering::Relaxed).wrapping_sub(1);
        self.channels[turn % self.channels.len()].connection(deadline).await
    }
}
