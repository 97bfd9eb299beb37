//! Calls and answers of Go's net/rpc over gob. A call is a `Request` and its argument, an answer a
//! `Response` and its body, each a message of a stream.

mod arguments;
mod mirror;
mod names;
mod results;

use std::collections::HashMap;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use wharf_gob::{
    Decoder, Encoder, GobError, Item, Kind, Limits, Reader, StructBody, TypeId, Wire, put_int,
    put_message, put_text, put_uint, skip,
};

use self::arguments::Binding;
use self::mirror::Mirror;
use self::results::{Results, Written};
use super::connection::{Broken, Dialect, Output};
use crate::rpc::calls::{Began, Calls};
use crate::rpc::invoke::{CallFailure, Named, Outcome};

/// The longest name of a method that is answered with its name, in bytes.
const MAX_NAME: usize = 1024;

/// The longest text of an error, in bytes. It is cut off there.
const MAX_ERROR: usize = 64 * 1024;

/// A buffer that grew beyond this is not kept.
const KEPT: usize = 256 * 1024;

/// The gob side of a connection.
pub(in crate::rpc::netrpc) struct Gob {
    decoder: Decoder,
    encoder: Encoder,
    /// The `Request` whose argument comes next.
    request: Option<Head>,
    /// What is known about the methods that were called, by their index.
    bindings: HashMap<u32, Binding>,
    results: Results,
    running: HashMap<u64, Waiting>,
    max_reply: u64,
    /// Where messages are made, because their length comes first.
    body: Vec<u8>,
}

/// A `Request`: which method, and the number that the answer has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Head {
    method: Vec<u8>,
    seq: u64,
}

/// A call that has arrived.
pub(in crate::rpc::netrpc) struct Request {
    head: Head,
    /// The type of the argument, and its bytes.
    ty: TypeId,
    argument: Bytes,
}

/// A call that runs.
struct Waiting {
    head: Head,
    named: Named,
    mirror: Mirror,
}

impl Gob {
    pub(in crate::rpc::netrpc) fn new(max_message: u64) -> Self {
        let limits = Limits { message: max_message, ..Limits::default() };
        Gob {
            decoder: Decoder::new(limits),
            encoder: Encoder::default(),
            request: None,
            bindings: HashMap::new(),
            results: Results::default(),
            running: HashMap::new(),
            max_reply: max_message,
            body: Vec::new(),
        }
    }

    /// Reads messages until one has the argument of a call.
    fn read(&mut self, input: &mut BytesMut) -> Result<Option<Request>, GobError> {
        while let Some((used, item)) = self.decoder.next(input)? {
            let found = item.map(|Item { ty, bytes }| (ty, used - bytes.len()));
            let message = input.split_to(used).freeze();
            let Some((ty, at)) = found else { continue };
            let argument = message.slice(at..);
            match self.request.take() {
                None => self.request = Some(self.head(Item { ty, bytes: &argument })?),
                Some(head) => return Ok(Some(Request { head, ty, argument })),
            }
        }
        Ok(None)
    }

    /// Reads a `Request`. What it does not have is zero.
    fn head(&self, item: Item<'_>) -> Result<Head, GobError> {
        let types = self.decoder.types();
        let Kind::Defined(Wire::Struct { fields, .. }) = types.kind(item.ty)? else {
            return Err(GobError::Definition);
        };
        let (mut head, mut before) = (Head::default(), None);
        let mut reader = Reader::new(item.bytes);
        while let Some(index) = reader.field(before, fields.len())? {
            let field = fields.get(index).ok_or(GobError::NoSuchField)?;
            match (&field.name[..], field.ty) {
                ("ServiceMethod", TypeId::STRING) => {
                    // One byte more tells that it is too long.
                    let name = reader.bytes()?;
                    head.method = name[..name.len().min(MAX_NAME + 1)].to_vec();
                }
                ("Seq", TypeId::UINT) => head.seq = reader.uint()?,
                _ => skip(types, &mut reader, field.ty)?,
            }
            before = Some(index);
        }
        Ok(head)
    }

    /// Finds the method, and translates its argument.
    fn bind(
        &mut self,
        request: &Request,
        calls: &mut Calls,
    ) -> Result<(Named, Mirror, Bytes), String> {
        let name = std::str::from_utf8(&request.head.method).unwrap_or_default();
        if name.len() > MAX_NAME || !name.contains('.') {
            let shown = name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or_default();
            return Err(format!("rpc: service/method request ill-formed: {shown}"));
        }
        let named = calls.named(name).map_err(|failure| text(name, &failure))?;
        let max = usize::try_from(self.max_reply).unwrap_or(usize::MAX);
        let binding = self.bindings.entry(named.index).or_insert_with(|| Binding::new(&named, max));
        if !binding.is_for(&named) {
            *binding = Binding::new(&named, max);
        }
        let item = Item { ty: request.ty, bytes: &request.argument };
        let mut mirror = Mirror::default();
        let arguments = binding
            .arguments(self.decoder.types(), item, &mut mirror)
            .map_err(|error| format!("wharf: INVALID_ARGUMENT: {name}: {error}"))?;
        Ok((named, mirror, arguments.into()))
    }

    fn conclude(&mut self, waiting: &Waiting, outcome: Outcome, out: &mut Output) {
        let answered = match outcome {
            Ok(result) => self.reply(waiting, &result, out),
            Err(failure) => Err(text(&String::from_utf8_lossy(&waiting.head.method), &failure)),
        };
        if let Err(why) = answered {
            self.fail(&waiting.head, &why, out);
        }
    }

    /// Writes the answer of a call that succeeded.
    ///
    /// # Errors
    /// The text of the error that is to be sent instead.
    fn reply(&mut self, waiting: &Waiting, result: &[u8], out: &mut Output) -> Result<(), String> {
        let Waiting { head, named, mirror } = waiting;
        let name = || String::from_utf8_lossy(&head.method).into_owned();
        let signature = named.signature().map_err(|failure| text(&name(), &failure))?;
        let mut definitions = Vec::new();
        let max = usize::try_from(self.max_reply).unwrap_or(usize::MAX);
        self.body.clear();
        let written = self.results.write(
            (&named.service, named.index, signature.result),
            *mirror,
            result,
            (&mut self.encoder, &mut definitions),
            (&mut self.body, max),
        );
        match written {
            Ok(Written::Body) => {}
            Ok(Written::Error(shown)) => {
                out.bytes.extend_from_slice(&definitions);
                return Err(shown);
            }
            Err(why) => {
                // The types stay defined, so the definitions have to be sent.
                out.bytes.extend_from_slice(&definitions);
                return Err(format!("wharf: OUT_OF_RANGE: {}: the result {why}", name()));
            }
        }
        if let Err(failure) = out.room_for(self.body.len()) {
            out.bytes.extend_from_slice(&definitions);
            return Err(text(&name(), &failure));
        }
        let mut response = Vec::with_capacity(64);
        self.put_response(head, "", &mut definitions, &mut response);
        out.bytes.extend_from_slice(&definitions);
        out.bytes.extend_from_slice(&response);
        let mut body = Vec::with_capacity(self.body.len() + 9);
        put_message(&mut body, &self.body);
        out.bytes.extend_from_slice(&body);
        if self.body.capacity() > KEPT {
            self.body = Vec::new();
        }
        Ok(())
    }

    /// Writes an error, and the empty struct that comes with it.
    fn fail(&mut self, head: &Head, why: &str, out: &mut Output) {
        let mut bytes = Vec::new();
        let mut response = Vec::new();
        // An empty text would mean success.
        let why = if why.is_empty() { "the call failed, and says no more" } else { why };
        let why = &why[..why.floor_char_boundary(MAX_ERROR)];
        self.put_response(head, why, &mut bytes, &mut response);
        let nothing = Wire::Struct { name: String::new(), fields: Vec::new() };
        let ty = self.encoder.define(nothing, &mut bytes);
        bytes.extend_from_slice(&response);
        let mut body = Vec::new();
        put_int(&mut body, ty.number());
        StructBody::end(&mut body);
        put_message(&mut bytes, &body);
        out.bytes.extend_from_slice(&bytes);
    }

    /// Appends a `Response`. Its type goes to `definitions` if it is the first.
    fn put_response(
        &mut self,
        head: &Head,
        error: &str,
        definitions: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let ty = self.results.response(&mut self.encoder, definitions);
        let mut message = Vec::with_capacity(32 + head.method.len() + error.len());
        put_int(&mut message, ty.number());
        let mut fields = StructBody::default();
        if !head.method.is_empty() {
            fields.field(0, &mut message);
            put_text(&mut message, &head.method);
        }
        if head.seq != 0 {
            fields.field(1, &mut message);
            put_uint(&mut message, head.seq);
        }
        if !error.is_empty() {
            fields.field(2, &mut message);
            put_text(&mut message, error.as_bytes());
        }
        StructBody::end(&mut message);
        put_message(out, &message);
    }
}

impl Dialect for Gob {
    type Request = Request;

    fn next(
        &mut self,
        input: &mut BytesMut,
        _last_words: &mut Output,
    ) -> Result<Option<Request>, Broken> {
        // A stream that cannot be read has no place for an error.
        self.read(input).map_err(|error| format!("gob: {error}"))
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        request: Request,
        calls: &mut Calls,
        out: &mut Output,
    ) {
        match self.bind(&request, calls) {
            Ok((named, mirror, arguments)) => {
                let began = calls.begin(cx, &named, arguments, (None, None));
                let waiting = Waiting { head: request.head, named, mirror };
                match began {
                    Began::Ended(outcome) => self.conclude(&waiting, outcome, out),
                    Began::Running(id) => {
                        self.running.insert(id, waiting);
                    }
                }
            }
            Err(why) => self.fail(&request.head, &why, out),
        }
    }

    fn answer(&mut self, id: u64, outcome: Outcome, out: &mut Output) {
        if let Some(waiting) = self.running.remove(&id) {
            self.conclude(&waiting, outcome, out);
        }
    }
}

/// The text of a failure. Go's own words, where it has some.
fn text(name: &str, failure: &CallFailure) -> String {
    match failure.missing {
        Some(missing) => missing.in_go(name),
        None => format!("wharf: {}: {}", failure.status.name(), failure.message),
    }
}

/// The text of a method's own error.
fn error_text(shown: &serde_json::Value) -> String {
    match shown {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
