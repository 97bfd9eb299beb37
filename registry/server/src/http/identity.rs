//! Certificates for members of the trust domain. Whoever asks has no certificate yet, or one that has ended:
//! what is shown in the request decides.

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use wharf_registry_api::{CertificateOrder, Code, GrantedCertificate, Problem, TrustBundle};

use super::parameters::SmallBody;
use super::{Refused, Source};
use crate::identity::{Issuer, Refusal};

/// The longest reason of a refusal, in bytes: names that were asked for stand in it.
const MAX_TOLD: usize = 400;

/// The largest body of an order, in bytes.
pub(super) const MAX_ORDER: usize = 64 * 1024;

pub(super) async fn certificates(
    State(source): State<Source>,
    request: Request,
) -> Result<Json<GrantedCertificate>, Refused> {
    // Before the body is read: where there is no issuer, nobody has to send one.
    let issuer = issuer(&source)?;
    let SmallBody(order) = SmallBody::<CertificateOrder>::from_request(request, &source).await?;
    issuer.grant(&order).map(Json).map_err(|refusal| {
        // Anybody may ask for anything.
        let mut why = refusal.to_string();
        why.truncate(why.floor_char_boundary(MAX_TOLD));
        tracing::debug!(why, "a certificate was refused");
        let code = match refusal {
            Refusal::Invalid(_) | Refusal::Making(_) => Code::Invalid,
            Refusal::Forbidden(_) => Code::Forbidden,
            Refusal::Ending(_) => Code::Busy,
        };
        Problem::new(code, why).into()
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
