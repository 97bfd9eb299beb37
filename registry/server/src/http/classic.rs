//! The classic sketch's three calls, for any TCP service, and one to withdraw it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::Serialize;
use wharf_net::http::Peer;
use wharf_registry_api::{Code, Problem};

use super::authorize::Caller;
use super::{Refused, consul};
use crate::directory::Directory;
use crate::record::Registration;
use crate::upkeep::Upkeep;

/// How each call is written.
const REGISTER: &str = "/register?name=NAME&addr=HOST:PORT, and if you like &proto=jsonrpc, &version=1.2.0, &tag=TAG, &meta.KEY=VALUE, &ttl=60s, &check=tcp or &check=http:/PATH";
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
    Extension(Peer(peer)): Extension<Peer>,
    pairs: Pairs,
) -> Result<String, Refused> {
    let Asked { name, addr, rest } = Asked::read(pairs, REGISTER)?;
    let addr = addr.ok_or_else(|| usage("there is no addr", REGISTER))?;
    let mut registration = Registration { is_net_rpc: true, ..Registration::default() };
    let (mut ttl, mut check) = (None, None);
    for (key, value) in rest {
        match (&key[..], key.strip_prefix("meta.")) {
            ("proto", _) => {
                let spelled = serde_json::Value::from(value);
                registration.protocol = serde_json::from_value(spelled)
                    .map_err(|error| usage(&format!("proto: {error}"), REGISTER))?;
            }
            ("version", _) => registration.version = Some(value),
            ("ttl", _) => ttl = Some(time_to_live(&value)?),
            ("check", _) => check = Some(value),
            ("tag", _) => registration.tags.push(value),
            (_, Some(name)) => drop(registration.metadata.insert(name.to_owned(), value)),
            _ => return Err(unknown(&key, REGISTER).into()),
        }
    }
    caller.may_write(&name)?;
    let (every, silence) = directory.times();
    let kept = match (ttl, check) {
        (Some(_), Some(_)) => {
            let why = "ttl is for what beats, and check for what does not: give one of them";
            return Err(usage(why, REGISTER).into());
        }
        (None, None) => beats(&name, every, silence),
        (Some(ttl), None) => {
            let ttl_ms = Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            registration.upkeep = Some(Upkeep { ttl_ms, ..Upkeep::default() });
            beats(&name, ttl / 3, ttl)
        }
        (None, Some(check)) => {
            crate::validate::address(&addr)?;
            let host = crate::address::machine(&addr);
            let asking = consul::Asking::new(&directory, &caller, peer, Some(host)).await;
            let check = consul::classic_check(&check, &name, &addr, &asking)?;
            registration.upkeep =
                Some(Upkeep { stays: true, checks: vec![check], ..Upkeep::default() });
            "the registry checks it every 10s, and keeps it until /deregister".to_owned()
        }
    };
    directory.register_classic(&name, &addr, registration).await?;
    Ok(format!("registered {name} at {addr}\n{kept}\n"))
}

fn beats(name: &str, every: Duration, silence: Duration) -> String {
    format!(
        "call /heartbeat?name={name} every {every:?}: after {silence:?} of silence it is dropped"
    )
}

/// How short and how long a time to live of its own may be.
const TIMES_TO_LIVE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(24 * 3600)];

fn time_to_live(text: &str) -> Result<Duration, Problem> {
    let ttl = humantime::parse_duration(text)
        .map_err(|error| usage(&format!("ttl={text}: {error}; write it like 60s"), REGISTER))?;
    let [shortest, longest] = TIMES_TO_LIVE;
    if !(shortest..=longest).contains(&ttl) {
        let why = format!("ttl={text}: choose from {shortest:?} to {} h", longest.as_secs() / 3600);
        return Err(usage(&why, REGISTER));
    }
    Ok(ttl)
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
