//! The content that a plugin's file must have: its SHA-256, as `sha256sum` prints it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use sha2::{Digest, Sha256};

/// The digest of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin([u8; 32]);

impl Pin {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Pin(Sha256::digest(bytes).into())
    }

    fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut pin = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != pin.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in pin.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Pin(pin))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pin::parse(&text).ok_or_else(|| {
            Error::custom(
                "a SHA-256 has 64 hexadecimal digits: take what 'sha256sum' prints for the file",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_what_sha256sum_prints() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Pin::of(b"abc").to_string(), abc);
        assert_eq!(Pin::parse(&abc.to_uppercase()), Some(Pin::of(b"abc")));
        assert_ne!(Pin::parse(abc), Some(Pin::of(b"abd")));
        for bad in ["", "ba78", &abc[1..], &format!("{abc}0"), &abc.replace('b', "x")] {
            assert_eq!(Pin::parse(bad), None, "{bad}");
        }
    }
}
