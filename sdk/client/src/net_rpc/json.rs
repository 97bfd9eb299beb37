//! JSON-RPC 1.0, as Go's `net/rpc/jsonrpc` speaks it.

use bytes::{Buf, BytesMut};
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

/// Takes the next answer off the front, if it has arrived.
///
/// # Errors
/// When what arrived is none. Nothing more can be read then.
pub(super) fn next_reply(input: &mut BytesMut) -> Result<Option<(u64, Reply)>, String> {
    // Values are read anew until they are whole, so only where one may end.
    if input.trim_ascii_end().last() != Some(&b'}') && !input.contains(&b'\n') {
        return match input.len() > MAX_MESSAGE {
            true => Err(format!("an answer has more than {MAX_MESSAGE} bytes")),
            false => Ok(None),
        };
    }
    let mut values = serde_json::Deserializer::from_slice(input).into_iter::<Members>();
    let members = match values.next() {
        None => return Ok(None),
        Some(Ok(members)) => members,
        Some(Err(error)) if error.is_eof() && input.len() <= MAX_MESSAGE => return Ok(None),
        Some(Err(error)) => return Err(format!("an answer is not JSON-RPC: {error}")),
    };
    let used = values.byte_offset();
    input.advance(used);
    let number = members.id.ok_or("an answer has no id")?;
    Ok(Some(match members.error {
        Value::Null => (number, Reply::Result(members.result.to_string())),
        Value::String(text) => (number, Reply::Error(text)),
        other => (number, Reply::Error(other.to_string())),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_whatever_pieces_they_arrive() {
        let text = b"{\"id\":1,\"result\":56,\"error\":null}\n{\"id\":2,\"result\":null,\"error\":\"no\"}\n";
        for size in [1, 7, text.len()] {
            let (mut input, mut all) = (BytesMut::new(), Vec::new());
            for piece in text.chunks(size) {
                input.extend_from_slice(piece);
                while let Some((number, reply)) = next_reply(&mut input).unwrap() {
                    all.push((
                        number,
                        match reply {
                            Reply::Result(json) => json,
                            Reply::Error(text) => text,
                        },
                    ));
                }
            }
            assert_eq!(all, [(1, "56".to_owned()), (2, "no".to_owned())], "{size}");
        }
        assert!(next_reply(&mut BytesMut::from(&b"nonsense\n"[..])).is_err());
    }
}
