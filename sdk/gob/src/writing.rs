//! Writes numbers, blocks of bytes, structs and messages.

/// The fields of a struct that is written: what comes before each is its distance from the one before.
#[derive(Debug, Default)]
pub struct StructBody {
    next: usize,
}

impl StructBody {
    /// Begins the field with this index. Indices grow. Its value follows.
    pub fn field(&mut self, index: usize, out: &mut Vec<u8>) {
        put_uint(out, (index + 1).saturating_sub(self.next) as u64);
        self.next = index + 1;
    }

    /// Ends a struct.
    pub fn end(out: &mut Vec<u8>) {
        out.push(0);
    }
}

/// Appends a message: its length, then its body.
pub fn put_message(out: &mut Vec<u8>, body: &[u8]) {
    put_uint(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Appends an unsigned integer, or a boolean as 0 or 1.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value.to_le_bytes()[0]);
        return;
    }
    let bytes = value.to_be_bytes();
    let zeros = value.leading_zeros() as usize / 8;
    // At most 8, so negated it fits a byte.
    out.push(((8 - zeros) as u64).wrapping_neg().to_le_bytes()[0]);
    out.extend_from_slice(&bytes[zeros..]);
}

/// Appends a signed integer.
pub fn put_int(out: &mut Vec<u8>, value: i64) {
    let bits = (value << 1).cast_unsigned();
    put_uint(out, if value < 0 { !bits } else { bits });
}

/// Appends a floating-point number.
pub fn put_float(out: &mut Vec<u8>, value: f64) {
    put_uint(out, value.to_bits().swap_bytes());
}

/// Appends a string or a block of bytes, with its length in front.
pub fn put_text(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
