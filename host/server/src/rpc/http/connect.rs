//! The words of Connect's unary protocol: codes, their HTTP statuses, deadlines.
//! <https://connectrpc.com/docs/protocol>

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use wharf_wire::{Status, TraceParent};

use super::Terms;
use crate::rpc::invoke::CallFailure;

/// The header with the caller's timeout in milliseconds.
pub(super) const TIMEOUT: &str = "connect-timeout-ms";

/// The most digits of a timeout.
const TIMEOUT_DIGITS: usize = 10;

/// Connect's name and HTTP's status for a status.
pub(super) fn code(status: Status) -> (&'static str, StatusCode) {
    // Not registered: the client has closed the request.
    let client_closed = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
    match status {
        Status::Ok => ("ok", StatusCode::OK),
        Status::Cancelled => ("canceled", client_closed),
        Status::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
        Status::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Status::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Status::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Status::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Status::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Status::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Status::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Status::Aborted => ("aborted", StatusCode::CONFLICT),
        Status::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Status::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Status::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Status::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Status::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Status::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
    }
}

/// What the headers say of the call.
///
/// # Errors
/// When a header does not say what it should.
pub(super) fn terms(headers: &HeaderMap) -> Result<Terms, CallFailure> {
    let refused = |message: &str| CallFailure::refused(Status::InvalidArgument, message);
    let mut terms = Terms::default();
    if let Some(timeout) = headers.get(TIMEOUT) {
        let digits = timeout.to_str().ok().filter(|text| text.len() <= TIMEOUT_DIGITS);
        let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let milliseconds = digits.and_then(|text| text.parse().ok());
        let milliseconds = milliseconds.ok_or_else(|| {
            refused("Connect-Timeout-Ms is a number of milliseconds with at most 10 digits")
        })?;
        terms.timeout = Some(Duration::from_millis(milliseconds));
    }
    if headers.get("connect-protocol-version").is_some_and(|version| version != "1") {
        return Err(refused("Connect-Protocol-Version has to be 1"));
    }
    // A trace that cannot be read is ignored, as the standard requires.
    let trace = headers.get(TraceParent::KEY).and_then(|trace| trace.to_str().ok());
    terms.trace = trace.and_then(|trace| trace.parse().ok());
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn statuses_have_connects_codes() {
        let all = Status::ALL.map(|status| {
            let (name, status) = code(status);
            format!("{name} {}", status.as_u16())
        });
        assert_eq!(
            all.join(", "),
            "ok 200, canceled 499, unknown 500, invalid_argument 400, deadline_exceeded 504, \
             not_found 404, already_exists 409, permission_denied 403, resource_exhausted 429, \
             failed_precondition 400, aborted 409, out_of_range 400, unimplemented 501, \
             internal 500, unavailable 503, data_loss 500, unauthenticated 401"
        );
    }

    #[test]
    fn a_timeout_has_at_most_ten_digits() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_str(text).unwrap());
            terms(&headers).map(|terms| terms.timeout)
        };
        assert_eq!(of("1500").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(of("9999999999").unwrap(), Some(Duration::from_millis(9_999_999_999)));
        for bad in ["", "-1", "1.5", "10000000000", "x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(terms(&HeaderMap::new()).unwrap().timeout, None);
    }
}
