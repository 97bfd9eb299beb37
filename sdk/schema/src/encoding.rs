//! postcard's primitives, read and written by hand.
//!
//! Types that are known only at run time cannot derive serde's traits. This module writes the same
//! bytes that serde and postcard 1.x write for the natural Rust type
//! (<https://postcard.jamesmunns.com/wire-format>).

use crate::ValueError;

/// Reads postcard from untrusted bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends reading.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn finish(self) -> Result<(), ValueError> {
        match self.rest.len() {
            0 => Ok(()),
            1 => Err(ValueError::new("1 byte is left over after the last value")),
            n => Err(ValueError::new(format!("{n} bytes are left over after the last value"))),
        }
    }

    /// A `bool`.
    ///
    /// # Errors
    /// On anything but 0 and 1, or at the end of the bytes.
    pub fn bool(&mut self) -> Result<bool, ValueError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ValueError::new(format!("expected 0 or 1, found {other}"))),
        }
    }

    /// A `u8`, as one plain byte.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn u8(&mut self) -> Result<u8, ValueError> {
        let (first, rest) = self.rest.split_first().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    /// An unsigned integer of `bits` bits (16, 32 or 64) as a varint.
    ///
    /// # Errors
    /// When it does not fit, or at the end of the bytes.
    pub fn unsigned(&mut self, bits: u32) -> Result<u64, ValueError> {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift + 7 > bits && part >> (bits - shift) != 0 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
            if shift >= bits {
                break;
            }
        }
        Err(ValueError::new(format!("an integer does not fit {bits} bits")))
    }

    /// A signed integer of `bits` bits (16, 32 or 64) as a zigzag varint.
    ///
    /// # Errors
    /// When it does not fit, or at the end of the bytes.
    pub fn signed(&mut self, bits: u32) -> Result<i64, ValueError> {
        let zigzag = self.unsigned(bits)?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// An `f32`, little-endian.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn f32(&mut self) -> Result<f32, ValueError> {
        self.array().map(f32::from_le_bytes)
    }

    /// An `f64`, little-endian.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn f64(&mut self) -> Result<f64, ValueError> {
        self.array().map(f64::from_le_bytes)
    }

    /// A `char`, as a string of one character.
    ///
    /// # Errors
    /// When it is not exactly one character, or at the end of the bytes.
    pub fn char(&mut self) -> Result<char, ValueError> {
        let mut chars = self.str()?.chars();
        match (chars.next(), chars.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(ValueError::new("expected one character")),
        }
    }

    /// A string, borrowed from the input.
    ///
    /// # Errors
    /// When it is not UTF-8, or longer than the remaining bytes.
    pub fn str(&mut self) -> Result<&'a str, ValueError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ValueError::new("a string is not UTF-8"))
    }

    /// A block of bytes, borrowed from the input.
    ///
    /// # Errors
    /// When it is longer than the remaining bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], ValueError> {
        let len = self.length()?;
        self.take(len)
    }

    /// The length of a list. Every element takes at least one byte, so a length beyond the
    /// remaining bytes is false.
    ///
    /// # Errors
    /// When the remaining bytes cannot hold that many elements.
    pub fn length(&mut self) -> Result<usize, ValueError> {
        let len = self.unsigned(64)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => Ok(len),
            _ => Err(ValueError::new(format!(
                "a length of {len}, but only {} bytes follow",
                self.rest.len()
            ))),
        }
    }

    /// The index of a case, out of `count` cases.
    ///
    /// # Errors
    /// When there is no such case.
    pub fn discriminant(&mut self, count: usize) -> Result<usize, ValueError> {
        let found = self.unsigned(32)?;
        match usize::try_from(found) {
            Ok(index) if index < count => Ok(index),
            _ => Err(ValueError::new(format!("case {found} of {count} does not exist"))),
        }
    }

    /// Which of `count` flags are set. [`flag_words`] defines the words that hold them.
    ///
    /// # Errors
    /// When a flag beyond `count` is set.
    pub fn flags(&mut self, count: usize) -> Result<Vec<bool>, ValueError> {
        let mut set = Vec::with_capacity(count);
        for (bits, used) in flag_words(count) {
            let word = if bits == 8 { u64::from(self.u8()?) } else { self.unsigned(bits)? };
            if word >> used != 0 {
                return Err(ValueError::new(format!(
                    "flags beyond the {count} that exist are set"
                )));
            }
            set.extend((0..used).map(|bit| word >> bit & 1 == 1));
        }
        Ok(set)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ValueError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn truncated() -> ValueError {
    ValueError::new("the input ends in the middle of a value")
}

/// The words that hold `count` flags: each word's size in bits, and how many flags it holds.
pub fn flag_words(count: usize) -> impl Iterator<Item = (u32, u32)> {
    let bits = match count {
        0..=8 => 8,
        9..=16 => 16,
        _ => 32,
    };
    (0..count.div_ceil(32)).map(move |word| {
        let left = u32::try_from(count - word * 32).unwrap_or(u32::MAX);
        (bits, left.min(32))
    })
}

/// Appends an unsigned integer as a varint. Not for a `u8`, which is one plain byte.
pub fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a signed integer as a zigzag varint. Not for an `s8`, which is one plain byte.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a block of bytes, or the bytes of a string, with the length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_unsigned(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a `char`.
pub fn put_char(out: &mut Vec<u8>, value: char) {
    put_bytes(out, value.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends flags, in the words that [`flag_words`] defines.
pub fn put_flags(out: &mut Vec<u8>, set: &[bool]) {
    let mut flags = set.iter();
    for (bits, used) in flag_words(set.len()) {
        let word =
            (0..used).zip(&mut flags).fold(0u64, |word, (bit, set)| word | u64::from(*set) << bit);
        if bits == 8 {
            out.push(word.to_le_bytes()[0]);
        } else {
            put_unsigned(out, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_are_postcards(a: u16, b: u32, c: u64, d: i16, e: i32, f: i64) {
            let mut out = Vec::new();
            put_unsigned(&mut out, a.into());
            put_unsigned(&mut out, b.into());
            put_unsigned(&mut out, c);
            put_signed(&mut out, d.into());
            put_signed(&mut out, e.into());
            put_signed(&mut out, f);
            prop_assert_eq!(&out, &postcard::to_stdvec(&(a, b, c, d, e, f)).unwrap());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.unsigned(16), Ok(a.into()));
            prop_assert_eq!(reader.unsigned(32), Ok(b.into()));
            prop_assert_eq!(reader.unsigned(64), Ok(c));
            prop_assert_eq!(reader.signed(16), Ok(d.into()));
            prop_assert_eq!(reader.signed(32), Ok(e.into()));
            prop_assert_eq!(reader.signed(64), Ok(f));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn a_varint_is_taken_or_refused_as_postcard_does(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let ours = |bits| Reader::new(&bytes).unsigned(bits).ok();
            prop_assert_eq!(ours(16), postcard::take_from_bytes::<u16>(&bytes).ok().map(|v| v.0.into()));
            prop_assert_eq!(ours(32), postcard::take_from_bytes::<u32>(&bytes).ok().map(|v| v.0.into()));
            prop_assert_eq!(ours(64), postcard::take_from_bytes::<u64>(&bytes).ok().map(|v| v.0));
        }
    }

    #[test]
    fn flags_take_the_smallest_integer_and_then_words() {
        for (count, bytes) in [(1, 1), (8, 1), (9, 1), (16, 1), (17, 1), (33, 2), (64, 2), (65, 3)]
        {
            let mut out = Vec::new();
            put_flags(&mut out, &vec![false; count]);
            assert_eq!(out.len(), bytes, "{count} flags, none set");
            let mut set = vec![false; count];
            set[count - 1] = true;
            let mut out = Vec::new();
            put_flags(&mut out, &set);
            assert_eq!(Reader::new(&out).flags(count).unwrap(), set);
        }
        assert!(Reader::new(&[0b100]).flags(2).is_err());
    }

    #[test]
    fn lies_about_lengths_are_found_before_anything_is_taken() {
        let mut lie = Vec::new();
        put_unsigned(&mut lie, u64::MAX);
        assert!(Reader::new(&lie).bytes().is_err());
        assert!(Reader::new(&[5, 1, 2]).bytes().is_err());
        assert!(Reader::new(&[2, b'a', b'b']).char().is_err());
        assert!(Reader::new(&[0]).char().is_err());
    }
}
