//! What clients of Consul send to register services and checks.
//!
//! As in Consul, names of fields may be in any case, and fields that are not known mean nothing. Those that
//! are known, and would be needed for what was asked, are refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::Value;
use wharf_registry_api::{Metadata, Problem, limits};

use super::shapes::split;
use crate::http::parameters::invalid;
use crate::registrations::Registered;
use crate::upkeep::{Check, HttpProbe, Kind, Probe, Status, Upkeep};

/// The most checks of one service.
pub(super) const MAX_CHECKS: usize = 8;

/// The shortest and the longest time that may be asked for.
const TIMES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(30 * 24 * 3600)];

/// Checks are not made more often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a check may take, unless it says so itself; and at most.
const TIMEOUTS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// Kinds of checks that Consul has and the registry does not make.
const OTHER_CHECKS: [&str; 9] = [
    "Args",
    "Script",
    "DockerContainerID",
    "GRPC",
    "H2PING",
    "UDP",
    "AliasNode",
    "AliasService",
    "OSService",
];

/// A JSON object, with names in any case.
pub(super) struct Object(HashMap<String, Value>);

/// `ServiceID`, `serviceId` and `service_id` are the same.
fn folded(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

impl Object {
    pub(super) fn read(body: &Bytes) -> Result<Self, Problem> {
        let value = serde_json::from_slice::<Value>(body)
            .map_err(|error| invalid(format!("the body has to be a JSON object: {error}")))?;
        Object::of(value).ok_or_else(|| invalid("the body has to be a JSON object"))
    }

    fn of(value: Value) -> Option<Self> {
        let Value::Object(fields) = value else { return None };
        Some(Object(fields.into_iter().map(|(name, value)| (folded(&name), value)).collect()))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(&folded(name)).filter(|value| !value.is_null())
    }

    /// A text; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(other) => Err(invalid(format!("{name} has to be a string, not {other}"))),
        }
    }

    fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| *number <= most);
        let number = number
            .ok_or_else(|| invalid(format!("{name} has to be a number up to {most}, not {value}")));
        number.map(Some)
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Object>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let object = Object::of(value.clone());
        object.map(Some).ok_or_else(|| invalid(format!("{name} has to be an object")))
    }

    /// The objects in a field for one, and in a field for several.
    pub(super) fn objects(&self, one: &str, several: &str) -> Result<Vec<Object>, Problem> {
        let mut objects: Vec<Object> = self.object(one)?.into_iter().collect();
        match self.get(several) {
            None => {}
            Some(Value::Array(values)) => {
                for value in values {
                    let object = Object::of(value.clone());
                    objects.push(object.ok_or_else(|| {
                        invalid(format!("{several} has to be a list of objects"))
                    })?);
                }
            }
            Some(_) => return Err(invalid(format!("{several} has to be a list of objects"))),
        }
        if objects.len() > MAX_CHECKS {
            return Err(invalid(format!("{} checks, at most {MAX_CHECKS}", objects.len())));
        }
        Ok(objects)
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        serde_json::from_value(value.clone())
            .map_err(|_| invalid(format!("{name} has to be a list of strings")))
    }

    fn map(&self, name: &str) -> Result<Metadata, Problem> {
        let Some(value) = self.get(name) else { return Ok(Metadata::new()) };
        serde_json::from_value(value.clone())
            .map_err(|_| invalid(format!("{name} has to be an object of strings")))
    }

    /// A time as Go writes it, `1m30s`, or a number of nanoseconds; an empty or zero one is none.
    fn time(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let time = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => go_duration(text),
            Some(value) => value.as_u64().map(Duration::from_nanos),
        };
        let time = time
            .ok_or_else(|| invalid(format!("{name} has to be a time like 10s, 1m30s or 500ms")))?;
        if time.is_zero() {
            return Ok(None);
        }
        let [shortest, longest] = TIMES;
        if !(shortest..=longest).contains(&time) {
            return Err(invalid(format!(
                "{name} is {time:?}: choose a time from {shortest:?} to {} days",
                longest.as_secs() / 86_400
            )));
        }
        Ok(Some(time))
    }

    fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(values) => !values.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(set) => *set,
            _ => true,
        })
    }
}

/// Parses a time as Go's `time.ParseDuration` does: numbers, also with fractions, each with its unit.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() || text.len() > 64 {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// A service's definition. Without an address it is at `usually`, or else where its request came from.
pub(super) fn service(
    body: &Object,
    usually: Option<&str>,
    peer: IpAddr,
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
        None => usually.map_or_else(|| peer.to_string(), str::to_owned),
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
        let check = self::check(check, [&usual, &name], &registered.address, peer)?;
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
    if upkeep.checks.len() > MAX_CHECKS {
        return Err(invalid(format!("a service has at most {MAX_CHECKS} checks")));
    }
    let reported = |check: &&Check| matches!(check.kind, Kind::Reported { .. });
    if upkeep.checks.iter().filter(reported).count() > 1 {
        return Err(invalid("a service has at most one check with a TTL"));
    }
    Ok(())
}

/// A check that comes with the catalog's registration of a service: its status is known, or the registry
/// finds it out as the definition says.
pub(super) fn add_known(registered: &mut Registered, body: &Object) -> Result<(), Problem> {
    let id = registered.upkeep.id.clone().unwrap_or_default();
    if body.text("ServiceID")?.is_some_and(|of| of != id) {
        return Err(invalid(format!(
            "a check of another service than '{id}': register it with that"
        )));
    }
    let name = format!("Service '{}' check", registered.name);
    let mut check = bare(body, [&format!("service:{id}"), &name], Kind::Stated)?;
    check.output = crate::validate::one_line(&body.text("Output")?.unwrap_or_default());
    if let Some(definition) = body.object("Definition")?
        && let Some(probe) = probe(&definition, &registered.address, None)?
    {
        check.kind = Kind::Probed(probe);
        check.drop_after_ms = definition.time("DeregisterCriticalServiceAfter")?.map(millis);
    }
    add(&mut registered.upkeep, check)
}

/// A check. `usual` are its ID and its name unless it has others; `address` is the service's.
pub(super) fn check(
    body: &Object,
    usual: [&str; 2],
    address: &str,
    peer: IpAddr,
) -> Result<Check, Problem> {
    if let Some(other) = OTHER_CHECKS.iter().find(|kind| body.is_set(kind)) {
        return Err(invalid(format!(
            "this registry makes no checks by {other}: use TTL, TCP or HTTP"
        )));
    }
    let kind = match (body.time("TTL")?, probe(body, address, Some(peer))?) {
        (Some(_), Some(_)) => return Err(invalid("a check has a TTL, or else TCP or HTTP")),
        (Some(ttl), None) => Kind::Reported { ttl_ms: millis(ttl) },
        (None, Some(probe)) => Kind::Probed(probe),
        (None, None) => return Err(invalid("a check has to have TTL, TCP or HTTP")),
    };
    let mut check = bare(body, usual, kind)?;
    check.drop_after_ms = body.time("DeregisterCriticalServiceAfter")?.map(millis);
    Ok(check)
}

fn bare(body: &Object, usual: [&str; 2], kind: Kind) -> Result<Check, Problem> {
    let id = match body.text("CheckID")? {
        Some(id) => id,
        None => body.text("ID")?.unwrap_or_else(|| usual[0].to_owned()),
    };
    crate::validate::name("check's ID", &id)?;
    let status = match body.text("Status")? {
        // As in Consul: nothing is fine before it was found to be.
        None => Status::Critical,
        Some(text) => status(&text)?,
    };
    let said = |name: &str| -> Result<String, Problem> {
        Ok(crate::validate::one_line(&body.text(name)?.unwrap_or_default()))
    };
    let name = said("Name")?;
    let name = if name.is_empty() { usual[1].to_owned() } else { name };
    let output = "not checked yet".to_owned();
    let notes = said("Notes")?;
    Ok(Check { id, name, notes, kind, status, output, drop_after_ms: None })
}

pub(super) fn status(text: &str) -> Result<Status, Problem> {
    Status::parse(text).ok_or_else(|| {
        invalid(format!("a check's status is passing, warning or critical, not '{text}'"))
    })
}

/// How the registry tries a service. It connects to nobody else than the service. Its own machine is tried
/// only for callers on that machine: others would learn what listens there.
fn probe(body: &Object, address: &str, peer: Option<IpAddr>) -> Result<Option<Probe>, Problem> {
    let (target, http) = match (body.text("TCP")?, body.text("HTTP")?) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(invalid("a check has TCP or HTTP, not both")),
        (Some(target), None) => (target, None),
        (None, Some(url)) => {
            let (target, http) = http(body, &url)?;
            (target, Some(http))
        }
    };
    crate::validate::address(&target)?;
    let (host, port) = split(&target);
    let (own, _) = split(address);
    let host = match is_loopback(host) {
        // Consul's agent is on the service's machine, and checks it there.
        true => own,
        false => host,
    };
    if !host.eq_ignore_ascii_case(own) {
        return Err(invalid(format!(
            "a check has to be of the service's own machine {own}, not of {host}"
        )));
    }
    if is_loopback(host) && peer.is_none_or(|peer| !peer.is_loopback()) {
        return Err(invalid(format!(
            "a check of {host} would check the registry's machine: register the address at which others reach the service"
        )));
    }
    let interval = body
        .time("Interval")?
        .ok_or_else(|| invalid("a check by TCP or HTTP has to have an Interval, as in \"10s\""))?;
    let timeout = body.time("Timeout")?.unwrap_or(TIMEOUTS[0]).min(TIMEOUTS[1]);
    let count = |name| -> Result<u32, Problem> {
        Ok(body.number(name, 100)?.and_then(|n| u32::try_from(n).ok()).unwrap_or_default())
    };
    Ok(Some(Probe {
        address: if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        },
        http,
        interval_ms: millis(interval.max(SHORTEST_INTERVAL)),
        timeout_ms: millis(timeout),
        patience: [count("SuccessBeforePassing")?, count("FailuresBeforeCritical")?],
    }))
}

/// Where a check by HTTP connects to, and what it asks for.
fn http(body: &Object, url: &str) -> Result<(String, HttpProbe), Problem> {
    let refused = |why: &str| invalid(format!("HTTP={url}: {why}"));
    if let Some(method) = body.text("Method")?.filter(|method| method != "GET") {
        return Err(refused(&format!("checks are made with GET, not {method}")));
    }
    if body.is_set("Header") || body.is_set("Body") {
        return Err(refused("checks send no Header and no Body of their own"));
    }
    let url: axum::http::Uri = url.parse().map_err(|_| refused("this is not a URL"))?;
    if url.scheme_str() != Some("http") {
        return Err(refused("only http:// is checked: use TCP for a service with TLS"));
    }
    let authority = url.authority().ok_or_else(|| refused("there is no host"))?;
    if authority.as_str().contains('@') {
        return Err(refused("leave user and password out"));
    }
    let target = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    if path.len() > limits::REASON {
        return Err(refused("it is too long"));
    }
    Ok((target, HttpProbe { host: authority.as_str().to_owned(), path: path.to_owned() }))
}

/// The check of a classic registration: `tcp`, or `http:/path`.
pub(in crate::http) fn classic_check(
    text: &str,
    name: &str,
    address: &str,
    peer: IpAddr,
) -> Result<Check, Problem> {
    let mut fields = serde_json::Map::from_iter([("Interval".to_owned(), "10s".into())]);
    match text.strip_prefix("http:") {
        Some(path) if path.starts_with('/') => {
            fields.insert("HTTP".to_owned(), format!("http://{address}{path}").into());
        }
        None if text == "tcp" => drop(fields.insert("TCP".to_owned(), address.into())),
        _ => {
            return Err(invalid(format!("check={text}: write check=tcp or check=http:/health")));
        }
    }
    let body = Object::of(Value::Object(fields)).ok_or_else(|| invalid("no check"))?;
    let usual = [&format!("service:{name}@{address}")[..], "Registry's check"];
    check(&body, usual, address, peer)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    fn read(body: &Value) -> Result<Registered, String> {
        let body = Object::read(&serde_json::to_vec(body).unwrap().into()).map_err(|p| p.detail)?;
        service(&body, None, THERE).map_err(|problem| problem.detail)
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("500ms", 500), ("0", 0)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "10x", "-5s", "1.2.3s", "1e9h", "\u{661}s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
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
        assert!(service(&here, None, HERE).is_ok());
    }
}
