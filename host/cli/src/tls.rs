//! TLS with certificates of one's own.

use wharf_net::tls::TlsFiles;

use crate::args::Tls;

impl Tls {
    /// Reads the files, if there are any.
    pub(crate) fn load(&self) -> anyhow::Result<Option<wharf_net::tls::Tls>> {
        let files = self.tls_certificate.clone().zip(self.tls_key.clone());
        let tls = files.map(|(certificate, key)| {
            let client_authorities = self.tls_client_authorities.clone();
            wharf_net::tls::Tls::load(TlsFiles { certificate, key, client_authorities })
        });
        Ok(tls.transpose()?)
    }
}
