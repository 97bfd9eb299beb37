//! The protocols that callers may speak on the RPC port.

/// A protocol that callers may speak on the RPC port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Door {
    /// Wharf's own frames.
    Wharf,
    /// Go's net/rpc over gob.
    Gob,
    /// JSON-RPC over TCP, in Go's dialect and version 2.0; over HTTP, version 2.0.
    JsonRpc,
    /// HTTP with JSON, and its description as OpenAPI.
    Http,
    /// Tools for models, by the Model Context Protocol over HTTP.
    Mcp,
}

/// The doors that are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doors(Vec<Door>);

impl Door {
    /// All of them.
    pub const ALL: [Door; 5] = [Door::Wharf, Door::Gob, Door::JsonRpc, Door::Http, Door::Mcp];

    /// Its name on the command line and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Door::Wharf => "wharf",
            Door::Gob => "gob",
            Door::JsonRpc => "jsonrpc",
            Door::Http => "http",
            Door::Mcp => "mcp",
        }
    }

    /// What a caller without the host's token is told.
    pub(crate) fn how_to_show_a_token(self) -> String {
        match self {
            Door::Wharf => "this host requires a token in the Hello, or a certificate that it knows".to_owned(),
            Door::Gob | Door::JsonRpc => format!(
                "this host requires a token, and {} cannot carry one: call it over HTTP, with a Wharf \
                 client, or over TLS with a certificate",
                self.name()
            ),
            Door::Http | Door::Mcp => {
                "this host requires a token or a certificate that it knows: send 'Authorization: Bearer TOKEN'"
                    .to_owned()
            }
        }
    }
}

impl Default for Doors {
    fn default() -> Self {
        Doors(Door::ALL.to_vec())
    }
}

impl Doors {
    /// These doors and no others.
    #[must_use]
    pub fn only(doors: &[Door]) -> Self {
        Doors(doors.to_vec())
    }

    /// Whether a door is open.
    #[must_use]
    pub fn has(&self, door: Door) -> bool {
        self.0.contains(&door)
    }

    /// The names of those that are open.
    #[must_use]
    pub fn names(&self) -> String {
        self.0.iter().map(|door| door.name()).collect::<Vec<_>>().join(",")
    }
}
