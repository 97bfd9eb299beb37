//! How the canonical ABI lays values out: in memory, and flat as parameters of core functions.
//!
//! The rules are those of the component model's *Canonical ABI Explainer*
//! (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md>).

use std::collections::HashMap;

use wasm_encoder::ValType;
use wharf_schema::{Type, TypeId, Types};

/// If the parameters have more core values than this, they are passed in memory.
pub(super) const MAX_FLAT_PARAMS: usize = 16;

/// Types that are larger than this in memory are left to the dynamic path.
const MAX_SIZE: u32 = 1 << 20;

/// The size and alignment of a value in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) size: u32,
    pub(super) align: u32,
}

/// The layouts of a service's types.
pub(super) struct Layouts<'t> {
    types: &'t Types,
    shapes: HashMap<TypeId, Option<Shape>>,
    flats: HashMap<TypeId, Vec<ValType>>,
    nodes: HashMap<TypeId, u32>,
    allocating: HashMap<TypeId, bool>,
}

impl<'t> Layouts<'t> {
    pub(super) fn new(types: &'t Types) -> Self {
        Layouts {
            types,
            shapes: HashMap::new(),
            flats: HashMap::new(),
            nodes: HashMap::new(),
            allocating: HashMap::new(),
        }
    }

    pub(super) fn types(&self) -> &'t Types {
        self.types
    }

    /// The shape of a type in memory. `None` if it is too large.
    pub(super) fn shape(&mut self, ty: TypeId) -> Option<Shape> {
        if let Some(known) = self.shapes.get(&ty) {
            return *known;
        }
        let shape = self.find_shape(ty);
        self.shapes.insert(ty, shape);
        shape
    }

    fn find_shape(&mut self, ty: TypeId) -> Option<Shape> {
        let scalar = |size| Some(Shape { size, align: size });
        match &self.types[ty] {
            Type::Bool | Type::U8 | Type::S8 => scalar(1),
            Type::U16 | Type::S16 => scalar(2),
            Type::U32 | Type::S32 | Type::F32 | Type::Char => scalar(4),
            Type::U64 | Type::S64 | Type::F64 => scalar(8),
            Type::String | Type::Bytes | Type::List(_) => Some(Shape { size: 8, align: 4 }),
            Type::FixedList(element, len) => {
                let Shape { size, align } = self.shape(*element)?;
                bounded(Shape { size: size.checked_mul(*len)?, align })
            }
            Type::Tuple(types) => self.sequence(types.iter().copied()).map(|(_, shape)| shape),
            Type::Record(fields) => {
                self.sequence(fields.iter().map(|field| field.ty)).map(|(_, shape)| shape)
            }
            Type::Flags(names) => match names.len() {
                0..=8 => scalar(1),
                9..=16 => scalar(2),
                17..=32 => scalar(4),
                // The component model does not allow more than 32 flags yet.
                _ => None,
            },
            _ => {
                let cases = self.cases(ty);
                let payload = self.payload_offset(&cases)?;
                let mut shape = Shape { size: payload, align: discriminant_size(cases.len()) };
                for case in cases.into_iter().flatten() {
                    let Shape { size, align } = self.shape(case)?;
                    shape.size = shape.size.max(payload.checked_add(size)?);
                    shape.align = shape.align.max(align);
                }
                shape.size = align_to(shape.size, shape.align)?;
                bounded(shape)
            }
        }
    }

    /// Values one after the other: the offset of each, and the shape of all of them together.
    pub(super) fn sequence(
        &mut self,
        types: impl Iterator<Item = TypeId>,
    ) -> Option<(Vec<u32>, Shape)> {
        let mut all = Shape { size: 0, align: 1 };
        let mut offsets = Vec::new();
        for ty in types {
            let Shape { size, align } = self.shape(ty)?;
            let offset = align_to(all.size, align)?;
            offsets.push(offset);
            all = bounded(Shape { size: offset.checked_add(size)?, align: all.align.max(align) })?;
        }
        all.size = align_to(all.size, all.align)?;
        Some((offsets, all))
    }

    /// The payload types of the cases of a variant, enum, option or result.
    pub(super) fn cases(&self, ty: TypeId) -> Vec<Option<TypeId>> {
        match &self.types[ty] {
            Type::Variant(cases) => cases.iter().map(|case| case.ty).collect(),
            Type::Enum(names) => vec![None; names.len()],
            Type::Option(some) => vec![None, Some(*some)],
            Type::Result { ok, err } => vec![*ok, *err],
            _ => Vec::new(),
        }
    }

    /// The offset of the payload of a variant with these cases.
    pub(super) fn payload_offset(&mut self, cases: &[Option<TypeId>]) -> Option<u32> {
        let mut align = 1;
        for case in cases.iter().flatten() {
            align = align.max(self.shape(*case)?.align);
        }
        align_to(discriminant_size(cases.len()), align)
    }

    /// A type as core values. More than [`MAX_FLAT_PARAMS`] values only mean that there are too
    /// many: the list is cut off.
    pub(super) fn flat(&mut self, ty: TypeId) -> Vec<ValType> {
        if let Some(known) = self.flats.get(&ty) {
            return known.clone();
        }
        let flat = match &self.types[ty] {
            Type::U64 | Type::S64 => vec![ValType::I64],
            Type::F32 => vec![ValType::F32],
            Type::F64 => vec![ValType::F64],
            Type::String | Type::Bytes | Type::List(_) => vec![ValType::I32; 2],
            Type::FixedList(element, len) => {
                let each = self.flat(*element);
                let repeats = (*len as usize).min(MAX_FLAT_PARAMS + 1);
                each.iter().copied().cycle().take(each.len() * repeats).collect()
            }
            Type::Tuple(types) => self.flat_all(types.iter().copied()),
            Type::Record(fields) => self.flat_all(fields.iter().map(|field| field.ty)),
            Type::Variant(_) | Type::Enum(_) | Type::Option(_) | Type::Result { .. } => {
                let mut flat = vec![ValType::I32];
                flat.extend(self.flat_payload(&self.cases(ty)));
                flat
            }
            _ => vec![ValType::I32],
        };
        let flat: Vec<ValType> = flat.into_iter().take(MAX_FLAT_PARAMS + 1).collect();
        self.flats.insert(ty, flat.clone());
        flat
    }

    /// Values one after the other as core values.
    pub(super) fn flat_all(&mut self, types: impl Iterator<Item = TypeId>) -> Vec<ValType> {
        let mut all = Vec::new();
        for ty in types {
            all.extend(self.flat(ty));
            if all.len() > MAX_FLAT_PARAMS {
                break;
            }
        }
        all
    }

    /// The core values that can hold the payload of any of these cases.
    pub(super) fn flat_payload(&mut self, cases: &[Option<TypeId>]) -> Vec<ValType> {
        let mut joined: Vec<ValType> = Vec::new();
        for case in cases.iter().flatten() {
            for (place, flat) in self.flat(*case).into_iter().enumerate() {
                match joined.get_mut(place) {
                    Some(other) => *other = join(*other, flat),
                    None => joined.push(flat),
                }
            }
        }
        joined
    }

    /// How many values a type expands to, with all cases of its variants. Types share their parts,
    /// so the number can grow exponentially.
    pub(super) fn nodes(&mut self, ty: TypeId) -> u32 {
        if let Some(known) = self.nodes.get(&ty) {
            return *known;
        }
        let parts: Vec<TypeId> = match &self.types[ty] {
            Type::List(_) => Vec::new(),
            other => other.parts().collect(),
        };
        let parts = parts.into_iter().fold(1u32, |all, part| all.saturating_add(self.nodes(part)));
        let repeats = match &self.types[ty] {
            Type::FixedList(_, len) => *len,
            _ => 1,
        };
        let nodes = parts.saturating_mul(repeats);
        self.nodes.insert(ty, nodes);
        nodes
    }

    /// Whether values of a type need memory of the guest outside of their own bytes.
    pub(super) fn allocates(&mut self, ty: TypeId) -> bool {
        if let Some(known) = self.allocating.get(&ty) {
            return *known;
        }
        let allocates = match &self.types[ty] {
            Type::String | Type::Bytes | Type::List(_) => true,
            other => {
                let parts: Vec<TypeId> = other.parts().collect();
                parts.into_iter().any(|part| self.allocates(part))
            }
        };
        self.allocating.insert(ty, allocates);
        allocates
    }
}

/// The core type that can hold values of either type.
fn join(a: ValType, b: ValType) -> ValType {
    match (a, b) {
        _ if a == b => a,
        (ValType::I32, ValType::F32) | (ValType::F32, ValType::I32) => ValType::I32,
        _ => ValType::I64,
    }
}

/// The size in bytes of the discriminant of a variant with this many cases.
pub(super) fn discriminant_size(cases: usize) -> u32 {
    match cases {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

pub(super) fn align_to(offset: u32, align: u32) -> Option<u32> {
    offset.checked_next_multiple_of(align)
}

fn bounded(shape: Shape) -> Option<Shape> {
    (shape.size <= MAX_SIZE).then_some(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_schema::{Case, Field};

    #[test]
    fn records_are_padded_and_variants_hold_their_largest_case() {
        let mut types = Types::default();
        let (u8_, u64_, f32_) = (
            types.add(Type::U8).unwrap(),
            types.add(Type::U64).unwrap(),
            types.add(Type::F32).unwrap(),
        );
        let text = types.add(Type::String).unwrap();
        let field = |ty| Field { name: "f".into(), ty };
        let record = types.add(Type::Record(vec![field(u8_), field(u64_), field(u8_)])).unwrap();
        let case = |ty| Case { name: "c".into(), ty };
        let variant = types
            .add(Type::Variant(vec![
                case(Some(f32_)),
                case(Some(text)),
                case(None),
                case(Some(u64_)),
            ]))
            .unwrap();
        let option = types.add(Type::Option(u8_)).unwrap();
        let mut layouts = Layouts::new(&types);
        assert_eq!(layouts.shape(record), Some(Shape { size: 24, align: 8 }));
        assert_eq!(layouts.shape(variant), Some(Shape { size: 16, align: 8 }));
        assert_eq!(layouts.shape(option), Some(Shape { size: 2, align: 1 }));
        assert_eq!(layouts.flat(variant), [ValType::I32, ValType::I64, ValType::I32]);
        assert_eq!(layouts.flat(record), [ValType::I32, ValType::I64, ValType::I32]);
        assert!(layouts.allocates(variant) && !layouts.allocates(record));
    }

    #[test]
    fn types_that_spell_out_exponentially_are_left_alone() {
        let mut types = Types::default();
        let mut ty = types.add(Type::U64).unwrap();
        for _ in 0..40 {
            ty = types.add(Type::Tuple(vec![ty, ty])).unwrap();
        }
        let mut layouts = Layouts::new(&types);
        assert_eq!(layouts.shape(ty), None);
        assert_eq!(layouts.flat(ty).len(), MAX_FLAT_PARAMS + 1);
        assert_eq!((layouts.nodes(ty), layouts.allocates(ty)), (u32::MAX, false));
    }
}
