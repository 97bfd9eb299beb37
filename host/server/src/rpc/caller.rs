//! Who calls on a connection, and how.

use std::net::SocketAddr;
use std::sync::Arc;

use wharf_net::budget::Payer;
use wharf_net::principals::Principal;
use wharf_net::tls::Names;

use crate::doors::Door;

/// Who calls on a connection, and how.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) door: Door,
    /// The names in its certificate, if it showed one.
    pub(crate) names: Option<Arc<Names>>,
    /// Who it is, as far as it has shown that.
    pub(crate) who: Arc<Principal>,
}

impl Caller {
    /// Who pays for what it takes of the host.
    pub(crate) fn payer(&self) -> Payer {
        match self.who.payer() {
            Some(name) => Payer::Principal(name.clone()),
            None => Payer::Address(self.peer.ip()),
        }
    }
}
