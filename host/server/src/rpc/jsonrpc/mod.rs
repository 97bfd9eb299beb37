//! The messages of JSON-RPC: version 2.0, and version 1.0 as Go's net/rpc speaks it. The member
//! `jsonrpc` tells them apart.

mod answer;
pub(in crate::rpc) mod members;
mod zero;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use self::members::{MAX_ID, Members};

pub(super) use self::answer::{Head, answer, answers_too_large, not_json, refuse};

/// The most calls of one batch.
const MAX_BATCH: usize = 1000;

/// A message.
pub(super) enum Message {
    /// One call, or the answer to what is no call.
    One(Entry),
    /// A batch of them.
    Batch(Vec<Entry>),
}

/// A call, or the answer to what is no call.
pub(super) enum Entry {
    Call(Box<Call>),
    Refused(String),
}

/// A call.
pub(super) struct Call {
    pub(super) head: Head,
    pub(super) method: String,
    pub(super) params: Option<Value>,
}

/// Reads a message. It need not be valid.
pub(super) fn read(text: &[u8]) -> Message {
    if text.trim_ascii_start().first() != Some(&b'[') {
        return Message::One(entry(text));
    }
    match serde_json::from_slice::<Entries<'_>>(text) {
        Ok(Entries(entries)) if entries.is_empty() => {
            Message::One(Entry::Refused(refuse("an empty batch")))
        }
        Ok(Entries(entries)) if entries.len() > MAX_BATCH => {
            let why = format!("a batch of more than {MAX_BATCH} calls");
            Message::One(Entry::Refused(refuse(&why)))
        }
        Ok(Entries(entries)) => {
            Message::Batch(entries.iter().map(|raw| entry(raw.get().as_bytes())).collect())
        }
        Err(error) => Message::One(Entry::Refused(not_json(&error.to_string()))),
    }
}

/// The entries of a batch, of which no more are kept than tell that there are too many.
struct Entries<'t>(Vec<&'t RawValue>);

impl<'de: 't, 't> Deserialize<'de> for Entries<'t> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Calls<'t>(std::marker::PhantomData<&'t ()>);

        impl<'de: 't, 't> serde::de::Visitor<'de> for Calls<'t> {
            type Value = Entries<'t>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of calls")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut all: A,
            ) -> Result<Entries<'t>, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= MAX_BATCH
                    && let Some(entry) = all.next_element::<&'de RawValue>()?
                {
                    entries.push(entry);
                }
                while all.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }

        from.deserialize_seq(Calls(std::marker::PhantomData))
    }
}

fn entry(text: &[u8]) -> Entry {
    let members: Members = match serde_json::from_slice(text) {
        Ok(members) => members,
        Err(error) if error.is_data() => return Entry::Refused(refuse(&error.to_string())),
        Err(error) => return Entry::Refused(not_json(&error.to_string())),
    };
    let is_two = match &members.jsonrpc {
        None => false,
        Some(Value::String(version)) if version == "2.0" => true,
        Some(_) => return Entry::Refused(refuse("the member jsonrpc has to be \"2.0\"")),
    };
    let id = members.id.map(|id| Box::<str>::from(id.get()));
    // Ids are numbers, strings or null. Go's own are numbers.
    let is_id = |id: &str| !id.starts_with(['{', '[', 't', 'f']);
    let id = match id {
        Some(id) if !is_id(&id) => {
            return Entry::Refused(refuse("an id is a number, a string or null"));
        }
        Some(id) if id.len() > MAX_ID => {
            return Entry::Refused(refuse(&format!("an id has at most {MAX_ID} bytes")));
        }
        id => id,
    };
    let head = Head { is_two, id };
    let Some(Value::String(method)) = members.method else {
        return Entry::Refused(head.refuse("the member method has to be a string"));
    };
    if !matches!(members.params, None | Some(Value::Null | Value::Array(_) | Value::Object(_))) {
        return Entry::Refused(head.refuse("params are an array or an object"));
    }
    Entry::Call(Box::new(Call { head, method, params: members.params }))
}

impl Call {
    /// The body by which the arguments are found. In version 1.0, the only element of an array is what
    /// Go's programmers pass, which is one value for all parameters.
    pub(super) fn body(&self, params: usize) -> Option<&Value> {
        match &self.params {
            Some(Value::Array(elements)) if !self.head.is_two => match &elements[..] {
                [_] if params == 0 => None,
                // The only parameter is a list.
                [Value::Array(_)] if params == 1 => self.params.as_ref(),
                [only] => Some(only),
                _ => self.params.as_ref(),
            },
            params => params.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match read(text.as_bytes()) {
            Message::One(Entry::Refused(answer)) => answer,
            _ => panic!("{text} was taken"),
        }
    }

    #[test]
    fn what_is_no_call_is_answered_with_the_code_for_it() {
        for (text, code) in [
            ("{", -32700),
            ("[]", -32600),
            ("[1", -32700),
            (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
            (r#"{"jsonrpc":"3.0","method":"a.b","id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","method":"a.b","params":7,"id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","method":"a.b","id":{}}"#, -32600),
        ] {
            let answer: Value = serde_json::from_str(&refused(text)).unwrap();
            assert_eq!(answer["error"]["code"], code, "{text}: {answer}");
            assert_eq!(answer["jsonrpc"], "2.0", "{text}: {answer}");
            assert!(answer.get("id").is_some(), "{text}: {answer}");
        }
        let many = format!("[{}]", vec!["1"; MAX_BATCH + 1].join(","));
        assert!(refused(&many).contains("a batch of more than 1000 calls"));
        let Message::Batch(entries) = read(b"[1, {\"jsonrpc\":\"2.0\",\"method\":\"a.b\"}]") else {
            panic!("not a batch")
        };
        assert!(matches!(entries[..], [Entry::Refused(_), Entry::Call(_)]));
    }

    #[test]
    fn ids_stay_as_they_came_and_none_is_not_null() {
        for id in ["1", "1e2", "18446744073709551616", "\"a\\u0062\"", "null"] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"a.b","id":{id}}}"#);
            let Message::One(Entry::Call(call)) = read(text.as_bytes()) else { panic!("{id}") };
            assert_eq!(call.head.id.as_deref(), Some(id));
        }
        let Message::One(Entry::Call(call)) = read(br#"{"jsonrpc":"2.0","method":"a.b"}"#) else {
            panic!("no call")
        };
        assert!(call.head.id.is_none());
    }
}
