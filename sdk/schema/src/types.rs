//! The types of a service, in one arena.

/// The deepest nesting of types that is transported. WIT itself has no limit.
pub const MAX_DEPTH: u8 = 48;

/// The most types that one service may have: far beyond any real one.
pub(crate) const MAX_TYPES: usize = 10_000;

/// The most bytes of a notation, and of a name in it; a little more is written.
const MAX_NOTATION: usize = 1500;
const MAX_SHOWN_NAME: usize = 200;

/// The id of a type in an arena of [`Types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// A WIT type that can be transported. The names of types are not part of it, because they are not
/// on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `s8`
    S8,
    /// `s16`
    S16,
    /// `s32`
    S32,
    /// `s64`
    S64,
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `char`
    Char,
    /// `string`
    String,
    /// `list<u8>`
    Bytes,
    /// `list<T>`
    List(TypeId),
    /// `list<T, N>`
    FixedList(TypeId, u32),
    /// `tuple<...>`
    Tuple(Vec<TypeId>),
    /// `record`
    Record(Vec<Field>),
    /// `variant`
    Variant(Vec<Case>),
    /// `enum`
    Enum(Vec<String>),
    /// `option<T>`
    Option(TypeId),
    /// `result<T, E>`
    Result {
        /// What Ok carries.
        ok: Option<TypeId>,
        /// What Err carries.
        err: Option<TypeId>,
    },
    /// `flags`
    Flags(Vec<String>),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As the WIT spells it.
    pub name: String,
    /// Its type.
    pub ty: TypeId,
}

/// A case of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// As the WIT spells it.
    pub name: String,
    /// What it carries.
    pub ty: Option<TypeId>,
}

/// A type that cannot be transported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// Nested too deeply.
    #[error("its types nest more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More types than [`Types`] holds.
    #[error("it has more than {MAX_TYPES} types")]
    TooMany,
    /// A type without fields, cases or labels. It has no values, or only one.
    #[error("it has {0} without members")]
    Empty(&'static str),
    /// A type that refers to a type that is not before it in the arena.
    #[error("type {0} refers to a type that is not listed before it")]
    Forward(u32),
}

/// The types of a service. Each type refers only to earlier types, so the graph has no cycles,
/// whatever a document or a component claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    types: Vec<Type>,
    depths: Vec<u8>,
}

impl Types {
    /// Adds a type, or finds an equal one.
    ///
    /// # Errors
    /// When the type cannot be transported.
    pub fn add(&mut self, ty: Type) -> Result<TypeId, TypeError> {
        let index = u32::try_from(self.types.len()).map_err(|_| TypeError::TooMany)?;
        let mut depth = 0;
        let mut forward = false;
        for part in ty.parts() {
            match self.depths.get(part.0 as usize) {
                Some(part) => depth = depth.max(*part),
                None => forward = true,
            }
        }
        if forward {
            return Err(TypeError::Forward(index));
        }
        if depth >= MAX_DEPTH {
            return Err(TypeError::TooDeep);
        }
        if let Some(kind) = ty.without_members() {
            return Err(TypeError::Empty(kind));
        }
        if self.types.len() >= MAX_TYPES {
            return Err(TypeError::TooMany);
        }
        // Only simple types are repeated often, and they are near the beginning, so a short search
        // is enough.
        if depth == 0
            && let Some(found) = (0u32..).zip(self.types.iter().take(64)).find(|(_, t)| **t == ty)
        {
            return Ok(TypeId(found.0));
        }
        self.types.push(ty);
        self.depths.push(depth + 1);
        Ok(TypeId(index))
    }

    /// All types, each after those it refers to.
    pub fn iter(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }

    /// The same types with the same ids, where those that neither `named` nor their parts are have been
    /// replaced by `bool`.
    pub(crate) fn blanked_except(&self, named: impl Iterator<Item = TypeId>) -> Self {
        let mut is_kept = vec![false; self.types.len()];
        named.for_each(|id| is_kept[id.0 as usize] = true);
        // The parts of a type stand before it.
        for (at, ty) in self.types.iter().enumerate().rev() {
            if is_kept[at] {
                ty.parts().for_each(|part| is_kept[part.0 as usize] = true);
            }
        }
        let kept = self.types.iter().zip(is_kept);
        let types = kept.map(|(ty, is_kept)| if is_kept { ty.clone() } else { Type::Bool });
        Types { types: types.collect(), depths: self.depths.clone() }
    }

    /// A type in WIT's notation, with named types written out. A long text is cut.
    #[must_use]
    pub fn notation(&self, id: TypeId) -> String {
        let mut text = String::new();
        self.write(id, &mut text);
        text
    }

    /// Whether a notation needs no more: written out, a graph of types can be exponentially long, and
    /// nobody reads that. Marks the place where it ends.
    pub(crate) fn is_long_enough(out: &mut String) -> bool {
        let enough = out.len() > MAX_NOTATION;
        if enough && !out.ends_with('…') {
            out.push('…');
        }
        enough
    }

    pub(crate) fn write(&self, id: TypeId, out: &mut String) {
        if Types::is_long_enough(out) {
            return;
        }
        let simple = match &self[id] {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::Bytes => "list<u8>",
            Type::List(element) => {
                return self.write_list(out, "list<", ">", [(None, Some(*element))]);
            }
            Type::FixedList(element, len) => {
                self.write_list(out, "list<", "", [(None, Some(*element))]);
                out.push_str(&format!(", {len}>"));
                return;
            }
            Type::Tuple(types) => {
                return self.write_list(out, "tuple<", ">", types.iter().map(|t| (None, Some(*t))));
            }
            Type::Record(fields) => {
                for (index, field) in fields.iter().enumerate() {
                    out.push_str(if index == 0 { "record { " } else { ", " });
                    if Types::is_long_enough(out) {
                        break;
                    }
                    out.push_str(short(&field.name));
                    out.push_str(": ");
                    self.write(field.ty, out);
                }
                out.push_str(" }");
                return;
            }
            Type::Variant(cases) => {
                let cases = cases.iter().map(|case| (Some(&case.name[..]), case.ty));
                return self.write_list(out, "variant { ", " }", cases);
            }
            Type::Enum(names) => {
                return self.write_list(
                    out,
                    "enum { ",
                    " }",
                    names.iter().map(|n| (Some(&n[..]), None)),
                );
            }
            Type::Flags(names) => {
                return self.write_list(
                    out,
                    "flags { ",
                    " }",
                    names.iter().map(|n| (Some(&n[..]), None)),
                );
            }
            Type::Option(some) => {
                return self.write_list(out, "option<", ">", [(None, Some(*some))]);
            }
            Type::Result { ok: None, err: None } => "result",
            Type::Result { ok, err } => {
                let side = |ty: &Option<TypeId>| (ty.is_none().then_some("_"), *ty);
                let sides = [Some(side(ok)), err.is_some().then(|| side(err))];
                return self.write_list(out, "result<", ">", sides.into_iter().flatten());
            }
        };
        out.push_str(simple);
    }

    fn write_list<'a>(
        &self,
        out: &mut String,
        open: &str,
        close: &str,
        parts: impl IntoIterator<Item = (Option<&'a str>, Option<TypeId>)>,
    ) {
        out.push_str(open);
        for (index, (name, ty)) in parts.into_iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            if Types::is_long_enough(out) {
                break;
            }
            out.push_str(short(name.unwrap_or_default()));
            if let Some(ty) = ty {
                out.push_str(if name.is_some() { "(" } else { "" });
                self.write(ty, out);
                out.push_str(if name.is_some() { ")" } else { "" });
            }
        }
        out.push_str(close);
    }
}

/// A name, cut to what people read of it.
pub(crate) fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_SHOWN_NAME)]
}

impl std::ops::Index<TypeId> for Types {
    type Output = Type;

    /// Ids come from [`Types::add`] of the same arena.
    fn index(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }
}

impl Type {
    /// The types that this one refers to.
    pub fn parts(&self) -> impl Iterator<Item = TypeId> {
        let (one, two, list): (Option<TypeId>, Option<TypeId>, Vec<TypeId>) = match self {
            Type::List(ty) | Type::FixedList(ty, _) | Type::Option(ty) => (Some(*ty), None, vec![]),
            Type::Result { ok, err } => (*ok, *err, vec![]),
            Type::Tuple(types) => (None, None, types.clone()),
            Type::Record(fields) => (None, None, fields.iter().map(|f| f.ty).collect()),
            Type::Variant(cases) => (None, None, cases.iter().filter_map(|c| c.ty).collect()),
            _ => (None, None, vec![]),
        };
        one.into_iter().chain(two).chain(list)
    }

    /// Finds types without members. The component model refuses them too. Without them, every value
    /// takes at least one byte, so a list can never have more elements than its encoding has bytes.
    fn without_members(&self) -> Option<&'static str> {
        match self {
            Type::Tuple(types) if types.is_empty() => Some("a tuple"),
            Type::Record(fields) if fields.is_empty() => Some("a record"),
            Type::Variant(cases) if cases.is_empty() => Some("a variant"),
            Type::Enum(names) if names.is_empty() => Some("an enum"),
            Type::Flags(names) if names.is_empty() => Some("flags"),
            Type::FixedList(_, 0) => Some("a list of fixed length"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation_is_wits_with_types_written_out() {
        let mut types = Types::default();
        let s64 = types.add(Type::S64).unwrap();
        let args = types
            .add(Type::Record(vec![
                Field { name: "a".into(), ty: s64 },
                Field { name: "b".into(), ty: s64 },
            ]))
            .unwrap();
        let error = types
            .add(Type::Variant(vec![
                Case { name: "none".into(), ty: None },
                Case { name: "some".into(), ty: Some(s64) },
            ]))
            .unwrap();
        let result = types.add(Type::Result { ok: Some(args), err: Some(error) }).unwrap();
        assert_eq!(
            types.notation(result),
            "result<record { a: s64, b: s64 }, variant { none, some(s64) }>"
        );
        let result = types.add(Type::Result { ok: None, err: Some(s64) }).unwrap();
        assert_eq!(types.notation(result), "result<_, s64>");
    }

    #[test]
    fn depth_is_bounded_and_types_that_spell_out_exponentially_stay_readable() {
        let mut types = Types::default();
        let mut ty = types.add(Type::U8).unwrap();
        for _ in 1..MAX_DEPTH {
            ty = types.add(Type::Tuple(vec![ty, ty])).unwrap();
        }
        assert_eq!(types.add(Type::Tuple(vec![ty, ty])), Err(TypeError::TooDeep));
        assert!(types.notation(ty).len() < 10_000);
    }

    #[test]
    fn a_notation_is_bounded_however_long_names_and_lists_of_fields_are() {
        let mut types = Types::default();
        let s64 = types.add(Type::S64).unwrap();
        let field =
            |index: usize| Field { name: format!("{}{index}", "n".repeat(100_000)), ty: s64 };
        let long = types.add(Type::Record((0..100).map(field).collect())).unwrap();
        assert!(types.notation(long).len() < 2 * MAX_NOTATION);
        let names = (0..10_000).map(|index| format!("name-{index}")).collect();
        let many = types.add(Type::Enum(names)).unwrap();
        assert!(types.notation(many).len() < 2 * MAX_NOTATION);
    }

    #[test]
    fn types_without_values_are_refused() {
        let mut types = Types::default();
        assert_eq!(types.add(Type::Record(vec![])), Err(TypeError::Empty("a record")));
        assert_eq!(types.add(Type::List(TypeId(7))), Err(TypeError::Forward(0)));
    }
}
