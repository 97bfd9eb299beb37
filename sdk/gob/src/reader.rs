//! Reads numbers and blocks of bytes.

use crate::GobError;

/// Reads a message from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The bytes that are not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An unsigned integer: one byte below 128; else the negated number of bytes, then the bytes,
    /// big-endian.
    ///
    /// # Errors
    /// At the end of the bytes, or if it has more than 8 bytes.
    pub fn uint(&mut self) -> Result<u64, GobError> {
        let (first, rest) = self.rest.split_first().ok_or(GobError::Truncated)?;
        if *first < 0x80 {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        let count = usize::from(first.wrapping_neg());
        if count > 8 {
            return Err(GobError::Integer);
        }
        let (bytes, rest) = rest.split_at_checked(count).ok_or(GobError::Truncated)?;
        self.rest = rest;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A signed integer: the lowest bit says whether the others are inverted.
    ///
    /// # Errors
    /// As [`Reader::uint`].
    pub fn int(&mut self) -> Result<i64, GobError> {
        let bits = self.uint()?;
        let value = (bits >> 1).cast_signed();
        Ok(if bits & 1 == 1 { !value } else { value })
    }

    /// A boolean, as an unsigned integer.
    ///
    /// # Errors
    /// If it is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool, GobError> {
        match self.uint()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(GobError::Bool),
        }
    }

    /// A floating-point number: its bits, with the bytes reversed, as an unsigned integer.
    ///
    /// # Errors
    /// As [`Reader::uint`].
    pub fn float(&mut self) -> Result<f64, GobError> {
        Ok(f64::from_bits(self.uint()?.swap_bytes()))
    }

    /// A string or a block of bytes: its length, then the bytes. Go does not promise that strings
    /// are UTF-8.
    ///
    /// # Errors
    /// If it is longer than the rest.
    pub fn bytes(&mut self) -> Result<&'a [u8], GobError> {
        let count = self.count()?;
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(bytes)
    }

    /// A number of elements. Each takes at least one byte, so there are no more than bytes are left.
    ///
    /// # Errors
    /// If there are more.
    pub fn count(&mut self) -> Result<usize, GobError> {
        let count = self.uint()?;
        match usize::try_from(count) {
            Ok(fits) if fits <= self.rest.len() => Ok(fits),
            _ => Err(GobError::Count(count)),
        }
    }

    /// The index of a struct's next field, after the field `before`. `None` at its end.
    ///
    /// # Errors
    /// At the end of the bytes, or if it has no such field.
    pub fn field(
        &mut self,
        before: Option<usize>,
        fields: usize,
    ) -> Result<Option<usize>, GobError> {
        let delta = self.uint()?;
        if delta == 0 {
            return Ok(None);
        }
        let next = before.map_or(0, |before| before as u64 + 1).checked_add(delta - 1);
        let next = next.and_then(|next| usize::try_from(next).ok()).filter(|next| *next < fields);
        next.map(Some).ok_or(GobError::NoSuchField)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writing::{put_float, put_int, put_uint};
    use proptest::prelude::*;

    #[test]
    fn numbers_have_the_bytes_of_the_documentation() {
        let mut out = Vec::new();
        put_uint(&mut out, 7);
        put_uint(&mut out, 256);
        put_int(&mut out, -129);
        put_float(&mut out, 17.0);
        assert_eq!(out, [7, 0xfe, 1, 0, 0xfe, 1, 1, 0xfe, 0x31, 0x40]);
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        assert_eq!(Reader::new(&[]).uint(), Err(GobError::Truncated));
        assert_eq!(Reader::new(&[0xfe, 1]).uint(), Err(GobError::Truncated));
        assert_eq!(Reader::new(&[0xf7, 1, 2, 3, 4, 5, 6, 7, 8, 9]).uint(), Err(GobError::Integer));
        assert_eq!(Reader::new(&[0x80]).uint(), Err(GobError::Integer));
        assert_eq!(Reader::new(&[2]).bool(), Err(GobError::Bool));
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(), Err(GobError::Count(5)));
        assert_eq!(Reader::new(&[3]).field(None, 2), Err(GobError::NoSuchField));
        let huge = [0xf8, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(Reader::new(&huge).field(Some(0), 2), Err(GobError::NoSuchField));
    }

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u64, signed: i64, float in proptest::num::f64::ANY) {
            let mut out = Vec::new();
            put_uint(&mut out, unsigned);
            put_int(&mut out, signed);
            put_float(&mut out, float);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.uint(), Ok(unsigned));
            prop_assert_eq!(reader.int(), Ok(signed));
            prop_assert_eq!(reader.float().unwrap().to_bits(), float.to_bits());
            prop_assert!(reader.rest().is_empty());
        }
    }
}
