//! What went wrong with TLS, in words that say what to do.

use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, OtherError};

/// An error of a handshake, or of the first read after it, in words.
#[must_use]
pub fn in_words(error: io::Error) -> io::Error {
    let words = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(|tls| match tls {
        Error::InvalidCertificate(wrong) => Some(of_certificate(wrong)),
        Error::AlertReceived(alert) => of_alert(*alert),
        _ => None,
    });
    match words {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    }
}

fn of_certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::ExpiredContext { time, not_after } => {
            format!(
                "its certificate ended {} ago; or does this machine's clock go wrong?",
                between(*not_after, *time)
            )
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(
                "its certificate begins in {}; does this machine's clock go wrong?",
                between(*time, *not_before)
            )
        }
        CertificateError::UnknownIssuer => {
            "its certificate is from an authority that is not believed here".to_owned()
        }
        CertificateError::Other(OtherError(inner)) => inner.to_string(),
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> Option<String> {
    let words = match alert {
        AlertDescription::CertificateExpired => "it says that our certificate has ended",
        AlertDescription::UnknownCA => "it does not believe the authority of our certificate",
        AlertDescription::CertificateRequired => "it wants a certificate, and we have none",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => "it does not accept our certificate",
        AlertDescription::ProtocolVersion => "it speaks another version of TLS than 1.3",
        _ => return None,
    };
    Some(words.to_owned())
}

fn between(earlier: UnixTime, later: UnixTime) -> String {
    let time = Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()));
    format!("{time:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_said_in_words_and_other_errors_stay() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let ended = CertificateError::ExpiredContext { time: at(130), not_after: at(10) };
        let begins = CertificateError::NotValidYetContext { time: at(1), not_before: at(6) };
        for (error, words) in [
            (Error::InvalidCertificate(ended), "ended 120s ago"),
            (Error::InvalidCertificate(begins), "begins in 5s"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "not believed here"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "the authority of our certificate"),
        ] {
            let error = in_words(io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(in_words(io::Error::other("else")).to_string(), "else");
    }
}
