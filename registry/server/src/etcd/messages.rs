//! The messages, with the field numbers of etcd's `rpc.proto` and `kv.proto`. Fields that the
//! registry never sets or reads are left out: protobuf skips them.

use prost::{Message, Oneof};

/// The header of every answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ResponseHeader {
    /// The cluster that answered.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The revision of its key space when it answered.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// A key and its content.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The revision of its last change.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Its content.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    /// The lease that it belongs to; 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Reads a key, or all keys from `key` up to `range_end`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The key after the last one; empty for just `key`.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// The most keys to answer with; 0 for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The revision to read at; 0 for the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Whether the member may answer alone, without a majority.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
}

/// The keys that were read.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeResponse {
    /// The cluster that answered, and its revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The keys, in order.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether the range has more keys than the limit.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// Writes a key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its content.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// The lease that it belongs to; 0 for none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

/// A key was written.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutResponse {
    /// The cluster that answered, and the revision of the change.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Removes a key.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DeleteRangeRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RequestOp {
    #[prost(oneof = "Operation", tags = "1, 2, 3")]
    operation: Option<Operation>,
}

/// What an operation does.
#[derive(Clone, PartialEq, Eq, Oneof)]
enum Operation {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

impl RequestOp {
    /// Reads one key.
    #[must_use]
    pub fn get(key: impl Into<Vec<u8>>) -> Self {
        let range = RangeRequest { key: key.into(), ..RangeRequest::default() };
        RequestOp { operation: Some(Operation::Range(range)) }
    }

    /// Writes one key; a lease of 0 means no lease.
    #[must_use]
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, lease: i64) -> Self {
        let put = PutRequest { key: key.into(), value: value.into(), lease };
        RequestOp { operation: Some(Operation::Put(put)) }
    }

    /// Removes one key.
    #[must_use]
    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        let delete = DeleteRangeRequest { key: key.into() };
        RequestOp { operation: Some(Operation::DeleteRange(delete)) }
    }
}

/// The answer to one operation of a transaction.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ResponseOp {
    #[prost(oneof = "Outcome", tags = "1")]
    outcome: Option<Outcome>,
}

/// What an operation returned, as far as the registry reads it.
#[derive(Clone, PartialEq, Eq, Oneof)]
enum Outcome {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
}

impl ResponseOp {
    /// The first key that a read found.
    #[must_use]
    pub fn first(&self) -> Option<&KeyValue> {
        let Outcome::Range(range) = self.outcome.as_ref()?;
        range.kvs.first()
    }
}

/// A condition of a transaction: some property of a key equals a value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Compare {
    /// The comparison; 0 for equality.
    #[prost(int32, tag = "1")]
    result: i32,
    /// What is compared: etcd's CompareTarget.
    #[prost(int32, tag = "2")]
    target: i32,
    /// The key.
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    /// The value to compare with.
    #[prost(oneof = "Operand", tags = "5, 6, 7")]
    operand: Option<Operand>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
enum Operand {
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
}

impl Compare {
    /// The key was created at this revision; 0 if there must be no such key.
    #[must_use]
    pub fn create_revision(key: impl Into<Vec<u8>>, revision: i64) -> Self {
        Compare::equal(key.into(), 1, Operand::CreateRevision(revision))
    }

    /// The key was last changed at this revision; 0 if there must be no such key.
    #[must_use]
    pub fn mod_revision(key: impl Into<Vec<u8>>, revision: i64) -> Self {
        Compare::equal(key.into(), 2, Operand::ModRevision(revision))
    }

    /// The key has this content.
    #[must_use]
    pub fn value(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Compare::equal(key.into(), 3, Operand::Value(value.into()))
    }

    fn equal(key: Vec<u8>, target: i32, operand: Operand) -> Self {
        Compare { result: 0, target, key, operand: Some(operand) }
    }
}

/// Operations that run together if all conditions hold, and others that run if not.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TxnRequest {
    /// The conditions.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What runs if all of them hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What runs otherwise.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TxnResponse {
    /// The cluster that answered, and its revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the conditions held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// The answers to the operations that ran, in their order.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// Asks for a lease.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LeaseGrantRequest {
    /// How long it lives without being renewed, in seconds.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
}

/// A lease.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LeaseGrantResponse {
    /// Its number.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// Ends a lease, and removes its keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LeaseRevokeRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// It has ended.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LeaseRevokeResponse {}

/// Renews a lease.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeaseKeepAliveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A lease was renewed, or is gone.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeaseKeepAliveResponse {
    /// How long it lives from now on, in seconds; 0 if it is gone.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// A message to a stream of watches. This client only begins watches.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WatchRequest {
    /// Begins a watch.
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
}

/// Begins to watch a range of keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WatchCreateRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The key after the last one; empty for just `key`.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// The first revision whose changes are reported.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Whether etcd also reports from time to time that nothing happened.
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
}

/// A message from a watch.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WatchResponse {
    /// The cluster that answered, and its revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the watch was just begun.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// Whether it has ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// If the requested revision was compacted away, the oldest one that remains; otherwise 0.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why it has ended.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// The changes, in order.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Event {
    /// 0 for a write, 1 for a removal.
    #[prost(int32, tag = "1")]
    kind: i32,
    /// The key as it is now. If it was removed, only its name and the revision.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

impl Event {
    /// Whether the key was removed.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        self.kind == 1
    }
}

/// Asks a member about itself.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StatusRequest {}

/// What a member says about itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusResponse {
    /// Its version, `3.5.33`.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// Logs a user in.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AuthenticateRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Their password.
    #[prost(string, tag = "2")]
    pub password: String,
}

/// A user is logged in.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AuthenticateResponse {
    /// It is sent with each call from now on.
    #[prost(string, tag = "2")]
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    // These are the bytes that etcd's own clients send. etcd silently ignores a field with a wrong
    // number.
    #[test]
    fn requests_have_the_bytes_of_etcds_documented_fields() {
        let range = RangeRequest {
            key: b"a".to_vec(),
            range_end: b"b".to_vec(),
            limit: 3,
            revision: 4,
            serializable: true,
        };
        assert_eq!(
            range.encode_to_vec(),
            [0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 3, 0x20, 4, 0x38, 1]
        );
        let watch = WatchRequest {
            create: Some(WatchCreateRequest {
                key: b"a".to_vec(),
                range_end: b"b".to_vec(),
                start_revision: 5,
                progress_notify: true,
            }),
        };
        let create = [0x0a, 10, 0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 5, 0x20, 1];
        assert_eq!(watch.encode_to_vec(), create);
        for (compare, bytes) in [
            (Compare::create_revision("k", 0), [0x10, 1, 0x1a, 1, b'k', 0x28, 0].as_slice()),
            (Compare::mod_revision("k", 7), &[0x10, 2, 0x1a, 1, b'k', 0x30, 7]),
            (Compare::value("k", "v"), &[0x10, 3, 0x1a, 1, b'k', 0x3a, 1, b'v']),
        ] {
            assert_eq!(compare.encode_to_vec(), bytes);
        }
        for (operation, bytes) in [
            (RequestOp::get("k"), [0x0a, 3, 0x0a, 1, b'k'].as_slice()),
            (RequestOp::put("k", "v", 9), &[0x12, 8, 0x0a, 1, b'k', 0x12, 1, b'v', 0x18, 9]),
            (RequestOp::delete("k"), &[0x1a, 3, 0x0a, 1, b'k']),
        ] {
            assert_eq!(operation.encode_to_vec(), bytes);
        }
    }

    #[test]
    fn answers_are_read_and_what_is_not_known_is_skipped() {
        // A header with its member (2); the answer to a write (2), which is not read; the answer to
        // a read.
        let bytes = [
            [0x0a, 8, 0x08, 5, 0x10, 6, 0x18, 7, 0x20, 1].as_slice(),
            &[0x10, 1],
            &[0x1a, 2, 0x12, 0],
            &[0x1a, 15, 0x0a, 13, 0x12, 11, 0x0a, 1, b'k', 0x10, 1, 0x18, 2, 0x2a, 2, b'v', b'v'],
        ]
        .concat();
        let answer = TxnResponse::decode(&bytes[..]).unwrap();
        let header = answer.header.unwrap();
        assert_eq!((header.cluster_id, header.revision, answer.succeeded), (5, 7, true));
        assert_eq!(answer.responses[0].first(), None);
        let kv = answer.responses[1].first().unwrap();
        assert_eq!((&kv.key[..], kv.mod_revision, &kv.value[..]), (&b"k"[..], 2, &b"vv"[..]));
    }
}
