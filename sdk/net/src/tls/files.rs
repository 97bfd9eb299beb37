//! Certificates and keys in files.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file of certificates that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why TLS cannot be served, or spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("the {what} {path} cannot be read as PEM")]
    Unreadable {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file has no certificate.
    #[error("there is no certificate in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The files do not fit together.
    #[error("TLS cannot be served with {certificate} and {key}: {why}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A certificate, key or root cannot be used.
    #[error("the {what} cannot be used: {why}")]
    Unfit {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl TlsError {
    /// One that cannot be used.
    pub fn unfit(what: &'static str, why: &impl ToString) -> Self {
        TlsError::Unfit { what, why: why.to_string() }
    }
}

/// All certificates in a file.
pub(super) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = text(what, path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Unreadable { what, path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(certificates)
}

/// The first private key in a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    PrivateKeyDer::from_pem_slice(&text(what, path)?).map_err(|source| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

fn text(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;

    let unreadable = |error| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        source: rustls::pki_types::pem::Error::Io(error),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(TlsError::unfit(
            what,
            &format!("{} has more than {MAX_FILE} bytes", path.display()),
        ));
    }
    Ok(text)
}
