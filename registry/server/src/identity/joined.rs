//! Checks the certificate of a registry that joined. It is an issuer's, which TLS never accepts of a peer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wharf_net::tls::Roots;
use x509_parser::certificate::X509Certificate;

/// Whether a chain leads from a joined issuer to one of the roots. Its first certificate may have ended up to
/// `late` ago.
pub(super) fn check(chain: &[&[u8]], roots: &Roots, late: Duration) -> Result<(), &'static str> {
    let parsed: Option<Vec<X509Certificate<'_>>> = chain.iter().map(parse).collect();
    let parsed = parsed.ok_or("it cannot be read")?;
    // A joined issuer stands below the domain's own. Others give out no certificates of issuers.
    let [_, _, root] = chain else { return Err("it is not that of a registry that joined") };
    if !roots.certificates().iter().any(|known| known[..] == **root) {
        return Err("its root is not believed");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for (position, certificate) in parsed.iter().enumerate() {
        let above = parsed.get(position + 1).unwrap_or(certificate);
        let is_signed = certificate.issuer() == above.subject()
            && certificate.verify_signature(Some(above.public_key())).is_ok();
        if !is_signed || !certificate.is_ca() {
            return Err("its chain is broken");
        }
        let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let late = if position == 0 { late } else { Duration::ZERO };
        if Duration::from_secs(ends) + late < now {
            return Err("it has ended");
        }
    }
    Ok(())
}

fn parse<'d>(der: &&'d [u8]) -> Option<X509Certificate<'d>> {
    x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate)
}
