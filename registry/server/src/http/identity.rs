//! Certificates for members of the trust domain. Whoever asks has no certificate yet, or one that has ended:
//! what is shown in the request decides.

use axum::Json;
use axum::extract::State;
use wharf_registry_api::{CertificateOrder, Code, GrantedCertificate, Problem, TrustBundle};

use super::parameters::{Body, invalid};
use super::{Refused, Source};
use crate::identity::{Issuer, Refusal};

/// The largest body of an order, in bytes.
pub(super) const MAX_ORDER: usize = 64 * 1024;

pub(super) async fn certificates(
    State(source): State<Source>,
    Body(order): Body<CertificateOrder>,
) -> Result<Json<GrantedCertificate>, Refused> {
    let granted = issuer(&source)?.grant(&order);
    granted.map(Json).map_err(|refusal| {
        tracing::warn!(%refusal, "a certificate was refused");
        match refusal {
            Refusal::Invalid(why) => invalid(why).into(),
            Refusal::Forbidden(why) => Problem::new(Code::Forbidden, why).into(),
            Refusal::Making(error) => invalid(error.to_string()).into(),
        }
    })
}

pub(super) async fn bundle(State(source): State<Source>) -> Result<Json<TrustBundle>, Refused> {
    Ok(Json(issuer(&source)?.bundle()))
}

fn issuer(source: &Source) -> Result<&Issuer, Refused> {
    source.issuer.as_ref().ok_or_else(|| {
        let detail = "this registry gives out no certificates: make a trust domain with 'wharf identity init', and start the registry with --identity";
        Problem::new(Code::UnknownPath, detail).into()
    })
}
