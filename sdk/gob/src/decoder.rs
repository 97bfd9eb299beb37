//! Reads a stream, value by value.

use crate::{GobError, Limits, Reader, TypeId, Types, Wire, walk, wire_type};

/// The most messages that one value goes over.
const MAX_SPAN: usize = 64;

/// How many times a longest message may be looked at in vain, in a whole stream.
const AGAIN: u64 = 4;

/// Reads one stream in its order, and keeps the types that it defines.
#[derive(Debug)]
pub struct Decoder {
    types: Types,
    limits: Limits,
    /// How many messages the next value goes over, as far as is known. Where an interface in a value
    /// has a type that is new, Go ends the message after the definition, and goes on with the value in
    /// the next one.
    span: usize,
    /// Bytes that were looked at in vain, because the value went on.
    again: u64,
}

/// A value that stands alone.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its type.
    pub ty: TypeId,
    /// Its bytes, checked to their end, which is the end of what was read. A value that is not a struct
    /// has no zero in front any more.
    pub bytes: &'a [u8],
}

/// The lengths of a message's prefix and of its body. `None` if the prefix has not arrived entirely.
///
/// # Errors
/// When the message is longer than the limit, or the prefix is not a number.
fn message_length(input: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, GobError> {
    let mut reader = Reader::new(input);
    let len = match reader.uint() {
        Ok(len) => len,
        Err(GobError::Truncated) => return Ok(None),
        Err(error) => return Err(error),
    };
    match usize::try_from(len) {
        Ok(fits) if len <= limits.message => Ok(Some((input.len() - reader.rest().len(), fits))),
        _ => Err(GobError::TooLong { len, max: limits.message }),
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new(Limits::default())
    }
}

impl Decoder {
    /// A decoder for one stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Decoder { types: Types::default(), limits, span: 1, again: 0 }
    }

    /// The types that the stream has defined so far.
    #[must_use]
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// The limits of the stream.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads what is in front of the input: a definition, or a value. Returns its length in bytes, and
    /// the value. `None` if it has not arrived entirely.
    ///
    /// # Errors
    /// When it is not valid. Nothing more can be read of the stream then.
    pub fn next<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<Option<(usize, Option<Item<'a>>)>, GobError> {
        loop {
            let Some((body, end)) = self.arrived(input)? else { return Ok(None) };
            let bytes = input.get(body..end).ok_or(GobError::Truncated)?;
            match self.message(bytes) {
                Ok(item) => {
                    self.span = 1;
                    return Ok(Some((end, item)));
                }
                Err(GobError::Continued)
                    if self.span < MAX_SPAN && self.again <= AGAIN * self.limits.message =>
                {
                    self.span += 1;
                    self.again += bytes.len() as u64;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the body of the first message begins, and where the last one ends that is needed. `None`
    /// if that has not arrived.
    fn arrived(&self, input: &[u8]) -> Result<Option<(usize, usize)>, GobError> {
        let (mut first, mut end) = (None, 0);
        for _ in 0..self.span {
            let rest = input.get(end..).unwrap_or_default();
            let Some((prefix, len)) = message_length(rest, &self.limits)? else { return Ok(None) };
            let whole = (end + prefix).checked_add(len).ok_or(GobError::Truncated)?;
            if whole as u64 > self.limits.message.saturating_add(prefix as u64) {
                return Err(GobError::TooLong { len: whole as u64, max: self.limits.message });
            }
            first.get_or_insert(end + prefix);
            end = whole;
            if input.len() < end {
                return Ok(None);
            }
        }
        Ok(first.map(|first| (first, end)))
    }

    /// Reads the body of a message. `None` if it defines a type.
    fn message<'a>(&mut self, body: &'a [u8]) -> Result<Option<Item<'a>>, GobError> {
        let mut reader = Reader::new(body);
        let id = reader.int()?;
        if id < 0 {
            let id = id.checked_neg().ok_or(GobError::Definition)?;
            if body.len() > self.limits.definitions {
                return Err(GobError::TooManyTypes);
            }
            let wire: Wire = wire_type::read(&mut reader)?;
            if !reader.rest().is_empty() {
                return Err(GobError::LeftOver);
            }
            self.types.define(id, wire, body.len(), &self.limits)?;
            return Ok(None);
        }
        let ty = TypeId(id);
        let mut checked = reader;
        walk::check(&mut self.types, &mut checked, ty, &self.limits)?;
        if !checked.rest().is_empty() {
            return Err(GobError::LeftOver);
        }
        walk::begin(&self.types, &mut reader, ty)?;
        Ok(Some(Item { ty, bytes: reader.rest() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, Kind};

    /// What Go 1.19 sends first on a connection of net/rpc: the type of `Request`.
    const REQUEST: &[u8] = b"\x2f\xff\x81\x03\x01\x01\x07Request\x01\xff\x82\x00\x01\x02\x01\x0dServiceMethod\x01\x0c\x00\x01\x03Seq\x01\x06\x00\x00\x00";

    #[test]
    fn the_type_of_a_request_is_read_as_go_writes_it() {
        let (prefix, len) = message_length(REQUEST, &Limits::default()).unwrap().unwrap();
        assert_eq!(prefix + len, REQUEST.len());
        let mut decoder = Decoder::default();
        assert!(decoder.message(&REQUEST[prefix..]).unwrap().is_none());
        let field = |name: &str, ty| Field { name: name.to_owned(), ty };
        let fields = vec![field("ServiceMethod", TypeId::STRING), field("Seq", TypeId::UINT)];
        let expected = Wire::Struct { name: "Request".to_owned(), fields };
        assert_eq!(decoder.types().kind(TypeId(65)), Ok(Kind::Defined(&expected)));
        let mut out = Vec::new();
        assert_eq!(crate::Encoder::default().define(expected, &mut out), TypeId(65));
        assert_eq!(out, REQUEST, "ours are Go's bytes");
        let again = decoder.message(&REQUEST[prefix..]);
        assert_eq!(again.err(), Some(GobError::Duplicate(65)));
    }

    #[test]
    fn a_number_alone_has_a_zero_in_front() {
        // `3`, as in the documentation.
        let item = Decoder::default().message(&[4, 0, 6]).unwrap().unwrap();
        assert_eq!((item.ty, item.bytes), (TypeId::INT, &[6][..]));
        assert_eq!(Decoder::default().message(&[4, 6]).err(), Some(GobError::Singleton));
        assert_eq!(Decoder::default().message(&[4, 0, 6, 0]).err(), Some(GobError::LeftOver));
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { message: 10, types: 2, definitions: 100, depth: 8 };
        assert_eq!(message_length(&[11], &limits), Err(GobError::TooLong { len: 11, max: 10 }));
        assert_eq!(message_length(&[0xfe, 1], &limits), Ok(None));
        // Slices of slices: `[][][]...`, each the element of the one before.
        let mut encoder = crate::Encoder::default();
        let mut out = Vec::new();
        let mut element = TypeId::INT;
        for _ in 0..3 {
            element = encoder.define(Wire::Slice { element }, &mut out);
        }
        let mut decoder = Decoder::new(limits);
        let mut results = Vec::new();
        while !out.is_empty() {
            let (prefix, len) = message_length(&out, &Limits::default()).unwrap().unwrap();
            results.push(decoder.message(&out[prefix..prefix + len]).map(|item| item.is_some()));
            out.drain(..prefix + len);
        }
        assert_eq!(results, [Ok(false), Ok(false), Err(GobError::TooManyTypes)]);
    }

    #[test]
    fn a_type_that_contains_itself_nests_only_to_the_limit() {
        let mut out = Vec::new();
        let field = Field { name: "Next".to_owned(), ty: TypeId(65) };
        let wire = Wire::Struct { name: String::new(), fields: vec![field] };
        crate::Encoder::default().define(wire, &mut out);
        let mut decoder = Decoder::default();
        let (prefix, _) = message_length(&out, &Limits::default()).unwrap().unwrap();
        decoder.message(&out[prefix..]).unwrap();
        let nested = |depth: usize| {
            let mut body = vec![0xff, 130];
            body.extend(vec![1; depth]);
            body.extend(vec![0; depth + 1]);
            body
        };
        assert!(decoder.message(&nested(50)).unwrap().is_some());
        assert_eq!(decoder.message(&nested(10_000)).err(), Some(GobError::TooDeep(100)));
    }

    #[test]
    fn a_value_goes_on_in_the_next_message_after_a_type_that_is_new() {
        // struct{ One any } as type 65, then a value whose interface has a []int, as Go 1.19 writes it.
        let mut stream = Vec::new();
        let field = Field { name: "One".to_owned(), ty: TypeId::INTERFACE };
        let wire = Wire::Struct { name: "Any".to_owned(), fields: vec![field] };
        crate::Encoder::default().define(wire, &mut stream);
        let definitions = stream.len();
        stream.extend(b"\x15\xff\x82\x01\x05[]int\xff\x83\x02\x01\x02\xff\x84\x00\x01\x04\x00\x00");
        stream.extend(b"\x07\xff\x84\x03\x00\x01\x0e\x00");
        let mut decoder = Decoder::default();
        assert!(matches!(decoder.next(&stream), Ok(Some((used, None))) if used == definitions));
        let value = &stream[definitions..];
        for cut in 0..value.len() {
            assert!(matches!(decoder.next(&value[..cut]), Ok(None)), "{cut}");
        }
        let Ok(Some((used, Some(item)))) = decoder.next(value) else { panic!("no value") };
        assert_eq!(used, value.len());
        let read = crate::Value::read(decoder.types(), item).unwrap();
        let list = crate::Value::List(vec![crate::Value::Int(7)]);
        let inner = Some(Box::new((&b"[]int"[..], TypeId(66), list)));
        assert_eq!(read, crate::Value::Struct(vec![(0, crate::Value::Interface(inner))]));
    }
}
