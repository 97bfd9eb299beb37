//! Finds where a JSON value ends, without reading it: only strings and brackets matter for that. Each
//! byte is looked at once, however slowly they arrive.

use bytes::{Buf, BytesMut};

/// The deepest nesting. It is serde_json's.
const MAX_DEPTH: usize = 127;

/// The state between two pieces of input.
#[derive(Debug)]
pub(super) struct Framing {
    max: u64,
    /// Bytes of the value that were looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// Why no value can be found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotJson {
    #[error("expected an object or an array, found the byte {0:#04x}")]
    Syntax(u8),
    #[error("a message of more than {0} bytes")]
    TooLong(u64),
    #[error("a message nests more than {MAX_DEPTH} deep")]
    TooDeep,
}

impl Framing {
    pub(super) fn new(max: u64) -> Self {
        Framing { max, seen: 0, depth: 0, in_string: false, escaped: false }
    }

    /// Takes the next value off the input. `None`: it has not arrived entirely.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, NotJson> {
        if self.depth == 0 {
            let blank = input.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            input.advance(blank);
        }
        while let Some(byte) = input.get(self.seen).copied() {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.depth > 0 => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(NotJson::TooDeep);
                    }
                }
                _ if self.depth == 0 => return Err(NotJson::Syntax(byte)),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let value = input.split_to(self.seen);
                        self.seen = 0;
                        return Ok(Some(value));
                    }
                }
                _ => {}
            }
        }
        match input.len() as u64 > self.max {
            true => Err(NotJson::TooLong(self.max)),
            false => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], piece: usize) -> Result<Vec<String>, NotJson> {
        let (mut framing, mut input, mut values) = (Framing::new(100), BytesMut::new(), Vec::new());
        for piece in text.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(value) = framing.next(&mut input)? {
                values.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        Ok(values)
    }

    #[test]
    fn values_end_where_their_brackets_do_however_they_arrive() {
        let text = br#" {"a":"}\"{"}[{"b":[]}]
            {"c":"\\"}{"#;
        for piece in 1..text.len() {
            let values = all(text, piece).unwrap();
            assert_eq!(values, [r#"{"a":"}\"{"}"#, r#"[{"b":[]}]"#, r#"{"c":"\\"}"#], "{piece}");
        }
    }

    #[test]
    fn what_is_no_value_too_long_or_too_deep_is_refused() {
        assert_eq!(all(b"7", 1), Err(NotJson::Syntax(b'7')));
        assert_eq!(all(b"{} }", 4), Err(NotJson::Syntax(b'}')));
        assert_eq!(all(&[b'['; 200], 200), Err(NotJson::TooDeep));
        let long = format!("{{\"a\":\"{}", "x".repeat(200));
        assert_eq!(all(long.as_bytes(), 7), Err(NotJson::TooLong(100)));
    }
}
