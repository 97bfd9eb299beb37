//! Writes a stream.

use std::collections::HashMap;

use crate::writing::{put_int, put_message};
use crate::{GobError, Kind, TypeId, Types, Wire, wire_type};

/// The types that a stream of ours has defined. A type is defined once, before the first value that
/// has it.
#[derive(Debug)]
pub struct Encoder {
    defined: HashMap<Wire, TypeId>,
    groups: HashMap<Vec<Wire>, Vec<TypeId>>,
    next: i64,
}

impl Default for Encoder {
    fn default() -> Self {
        // All versions of Go read ids from 65.
        Encoder { defined: HashMap::new(), groups: HashMap::new(), next: 65 }
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

    /// The ids of several types, which may refer to each other and to themselves by
    /// [`TypeId::in_group`]. If the group is new, its definitions are appended to `out`.
    pub fn define_group(&mut self, group: Vec<Wire>, out: &mut Vec<u8>) -> Vec<TypeId> {
        if let Some(known) = self.groups.get(&group) {
            return known.clone();
        }
        let ids: Vec<TypeId> = group.iter().map(|_| self.reserve()).collect();
        let new =
            |ty: TypeId| ty.place_in_group().and_then(|place| ids.get(place)).map_or(ty, |id| *id);
        for (id, wire) in ids.iter().zip(&group) {
            put_definition(out, *id, &wire.clone().referring(new));
        }
        self.groups.insert(group, ids.clone());
        ids
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
            put_definition(out, new(ty), &wire.clone().referring(new));
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
