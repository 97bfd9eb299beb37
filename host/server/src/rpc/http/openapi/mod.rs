//! `GET /openapi.json` and `GET /SERVICE/openapi.json`: what can be called, for generators of clients.

mod document;

use axum::http::StatusCode;
use axum::response::Response;
use wharf_schema::ServiceName;
use wharf_wire::Status;

use super::{Connection, answer};
use crate::plugins::Found;
use crate::rpc::Shared;
use crate::rpc::invoke::{CallFailure, Missing};
use crate::rpc::sight::{Shown, Sight};

/// The end of the path.
pub(super) const FILE: &str = "/openapi.json";

/// Answers with the description of one service, or of all if the path before [`FILE`] is empty.
pub(super) async fn answer(connection: &Connection, of: String) -> Response {
    match describe(connection, of).await {
        Ok(text) => answer::json(StatusCode::OK, text),
        Err(failure) => answer::failure(&failure),
    }
}

async fn describe(connection: &Connection, of: String) -> Result<bytes::Bytes, CallFailure> {
    let (shared, sight) = (&connection.shared, connection.sight());
    let version = shared.table.version();
    let chosen = match of.trim_start_matches('/') {
        "" => None,
        name => Some(find(shared, &sight, name)?),
    };
    // Whatever spelling was asked for, it is one description.
    let name = chosen.as_ref().map(|one| one.service.name().to_string()).unwrap_or_default();
    let name = sight.key() + &name;
    let owner = shared.clone();
    // Describing thousands of methods takes long. It is done once for each change of what is served.
    let make = move || {
        let all = sight.all(&owner.table);
        let chosen = chosen.map_or_else(|| all.clone(), |one| vec![one]);
        let has_token = !owner.config.principals.known().is_open();
        Ok(document::of(&all, &chosen, has_token).to_string().into())
    };
    let lost =
        |error| CallFailure::refused(Status::Internal, format!("the description failed: {error}"));
    shared.documents.get(&name, version, make, lost).await
}

fn find(shared: &Shared, sight: &Sight, name: &str) -> Result<Shown, CallFailure> {
    let name = name.replace("%3A", ":").replace("%3a", ":").replace("%40", "@");
    let missing = || {
        let message = format!("this host has no service '{name}'");
        CallFailure::missing(Missing::Service, message)
    };
    let parsed = ServiceName::parse(&name).map_err(|_| missing())?;
    match shared.table.find(&parsed, |service| sight.has(service)) {
        Found::One(slot) => {
            slot.served().as_ref().and_then(|served| sight.of(served)).ok_or_else(missing)
        }
        Found::Ambiguous(_) | Found::None => Err(missing()),
    }
}
