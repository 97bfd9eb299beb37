//! The classic sketch's three calls, for any TCP service.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use wharf_registry_api::{Code, Problem, RpcProtocol};

use super::Refused;
use super::authorize::Caller;
use crate::directory::Directory;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    name: String,
    addr: String,
    /// What it speaks; gob, if nothing is said.
    #[serde(default)]
    proto: RpcProtocol,
}

pub(super) async fn register(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    registration: Result<Query<Registration>, QueryRejection>,
) -> Result<String, Refused> {
    let Query(Registration { name, addr, proto }) = registration.map_err(|rejection| {
        usage(
            &rejection,
            "/register?name=NAME&addr=HOST:PORT, with &proto=jsonrpc if it speaks that",
        )
    })?;
    caller.may_write(&name)?;
    directory.register_classic(&name, &addr, proto).await?;
    Ok(format!("registered {name} at {addr}\n"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beat {
    name: String,
    addr: Option<String>,
}

pub(super) async fn heartbeat(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    beat: Result<Query<Beat>, QueryRejection>,
) -> Result<String, Refused> {
    let Query(Beat { name, addr }) =
        beat.map_err(|rejection| usage(&rejection, "/heartbeat?name=NAME"))?;
    caller.may_write(&name)?;
    directory.heartbeat_classic(&name, addr.as_deref()).await?;
    Ok(format!("heard {name}\n"))
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
        let time = humantime::format_rfc3339_micros(entry.time).to_string();
        (name.clone(), Service { name, addr: entry.addr, time })
    });
    Json(services.collect())
}

fn usage(rejection: &QueryRejection, call: &str) -> Problem {
    Problem::new(Code::Invalid, format!("{}: call {call}", rejection.body_text()))
}
