//! Checks: what is reported, and what the registry tries.

use std::time::Duration;

use serde_json::Value;
use wharf_registry_api::{Code, Problem, limits};

use super::{Asking, Object};
use crate::address::{is_loopback, split};
use crate::http::parameters::invalid;
use crate::probing::own_machine;
use crate::upkeep::{
    Check, HttpProbe, Kind, LONGEST_TIMEOUT, Probe, SHORTEST_INTERVAL, Status, one_line,
};

/// How long a check may take, unless it says so itself.
const USUAL_TIMEOUT: Duration = Duration::from_secs(10);

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

/// A check. `usual` are its ID and its name unless it has others; `address` is the service's.
pub(in super::super) fn check(
    body: &Object,
    usual: [&str; 2],
    address: &str,
    asking: &Asking,
) -> Result<Check, Problem> {
    if let Some(other) = OTHER_CHECKS.iter().find(|kind| body.is_set(kind)) {
        return Err(invalid(format!(
            "this registry makes no checks by {other}: use TTL, TCP or HTTP"
        )));
    }
    let kind = match (body.time("TTL")?, probe(body, address, asking)?) {
        (Some(_), Some(_)) => return Err(invalid("a check has a TTL, or else TCP or HTTP")),
        (Some(ttl), None) => Kind::Reported { ttl_ms: millis(ttl) },
        (None, Some(probe)) => Kind::Probed(probe),
        (None, None) => return Err(invalid("a check has to have TTL, TCP or HTTP")),
    };
    let mut check = bare(body, usual, kind)?;
    check.drop_after_ms = drop_after(body, asking)?;
    Ok(check)
}

/// After how long a critical service is dropped, if it says so. As in Consul, not as soon as it may say.
pub(super) fn drop_after(body: &Object, asking: &Asking) -> Result<Option<u64>, Problem> {
    let after = body.long_time("DeregisterCriticalServiceAfter")?;
    Ok(after.map(|after| millis(after.max(asking.shortest_drop))))
}

pub(super) fn bare(body: &Object, usual: [&str; 2], kind: Kind) -> Result<Check, Problem> {
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
        Ok(one_line(&body.text(name)?.unwrap_or_default()))
    };
    let name = said("Name")?;
    let name = if name.is_empty() { usual[1].to_owned() } else { name };
    let output = "not checked yet".to_owned();
    let notes = said("Notes")?;
    let unknown = serde_json::Map::new();
    Ok(Check { id, name, notes, kind, status, output, drop_after_ms: None, unknown })
}

pub(in super::super) fn status(text: &str) -> Result<Status, Problem> {
    Status::parse(text).ok_or_else(|| {
        invalid(format!("a check's status is passing, warning or critical, not '{text}'"))
    })
}

/// How the registry tries a service. It connects to nobody else than the service, which has to be where its
/// owner asks from: others would look around with the registry's eyes. Its own machine is tried only for
/// callers on that machine.
pub(super) fn probe(
    body: &Object,
    address: &str,
    asking: &Asking,
) -> Result<Option<Probe>, Problem> {
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
    if is_loopback(host) && !asking.peer.is_loopback() {
        return Err(invalid(format!(
            "a check of {host} would check the registry's machine: register the address at which others reach the service"
        )));
    }
    if !asking.may_check_it {
        let detail = format!(
            "a check of {host} is for the programs on it, which ask from there, and for principals with the scope \"admin\": use a check with a TTL"
        );
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let interval = body
        .time("Interval")?
        .ok_or_else(|| invalid("a check by TCP or HTTP has to have an Interval, as in \"10s\""))?;
    let timeout = body.time("Timeout")?.unwrap_or(USUAL_TIMEOUT).min(LONGEST_TIMEOUT);
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
        machine: is_loopback(host).then(own_machine),
    }))
}

/// Where a check by HTTP connects to, and what it asks for.
fn http(body: &Object, url: &str) -> Result<(String, HttpProbe), Problem> {
    // An address can have secrets in it, so it is not repeated.
    let refused = |why: &str| invalid(format!("a check by HTTP: {why}"));
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
    asking: &Asking,
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
    check(&body, usual, address, asking)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
