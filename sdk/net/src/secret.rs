//! Secrets that callers present.

/// A secret, stored as its hash: the memory of the process does not contain the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(blake3::Hash);

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Secret(blake3::hash(secret))
    }

    /// The secret with this BLAKE3 hash, written as 64 hexadecimal digits.
    #[must_use]
    pub fn of_hash(digits: &str) -> Option<Self> {
        blake3::Hash::from_hex(digits).ok().map(Secret)
    }

    /// Whether `shown` is this secret. The hashes are compared in constant time, so a nearly right
    /// secret takes as long as a wrong one.
    #[must_use]
    pub fn matches(&self, shown: &[u8]) -> bool {
        self.0 == blake3::hash(shown)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_only_as_a_whole_and_is_not_shown() {
        let secret = Secret::new(b"secret");
        assert!(secret.matches(b"secret"));
        for wrong in [&b"secreT"[..], b"secre", b"secrets", b""] {
            assert!(!secret.matches(wrong));
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
