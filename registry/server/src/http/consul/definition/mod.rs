//! What clients of Consul send to register services and checks.
//!
//! As in Consul, names of fields may be in any case, and fields that are not known mean nothing. Those that
//! are known, and would be needed for what was asked, are refused.

mod check;
mod object;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wharf_registry_api::Problem;

pub(in crate::http) use self::check::classic_check;
use self::check::{bare, drop_after, probe};
pub(super) use self::check::{check, status};
pub(super) use self::object::Object;
use crate::address::is_loopback;
use crate::directory::Directory;
use crate::http::authorize::Caller;
use crate::http::parameters::invalid;
use crate::probing::look_up;
use crate::registrations::Registered;
use crate::upkeep::{Check, Kind, MAX_CHECKS, Upkeep, one_line};

/// Who asks for a registration, and what that allows.
pub(in crate::http) struct Asking {
    peer: IpAddr,
    /// A critical service is not dropped sooner, whatever it says.
    shortest_drop: Duration,
    /// The registry may connect to the service for this caller.
    may_check_it: bool,
}

impl Asking {
    /// # Arguments
    /// `host` is where the service is said to be.
    pub(in crate::http) async fn new(
        directory: &Directory,
        caller: &Caller,
        peer: IpAddr,
        host: Option<&str>,
    ) -> Self {
        let may_check_it = caller.may_administer().is_ok()
            || match host.map(|host| (host, host.parse::<IpAddr>())) {
                None => true,
                Some((_, Ok(ip))) => ip.to_canonical() == peer.to_canonical(),
                Some((name, Err(_))) => {
                    let found = look_up(&format!("{name}:0")).await.unwrap_or_default();
                    let is_peer =
                        |found: &SocketAddr| found.ip().to_canonical() == peer.to_canonical();
                    is_loopback(name) || found.iter().any(is_peer)
                }
            };
        Asking { peer, shortest_drop: directory.shortest_drop(), may_check_it }
    }

    /// The same for a definition, whose `Address` says where the service is.
    pub(super) async fn of(
        directory: &Directory,
        caller: &Caller,
        peer: IpAddr,
        body: &Object,
    ) -> Result<Self, Problem> {
        Ok(Asking::new(directory, caller, peer, body.text("Address")?.as_deref()).await)
    }

    #[cfg(test)]
    fn from(peer: IpAddr) -> Self {
        Asking { peer, shortest_drop: Duration::from_secs(60), may_check_it: true }
    }
}

/// A service's definition. Without an address it is at `usually`, or else where its request came from.
pub(super) fn service(
    body: &Object,
    usually: Option<&str>,
    asking: &Asking,
) -> Result<Registered, Problem> {
    for (field, what) in [
        ("Connect", "sidecar proxies"),
        ("Proxy", "proxies"),
        ("Kind", "services of a kind of their own, such as proxies"),
    ] {
        if body.is_set(field) {
            return Err(invalid(format!("this registry does not have {what}: leave {field} out")));
        }
    }
    let name = match body.text("Name")? {
        Some(name) => name,
        // In the catalog it is called so.
        None => {
            body.text("Service")?.ok_or_else(|| invalid("there is no Name: name the service"))?
        }
    };
    let port =
        body.number("Port", u64::from(u16::MAX))?.filter(|port| *port > 0).ok_or_else(|| {
            invalid(
                "there is no Port: a service is registered where it can be called, with its Port",
            )
        })?;
    let host = match body.text("Address")? {
        Some(host) => host,
        None => usually.map_or_else(|| asking.peer.to_string(), str::to_owned),
    };
    let address = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(host)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    let id = match body.text("ID")? {
        Some(id) => id,
        None => name.clone(),
    };
    crate::validate::name("service's ID", &id)?;
    let mut registered = Registered {
        name,
        address,
        tags: body.texts("Tags")?,
        metadata: body.map("Meta")?,
        upkeep: Upkeep { id: Some(id), stays: true, ..Upkeep::default() },
    };
    let checks = body.objects("Check", "Checks")?;
    let several = checks.len() > 1;
    for (nth, check) in checks.iter().enumerate() {
        let id = registered.upkeep.id.as_deref().unwrap_or_default();
        let usual = match several {
            true => format!("service:{id}:{}", nth + 1),
            false => format!("service:{id}"),
        };
        let name = format!("Service '{}' check", registered.name);
        let check = self::check(check, [&usual, &name], &registered.address, asking)?;
        add(&mut registered.upkeep, check)?;
    }
    Ok(registered)
}

/// Adds a check to a service's.
fn add(upkeep: &mut Upkeep, check: Check) -> Result<(), Problem> {
    if upkeep.checks.iter().any(|known| known.id == check.id) {
        return Err(invalid(format!("two checks have the ID '{}'", check.id)));
    }
    upkeep.checks.push(check);
    within_bounds(upkeep)
}

/// Whether a service may have all these checks.
pub(super) fn within_bounds(upkeep: &Upkeep) -> Result<(), Problem> {
    if !upkeep.is_within_bounds() {
        return Err(invalid(format!(
            "a service has at most {MAX_CHECKS} checks, and at most one check with a TTL"
        )));
    }
    Ok(())
}

/// A check that comes with the catalog's registration of a service: its status is known, or the registry
/// finds it out as the definition says.
pub(super) fn add_known(
    registered: &mut Registered,
    body: &Object,
    asking: &Asking,
) -> Result<(), Problem> {
    let id = registered.upkeep.id.clone().unwrap_or_default();
    if body.text("ServiceID")?.is_some_and(|of| of != id) {
        return Err(invalid(format!(
            "a check of another service than '{id}': register it with that"
        )));
    }
    let name = format!("Service '{}' check", registered.name);
    let mut check = bare(body, [&format!("service:{id}"), &name], Kind::Stated)?;
    check.output = one_line(&body.text("Output")?.unwrap_or_default());
    if let Some(definition) = body.object("Definition")?
        && let Some(probe) = probe(&definition, &registered.address, asking)?
    {
        check.kind = Kind::Probed(probe);
        check.drop_after_ms = drop_after(&definition, asking)?;
    }
    add(&mut registered.upkeep, check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::Status;
    use serde_json::{Value, json};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    fn read(body: &Value) -> Result<Registered, String> {
        let body = Object::read(&serde_json::to_vec(body).unwrap().into()).map_err(|p| p.detail)?;
        service(&body, None, &Asking::from(THERE)).map_err(|problem| problem.detail)
    }

    #[test]
    fn kratos_registers_with_a_connection_and_a_ttl() {
        let registered = read(&json!({
            "ID": "greeter-1", "Name": "greeter", "Tags": ["version=v1"],
            "Meta": {"kind": "grpc"}, "Address": "10.0.0.9", "Port": 9000,
            "TaggedAddresses": {"grpc": {"Address": "grpc://10.0.0.9:9000", "Port": 9000}},
            "Checks": [
                {"TCP": "10.0.0.9:9000", "Interval": "10s", "Timeout": "5s", "Status": "passing",
                 "DeregisterCriticalServiceAfter": "600s"},
                {"CheckID": "service:greeter-1", "TTL": "20s", "Status": "passing",
                 "DeregisterCriticalServiceAfter": "600s", "TLSSkipVerify": true, "Timeout": "5s"}
            ]
        }))
        .unwrap();
        assert_eq!((&registered.name[..], &registered.address[..]), ("greeter", "10.0.0.9:9000"));
        let checks = &registered.upkeep.checks;
        assert_eq!(checks[0].id, "service:greeter-1:1");
        assert_eq!(checks[1].id, "service:greeter-1");
        assert_eq!(checks[1].kind, Kind::Reported { ttl_ms: 20_000 });
        assert_eq!(checks[1].drop_after_ms, Some(600_000));
        assert!(checks.iter().all(|check| check.status == Status::Passing));
    }

    #[test]
    fn a_service_without_an_address_is_where_its_request_came_from_in_any_spelling() {
        let registered = read(&json!({
            "name": "web", "port": 80,
            "check": {"http": "http://localhost:8080/health?deep=1", "interval": "1ns"}
        }));
        assert!(registered.unwrap_err().contains("Interval is 1ns"), "a time out of bounds");
        let registered = read(&json!({
            "name": "web", "port": 80,
            "check": {"http": "http://localhost:8080/health?deep=1", "interval": "100ms",
                      "deregister_critical_service_after": "1m"}
        }))
        .unwrap();
        assert_eq!(registered.address, "10.0.0.9:80");
        assert_eq!(registered.upkeep.id.as_deref(), Some("web"));
        let [check] = &registered.upkeep.checks[..] else { panic!() };
        assert_eq!((check.status, &check.id[..]), (Status::Critical, "service:web"));
        assert_eq!(check.drop_after_ms, Some(60_000));
        let Kind::Probed(probe) = &check.kind else { panic!() };
        assert_eq!((&probe.address[..], probe.interval_ms), ("10.0.0.9:8080", 1_000));
        let http = probe.http.as_ref().unwrap();
        assert_eq!((&http.host[..], &http.path[..]), ("localhost:8080", "/health?deep=1"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_a_reason() {
        let with =
            |check: Value| json!({"Name": "a", "Port": 1, "Address": "10.0.0.9", "Check": check});
        for (body, why) in [
            (json!([]), "JSON object"),
            (json!({"Port": 1}), "no Name"),
            (json!({"Name": "a"}), "no Port"),
            (json!({"Name": "a", "Port": 70_000}), "up to 65535"),
            (json!({"Name": 7, "Port": 1}), "Name has to be a string"),
            (json!({"Name": "a", "Port": 1, "Tags": "x"}), "list of strings"),
            (json!({"Name": "a", "Port": 1, "Connect": {"Native": true}}), "sidecar proxies"),
            (json!({"Name": "a", "Port": 1, "Kind": "connect-proxy"}), "leave Kind out"),
            (with(json!({})), "TTL, TCP or HTTP"),
            (with(json!({"GRPC": "10.0.0.9:1", "Interval": "1s"})), "no checks by GRPC"),
            (with(json!({"Args": ["sh", "-c", "true"], "Interval": "1s"})), "no checks by Args"),
            (with(json!({"TTL": "soon"})), "TTL has to be a time"),
            (with(json!({"TCP": "10.0.0.9:1"})), "Interval"),
            (with(json!({"TCP": "10.0.0.8:1", "Interval": "1s"})), "own machine 10.0.0.9"),
            (with(json!({"HTTP": "https://10.0.0.9:1/", "Interval": "1s"})), "only http://"),
            (with(json!({"HTTP": "http://u:p@10.0.0.9:1/", "Interval": "1s"})), "password"),
            (with(json!({"HTTP": "http://10.0.0.9/", "Interval": "1s", "Method": "PUT"})), "GET"),
            (with(json!({"TTL": "1s", "TCP": "10.0.0.9:1", "Interval": "1s"})), "a TTL, or else"),
            (
                json!({"Name": "a", "Port": 1, "Checks": [{"TTL": "1s"}, {"TTL": "1s", "CheckID": "b"}]}),
                "at most one check with a TTL",
            ),
            (
                json!({"Name": "a", "Port": 1, "Address": "127.0.0.1",
                       "Check": {"TCP": "127.0.0.1:22", "Interval": "1s"}}),
                "the registry's machine",
            ),
        ] {
            let error = read(&body).err().unwrap_or_else(|| panic!("{body}"));
            assert!(error.contains(why), "{body}: {error}");
        }
        let here = json!({"Name": "a", "Port": 1, "Address": "127.0.0.1",
                          "Check": {"TCP": "127.0.0.1:22", "Interval": "1s"}});
        let here = Object::read(&serde_json::to_vec(&here).unwrap().into()).ok().unwrap();
        assert!(service(&here, None, &Asking::from(HERE)).is_ok());
    }
}
