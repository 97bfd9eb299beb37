//! The endpoints that a client connects to: one per address, whatever services it has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use crate::channel::{Channel, LinkState};
use crate::connection::Connection;
use crate::error::Failure;
use crate::settings::Settings;

/// Fewer addresses than this are not cleaned.
const MIN_CLEAN: usize = 16;

/// All endpoints that are in use.
pub(crate) struct Endpoints {
    settings: Arc<Settings>,
    by_address: Mutex<ByAddress>,
}

#[derive(Default)]
struct ByAddress {
    /// By address, and by host where hosts are verified.
    endpoints: HashMap<Arc<str>, Weak<Endpoint>>,
    /// Those that are gone are removed when there are this many. Looking for them at each new address
    /// would take a time that grows with the square of the list.
    clean_at: usize,
}

/// An address, and the connections to it.
pub(crate) struct Endpoint {
    address: Arc<str>,
    channels: Box<[Channel]>,
    /// Whether the host has to prove its name.
    is_verified: bool,
    turn: AtomicUsize,
}

impl Endpoints {
    pub(crate) fn new(settings: Settings) -> Self {
        Endpoints { settings: Arc::new(settings), by_address: Mutex::default() }
    }

    /// The endpoint at an address, which has to be the host of this name if hosts are verified. It lives for
    /// as long as it is referenced.
    pub(crate) fn at(&self, address: &str, host: &str) -> Arc<Endpoint> {
        let key: Arc<str> = match self.settings.security.is_on() {
            true => format!("{address} {host}").into(),
            false => address.into(),
        };
        let mut all = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let ByAddress { endpoints, clean_at } = &mut *all;
        if let Some(known) = endpoints.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if endpoints.len() >= *clean_at {
            endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
            *clean_at = (2 * endpoints.len()).max(MIN_CLEAN);
        }
        let (address, host): (Arc<str>, Arc<str>) = (address.into(), host.into());
        let channel = |_| Channel::new(address.clone(), host.clone(), self.settings.clone());
        let endpoint = Arc::new(Endpoint {
            address: address.clone(),
            channels: (0..self.settings.connections.get()).map(channel).collect(),
            is_verified: self.settings.security.is_on(),
            turn: AtomicUsize::new(0),
        });
        endpoints.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }
}

impl Endpoint {
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether its host has to prove its name.
    pub(crate) fn is_verified(&self) -> bool {
        self.is_verified
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_uses_are_forgotten() {
        let endpoints = Endpoints::new(Settings::default());
        let kept = endpoints.at("kept:1", "kept");
        for number in 0..10_000 {
            drop(endpoints.at(&format!("h{number}:1"), "h"));
        }
        assert!(endpoints.by_address.lock().unwrap().endpoints.len() <= 2 * MIN_CLEAN);
        assert!(Arc::ptr_eq(&kept, &endpoints.at("kept:1", "kept")));
    }
}
