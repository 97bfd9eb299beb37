//! How stores write a record: JSON, so that an operator can read it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wharf_registry_api::{EndpointSpec, EndpointState, Metadata, RpcProtocol};

use crate::record::{Key, Record};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored<'r> {
    session: u64,
    address: Cow<'r, str>,
    state: EndpointState,
    digest: Cow<'r, str>,
    endpoints: Cow<'r, [EndpointSpec]>,
    #[serde(default)]
    metadata: Cow<'r, Metadata>,
}

pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let stored = Stored {
        session: record.session,
        address: Cow::Borrowed(&record.address),
        state: record.state,
        digest: Cow::Borrowed(&record.digest),
        endpoints: Cow::Borrowed(&record.endpoints),
        metadata: Cow::Borrowed(&record.metadata),
    };
    // It has only strings, numbers and maps with string keys, so JSON encoding cannot fail.
    serde_json::to_vec(&stored).unwrap_or_default()
}

pub(crate) fn decode(key: &Key, bytes: &[u8]) -> Result<Record, serde_json::Error> {
    let stored: Stored<'_> = serde_json::from_slice(bytes)?;
    if let Key::Classic { name, address } = key
        && stored.endpoints.is_empty()
    {
        // Wharf 0.1 wrote only the address.
        return Ok(Record::classic(name, address, RpcProtocol::default()));
    }
    Ok(Record {
        session: stored.session,
        address: stored.address.into_owned(),
        state: stored.state,
        digest: stored.digest.into_owned(),
        endpoints: stored.endpoints.into_owned(),
        metadata: stored.metadata.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_record_comes_back_as_itself() {
        let mut record = record(7, &["a", "b"]);
        record.metadata.insert("zone".to_owned(), "z\"1".to_owned());
        record.endpoints[0].tags.push("blue".to_owned());
        let host = Key::host("h");
        assert_eq!(decode(&host, &encode(&record)).unwrap(), record);
        assert!(decode(&host, b"{}").is_err());
    }

    #[test]
    fn a_classic_registration_of_the_first_version_becomes_an_endpoint() {
        let key = Key::classic("Arith", "a:1");
        let old = br#"{"session":0,"address":"a:1","state":"serving","digest":"","endpoints":[]}"#;
        let record = decode(&key, old).unwrap();
        assert_eq!(record, Record::classic("Arith", "a:1", RpcProtocol::Gob));
        assert_eq!(decode(&key, &encode(&record)).unwrap(), record);
    }
}
