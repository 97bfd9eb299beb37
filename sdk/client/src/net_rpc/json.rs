//! JSON-RPC 1.0, as Go's `net/rpc/jsonrpc` speaks it.

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MAX_MESSAGE, Reply};

/// Appends a call.
pub(super) fn put_call(out: &mut Vec<u8>, number: u64, method: &str, argument: &Value) {
    let call = json!({ "method": method, "params": [argument], "id": number });
    out.extend_from_slice(call.to_string().as_bytes());
    out.push(b'\n');
}

#[derive(Deserialize)]
struct Members {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Value,
}

/// Finds the ends of values. Each byte is looked at once, in however many pieces they arrive.
#[derive(Default)]
pub(super) struct Framing {
    /// Bytes that were looked at.
    seen: usize,
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

impl Framing {
    /// Takes the next answer off the front, if it has arrived.
    ///
    /// # Errors
    /// When what arrived is none. Nothing more can be read then.
    pub(super) fn next_reply(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(u64, Reply)>, String> {
        while let Some(byte) = input.get(self.seen) {
            self.seen += 1;
            if self.is_text {
                self.is_text = self.is_escaped || *byte != b'"';
                self.is_escaped = !self.is_escaped && *byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.is_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ if byte.is_ascii_whitespace() || self.depth > 0 => continue,
                _ => return Err("an answer is not JSON-RPC".to_owned()),
            }
            if self.depth == 0 && !self.is_text {
                let whole = input.split_to(std::mem::take(&mut self.seen));
                return reply(&whole).map(Some);
            }
        }
        match input.len() > MAX_MESSAGE {
            true => Err(format!("an answer has more than {MAX_MESSAGE} bytes")),
            false => Ok(None),
        }
    }
}

fn reply(text: &[u8]) -> Result<(u64, Reply), String> {
    let members: Members = serde_json::from_slice(text)
        .map_err(|error| format!("an answer is not JSON-RPC: {error}"))?;
    let number = members.id.ok_or("an answer has no id")?;
    Ok(match members.error {
        Value::Null => (number, Reply::Result(members.result.to_string())),
        Value::String(text) => (number, Reply::Error(text)),
        other => (number, Reply::Error(other.to_string())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_whatever_pieces_they_arrive() {
        let text = b"{\"id\":1,\"result\":56,\"error\":null}\n {\"id\":2,\"result\":[null],\n\"error\":\"}\\\"{\"}\n";
        for size in [1, 7, text.len()] {
            let (mut input, mut all) = (BytesMut::new(), Vec::new());
            let mut framing = Framing::default();
            for piece in text.chunks(size) {
                input.extend_from_slice(piece);
                while let Some((number, reply)) = framing.next_reply(&mut input).unwrap() {
                    all.push((
                        number,
                        match reply {
                            Reply::Result(json) => json,
                            Reply::Error(text) => text,
                        },
                    ));
                }
            }
            assert_eq!(all, [(1, "56".to_owned()), (2, "}\"{".to_owned())], "{size}");
        }
        for wrong in [&b"nonsense\n"[..], b"{\"id\":1,}", b"{}"] {
            assert!(Framing::default().next_reply(&mut BytesMut::from(wrong)).is_err());
        }
    }
}
