//! The definition of a type, as gob's `wireType`: a struct with one field for each kind of type.

use crate::writing::{StructBody, put_int, put_text, put_uint};
use crate::{Field, GobError, Opaque, Reader, TypeId, Wire};

/// The fields of `wireType`.
const ARRAY: usize = 0;
const SLICE: usize = 1;
const STRUCT: usize = 2;
const MAP: usize = 3;
const GOB_ENCODER: usize = 4;
const BINARY_MARSHALER: usize = 5;
const TEXT_MARSHALER: usize = 6;
const FIELDS: usize = 7;

/// Reads a definition to its end.
pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Wire, GobError> {
    let kind = reader.field(None, FIELDS)?.ok_or(GobError::Definition)?;
    let mut parts = Parts::default();
    parts.read(reader, kind)?;
    if reader.field(Some(kind), FIELDS)?.is_some() {
        return Err(GobError::Definition);
    }
    let id = |id: Option<i64>| id.map(TypeId).ok_or(GobError::Definition);
    let Parts { name, first, second, fields } = parts;
    Ok(match kind {
        ARRAY => {
            let len = second.unwrap_or(0);
            let len = u64::try_from(len).map_err(|_| GobError::Definition)?;
            Wire::Array { element: id(first)?, len }
        }
        SLICE => Wire::Slice { element: id(first)? },
        STRUCT => Wire::Struct { name, fields },
        MAP => Wire::Map { key: id(first)?, element: id(second)? },
        GOB_ENCODER => Wire::Opaque { name, by: Opaque::Gob },
        BINARY_MARSHALER => Wire::Opaque { name, by: Opaque::Binary },
        _ => Wire::Opaque { name, by: Opaque::Text },
    })
}

/// What a definition has. All kinds begin with a `CommonType`; what follows depends on the kind.
#[derive(Default)]
struct Parts {
    name: String,
    /// The type of elements or keys.
    first: Option<i64>,
    /// The length of an array, or the type of a map's elements.
    second: Option<i64>,
    fields: Vec<Field>,
}

impl Parts {
    fn read(&mut self, reader: &mut Reader<'_>, kind: usize) -> Result<(), GobError> {
        let count = match kind {
            ARRAY | MAP => 3,
            SLICE | STRUCT => 2,
            _ => 1,
        };
        let mut before = None;
        while let Some(field) = reader.field(before, count)? {
            match (field, kind) {
                (0, _) => self.name = common(reader)?.0,
                (1, STRUCT) => {
                    let fields = reader.count()?;
                    for _ in 0..fields {
                        let (name, id) = common(reader)?;
                        let ty = id.map(TypeId).ok_or(GobError::Definition)?;
                        self.fields.push(Field { name, ty });
                    }
                }
                (1, _) => self.first = Some(reader.int()?),
                _ => self.second = Some(reader.int()?),
            }
            before = Some(field);
        }
        Ok(())
    }
}

/// `CommonType` and `fieldType`: a name and an id.
fn common(reader: &mut Reader<'_>) -> Result<(String, Option<i64>), GobError> {
    let (mut name, mut id, mut before) = (String::new(), None, None);
    while let Some(field) = reader.field(before, 2)? {
        match field {
            0 => {
                let text = std::str::from_utf8(reader.bytes()?);
                name = text.map_err(|_| GobError::Definition)?.to_owned();
            }
            _ => id = Some(reader.int()?),
        }
        before = Some(field);
    }
    Ok((name, id))
}

/// Appends a definition.
pub(crate) fn put(out: &mut Vec<u8>, id: TypeId, wire: &Wire) {
    let (kind, name) = match wire {
        Wire::Array { .. } => (ARRAY, ""),
        Wire::Slice { .. } => (SLICE, ""),
        Wire::Struct { name, .. } => (STRUCT, &name[..]),
        Wire::Map { .. } => (MAP, ""),
        Wire::Opaque { name, by: Opaque::Gob } => (GOB_ENCODER, &name[..]),
        Wire::Opaque { name, by: Opaque::Binary } => (BINARY_MARSHALER, &name[..]),
        Wire::Opaque { name, by: Opaque::Text } => (TEXT_MARSHALER, &name[..]),
    };
    let mut whole = StructBody::default();
    whole.field(kind, out);
    let mut parts = StructBody::default();
    parts.field(0, out);
    put_common(out, name, id);
    let int = |parts: &mut StructBody, out: &mut Vec<u8>, place, value| {
        // Zero is left out.
        if value != 0 {
            parts.field(place, out);
            put_int(out, value);
        }
    };
    match wire {
        Wire::Array { element, len } => {
            int(&mut parts, out, 1, element.0);
            int(&mut parts, out, 2, i64::try_from(*len).unwrap_or(i64::MAX));
        }
        Wire::Slice { element } => int(&mut parts, out, 1, element.0),
        Wire::Map { key, element } => {
            int(&mut parts, out, 1, key.0);
            int(&mut parts, out, 2, element.0);
        }
        Wire::Struct { fields, .. } if !fields.is_empty() => {
            parts.field(1, out);
            put_uint(out, fields.len() as u64);
            for Field { name, ty } in fields {
                put_common(out, name, *ty);
            }
        }
        Wire::Struct { .. } | Wire::Opaque { .. } => {}
    }
    StructBody::end(out);
    StructBody::end(out);
}

fn put_common(out: &mut Vec<u8>, name: &str, id: TypeId) {
    let mut common = StructBody::default();
    if !name.is_empty() {
        common.field(0, out);
        put_text(out, name.as_bytes());
    }
    common.field(1, out);
    put_int(out, id.0);
    StructBody::end(out);
}
