//! Checks what requests bring: names, addresses, whole declarations.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::address::machine;
use crate::record::Registration;
use crate::upkeep::{Kind, Upkeep};
use heck::ToKebabCase;
use wharf_registry_api::{Code, Declaration, Metadata, Problem, limits};

/// `Arith` and `arith` are one service: names are compared in kebab-case.
#[must_use]
pub fn kebab(name: &str) -> String {
    name.to_kebab_case()
}

/// Checks a name of a host or service: visible ASCII, not too long.
pub(crate) fn name(what: &str, name: &str) -> Result<(), Problem> {
    let invalid = |why: &str| Err(Problem::new(Code::Invalid, format!("the {what} {why}")));
    if name.is_empty() {
        return invalid("is empty");
    }
    if name.len() > limits::NAME {
        return invalid(&format!("has {} bytes, at most {} are allowed", name.len(), limits::NAME));
    }
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return invalid("has white space, control characters or characters beyond ASCII");
    }
    Ok(())
}

/// Checks an address that others are to connect to.
pub(crate) fn address(address: &str) -> Result<(), Problem> {
    let invalid = |why: String| {
        Err(Problem::new(
            Code::Invalid,
            format!("the address '{address}' {why}: write HOST:PORT, as in 10.0.0.7:7400"),
        ))
    };
    if address.len() > limits::ADDRESS {
        let message = format!(
            "an address has {} bytes, at most {} are allowed",
            address.len(),
            limits::ADDRESS
        );
        return Err(Problem::new(Code::Invalid, message));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return invalid("has no port".into());
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    if !digits || port.parse::<u16>().is_err() {
        return invalid("has no valid port".into());
    }
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = in_brackets.unwrap_or(host).parse::<IpAddr>();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    // A name whose last label is a number is meant as an IPv4 address (as WHATWG's URLs have it).
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let label = |label: &str| {
        let ends = [label.starts_with('-'), label.ends_with('-')];
        (1..=63).contains(&label.len()) && label.chars().all(plain) && ends == [false, false]
    };
    let valid = match in_brackets {
        Some(_) => ip.as_ref().is_ok_and(IpAddr::is_ipv6),
        None => {
            let name = host.strip_suffix('.').unwrap_or(host);
            let last = name.rsplit('.').next().unwrap_or_default();
            ip.is_ok() || (name.len() <= 253 && name.split('.').all(label) && !is_number(last))
        }
    };
    if !valid {
        return invalid("has no valid host".into());
    }
    if ip.is_ok_and(|ip| ip.is_unspecified()) {
        return invalid("is not one that others can connect to".into());
    }
    Ok(())
}

/// Checks a session's number.
pub(crate) fn session(session: u64) -> Result<(), Problem> {
    if session > limits::SESSION {
        let message = format!("the session {session} is too large, at most {}", limits::SESSION);
        return Err(Problem::new(Code::Invalid, message));
    }
    Ok(())
}

/// Converts a service's name from any spelling to the registry's.
pub(crate) fn service(spelling: &str) -> Result<String, Problem> {
    if spelling.len() > limits::NAME {
        name("service's name", spelling)?;
    }
    let kebab = kebab(spelling);
    name("service's name", &kebab)?;
    Ok(kebab)
}

/// Checks the form of a heartbeat's digest.
pub(crate) fn digest(digest: &str) -> Result<(), Problem> {
    if digest.len() > limits::DIGEST {
        let message = format!("a digest has at most {} bytes", limits::DIGEST);
        return Err(Problem::new(Code::Invalid, message));
    }
    Ok(())
}

/// Checks a tag.
pub(crate) fn tag(tag: &str) -> Result<(), Problem> {
    if tag.is_empty() || tag.len() > limits::TAG || tag.chars().any(char::is_control) {
        let message = format!("a tag is one line of 1 to {} bytes, not {tag:?}", limits::TAG);
        return Err(Problem::new(Code::Invalid, message));
    }
    Ok(())
}

/// Checks how a registration is kept, as a backup has it.
pub(crate) fn upkeep(upkeep: &Upkeep, own: &str) -> Result<(), Problem> {
    let invalid = |why: &str| Err(Problem::new(Code::Invalid, format!("how it is kept {why}")));
    upkeep.id.as_deref().map_or(Ok(()), |id| name("service's ID", id))?;
    upkeep.node.as_deref().map_or(Ok(()), |node| name("node's name", node))?;
    if !upkeep.is_within_bounds() {
        return invalid("has too many checks");
    }
    let one_line = |text: &str| text.len() <= limits::REASON && !text.contains(char::is_control);
    for check in &upkeep.checks {
        name("check's ID", &check.id)?;
        if ![&check.name, &check.notes, &check.output].into_iter().all(|text| one_line(text)) {
            return invalid("has a text that is too long or not one line");
        }
        if let Kind::Probed(probe) = &check.kind {
            address(&probe.address)?;
            let is_own = machine(&probe.address).eq_ignore_ascii_case(machine(own));
            if !is_own || probe.interval_ms < 1_000 || probe.timeout_ms > 60_000 {
                return invalid("has a check that nobody could have registered");
            }
            if probe
                .http
                .as_ref()
                .is_some_and(|http| !one_line(&http.path) || !one_line(&http.host))
            {
                return invalid("has a check of something that is no path");
            }
        }
    }
    Ok(())
}

/// Checks a fingerprint's form.
pub(crate) fn fingerprint(fingerprint: &str) -> Result<(), Problem> {
    if fingerprint.len() != 32 || !fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::new(Code::Invalid, "a fingerprint is 32 hexadecimal digits"));
    }
    Ok(())
}

/// Checks the names and values of metadata.
fn metadata(metadata: &Metadata) -> Result<(), Problem> {
    let invalid = |message: String| Err(Problem::new(Code::Invalid, message));
    if metadata.len() > limits::METADATA {
        return invalid(format!(
            "{} metadata entries, at most {}",
            metadata.len(),
            limits::METADATA
        ));
    }
    for (name, value) in metadata {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > limits::METADATA_NAME || !name.chars().all(plain) {
            return invalid(format!(
                "the metadata name {name:?} may have letters, digits, '-', '_' and '.', at most {} bytes",
                limits::METADATA_NAME
            ));
        }
        if value.len() > limits::METADATA_VALUE || value.chars().any(char::is_control) {
            return invalid(format!(
                "the metadata value of '{name}' has to be one line of at most {} bytes",
                limits::METADATA_VALUE
            ));
        }
    }
    Ok(())
}

fn tags(tags: &[String]) -> Result<(), Problem> {
    if tags.len() > limits::TAGS {
        let message = format!("{} tags, at most {}", tags.len(), limits::TAGS);
        return Err(Problem::new(Code::Invalid, message));
    }
    tags.iter().try_for_each(|text| tag(text))
}

fn version(version: &str) -> Result<(), Problem> {
    let parsed = semver::Version::parse(version).map(drop);
    parsed.map_err(|error| {
        Problem::new(Code::Invalid, format!("the version '{version}' is invalid: {error}"))
    })
}

/// Checks what a classic registration says of itself.
pub(crate) fn registration(registration: &Registration) -> Result<(), Problem> {
    registration.version.as_deref().map_or(Ok(()), version)?;
    tags(&registration.tags)?;
    metadata(&registration.metadata)
}

/// Checks a whole declaration.
pub(crate) fn declaration(declaration: &Declaration) -> Result<(), Problem> {
    session(declaration.session)?;
    address(&declaration.address)?;
    metadata(&declaration.metadata)?;
    if declaration.endpoints.len() > limits::ENDPOINTS {
        let message = format!(
            "{} endpoints, at most {} are allowed for a host",
            declaration.endpoints.len(),
            limits::ENDPOINTS
        );
        return Err(Problem::new(Code::Invalid, message));
    }
    for endpoint in &declaration.endpoints {
        name("service's name", &endpoint.service)?;
        let mut words = endpoint.service.split('-');
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !words.all(|word| !word.is_empty() && word.chars().all(plain)) {
            let message = format!("the service '{}' is not in kebab-case", endpoint.service);
            return Err(Problem::new(Code::Invalid, message));
        }
        for (what, optional) in [("package", &endpoint.package), ("version", &endpoint.version)] {
            optional.as_deref().map_or(Ok(()), |text| name(what, text))?;
        }
        endpoint.version.as_deref().map_or(Ok(()), version)?;
        let reason = endpoint.reason.as_deref().unwrap_or_default();
        if reason.len() > limits::REASON || reason.chars().any(char::is_control) {
            let message = format!(
                "a reason is one line of at most {} bytes, without control characters",
                limits::REASON
            );
            return Err(Problem::new(Code::Invalid, message));
        }
        fingerprint(&endpoint.fingerprint)?;
        metadata(&endpoint.metadata)?;
        tags(&endpoint.tags)?;
    }
    let mut known = HashSet::new();
    for endpoint in &declaration.endpoints {
        if !known.insert(crate::listing::identity(endpoint)) {
            let message = format!(
                "the service '{}' is declared twice with the same version: declare it once",
                endpoint.service
            );
            return Err(Problem::new(Code::Invalid, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_connect_to_are_taken() {
        for good in [
            "127.0.0.1:80",
            "[::1]:7400",
            "db-1.example:65535",
            "my_host:1",
            "db.example.:1",
            "1a:1",
        ] {
            assert_eq!(address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":80",
            "0.0.0.0:80",
            "[::]:1",
            "a b:1",
            "a\n:1",
            "[::0]:80",
            "[x\u{1b}]:80",
            "[127.0.0.1]:80",
            "host:+80",
            "host:080",
            "h\u{f6}st:80",
            "256.1.1.1:1",
            "1.2.3:1",
            "7:1",
            "..:1",
            ".a:1",
            "-a:1",
            "a..b:1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_bounded_and_printable() {
        assert_eq!(name("host", "box-1"), Ok(()));
        for bad in ["", "a b", "a\0", &"x".repeat(limits::NAME + 1)] {
            assert!(name("host", bad).is_err(), "{bad:?}");
        }
    }
}
