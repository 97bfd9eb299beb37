//! The classic sketch's three calls, for any TCP service, and one to withdraw it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::Serialize;
use wharf_registry_api::{Code, Problem};

use super::Refused;
use super::authorize::Caller;
use crate::directory::Directory;
use crate::record::Registration;

/// How each call is written.
const REGISTER: &str = "/register?name=NAME&addr=HOST:PORT, and if you like &proto=jsonrpc, &version=1.2.0, &tag=TAG, &meta.KEY=VALUE";
const HEARTBEAT: &str = "/heartbeat?name=NAME, and &addr=HOST:PORT if it has several addresses";
const DEREGISTER: &str = "/deregister?name=NAME, and &addr=HOST:PORT for one of several addresses";

/// The time of what was not heard since the registry started: that of Go's zero `time.Time`.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The query of a call, in its order.
type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// What all calls say.
struct Asked {
    name: String,
    addr: Option<String>,
    /// What else there is.
    rest: Vec<(String, String)>,
}

impl Asked {
    /// Takes the name and the address out of a query, each of which may be there once.
    fn read(pairs: Pairs, call: &str) -> Result<Self, Problem> {
        let Query(pairs) = pairs.map_err(|rejection| usage(&rejection.body_text(), call))?;
        let (mut name, mut addr, mut rest) = (None, None, Vec::new());
        for (key, value) in pairs {
            let place = match &key[..] {
                "name" => &mut name,
                "addr" => &mut addr,
                _ => {
                    rest.push((key, value));
                    continue;
                }
            };
            if place.replace(value).is_some() {
                return Err(usage(&format!("'{key}' is there twice"), call));
            }
        }
        let name = name.ok_or_else(|| usage("there is no name", call))?;
        Ok(Asked { name, addr, rest })
    }

    /// Refuses what is left: most likely it was mistyped.
    fn no_more(self, call: &str) -> Result<(String, Option<String>), Problem> {
        match self.rest.first() {
            Some((key, _)) => Err(unknown(key, call)),
            None => Ok((self.name, self.addr)),
        }
    }
}

fn unknown(key: &str, call: &str) -> Problem {
    usage(&format!("'{key}' is not known"), call)
}

pub(super) async fn register(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<String, Refused> {
    let Asked { name, addr, rest } = Asked::read(pairs, REGISTER)?;
    let addr = addr.ok_or_else(|| usage("there is no addr", REGISTER))?;
    let mut registration = Registration::default();
    for (key, value) in rest {
        match (&key[..], key.strip_prefix("meta.")) {
            ("proto", _) => {
                let spelled = serde_json::Value::from(value);
                registration.protocol = serde_json::from_value(spelled)
                    .map_err(|error| usage(&format!("proto: {error}"), REGISTER))?;
            }
            ("version", _) => registration.version = Some(value),
            ("tag", _) => registration.tags.push(value),
            (_, Some(name)) => drop(registration.metadata.insert(name.to_owned(), value)),
            _ => return Err(unknown(&key, REGISTER).into()),
        }
    }
    caller.may_write(&name)?;
    directory.register_classic(&name, &addr, registration).await?;
    let (every, silence) = directory.times();
    Ok(format!(
        "registered {name} at {addr}\ncall /heartbeat?name={name} every {every:?}: after {silence:?} of silence it is dropped\n"
    ))
}

pub(super) async fn heartbeat(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<String, Refused> {
    let (name, addr) = Asked::read(pairs, HEARTBEAT)?.no_more(HEARTBEAT)?;
    caller.may_write(&name)?;
    directory.heartbeat_classic(&name, addr.as_deref()).await?;
    Ok(format!("heard {name}\n"))
}

pub(super) async fn deregister(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<String, Refused> {
    let (name, addr) = Asked::read(pairs, DEREGISTER)?.no_more(DEREGISTER)?;
    caller.may_write(&name)?;
    directory.deregister_classic(&name, addr.as_deref()).await?;
    Ok(format!("deregistered {name}\n"))
}

/// As Go's `encoding/json` writes the sketch's struct.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    name: String,
    addr: String,
    time: String,
}

pub(super) async fn services(
    State(directory): State<Arc<Directory>>,
) -> Json<BTreeMap<String, Service>> {
    let services = directory.classic_services().into_iter().map(|(name, entry)| {
        let heard = entry.time.map(|time| humantime::format_rfc3339_micros(time).to_string());
        let time = heard.unwrap_or_else(|| NEVER.to_owned());
        (name.clone(), Service { name, addr: entry.addr, time })
    });
    Json(services.collect())
}

fn usage(what: &str, call: &str) -> Problem {
    Problem::new(Code::Invalid, format!("{what}: call {call}"))
}
