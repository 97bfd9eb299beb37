//! Reads a stream, message by message.

use crate::{GobError, Limits, Reader, TypeId, Types, Wire, walk, wire_type};

/// Reads the messages of one stream in their order, and keeps the types that they define.
#[derive(Debug, Default)]
pub struct Decoder {
    types: Types,
    limits: Limits,
}

/// A value that stands alone in a message.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its type.
    pub ty: TypeId,
    /// Its bytes, checked to their end. A value that is not a struct has no zero in front any more.
    pub bytes: &'a [u8],
}

/// The lengths of a message's prefix and of its body. `None` if the prefix has not arrived entirely.
///
/// # Errors
/// When the message is longer than the limit, or the prefix is not a number.
pub fn message_length(input: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, GobError> {
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

impl Decoder {
    /// A decoder for one stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Decoder { types: Types::default(), limits }
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

    /// Reads the body of the next message. `None` if it defines a type.
    ///
    /// # Errors
    /// When the message is not valid. Nothing more can be read of the stream then.
    pub fn message<'a>(&mut self, body: &'a [u8]) -> Result<Option<Item<'a>>, GobError> {
        let mut reader = Reader::new(body);
        let id = reader.int()?;
        if id < 0 {
            let id = id.checked_neg().ok_or(GobError::Definition)?;
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
}
