//! The names in certificates.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The most names of one kind that are read from a certificate.
const MAX_NAMES: usize = 64;

/// The longest trust domain, and the longest name within one, in bytes.
const MAX_PART: usize = 128;

/// Within what certificates are given out: `acme.internal`. In lower case, as SPIFFE has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// What a member of a trust domain is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It serves plugins.
    Host,
    /// It only calls.
    Caller,
    /// It gives out certificates, and knows which host serves what.
    Registry,
}

/// The name of a member of a trust domain: `spiffe://acme.internal/host/edge-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    domain: TrustDomain,
    role: Role,
    /// Empty for registries: they are all the same to others.
    name: String,
}

/// Why a text is not the name of a member, or not a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// It is not a trust domain.
    #[error(
        "'{0}' is no trust domain: write up to 128 of a-z, 0-9, '.', '-' and '_', as in acme.internal"
    )]
    Domain(String),
    /// It is not a name within one.
    #[error(
        "'{0}' cannot be a name in a certificate: write up to 128 of letters, digits, '.', '-' and '_'"
    )]
    Name(String),
    /// It does not have the form of one.
    #[error(
        "'{0}' names no member of a trust domain: write spiffe://DOMAIN/host/NAME, spiffe://DOMAIN/caller/NAME or spiffe://DOMAIN/registry"
    )]
    Form(String),
}

/// All names in one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    uris: Box<[String]>,
    dns: Box<[String]>,
    /// The trust domain by whose authorities they were verified.
    domain: Option<TrustDomain>,
}

impl TrustDomain {
    /// The domain, as it is written in names.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || is_common(byte);
        if text.is_empty() || text.len() > MAX_PART || !text.bytes().all(plain) {
            return Err(SpiffeIdError::Domain(text.to_owned()));
        }
        Ok(TrustDomain(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_common(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

impl Role {
    /// How it is written in names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Host => "host",
            Role::Caller => "caller",
            Role::Registry => "registry",
        }
    }
}

impl SpiffeId {
    /// The name of a host or caller. That of a registry is ignored.
    ///
    /// # Errors
    /// When `name` cannot stand in a certificate.
    pub fn new(domain: &TrustDomain, role: Role, name: &str) -> Result<Self, SpiffeIdError> {
        if role == Role::Registry {
            return Ok(Self::registry(domain));
        }
        let name = Self::check_name(name)?;
        Ok(SpiffeId { domain: domain.clone(), role, name: name.to_owned() })
    }

    /// The name of a domain's registries.
    #[must_use]
    pub fn registry(domain: &TrustDomain) -> Self {
        SpiffeId { domain: domain.clone(), role: Role::Registry, name: String::new() }
    }

    /// Gives back a name that can stand in a certificate.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_name(name: &str) -> Result<&str, SpiffeIdError> {
        let plain = |byte: u8| byte.is_ascii_alphabetic() || is_common(byte);
        let is_relative = matches!(name, "." | "..");
        if name.is_empty() || name.len() > MAX_PART || is_relative || !name.bytes().all(plain) {
            return Err(SpiffeIdError::Name(name.to_owned()));
        }
        Ok(name)
    }

    /// In which trust domain it is.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// What it is there for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its name among those of its role; empty for registries.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.domain, self.role.as_str())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, "/{}", self.name) }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        let malformed = || SpiffeIdError::Form(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(malformed)?;
        let (domain, path) = rest.split_once('/').ok_or_else(malformed)?;
        let (role, name) = match path.split_once('/') {
            Some(("host", name)) => (Role::Host, name),
            Some(("caller", name)) => (Role::Caller, name),
            None if path == "registry" => (Role::Registry, ""),
            _ => return Err(malformed()),
        };
        SpiffeId::new(&domain.parse()?, role, name)
    }
}

impl Names {
    /// The names in a certificate; `None` if it cannot be read.
    pub(crate) fn in_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        EndEntityCert::try_from(certificate).ok().map(|certificate| Names::of(&certificate))
    }

    /// This name alone.
    #[cfg(test)]
    pub(crate) fn of_uri(uri: &str) -> Self {
        Names { uris: [uri.to_owned()].into(), ..Names::default() }
    }

    /// The names in a certificate, which need not be verified yet.
    pub(super) fn of(certificate: &EndEntityCert<'_>) -> Self {
        let owned = |name: &str| name.to_owned();
        Names {
            uris: certificate.valid_uri_names().take(MAX_NAMES).map(owned).collect(),
            dns: certificate.valid_dns_names().take(MAX_NAMES).map(owned).collect(),
            domain: None,
        }
    }

    #[cfg(any(feature = "listener", test))]
    /// The same, verified by the authorities of a trust domain.
    pub(crate) fn verified_in(self, domain: Option<&TrustDomain>) -> Self {
        Names { domain: domain.cloned(), ..self }
    }

    /// Which member of the trust domain it is, by whose authorities the names were verified.
    #[must_use]
    pub fn member(&self) -> Option<SpiffeId> {
        self.spiffe_id().filter(|id| self.domain.as_ref() == Some(id.domain()))
    }

    /// The name within a trust domain, if it has exactly one. SPIFFE allows no more.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        match &*self.uris {
            [only] => only.parse().ok(),
            _ => None,
        }
    }

    /// Whether one of the names is this one: a URI, or a DNS name. `*` at the end of a URI stands for
    /// anything.
    #[must_use]
    pub fn has(&self, written: &str) -> bool {
        if !written.contains("://") {
            return self.dns.iter().any(|name| name.eq_ignore_ascii_case(written));
        }
        self.uris.iter().any(|uri| match written.strip_suffix('*') {
            Some(prefix) => uri.starts_with(prefix),
            None => uri == written,
        })
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&str> = self.uris.iter().chain(&self.dns).map(String::as_str).collect();
        if all.is_empty() { f.write_str("no name") } else { f.write_str(&all.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is_one() {
        for text in [
            "spiffe://acme.internal/host/edge-1",
            "spiffe://acme/caller/shop.v2",
            "spiffe://acme/registry",
        ] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "spiffe://acme",
            "spiffe://acme/host",
            "spiffe://acme/host/",
            "spiffe://acme/host/..",
            "spiffe://acme/host/a/b",
            "spiffe://acme/host/a%20b",
            "spiffe://Acme/host/a",
            "spiffe:///host/a",
            "spiffe://acme/registry/a",
            "spiffe://acme/king/a",
            "https://acme/host/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        assert!(SpiffeId::check_name(&"a".repeat(129)).is_err());
    }

    #[test]
    fn a_pattern_ends_with_a_star_and_only_uris_have_one() {
        let names = Names {
            uris: ["spiffe://acme/host/edge-1".to_owned()].into(),
            dns: ["shop.example".to_owned()].into(),
            domain: None,
        };
        for written in
            ["spiffe://acme/host/edge-1", "spiffe://acme/host/*", "shop.example", "Shop.Example"]
        {
            assert!(names.has(written), "{written}");
        }
        for written in ["spiffe://acme/host/edge", "spiffe://acme/caller/*", "*", "shop.*", "shop"]
        {
            assert!(!names.has(written), "{written}");
        }
        assert_eq!(names.spiffe_id().unwrap().name(), "edge-1");
        assert_eq!(names.member(), None);
        let of = |domain: &str| names.clone().verified_in(Some(&domain.parse().unwrap())).member();
        assert!(of("acme").is_some() && of("other").is_none());
        let two = Names { uris: vec!["spiffe://acme/host/a".to_owned(); 2].into(), ..names };
        assert_eq!(two.spiffe_id(), None);
    }
}
