//! What Consul has and the registry does not. A 404 would say that a key does not exist.

use axum::extract::Request;
use wharf_registry_api::{Code, Problem};

use crate::http::Refused;

/// The paths of it.
pub(super) const PATHS: &[&str] = &[
    "/v1/kv/{*rest}",
    "/v1/txn",
    "/v1/session/{*rest}",
    "/v1/event/{*rest}",
    "/v1/query",
    "/v1/query/{*rest}",
    "/v1/connect/{*rest}",
    "/v1/catalog/connect/{*rest}",
    "/v1/catalog/gateway-services/{*rest}",
    "/v1/health/connect/{*rest}",
    "/v1/health/ingress/{*rest}",
    "/v1/config",
    "/v1/config/{*rest}",
    "/v1/acl/{*rest}",
    "/v1/operator/{*rest}",
    "/v1/snapshot",
    "/v1/coordinate/{*rest}",
    "/v1/peering/{*rest}",
    "/v1/peerings",
];

pub(super) async fn answer(request: Request) -> Refused {
    let path = request.uri().path();
    let first = path.trim_start_matches("/v1/").split('/').next().unwrap_or_default();
    let what = match first {
        "kv" | "txn" => "keys and values",
        "session" => "sessions and locks",
        "event" => "events",
        "query" => "prepared queries",
        "catalog" | "health" | "connect" | "config" | "peering" | "peerings" => {
            "a service mesh: no proxies, intentions, configuration entries or peerings"
        }
        "acl" => "Consul's ACLs: rights are in its file of principals",
        "snapshot" => "Consul's snapshots: use 'wharf registry backup'",
        _ => "this part of Consul's API",
    };
    let detail = format!(
        "this is a Wharf registry, which answers Consul's catalog, health and agent API; it does not have {what}"
    );
    Problem::new(Code::NotOffered, detail).into()
}
