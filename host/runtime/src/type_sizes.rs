//! Refuses types whose values would be too large for any memory.
//!
//! Lists of fixed length multiply. The canonical ABI's sizes have 32 bits, and the engine computes with
//! them, so a type whose size does not fit must never reach it.

use std::collections::{HashMap, HashSet};

use wit_parser::{Handle, Resolve, Type, TypeDefKind, TypeId};

use crate::LoadError;

/// The most bytes that a value may take by itself, without what it points to.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// Checks all types of a component, also of what it imports.
pub(crate) fn check(resolve: &Resolve) -> Result<(), LoadError> {
    let mut sizes = Sizes { resolve, known: HashMap::new() };
    for (id, _) in resolve.types.iter() {
        if sizes.of(id) > MAX_SIZE {
            return Err(LoadError::TypeTooLarge { name: name_of(resolve, id), max: MAX_SIZE });
        }
    }
    Ok(())
}

/// Which type it is: its name, or the function that uses it.
fn name_of(resolve: &Resolve, id: TypeId) -> String {
    if let Some(name) = &resolve.types[id].name {
        return format!("its type '{name}'");
    }
    let mut functions = resolve.interfaces.iter().flat_map(|(_, all)| all.functions.values());
    let using = functions.find(|function| {
        let mut parts = Parts { resolve, seen: HashSet::new() };
        let result = function.result.iter();
        function.params.iter().map(|param| &param.ty).chain(result).any(|ty| parts.has(ty, id))
    });
    match using {
        Some(function) => format!("a type of its function '{}'", function.name),
        None => "one of its types".to_owned(),
    }
}

/// Looks for a type in others. Each is looked at once.
struct Parts<'r> {
    resolve: &'r Resolve,
    seen: HashSet<TypeId>,
}

impl Parts<'_> {
    fn has(&mut self, ty: &Type, wanted: TypeId) -> bool {
        let Type::Id(id) = ty else { return false };
        if *id == wanted {
            return true;
        }
        if !self.seen.insert(*id) {
            return false;
        }
        match &self.resolve.types[*id].kind {
            TypeDefKind::Type(ty)
            | TypeDefKind::List(ty)
            | TypeDefKind::Option(ty)
            | TypeDefKind::FixedLengthList(ty, _) => self.has(ty, wanted),
            TypeDefKind::Record(record) => record.fields.iter().any(|f| self.has(&f.ty, wanted)),
            TypeDefKind::Tuple(tuple) => tuple.types.iter().any(|ty| self.has(ty, wanted)),
            TypeDefKind::Variant(variant) => variant
                .cases
                .iter()
                .filter_map(|case| case.ty.as_ref())
                .any(|t| self.has(t, wanted)),
            TypeDefKind::Result(result) => {
                result.ok.iter().chain(&result.err).any(|ty| self.has(ty, wanted))
            }
            _ => false,
        }
    }
}

/// An upper bound of the size of each type in memory: padding counts as if every value had the largest
/// alignment.
struct Sizes<'r> {
    resolve: &'r Resolve,
    known: HashMap<TypeId, u64>,
}

impl Sizes<'_> {
    fn of(&mut self, id: TypeId) -> u64 {
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        // In the component model a type refers only to earlier types, and nesting is bounded.
        let size = self.find(id);
        self.known.insert(id, size);
        size
    }

    fn find(&mut self, id: TypeId) -> u64 {
        let resolve = self.resolve;
        match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => self.of_type(ty),
            TypeDefKind::FixedLengthList(element, len) => {
                self.of_type(element).saturating_mul(u64::from(*len))
            }
            TypeDefKind::Record(record) => self.sum(record.fields.iter().map(|field| &field.ty)),
            TypeDefKind::Tuple(tuple) => self.sum(tuple.types.iter()),
            TypeDefKind::Variant(variant) => {
                self.largest(variant.cases.iter().filter_map(|case| case.ty.as_ref()))
            }
            TypeDefKind::Option(some) => self.largest([some].into_iter()),
            TypeDefKind::Result(result) => self.largest(result.ok.iter().chain(result.err.iter())),
            TypeDefKind::Flags(flags) => (flags.flags.len() as u64).div_ceil(8).max(8),
            TypeDefKind::Handle(Handle::Own(_) | Handle::Borrow(_))
            | TypeDefKind::Enum(_)
            | TypeDefKind::List(_)
            | TypeDefKind::Map(..)
            | TypeDefKind::Resource
            | TypeDefKind::Future(_)
            | TypeDefKind::Stream(_)
            | TypeDefKind::Unknown => 8,
        }
    }

    fn of_type(&mut self, ty: &Type) -> u64 {
        match ty {
            Type::Bool | Type::U8 | Type::S8 => 1,
            Type::U16 | Type::S16 => 2,
            Type::U32 | Type::S32 | Type::F32 | Type::Char => 4,
            Type::U64 | Type::S64 | Type::F64 | Type::String | Type::ErrorContext => 8,
            Type::Id(id) => self.of(*id),
        }
    }

    fn sum<'t>(&mut self, types: impl Iterator<Item = &'t Type>) -> u64 {
        types.fold(0u64, |all, ty| {
            all.saturating_add(self.of_type(ty).checked_next_multiple_of(8).unwrap_or(u64::MAX))
        })
    }

    fn largest<'t>(&mut self, types: impl Iterator<Item = &'t Type>) -> u64 {
        types.map(|ty| self.of_type(ty)).max().unwrap_or(0).saturating_add(8)
    }
}
