//! A client for the part of etcd's v3 API that the registry uses.
//!
//! The messages are written here from etcd's documented field numbers, and `prost` derives their
//! encoding, so building it needs no protoc. One [`Member`] is one connection; which member to ask,
//! for how long, and when to ask another is decided by the store.
//!
//! It is public for the benches, which measure etcd beside the registry by the same client.

mod member;
mod messages;

pub use member::{Credentials, Error, Member};
pub use messages::{
    Compare, Event, KeyValue, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
    StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
