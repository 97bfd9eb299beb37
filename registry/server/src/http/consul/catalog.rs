//! The catalog: which services and nodes there are. Registrations in it are for others, such as services
//! that know nothing of a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};
use wharf_net::http::Peer;
use wharf_registry_api::{Code, Problem};

use super::definition::{self, Asking, Object};
use super::query::{Knows, Query};
use super::shapes::{self, Entry, node_name};
use super::{DATACENTER, answer, list};
use crate::directory::Directory;
use crate::http::Refused;
use crate::http::authorize::Caller;
use crate::http::parameters::{Anything, Name, invalid, path};
use crate::listing::HostSnapshot;
use crate::upkeep::Amendment;
use crate::view::Scope;

pub(super) async fn leader() -> Json<&'static str> {
    Json("127.0.0.1:8300")
}

pub(super) async fn peers() -> Json<[&'static str; 1]> {
    Json(["127.0.0.1:8300"])
}

pub(super) async fn datacenters() -> Json<[&'static str; 1]> {
    Json([DATACENTER])
}

/// Names of services, each with all its tags.
pub(super) async fn services(
    State(directory): State<Arc<Directory>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), Knows::default())?;
    let (index, hosts) = list(&directory, Scope::All, &query).await?;
    let mut services = BTreeMap::<&str, BTreeSet<&str>>::new();
    for host in &hosts {
        for spec in &host.record.endpoints {
            let name = host.registered.as_deref().unwrap_or(&spec.service);
            services.entry(name).or_default().extend(spec.tags.iter().map(String::as_str));
        }
    }
    query.finished()?;
    Ok(answer(&directory, index, services))
}

pub(super) async fn nodes(
    State(directory): State<Arc<Directory>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let knows = Knows { filter: Some(shapes::NODES), ..Knows::default() };
    let query = Query::parse(query.as_deref(), knows)?;
    let (index, hosts) = list(&directory, Scope::All, &query).await?;
    // Several registrations may be of one node.
    let mut nodes = BTreeMap::<&str, &HostSnapshot>::new();
    for host in &hosts {
        nodes.entry(node_name(host)).or_insert(host);
    }
    let nodes = nodes.into_values().map(shapes::node).filter(|node| query.filters_in(node));
    query.finished()?;
    Ok(answer(&directory, index, nodes.collect::<Vec<_>>()))
}

pub(super) async fn node(
    State(directory): State<Arc<Directory>>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let knows = Knows { filter: Some(shapes::SERVICES), ..Knows::default() };
    let (name, query) = (path(name)?, Query::parse(query.as_deref(), knows)?);
    let (index, hosts) = list(&directory, Scope::Node(&name), &query).await?;
    let Some(first) = hosts.first() else {
        return Ok(answer(&directory, index, Value::Null));
    };
    let services = hosts.iter().flat_map(Entry::of).map(|entry| (entry.id(), entry.service()));
    let services: BTreeMap<String, Value> =
        services.filter(|(_, service)| query.filters_in(service)).collect();
    query.finished()?;
    Ok(answer(&directory, index, json!({ "Node": shapes::node(first), "Services": services })))
}

/// A service's endpoints, each in one flat object with its node.
pub(super) async fn service(
    State(directory): State<Arc<Directory>>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let knows = Knows { tags: true, passing: false, filter: Some(shapes::CATALOG) };
    let query = Query::parse(query.as_deref(), knows)?;
    let service = crate::validate::service(&path(name)?)?;
    let (index, hosts) = list(&directory, Scope::Service(&service), &query).await?;
    let wanted = |entry: &Entry<'_>| {
        let spec = &entry.endpoint.spec;
        spec.service == service && query.tags.iter().all(|tag| spec.tags.contains(tag))
    };
    let entries = hosts.iter().flat_map(Entry::of).filter(wanted).map(|entry| flat(&entry));
    let entries: Vec<Value> = entries.filter(|entry| query.filters_in(entry)).collect();
    query.finished()?;
    Ok(answer(&directory, index, entries))
}

fn flat(entry: &Entry<'_>) -> Value {
    let mut flat = shapes::node(entry.host);
    if let (Value::Object(flat), Value::Object(service)) = (&mut flat, entry.service()) {
        let meta = flat.remove("Meta").unwrap_or_default();
        flat.insert("NodeMeta".to_owned(), meta);
        for (name, value) in service {
            let name = match name.as_str() {
                "CreateIndex" | "ModifyIndex" => name,
                "Service" => "ServiceName".to_owned(),
                _ => format!("Service{name}"),
            };
            flat.insert(name, value);
        }
    }
    flat
}

/// Registers a service of a node that does not do so itself.
pub(super) async fn register(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    Extension(Peer(peer)): Extension<Peer>,
    Anything(body): Anything,
) -> Result<Json<bool>, Refused> {
    let body = Object::read(&body)?;
    let node = body.text("Node")?.ok_or_else(|| invalid("there is no Node: name one"))?;
    crate::validate::name("node's name", &node)?;
    let Some(service) = body.object("Service")? else {
        let detail = "a node without a Service is not kept here: register a Service with it";
        return Err(invalid(detail).into());
    };
    let address = body.text("Address")?;
    let host = service.text("Address")?.or_else(|| address.clone());
    let asking = Asking::new(&directory, &caller, peer, host.as_deref()).await;
    let mut registered = definition::service(&service, address.as_deref(), &asking)?;
    for check in body.objects("Check", "Checks")? {
        definition::add_known(&mut registered, &check, &asking)?;
    }
    // Whoever names a node says where that is.
    caller.may_write(&node)?;
    registered.upkeep.node = Some(node);
    caller.may_write(&registered.name)?;
    directory.register_named(registered, |name| caller.may_write(name)).await?;
    Ok(Json(true))
}

/// Withdraws a service of a node, or all of them.
pub(super) async fn deregister(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    Anything(body): Anything,
) -> Result<Json<bool>, Refused> {
    let body = Object::read(&body)?;
    let node = body.text("Node")?.ok_or_else(|| invalid("there is no Node: name one"))?;
    let (service, check) = (body.text("ServiceID")?, body.text("CheckID")?);
    if check.is_some() && service.is_none() {
        let detail = "a check belongs to a service here: name its ServiceID too";
        return Err(Problem::new(Code::Invalid, detail).into());
    }
    directory.catch_up(&node).await?;
    let (_, mut hosts) = directory.listed(Scope::Node(&node));
    let mine = |entry: &Entry<'_>| service.as_ref().is_none_or(|id| *id == entry.id());
    hosts.retain(|host| host.is_classic && Entry::of(host).any(|entry| mine(&entry)));
    // All of it, or nothing.
    hosts.iter().try_for_each(|host| caller.may_write(host.key.name()))?;
    for host in hosts {
        match &check {
            Some(check) => directory.amend(host.key, Amendment::Remove(check.clone())).await?,
            None => directory.withdraw_registration(&host.key).await?,
        }
    }
    Ok(Json(true))
}
