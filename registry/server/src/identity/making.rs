//! Makes certificates.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use time::OffsetDateTime;
use wharf_net::tls::{Role, SpiffeId, TrustDomain};

/// How long a root lasts.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a domain's issuer lasts.
const ISSUER_LIFE: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// How much earlier certificates begin than they are made: clocks differ.
const SKEW: Duration = Duration::from_secs(3600);

/// A certificate and its private key, both in PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A trust domain's root.
pub(super) fn root(domain: &TrustDomain) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = authority(&format!("{domain} root"), Some(1), ROOT_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key)?;
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A trust domain's issuer. Below it are those of registries that joined.
pub(super) fn issuer(domain: &TrustDomain, root: &Made) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = authority(&format!("{domain} issuer"), Some(1), ISSUER_LIFE);
    params.subject_alt_names = vec![uri(&SpiffeId::registry(domain))?];
    let above = Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key)?)?;
    let certificate = params.signed_by(&key, &above)?;
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A member's certificate, for whoever has this key. That of a registry issues others.
pub(super) fn member(
    id: &SpiffeId,
    key: &impl PublicKeyData,
    others: &[SanType],
    life: Duration,
    above: &Issuer<'_, KeyPair>,
) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name(id));
    (params.not_before, params.not_after) = times(life);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(id)?];
    params.subject_alt_names.extend_from_slice(others);
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, above)?.pem())
}

/// The certificate of an issuer below the domain's own, for a registry that joins.
pub(super) fn joined_issuer(
    domain: &TrustDomain,
    key: &impl PublicKeyData,
    life: Duration,
    above: &Issuer<'_, KeyPair>,
) -> Result<String, rcgen::Error> {
    // Two issuers of one name would be confused with each other.
    let mut params =
        authority(&format!("{domain} issuer {:016x}", fastrand::u64(..)), Some(0), life);
    params.subject_alt_names = vec![uri(&SpiffeId::registry(domain))?];
    Ok(params.signed_by(key, above)?.pem())
}

/// By which names programs that know no SPIFFE find a member: the DNS name of a host within its domain.
pub(super) fn other_names(id: &SpiffeId) -> Result<Vec<SanType>, rcgen::Error> {
    // DNS does not tell capitals from others: two hosts would have one name.
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if id.role() != Role::Host || id.name().len() > 63 || !id.name().bytes().all(plain) {
        return Ok(Vec::new());
    }
    let name = format!("{}.host.{}", id.name(), id.domain());
    Ok(vec![SanType::DnsName(name.try_into()?)])
}

/// What a request for a certificate asks for.
pub(super) struct Requested {
    pub(super) id: SpiffeId,
    pub(super) key: rcgen::PublicKey,
}

/// Reads a request. Whoever made it has the key, or its signature would be wrong. Of all that it asks for,
/// only the name is read.
pub(super) fn read(pem: &str) -> Result<Requested, String> {
    let request =
        CertificateSigningRequestParams::from_pem(pem).map_err(|error| error.to_string())?;
    match &*request.params.subject_alt_names {
        [SanType::URI(uri)] => {
            let id = uri.as_str().parse().map_err(|error| format!("{error}"))?;
            Ok(Requested { id, key: request.public_key })
        }
        _ => Err("its only name has to be a SPIFFE ID, as a URI".to_owned()),
    }
}

fn authority(name: &str, below: Option<u8>, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = times(life);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let constraints = below.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained);
    params.is_ca = IsCa::Ca(constraints);
    params
}

/// The common name, for people. It has room for 64 characters.
fn common_name(id: &SpiffeId) -> String {
    let name = if id.name().is_empty() { id.role().as_str() } else { id.name() };
    name.chars().take(64).collect()
}

fn uri(id: &SpiffeId) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(id.to_string().try_into()?))
}

fn times(life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = SystemTime::now();
    ((now - SKEW).into(), (now + life).into())
}

/// How a hash is written.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
