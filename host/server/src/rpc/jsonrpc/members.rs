//! The members of a call.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest id, in bytes. It is kept while its call runs.
pub(in crate::rpc) const MAX_ID: usize = 1024;

/// The members of a call. Others are ignored.
#[derive(Deserialize)]
pub(in crate::rpc) struct Members {
    pub(in crate::rpc) jsonrpc: Option<Value>,
    pub(in crate::rpc) method: Option<Value>,
    pub(in crate::rpc) params: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(in crate::rpc) id: Option<Box<RawValue>>,
}

/// An id that is null is there, and one that is missing is not.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}
