//! Certificates: how members of a trust domain get them from a registry.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// What a join token begins with.
const PREFIX: &str = "wharf-join.";

/// The longest join token, in bytes.
const MAX_TOKEN: usize = 4096;

/// The body of `POST /v1/identity/certificates`: a request for a certificate, and why to grant it, which is
/// a join token or an earlier certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateOrder {
    /// The signing request (PKCS #10), in PEM. Its only name is the member's: `spiffe://DOMAIN/host/NAME`.
    pub request: String,
    /// A join token that allows this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// An earlier certificate with this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
}

/// An earlier certificate, which may have ended some days ago, and the proof that its key is at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewal {
    /// The certificate and its chain, in PEM.
    pub certificate: String,
    /// The text of the signing request, signed with the earlier key: ECDSA over P-256 with SHA-256, in
    /// base64.
    pub signature: String,
}

/// A certificate that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedCertificate {
    /// The certificate and its chain, in PEM.
    pub certificate: String,
    /// The authorities to believe, in PEM.
    pub roots: String,
    /// When to renew it, in milliseconds from now.
    pub renew_in_ms: u64,
    /// When it ends, in milliseconds from now.
    pub expires_in_ms: u64,
}

/// The answer of `GET /v1/identity/bundle`: whom members of the trust domain believe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustBundle {
    /// The trust domain.
    pub domain: String,
    /// The authorities, in PEM: two while they are exchanged.
    pub roots: String,
    /// The SHA-256 hash of the root below which certificates are given out now, in hexadecimal digits. Whose
    /// certificate is below another one renews it at once.
    pub root: String,
    /// When to ask again, in milliseconds.
    pub refresh_in_ms: u64,
}

/// What lets a host or caller into a trust domain, until it ends. It is signed by the domain's issuer, and
/// names the domain's root, so that the joiner knows whom it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// What it says.
    pub claims: JoinClaims,
    /// The signature of [`JoinToken::signed_text`], in ASN.1.
    pub signature: Vec<u8>,
    signed: String,
}

/// What a join token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinClaims {
    /// The trust domain.
    pub domain: String,
    /// `host`, `caller` or `registry`.
    pub role: String,
    /// The name that the joiner may have; `*` at its end stands for anything. Empty for a registry.
    pub name: String,
    /// When the token ends, in seconds since 1970.
    pub expires: u64,
    /// The SHA-256 hash of the domain's root certificate, in hexadecimal digits.
    pub root: String,
}

/// A text that is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: one begins with wharf-join. and comes from 'wharf identity token'")]
pub struct JoinTokenError;

impl JoinClaims {
    /// The text that is signed.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_text(&self) -> Result<String, JoinTokenError> {
        serde_json::to_vec(self)
            .map(|json| URL_SAFE_NO_PAD.encode(json))
            .map_err(|_| JoinTokenError)
    }

    /// The hash of the root.
    #[must_use]
    pub fn root_hash(&self) -> Option<[u8; 32]> {
        let digits = self.root.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 || !self.root.is_ascii() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(self.root.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(hash)
    }

    /// Whether the joiner may have this name.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.name,
        }
    }

    /// The name of the joiner, if the token leaves no choice.
    #[must_use]
    pub fn only_name(&self) -> Option<&str> {
        (!self.name.ends_with('*')).then_some(&self.name)
    }
}

impl JoinToken {
    /// A token with this signature of its claims' text.
    #[must_use]
    pub fn new(claims: JoinClaims, signed: String, signature: Vec<u8>) -> Self {
        JoinToken { claims, signature, signed }
    }

    /// The text that its signature is for.
    #[must_use]
    pub fn signed_text(&self) -> &str {
        &self.signed
    }

    /// How long it lasts from a point in time, in seconds since 1970. `None` if it has ended.
    #[must_use]
    pub fn lasts(&self, now: u64) -> Option<Duration> {
        self.claims.expires.checked_sub(now).filter(|left| *left > 0).map(Duration::from_secs)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{}", self.signed, URL_SAFE_NO_PAD.encode(&self.signature))
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let rest = text.trim().strip_prefix(PREFIX).filter(|_| text.len() <= MAX_TOKEN);
        let (signed, signature) =
            rest.and_then(|rest| rest.split_once('.')).ok_or(JoinTokenError)?;
        let json = URL_SAFE_NO_PAD.decode(signed).map_err(|_| JoinTokenError)?;
        let claims: JoinClaims = serde_json::from_slice(&json).map_err(|_| JoinTokenError)?;
        claims.root_hash().ok_or(JoinTokenError)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JoinTokenError)?;
        Ok(JoinToken { claims, signature, signed: signed.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_says_who_may_join() {
        let claims = JoinClaims {
            domain: "acme".to_owned(),
            role: "host".to_owned(),
            name: "edge-*".to_owned(),
            expires: 1_000,
            root: "0a".repeat(32),
        };
        let signed = claims.to_text().unwrap();
        let token = JoinToken::new(claims, signed, vec![1, 2, 3]);
        let text = token.to_string();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert!(token.claims.allows("edge-7") && !token.claims.allows("db"));
        assert_eq!(token.claims.only_name(), None);
        assert_eq!(token.claims.root_hash(), Some([10; 32]));
        assert_eq!(token.lasts(999), Some(Duration::from_secs(1)));
        assert_eq!(token.lasts(1_000), None);
        for wrong in ["", "wharf-join.", "wharf-join.e30.AA", &text[1..], &text.replace('.', "")] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
