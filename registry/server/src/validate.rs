//! What the registry takes for a name or an address.

use std::net::IpAddr;

use heck::ToKebabCase;
use wharf_registry_api::{Code, Declaration, Problem, limits};

/// `Arith` and `arith` are one service: names are compared in kebab-case.
#[must_use]
pub fn kebab(name: &str) -> String {
    name.to_kebab_case()
}

/// Checks a name of a host or service: printable, without white space, not too long.
pub(crate) fn name(what: &str, name: &str) -> Result<(), Problem> {
    let invalid = |why: &str| Err(Problem::new(Code::Invalid, format!("the {what} {why}")));
    if name.is_empty() {
        return invalid("is empty");
    }
    if name.len() > limits::NAME {
        return invalid(&format!("has {} bytes, at most {} are allowed", name.len(), limits::NAME));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return invalid("has white space or control characters in it");
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
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return invalid("has no valid port".into());
    }
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = in_brackets.unwrap_or(host).parse::<IpAddr>();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let valid = match in_brackets {
        Some(_) => ip.as_ref().is_ok_and(IpAddr::is_ipv6),
        None => !host.is_empty() && host.chars().all(plain),
    };
    if !valid {
        return invalid("has no valid host".into());
    }
    if ip.is_ok_and(|ip| ip.is_unspecified()) {
        return invalid("is nowhere that others could connect to".into());
    }
    Ok(())
}

/// Checks a whole declaration.
pub(crate) fn declaration(declaration: &Declaration) -> Result<(), Problem> {
    address(&declaration.address)?;
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
        if endpoint.service != kebab(&endpoint.service) {
            let message = format!("the service '{}' is not in kebab-case", endpoint.service);
            return Err(Problem::new(Code::Invalid, message));
        }
        for (what, optional) in [("package", &endpoint.package), ("version", &endpoint.version)] {
            optional.as_deref().map_or(Ok(()), |text| name(what, text))?;
        }
        if let Some(version) = &endpoint.version {
            semver::Version::parse(version).map_err(|error| {
                Problem::new(Code::Invalid, format!("the version '{version}' is none: {error}"))
            })?;
        }
        let reason = endpoint.reason.as_deref().unwrap_or_default();
        if reason.len() > limits::REASON || reason.chars().any(char::is_control) {
            let message = format!(
                "a reason is one line of at most {} bytes, without control characters",
                limits::REASON
            );
            return Err(Problem::new(Code::Invalid, message));
        }
        let hex = endpoint.fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
        if endpoint.fingerprint.len() != 32 || !hex {
            let message = "a fingerprint is 32 hexadecimal digits";
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
        for good in ["127.0.0.1:80", "[::1]:7400", "db-1.example:65535", "my_host:1"] {
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
