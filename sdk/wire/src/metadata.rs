//! Key-value pairs that travel with a call: trace context and the like.

use serde::{Deserialize, Serialize};

use crate::limits;

/// The metadata of a call as the frame holds them: one pair of postcard strings after the other.
///
/// They are read in place, never copied into a map.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata<'a>(#[serde(borrow)] &'a [u8]);

/// Metadata that break their limits or their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Too many bytes.
    #[error("the call's metadata take {0} bytes, at most {max} are allowed", max = limits::METADATA)]
    TooLarge(usize),
    /// Too many entries.
    #[error("the call's metadata have more than {max} entries", max = limits::METADATA_ENTRIES)]
    TooMany,
    /// Not pairs of strings.
    #[error("the call's metadata are not pairs of strings")]
    Malformed,
}

impl<'a> Metadata<'a> {
    /// Appends one entry to `buffer`. [`Metadata::over`] reads the result.
    ///
    /// # Errors
    /// When the bytes would exceed [`limits::METADATA`]. The buffer is then unchanged.
    pub fn append(buffer: &mut Vec<u8>, key: &str, value: &str) -> Result<(), MetadataError> {
        let before = buffer.len();
        let appended = postcard::to_extend(&(key, value), std::mem::take(buffer));
        *buffer = appended.map_err(|_| MetadataError::Malformed)?;
        let len = buffer.len();
        if len > limits::METADATA {
            buffer.truncate(before);
            return Err(MetadataError::TooLarge(len));
        }
        Ok(())
    }

    /// Metadata over bytes that [`Metadata::append`] wrote.
    #[must_use]
    pub fn over(bytes: &'a [u8]) -> Self {
        Metadata(bytes)
    }

    /// Checks limits and form. After success, [`Metadata::iter`] yields every entry.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(self) -> Result<(), MetadataError> {
        if self.0.len() > limits::METADATA {
            return Err(MetadataError::TooLarge(self.0.len()));
        }
        let mut rest = self.0;
        let mut entries = 0;
        while !rest.is_empty() {
            rest = entry(rest).ok_or(MetadataError::Malformed)?.1;
            entries += 1;
            if entries > limits::METADATA_ENTRIES {
                return Err(MetadataError::TooMany);
            }
        }
        Ok(())
    }

    /// The entries, up to the first malformed one.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (pair, after) = entry(rest)?;
            rest = after;
            Some(pair)
        })
    }
}

fn entry(bytes: &[u8]) -> Option<((&str, &str), &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

impl std::fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order() {
        let mut buffer = Vec::new();
        Metadata::append(&mut buffer, "traceparent", "00-ab").unwrap();
        Metadata::append(&mut buffer, "k", "").unwrap();
        let metadata = Metadata::over(&buffer);
        metadata.check().unwrap();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("traceparent", "00-ab"), ("k", "")]);
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let mut buffer = Vec::new();
        let long = "x".repeat(limits::METADATA);
        assert!(matches!(
            Metadata::append(&mut buffer, "k", &long),
            Err(MetadataError::TooLarge(_))
        ));
        assert!(buffer.is_empty());
        let many: Vec<u8> = [1, b'k', 0].repeat(limits::METADATA_ENTRIES + 1);
        assert_eq!(Metadata::over(&many).check(), Err(MetadataError::TooMany));
        assert_eq!(Metadata::over(&[9, 9]).check(), Err(MetadataError::Malformed));
    }
}
