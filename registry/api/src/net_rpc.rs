//! Services of Go's net/rpc, which register by `/register`.

use serde::{Deserialize, Serialize};

use crate::{EndpointSpec, Metadata};

/// How a service of Go's net/rpc encodes its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RpcProtocol {
    /// gob, as `rpc.ServeConn` does.
    #[default]
    Gob,
    /// JSON-RPC 1.0, as `jsonrpc.ServeConn` does.
    JsonRpc,
}

/// An endpoint that speaks Go's net/rpc, and not Wharf's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetRpc<'s> {
    /// The service, as it registered itself: `Arith`.
    pub name: &'s str,
    /// How it encodes its messages.
    pub protocol: RpcProtocol,
}

/// The metadata by which lists tell such endpoints.
const PROTOCOL: &str = "net-rpc";
const NAME: &str = "net-rpc-name";

impl<'s> NetRpc<'s> {
    /// Adds what tells it to an endpoint's metadata.
    pub fn describe(&self, metadata: &mut Metadata) {
        let protocol = match self.protocol {
            RpcProtocol::Gob => "gob",
            RpcProtocol::JsonRpc => "jsonrpc",
        };
        metadata.insert(PROTOCOL.to_owned(), protocol.to_owned());
        metadata.insert(NAME.to_owned(), self.name.to_owned());
    }

    /// What an endpoint is, if it speaks net/rpc.
    #[must_use]
    pub fn of(spec: &'s EndpointSpec) -> Option<Self> {
        let protocol = match &spec.metadata.get(PROTOCOL)?[..] {
            "gob" => RpcProtocol::Gob,
            "jsonrpc" => RpcProtocol::JsonRpc,
            _ => return None,
        };
        Some(NetRpc { name: spec.metadata.get(NAME)?, protocol })
    }
}
