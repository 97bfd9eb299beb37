//! JSON-RPC over TCP. Values follow each other, with or without white space between them.

mod framing;

use std::collections::HashMap;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use wharf_schema::arguments_from_body;
use wharf_wire::Status;

use self::framing::{Framing, NotJson};
use super::connection::{Broken, Dialect, Output};
use crate::rpc::calls::{Began, Calls};
use crate::rpc::invoke::{CallFailure, Named, Outcome};
use crate::rpc::jsonrpc::{self, Call, Entry, Head, Message};

/// The JSON side of a connection.
pub(super) struct Json {
    framing: Framing,
    running: HashMap<u64, Waiting>,
    batches: HashMap<u64, Batch>,
    last_batch: u64,
}

/// A call that runs.
struct Waiting {
    head: Head,
    name: String,
    named: Named,
    place: Place,
}

/// Where an answer goes.
#[derive(Clone, Copy)]
enum Place {
    Alone,
    /// To this place in this batch.
    In(u64, usize),
}

/// The answers of a batch. They are sent together.
struct Batch {
    answers: Vec<Option<String>>,
    /// How many are missing.
    missing: usize,
    /// Bytes of the answers so far.
    bytes: usize,
}

impl Json {
    pub(super) fn new(max_message: u64) -> Self {
        Json {
            framing: Framing::new(max_message),
            running: HashMap::new(),
            batches: HashMap::new(),
            last_batch: 0,
        }
    }

    fn entry(
        &mut self,
        cx: &mut Context<'_>,
        entry: Entry,
        place: Place,
        calls: &mut Calls,
        out: &mut Output,
    ) {
        let call = match entry {
            Entry::Refused(answer) => return self.put(Some(answer), place, out),
            Entry::Call(call) => call,
        };
        let Call { head, method, .. } = &*call;
        let begun = calls.named(method).and_then(|named| {
            let arguments = bind(&call, &named)?;
            Ok((named, arguments))
        });
        let (named, arguments) = match begun {
            Ok(begun) => begun,
            Err(failure) => {
                let answer = head.wants_answer().then(|| head.failure(method, &failure));
                return self.put(answer, place, out);
            }
        };
        let waiting = Waiting { head: head.clone(), name: method.clone(), named, place };
        match calls.begin(cx, &waiting.named, arguments, (None, None)) {
            Began::Ended(outcome) => self.conclude(&waiting, &outcome, out),
            Began::Running(id) => {
                self.running.insert(id, waiting);
            }
        }
    }

    fn conclude(&mut self, waiting: &Waiting, outcome: &Outcome, out: &mut Output) {
        let Waiting { head, name, named, place } = waiting;
        let answer = head.wants_answer().then(|| {
            let answer = jsonrpc::answer(head, named, name, outcome);
            let waits = self.batches.values().map(|batch| batch.bytes).sum::<usize>();
            match out.room_for(answer.len() + waits) {
                Ok(()) => answer,
                Err(failure) => head.failure(name, &failure),
            }
        });
        self.put(answer, *place, out);
    }

    fn put(&mut self, answer: Option<String>, place: Place, out: &mut Output) {
        let (batch, at) = match place {
            Place::Alone => {
                if let Some(answer) = answer {
                    line(out, &answer);
                }
                return;
            }
            Place::In(batch, at) => (batch, at),
        };
        let Some(known) = self.batches.get_mut(&batch) else { return };
        known.bytes += answer.as_ref().map_or(0, String::len);
        if let Some(slot) = known.answers.get_mut(at) {
            *slot = answer;
        }
        known.missing -= 1;
        if known.missing > 0 {
            return;
        }
        let Some(Batch { answers, .. }) = self.batches.remove(&batch) else { return };
        let answers: Vec<String> = answers.into_iter().flatten().collect();
        // A batch of nothing but notifications has no answer.
        if !answers.is_empty() {
            line(out, &format!("[{}]", answers.join(",")));
        }
    }
}

/// Appends an answer. Go's server ends each with a line end too.
fn line(out: &mut Output, answer: &str) {
    out.bytes.extend_from_slice(answer.as_bytes());
    out.bytes.extend_from_slice(b"\n");
}

fn bind(call: &Call, named: &Named) -> Result<Bytes, CallFailure> {
    let params = &named.signature()?.params;
    let arguments = arguments_from_body(named.service.types(), params, call.body(params.len()));
    arguments.map(Bytes::from).map_err(|error| {
        let message = format!("{}: {error}", call.method);
        CallFailure::refused(Status::InvalidArgument, message)
    })
}

impl Dialect for Json {
    type Request = Bytes;

    fn next(
        &mut self,
        input: &mut BytesMut,
        last_words: &mut Output,
    ) -> Result<Option<Bytes>, Broken> {
        match self.framing.next(input) {
            Ok(value) => Ok(value.map(BytesMut::freeze)),
            Err(error @ NotJson::Syntax(_)) => {
                line(last_words, &jsonrpc::not_json(&error.to_string()));
                Err(error.to_string())
            }
            Err(error) => {
                line(last_words, &jsonrpc::refuse(&error.to_string()));
                Err(error.to_string())
            }
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>, text: Bytes, calls: &mut Calls, out: &mut Output) {
        match jsonrpc::read(&text) {
            Message::One(entry) => self.entry(cx, entry, Place::Alone, calls, out),
            Message::Batch(entries) => {
                self.last_batch += 1;
                let batch = self.last_batch;
                let missing = entries.len();
                self.batches
                    .insert(batch, Batch { answers: vec![None; missing], missing, bytes: 0 });
                for (at, entry) in entries.into_iter().enumerate() {
                    self.entry(cx, entry, Place::In(batch, at), calls, out);
                }
            }
        }
    }

    fn answer(&mut self, id: u64, outcome: Outcome, out: &mut Output) {
        if let Some(waiting) = self.running.remove(&id) {
            self.conclude(&waiting, &outcome, out);
        }
    }
}
