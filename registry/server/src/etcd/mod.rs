//! A client for the part of etcd's v3 API that the registry uses.
//!
//! The messages are written here from etcd's documented field numbers, and `prost` derives their
//! encoding, so the build needs no protoc. One [`Member`] is one connection. The store decides
//! which member to call, for how long, and when to call another.
//!
//! It is public for the benches, which use it to measure etcd next to the registry.

mod member;
mod messages;

pub(crate) use member::Certificates;
pub use member::{Credentials, Error, Member};
pub use messages::{
    Compare, Event, KeyValue, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
    StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
