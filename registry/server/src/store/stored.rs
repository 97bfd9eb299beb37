//! How stores write a record: JSON, so that an operator can read it.
//!
//! Registries of two versions may share a store for a while. Fields that this version does not know are kept,
//! and written again.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wharf_registry_api::{EndpointSpec, EndpointState, Metadata};

use crate::record::{Key, Record, Registration, Unknown};
use crate::upkeep::Upkeep;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'r> {
    session: u64,
    address: Cow<'r, str>,
    state: EndpointState,
    digest: Cow<'r, str>,
    endpoints: Cow<'r, [EndpointSpec]>,
    #[serde(default)]
    metadata: Cow<'r, Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upkeep: Option<Cow<'r, Upkeep>>,
}

/// The fields of a record that this version knows.
const RECORD: [&str; 7] =
    ["session", "address", "state", "digest", "endpoints", "metadata", "upkeep"];

/// The same of an endpoint.
const ENDPOINT: [&str; 8] =
    ["service", "package", "version", "fingerprint", "condition", "reason", "tags", "metadata"];

pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let stored = Stored {
        session: record.session,
        address: Cow::Borrowed(&record.address),
        state: record.state,
        digest: Cow::Borrowed(&record.digest),
        endpoints: Cow::Borrowed(&record.endpoints),
        metadata: Cow::Borrowed(&record.metadata),
        upkeep: record.upkeep.as_deref().map(Cow::Borrowed),
    };
    // It has only strings, numbers and maps with string keys, so JSON encoding cannot fail.
    let Some(unknown) = &record.unknown else {
        return serde_json::to_vec(&stored).unwrap_or_default();
    };
    let mut value = serde_json::to_value(&stored).unwrap_or_default();
    let endpoints = value.get_mut("endpoints").and_then(Value::as_array_mut);
    for (endpoint, unknown) in endpoints.into_iter().flatten().zip(&unknown.endpoints) {
        extend(endpoint, unknown);
    }
    extend(&mut value, &unknown.record);
    serde_json::to_vec(&value).unwrap_or_default()
}

fn extend(value: &mut Value, unknown: &Map<String, Value>) {
    if let Value::Object(fields) = value {
        fields.extend(unknown.clone());
    }
}

pub(crate) fn decode(key: &Key, bytes: &[u8]) -> Result<Record, serde_json::Error> {
    let mut fields: Map<String, Value> = serde_json::from_slice(bytes)?;
    let mut unknown = Unknown { record: split(&mut fields, &RECORD), endpoints: Vec::new() };
    let endpoints = fields.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten() {
        let fields = endpoint.as_object_mut();
        unknown.endpoints.push(fields.map(|fields| split(fields, &ENDPOINT)).unwrap_or_default());
    }
    let knows_all = unknown.record.is_empty() && unknown.endpoints.iter().all(Map::is_empty);
    let stored: Stored<'_> = serde_json::from_value(Value::Object(fields))?;
    if let Key::Classic { name, address } = key
        && stored.endpoints.is_empty()
    {
        // Wharf 0.1 wrote only the address.
        let registration = Registration { is_net_rpc: true, ..Registration::default() };
        return Ok(Record::classic(name, address, stored.session, registration));
    }
    Ok(Record {
        session: stored.session,
        address: stored.address.into_owned(),
        state: stored.state,
        digest: stored.digest.into_owned(),
        endpoints: stored.endpoints.into_owned(),
        metadata: stored.metadata.into_owned(),
        upkeep: stored.upkeep.map(|upkeep| Arc::new(upkeep.into_owned())),
        unknown: (!knows_all).then(|| Arc::new(unknown)),
    })
}

/// Takes out all fields but the known ones.
fn split(fields: &mut Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    if fields.keys().all(|name| known.contains(&&name[..])) {
        return Map::new();
    }
    let (known, unknown) = std::mem::take(fields)
        .into_iter()
        .partition::<Map<String, Value>, _>(|(name, _)| known.contains(&&name[..]));
    *fields = known;
    unknown
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
    fn what_a_newer_version_wrote_is_read_and_written_again() {
        let newer = br#"{"session":7,"address":"a:1","state":"serving","digest":"","weight":3,
            "endpoints":[{"service":"a","fingerprint":""},
                         {"service":"b","fingerprint":"","zones":["x"]}],"metadata":{}}"#;
        let key = Key::host("h");
        let record = decode(&key, newer).unwrap();
        assert_eq!((record.session, record.endpoints.len()), (7, 2));
        let drained = Record { state: EndpointState::Draining, ..record.clone() };
        let written: Value = serde_json::from_slice(&encode(&drained)).unwrap();
        assert_eq!(written["weight"], 3);
        assert_eq!(written["endpoints"][1]["zones"][0], "x");
        assert_eq!(written["endpoints"][0].get("zones"), None);
        assert_eq!(written["state"], "draining");
        assert_eq!(decode(&key, &encode(&record)).unwrap(), record);
    }

    #[test]
    fn the_fields_that_are_known_are_those_that_are_written() {
        let mut record = record(7, &["a"]);
        record.metadata.insert("zone".to_owned(), "z".to_owned());
        let spec = &mut record.endpoints[0];
        (spec.package, spec.reason) = (Some("p:q".to_owned()), Some("why".to_owned()));
        spec.condition = wharf_registry_api::Condition::Refused;
        spec.tags.push("blue".to_owned());
        spec.metadata.insert("a".to_owned(), "b".to_owned());
        record.upkeep = Some(Arc::default());
        let value: Value = serde_json::from_slice(&encode(&record)).unwrap();
        let names = |value: &Value| -> Vec<String> {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let sorted = |known: &[&str]| {
            let mut names: Vec<_> = known.iter().map(|name| (*name).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&value), sorted(&RECORD));
        assert_eq!(names(&value["endpoints"][0]), sorted(&ENDPOINT));
    }

    #[test]
    fn a_classic_registration_of_the_first_version_becomes_an_endpoint() {
        let key = Key::classic("Arith", "a:1");
        let old = br#"{"session":0,"address":"a:1","state":"serving","digest":"","endpoints":[]}"#;
        let record = decode(&key, old).unwrap();
        assert_eq!(record, crate::record::tests::classic("a:1"));
        assert_eq!(decode(&key, &encode(&record)).unwrap(), record);
    }
}
