//! The values of the command line: times, sizes, addresses, names, secrets. Each error says what to write.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use wharf_host::{Compatible, Door};

/// An address to listen on. `None`: do not listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpListen(pub(crate) Option<SocketAddr>);

pub(crate) fn metadatum(text: &str) -> Result<(String, String), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.split_once('=') {
        Some((wharf_registry_api::METRICS | wharf_registry_api::METRICS_SCHEME, _)) => {
            Err("the host sets this name itself: use another one".to_owned())
        }
        Some((name, value))
            if !name.is_empty()
                && name.len() <= wharf_registry_api::limits::METADATA_NAME
                && name.chars().all(plain)
                && value.len() <= wharf_registry_api::limits::METADATA_VALUE
                && !value.contains(char::is_control) =>
        {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => {
            Err("write it like zone=eu-1; a name has letters, digits, '-', '_' and '.'".to_owned())
        }
    }
}

/// A domain of DNS, without a dot at its end.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    let domain = text.trim_matches('.');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(plain);
    if domain.len() <= 200 && domain.split('.').all(label) {
        Ok(domain.to_ascii_lowercase())
    } else {
        Err("write it like consul, or services.example".to_owned())
    }
}

pub(crate) fn compatible(text: &str) -> Result<Compatible, String> {
    match text {
        "any" => Ok(Compatible::Any),
        "required" => Ok(Compatible::Required),
        _ => Err("there are any and required".to_owned()),
    }
}

pub(crate) fn door(text: &str) -> Result<Door, String> {
    let found = Door::ALL.into_iter().find(|door| door.name() == text.trim());
    found.ok_or_else(|| {
        let names = Door::ALL.map(Door::name).join(", ");
        format!("there are {names}")
    })
}

/// What browsers send as `Origin`: a scheme and a host, without a path.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    match host {
        Some(host) if !host.is_empty() && host.chars().all(plain) => Ok(text.to_ascii_lowercase()),
        _ => Err("write it as browsers do, without a path: https://app.example".to_owned()),
    }
}

pub(crate) fn http_listen(text: &str) -> Result<HttpListen, String> {
    if text == "none" {
        return Ok(HttpListen(None));
    }
    let listen = address(text).map(|address| HttpListen(Some(address)));
    listen.map_err(|error| format!("{error}, or none"))
}

/// An address to listen on, by number or by name. A port alone is on loopback, and `:7400` on all addresses.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs;

    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = match text.strip_prefix(':') {
        Some(port) if is_port(port) => format!("0.0.0.0:{port}"),
        None if is_port(text) => format!("127.0.0.1:{text}"),
        _ => text.to_owned(),
    };
    let found = whole.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| "write an address like 127.0.0.1:7400 or localhost:7400".to_owned())
}

/// An address, with the usual port unless it names one.
pub(crate) fn with_port(text: &str, port: u16) -> String {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{text}]:{port}");
    }
    let has_port = text.rsplit_once(':').is_some_and(|(_, after)| !after.ends_with(']'));
    if has_port { text.to_owned() } else { format!("{text}:{port}") }
}

pub(crate) fn token(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("it is empty, which would let everybody in".to_owned()),
        1..=1024 => Ok(text.to_owned()),
        _ => Err("at most 1024 bytes are allowed".to_owned()),
    }
}

/// A secret that is asked for here.
pub(crate) fn secret(text: &str) -> Result<String, String> {
    let secret = token(text)?;
    match wharf_net::principals::is_hard_to_guess(&secret) {
        true => Ok(secret),
        false => Err("it can be guessed: take 16 printable ASCII characters or more, without spaces, such as the output of 'openssl rand -hex 32'".to_owned()),
    }
}

pub(crate) fn host_name(text: &str) -> Result<String, String> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    match text.len() {
        0 => Err("it is empty".to_owned()),
        1..=wharf_registry_api::limits::NAME if !text.contains(bad) => Ok(text.to_owned()),
        1..=wharf_registry_api::limits::NAME => {
            Err("it has white space or control characters in it".to_owned())
        }
        _ => Err(format!("at most {} bytes are allowed", wharf_registry_api::limits::NAME)),
    }
}

/// Refuses a path whose directory is not there. It would have to be made, and was most likely mistyped.
pub(crate) fn check_place(flag: &str, path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => {
            let parent = parent.display();
            anyhow::bail!(
                "{flag} {}: there is no directory {parent}; if that is meant, run 'mkdir -p {parent}'",
                path.display()
            )
        }
        _ => Ok(()),
    }
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a time like 500ms, 10s or 2m"))?;
    if time.is_zero() { Err("the time must be above zero".to_owned()) } else { Ok(time) }
}

/// `64 MiB`
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let size = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
    match size {
        Some(size) if size >= 1 << 20 => Ok(size),
        Some(_) => Err("it must be at least 1 MiB".to_owned()),
        None => Err("write a size like 64MiB or 2GiB".to_owned()),
    }
}

/// A size, or a number of MiB.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let bytes = match text.parse::<u64>() {
        Ok(mebibytes) => mebibytes.saturating_mul(1 << 20),
        Err(_) => size(text)?,
    };
    let range = 1 << 20..=4 << 30;
    if range.contains(&bytes) {
        Ok(bytes)
    } else {
        Err("it must be between 1MiB and 4GiB".to_owned())
    }
}

pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = time(text)?;
    let range = Duration::from_millis(500)..=Duration::from_secs(86_400);
    if range.contains(&ttl) { Ok(ttl) } else { Err("it must be between 500ms and 1day".to_owned()) }
}

pub(crate) fn certificate_life(text: &str) -> Result<Duration, String> {
    let life = time(text)?;
    let range = Duration::from_secs(5)..=Duration::from_secs(90 * 86_400);
    if range.contains(&life) {
        Ok(life)
    } else {
        Err("it must be between 5s and 90days".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_memory_may_be_a_number_of_mebibytes() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert!(size("lots").unwrap_err().contains("write a size like"));
        assert_eq!(memory("64"), Ok(64 << 20));
        assert_eq!(memory("64 MiB"), Ok(64 << 20));
        assert!(memory("5000").is_err() && memory("0").is_err());
    }

    #[test]
    fn an_address_has_a_port_and_may_be_a_name() {
        assert_eq!(address("127.0.0.1:7400").unwrap().port(), 7400);
        assert!(address("localhost:7400").unwrap().ip().is_loopback());
        assert_eq!(address("7400").unwrap().to_string(), "127.0.0.1:7400");
        assert_eq!(address(":7400").unwrap().to_string(), "0.0.0.0:7400");
        assert!(address("70000").is_err() && address(":").is_err());
        assert_eq!(with_port("edge-1", 7400), "edge-1:7400");
        assert_eq!(with_port("[::1]", 7400), "[::1]:7400");
        assert_eq!(with_port("::1", 7400), "[::1]:7400");
        assert_eq!(with_port("edge-1:7500", 7400), "edge-1:7500");
        assert_eq!(with_port("[::1]:7500", 7400), "[::1]:7500");
        assert!(address("localhost").unwrap_err().contains("localhost:7400"));
        assert!(http_listen("none").unwrap().0.is_none());
        assert!(http_listen("x").err().unwrap().ends_with("or none"));
    }

    #[test]
    fn times_need_a_unit_and_a_value() {
        assert_eq!(time("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(time("10").unwrap_err().contains("write a time like"));
        assert!(time("0s").is_err());
        assert!(ttl("1ms").is_err());
    }
}
