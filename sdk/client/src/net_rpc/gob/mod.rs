//! Calls and answers over gob.

mod argument;
mod learned;
mod reply;
mod shape;

use bytes::BytesMut;
use serde_json::Value;
use wharf_gob::{
    Decoder, Encoder, Field, Item, Kind, Reader, StructBody, TypeId, Wire, put_int, put_message,
    put_text, put_uint, skip,
};

pub(super) use self::learned::Learned;
pub(super) use self::shape::Shape;

use super::{MAX_MESSAGE, Reply};

/// Writes the calls of one connection.
#[derive(Default)]
pub(super) struct Requests {
    encoder: Encoder,
}

impl Requests {
    /// Appends a call, whose argument has this type.
    ///
    /// # Errors
    /// When the argument does not fit the type. Nothing is sent then.
    pub(super) fn put_call(
        &mut self,
        out: &mut Vec<u8>,
        number: u64,
        (method, argument): (&str, &Value),
        shape: &Shape,
    ) -> Result<(), String> {
        // First, because nothing may be defined in the stream that is not sent.
        let value = argument::encoded(shape, argument)?;
        if value.len() > MAX_MESSAGE {
            return Err(format!(
                "the argument takes {} bytes; at most {MAX_MESSAGE} are sent",
                value.len()
            ));
        }
        let field = |name: &str, ty| Field { name: name.to_owned(), ty };
        let fields = vec![field("ServiceMethod", TypeId::STRING), field("Seq", TypeId::UINT)];
        let request = Wire::Struct { name: "Request".to_owned(), fields };
        let request = self.encoder.define(request, out);
        let mut body = Vec::new();
        put_int(&mut body, request.number());
        let mut head = StructBody::default();
        head.field(0, &mut body);
        put_text(&mut body, method.as_bytes());
        head.field(1, &mut body);
        put_uint(&mut body, number);
        StructBody::end(&mut body);
        put_message(out, &body);
        let ty = shape.define(&mut self.encoder, out);
        body.clear();
        put_int(&mut body, ty.number());
        if !shape.is_struct() {
            body.push(0);
        }
        body.extend_from_slice(&value);
        put_message(out, &body);
        Ok(())
    }
}

/// Reads the answers of one connection.
#[derive(Default)]
pub(super) struct Replies {
    decoder: Decoder,
    /// The `Response` whose body comes next.
    response: Option<(u64, Option<String>)>,
}

impl Replies {
    /// Takes the next answer off the front, if it has arrived.
    ///
    /// # Errors
    /// When what arrived is none. Nothing more can be read then.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<(u64, Reply)>, String> {
        loop {
            let next = self.decoder.next(input).map_err(|error| error.to_string())?;
            let Some((used, item)) = next else { return Ok(None) };
            let ty = item.map(|item| (item.ty, used - item.bytes.len()));
            let message = input.split_to(used);
            let Some((ty, at)) = ty else { continue };
            let item = Item { ty, bytes: message.get(at..).unwrap_or_default() };
            match self.response.take() {
                None => self.response = Some(self.head(item)?),
                Some((number, Some(error))) => return Ok(Some((number, Reply::Error(error)))),
                Some((number, None)) => {
                    let json = reply::json(self.decoder.types(), item)?;
                    return Ok(Some((number, Reply::Result(json))));
                }
            }
        }
    }

    /// Reads a `Response`: the call's number, and its error if it has one.
    fn head(&self, item: Item<'_>) -> Result<(u64, Option<String>), String> {
        let types = self.decoder.types();
        let damaged = |error: wharf_gob::GobError| error.to_string();
        let Kind::Defined(Wire::Struct { fields, .. }) = types.kind(item.ty).map_err(damaged)?
        else {
            return Err("an answer does not begin with a Response".to_owned());
        };
        let (mut number, mut error, mut before) = (0, None, None);
        let mut reader = Reader::new(item.bytes);
        while let Some(index) = reader.field(before, fields.len()).map_err(damaged)? {
            let field = fields.get(index).ok_or("a Response has a field too many")?;
            match (&field.name[..], field.ty) {
                ("Seq", TypeId::UINT) => number = reader.uint().map_err(damaged)?,
                ("Error", TypeId::STRING) => {
                    let text = reader.bytes().map_err(damaged)?;
                    error = Some(String::from_utf8_lossy(text).into_owned());
                }
                _ => skip(types, &mut reader, field.ty).map_err(damaged)?,
            }
            before = Some(index);
        }
        Ok((number, error.filter(|text| !text.is_empty())))
    }
}
