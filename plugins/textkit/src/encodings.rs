//! Bytes as text, and their checksum.

use crate::bindings::exports::demo::textkit::textkit::{DecodeError, Encoding};

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The alphabet of an encoding, and the bits that one of its characters carries.
fn alphabet(encoding: Encoding) -> (&'static [u8], u32) {
    match encoding {
        Encoding::Hex => (HEX, 4),
        Encoding::Base32 => (BASE32, 5),
    }
}

pub(crate) fn encode(data: &[u8], encoding: Encoding) -> String {
    let (alphabet, bits) = alphabet(encoding);
    let mask = (1 << bits) - 1;
    let mut text = String::with_capacity(data.len() * 2);
    let (mut held, mut count) = (0u32, 0);
    for byte in data {
        held = held << 8 | u32::from(*byte);
        count += 8;
        while count >= bits {
            count -= bits;
            text.push(char::from(alphabet[(held >> count & mask) as usize]));
        }
        held &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(alphabet[(held << (bits - count) & mask) as usize]));
    }
    text
}

pub(crate) fn decode(text: &str, encoding: Encoding) -> Result<Vec<u8>, DecodeError> {
    let (alphabet, bits) = alphabet(encoding);
    let mut data = Vec::with_capacity(text.len());
    let (mut held, mut count) = (0u32, 0);
    for (position, character) in (0u32..).zip(text.chars()) {
        let value = (0u32..)
            .zip(alphabet)
            .find(|(_, letter)| character.eq_ignore_ascii_case(&char::from(**letter)))
            .ok_or(DecodeError::BadCharacter((character, position)))?
            .0;
        held = held << bits | value;
        count += bits;
        if count >= 8 {
            count -= 8;
            data.extend((held >> count).to_le_bytes().first());
            held &= (1 << count) - 1;
        }
    }
    // What is left over is padding: fewer bits than a character carries, all of them zero.
    if count >= bits || held != 0 { Err(DecodeError::Truncated) } else { Ok(data) }
}

/// CRC-32 as in IEEE 802.3, a nibble at a time: small, and quick enough for an example.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16u32 {
            let (mut value, mut bit) = (index, 0);
            while bit < 4 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index as usize] = value;
            index += 1;
        }
        table
    };
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_agree_with_the_rfcs_examples() {
        assert_eq!(encode(b"foobar", Encoding::Hex), "666f6f626172");
        assert_eq!(encode(b"fooba", Encoding::Base32), "MZXW6YTB");
        assert_eq!(encode(b"foob", Encoding::Base32), "MZXW6YQ");
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn decode_gives_back_what_encode_was_given() {
        for encoding in [Encoding::Hex, Encoding::Base32] {
            for len in 0..20u8 {
                let data: Vec<u8> = (0..len).map(|i| i.wrapping_mul(37)).collect();
                assert_eq!(decode(&encode(&data, encoding), encoding).ok(), Some(data));
            }
        }
    }

    #[test]
    fn bad_text_is_told_apart() {
        assert!(matches!(decode("66zz", Encoding::Hex), Err(DecodeError::BadCharacter(('z', 2)))));
        assert!(matches!(decode("666", Encoding::Hex), Err(DecodeError::Truncated)));
    }
}
