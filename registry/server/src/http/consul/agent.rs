//! The agent: how services register themselves and report how they are. To its clients, the registry is one
//! agent for all of them, so an ID of a service is unique among those at one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawQuery, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use wharf_net::http::Peer;
use wharf_registry_api::{Code, Problem};

use super::definition::{self, Asking, Object};
use super::query::{Knows, Query};
use super::shapes::{self, Entry, uuid};
use super::{DATACENTER, answer};
use crate::catalog::Named;
use crate::directory::Directory;
use crate::http::authorize::Caller;
use crate::http::parameters::{Anything, Name, form, invalid, path};
use crate::http::{Refused, Source};
use crate::listing::HostSnapshot;
use crate::record::{Key, Record};
use crate::registrations::OfSeveral;
use crate::upkeep::{Amendment, Status, Upkeep, one_line};
use crate::view::Scope;

const NAME: &str = "wharf-registry";

pub(super) async fn about(RawQuery(query): RawQuery) -> Result<Json<Value>, Refused> {
    Query::parse(query.as_deref(), Knows::default())?;
    Ok(Json(json!({
        "Config": {
            "Datacenter": DATACENTER,
            "PrimaryDatacenter": DATACENTER,
            "NodeName": NAME,
            "NodeID": uuid(NAME),
            "Server": true,
            "Revision": "",
            "Version": env!("CARGO_PKG_VERSION"),
        },
        "Member": member(),
        "Meta": {},
        "Stats": {},
    })))
}

pub(super) async fn members() -> Json<Value> {
    Json(json!([member()]))
}

fn member() -> Value {
    json!({ "Name": NAME, "Addr": "127.0.0.1", "Port": 8301, "Tags": {}, "Status": 1 })
}

/// What was registered here, by ID.
pub(super) async fn services(
    State(directory): State<Arc<Directory>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let knows = Knows { filter: Some(shapes::SERVICES), ..Knows::default() };
    let query = Query::parse(query.as_deref(), knows)?;
    let (index, hosts) = registered(&directory);
    let services = hosts.iter().flat_map(Entry::of).map(|entry| (entry.id(), entry.service()));
    let services: BTreeMap<String, Value> =
        services.filter(|(_, service)| query.filters_in(service)).collect();
    query.finished()?;
    Ok(answer(&directory, index, services))
}

/// The checks of what was registered here, by ID.
pub(super) async fn checks(
    State(directory): State<Arc<Directory>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let knows = Knows { filter: Some(shapes::CHECKS), ..Knows::default() };
    let query = Query::parse(query.as_deref(), knows)?;
    let (index, hosts) = registered(&directory);
    let checks = hosts.iter().flat_map(Entry::of).flat_map(|entry| entry.checks());
    let checks = checks.filter(|check| query.filters_in(check));
    let checks: BTreeMap<String, Value> =
        checks.filter_map(|check| Some((check["CheckID"].as_str()?.to_owned(), check))).collect();
    query.finished()?;
    Ok(answer(&directory, index, checks))
}

fn registered(directory: &Directory) -> (u64, Vec<HostSnapshot>) {
    let (index, mut hosts) = directory.listed(Scope::All);
    hosts.retain(|host| host.is_classic);
    (index, hosts)
}

pub(super) async fn service(
    State(directory): State<Arc<Directory>>,
    Extension(Peer(peer)): Extension<Peer>,
    id: Name,
) -> Result<Response, Refused> {
    let id = path(id)?;
    let anybody = |_: &str| Ok(());
    let name = Named::Service(id);
    let (key, _) = directory.registration(&name, peer, OfSeveral::Newest, anybody).await?;
    let host = directory.snapshot(&key);
    let entry = host.as_ref().and_then(|host| Entry::of(host).next());
    let entry = entry.map(|entry| entry.service()).unwrap_or_default();
    Ok(answer(&directory, directory.plain_index(Scope::All), entry))
}

/// Who asks for a change, and from where.
pub(super) struct Client {
    directory: Arc<Directory>,
    caller: Caller,
    peer: IpAddr,
}

impl FromRequestParts<Source> for Client {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, source: &Source) -> Result<Self, Refused> {
        let unknown = |what: &str| Problem::new(Code::Other, format!("the {what} is not known"));
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(|| unknown("caller"))?;
        let Peer(peer) = *parts.extensions.get::<Peer>().ok_or_else(|| unknown("peer"))?;
        Ok(Client { directory: source.directory.clone(), caller, peer })
    }
}

impl Client {
    /// The registration that it means by an ID, and may write.
    async fn own(
        &self,
        name: &Named,
        of_several: OfSeveral,
    ) -> Result<(Key, Arc<Record>), Problem> {
        let may_write = |name: &str| self.caller.may_write(name);
        self.directory.registration(name, self.peer, of_several, may_write).await
    }
}

pub(super) async fn register(client: Client, Anything(body): Anything) -> Result<(), Refused> {
    let body = Object::read(&body)?;
    let asking = Asking::of(&client.directory, &client.caller, client.peer, &body).await?;
    let registered = definition::service(&body, None, &asking)?;
    client.caller.may_write(&registered.name)?;
    client.directory.register_named(registered, |name| client.caller.may_write(name)).await?;
    Ok(())
}

pub(super) async fn deregister(client: Client, id: Name) -> Result<(), Refused> {
    let key = client.own(&Named::Service(path(id)?), OfSeveral::None).await?.0;
    client.directory.withdraw_registration(&key).await?;
    Ok(())
}

pub(super) async fn maintenance(
    client: Client,
    id: Name,
    RawQuery(query): RawQuery,
) -> Result<(), Refused> {
    let (mut enable, mut reason) = (None, String::new());
    for (name, value) in form(query.as_deref().unwrap_or_default())? {
        match &name[..] {
            "enable" => enable = value.parse::<bool>().ok(),
            "reason" => reason = one_line(&value),
            "token" | "ns" | "dc" => {}
            _ => {
                return Err(
                    invalid(format!("'{name}' is not known: give enable and reason")).into()
                );
            }
        }
    }
    let enable = enable.ok_or_else(|| invalid("give enable=true or enable=false"))?;
    if reason.is_empty() {
        "no reason was given".clone_into(&mut reason);
    }
    let key = client.own(&Named::Service(path(id)?), OfSeveral::None).await?.0;
    client.directory.amend(key, Amendment::Maintain(enable.then_some(reason))).await?;
    Ok(())
}

pub(super) async fn add_check(client: Client, Anything(body): Anything) -> Result<(), Refused> {
    let body = Object::read(&body)?;
    let of = body.text("ServiceID")?.ok_or_else(|| {
        invalid("there is no ServiceID: a check belongs to a service here, not to a node")
    })?;
    let (key, record) = client.own(&Named::Service(of), OfSeveral::None).await?;
    let host = crate::address::machine(&record.address);
    let asking = Asking::new(&client.directory, &client.caller, client.peer, Some(host)).await;
    let name = body.text("Name")?.unwrap_or_else(|| "check".to_owned());
    let check = definition::check(&body, [&name, &name], &record.address, &asking)?;
    let amendment = Amendment::Add(Box::new(check));
    let known = record.upkeep.as_deref().cloned().unwrap_or_default();
    let with = known.amended(amendment.clone()).ok_or_else(|| invalid("it cannot be added"))?;
    definition::within_bounds(&with)?;
    client.directory.amend(key, amendment).await?;
    Ok(())
}

pub(super) async fn remove_check(client: Client, id: Name) -> Result<(), Refused> {
    let id = path(id)?;
    let key = client.own(&Named::Check(id.clone()), OfSeveral::None).await?.0;
    client.directory.amend(key, Amendment::Remove(id)).await?;
    Ok(())
}

pub(super) async fn pass(reporting: Reporting) -> Result<(), Refused> {
    reporting.noted(Status::Passing).await
}

pub(super) async fn warn(reporting: Reporting) -> Result<(), Refused> {
    reporting.noted(Status::Warning).await
}

pub(super) async fn fail(reporting: Reporting) -> Result<(), Refused> {
    reporting.noted(Status::Critical).await
}

pub(super) async fn update(reporting: Reporting, Anything(body): Anything) -> Response {
    let update = async {
        let body = Object::read(&body)?;
        let status = body.text("Status")?.ok_or_else(|| invalid("there is no Status"))?;
        let status = definition::status(&status)?;
        let output = body.text("Output")?.unwrap_or_default();
        reporting.report(status, &output).await
    };
    match update.await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(problem) => Refused::from(problem).into_response(),
    }
}

/// Who reports which check.
pub(super) struct Reporting {
    client: Client,
    check: String,
    note: String,
}

impl FromRequestParts<Source> for Reporting {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, source: &Source) -> Result<Self, Refused> {
        let client = Client::from_request_parts(parts, source).await?;
        let id = axum::extract::Path::<String>::from_request_parts(parts, source).await;
        let pairs = form(parts.uri.query().unwrap_or_default())?;
        let note = pairs.into_iter().find(|(name, _)| name == "note");
        let note = note.map(|(_, note)| note).unwrap_or_default();
        Ok(Reporting { client, check: path(id)?, note })
    }
}

impl Reporting {
    async fn noted(self, status: Status) -> Result<(), Refused> {
        let note = self.note.clone();
        Ok(self.report(status, &note).await?)
    }

    async fn report(self, status: Status, output: &str) -> Result<(), Problem> {
        let Reporting { client, check, .. } = self;
        let (key, record) = client.own(&Named::Check(check.clone()), OfSeveral::Newest).await?;
        let reported = record.upkeep.as_deref().and_then(Upkeep::reported);
        if reported.is_none_or(|(known, _)| known.id != check) {
            let detail = format!("the check '{check}' has no TTL: the registry makes it itself");
            return Err(invalid(detail));
        }
        client.directory.report(key, &record, check, status, output).await
    }
}
