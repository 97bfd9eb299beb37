//! The parts of an address, `host:port`, which was checked when it came.

use std::net::IpAddr;

/// Host and port. A host by IPv6 is without its brackets.
pub(crate) fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}

/// The host.
pub(crate) fn machine(address: &str) -> &str {
    split(address).0
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(split("10.0.0.7:7400"), ("10.0.0.7", 7400));
        assert_eq!(split("[::1]:7400"), ("::1", 7400));
        assert_eq!(machine("db.example:1"), "db.example");
        assert!(
            is_loopback("::1") && is_loopback("LOCALHOST") && !is_loopback("localhost.example")
        );
    }
}
