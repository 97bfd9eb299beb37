//! Writes a stream.

use std::collections::HashMap;

use crate::writing::{put_int, put_message};
use crate::{GobError, Kind, TypeId, Types, Wire, wire_type};

/// The types that a stream of ours has defined. A type is defined once, before the first value that
/// has it.
#[derive(Debug)]
pub struct Encoder {
    defined: HashMap<Wire, TypeId>,
    next: i64,
}

impl Default for Encoder {
    fn default() -> Self {
        // All versions of Go read ids from 65.
        Encoder { defined: HashMap::new(), next: 65 }
    }
}

impl Encoder {
    /// The id of a type in this stream. If it is new, its definition is appended to `out`.
    pub fn define(&mut self, wire: Wire, out: &mut Vec<u8>) -> TypeId {
        if let Some(known) = self.defined.get(&wire) {
            return *known;
        }
        let id = self.reserve();
        put_definition(out, id, &wire);
        self.defined.insert(wire, id);
        id
    }

    /// The id in this stream of a type of another one, with all types that it refers to. It may refer
    /// to itself.
    ///
    /// # Errors
    /// When one of them is not defined there.
    pub fn adopt(
        &mut self,
        types: &Types,
        ty: TypeId,
        adopted: &mut HashMap<TypeId, TypeId>,
        out: &mut Vec<u8>,
    ) -> Result<TypeId, GobError> {
        let mut wanted = vec![ty];
        let mut wires = Vec::new();
        while let Some(ty) = wanted.pop() {
            let Kind::Defined(wire) = types.kind(ty)? else { continue };
            if adopted.contains_key(&ty) {
                continue;
            }
            adopted.insert(ty, self.reserve());
            match wire {
                Wire::Array { element, .. } | Wire::Slice { element } => wanted.push(*element),
                Wire::Struct { fields, .. } => wanted.extend(fields.iter().map(|field| field.ty)),
                Wire::Map { key, element } => wanted.extend([*key, *element]),
                Wire::Opaque { .. } => {}
            }
            wires.push((ty, wire));
        }
        let new = |ty: TypeId| adopted.get(&ty).copied().unwrap_or(ty);
        for (ty, wire) in wires {
            let mut wire = wire.clone();
            match &mut wire {
                Wire::Array { element, .. } | Wire::Slice { element } => *element = new(*element),
                Wire::Struct { fields, .. } => {
                    fields.iter_mut().for_each(|field| field.ty = new(field.ty));
                }
                Wire::Map { key, element } => (*key, *element) = (new(*key), new(*element)),
                Wire::Opaque { .. } => {}
            }
            put_definition(out, new(ty), &wire);
        }
        Ok(new(ty))
    }

    fn reserve(&mut self) -> TypeId {
        let id = TypeId(self.next);
        self.next += 1;
        id
    }
}

fn put_definition(out: &mut Vec<u8>, id: TypeId, wire: &Wire) {
    let mut body = Vec::new();
    put_int(&mut body, -id.0);
    wire_type::put(&mut body, id, wire);
    put_message(out, &body);
}
