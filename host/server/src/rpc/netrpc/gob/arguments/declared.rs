//! What the types of an argument say before there is a value.

use std::collections::HashSet;

use wharf_gob::{Kind, TypeId as GobType, Wire};
use wharf_schema::{Param, Type, TypeId};

use super::super::mirror::Used;
use super::{MAX_MATCHED, Members, Translation};

impl Translation<'_> {
    /// Notes how the type of an argument spells integers, enums and tags, and keeps that.
    pub(super) fn declared_arguments(&mut self, params: &[Param], ty: GobType) {
        let is_struct = matches!(self.kind(ty), Ok(Kind::Defined(Wire::Struct { .. })));
        let mut seen = HashSet::new();
        match params {
            [only] if !is_struct || self.is_struct_like(only.ty) => {
                self.declare(ty, only.ty, &mut seen);
            }
            _ => {
                let members: Vec<_> =
                    params.iter().map(|param| (&param.name[..], Some(param.ty))).collect();
                self.declare_members(ty, Members::Params, &members, &mut seen);
            }
        }
        if self.binding.declared.len() >= MAX_MATCHED {
            self.binding.declared.clear();
        }
        self.binding.declared.insert(ty, *self.mirror);
    }

    fn declare(&mut self, from: GobType, to: TypeId, seen: &mut HashSet<(GobType, TypeId)>) {
        if seen.len() >= MAX_MATCHED || !seen.insert((from, to)) {
            return;
        }
        // What is not defined is found when there is a value of it.
        let Ok(kind) = self.kind(from) else { return };
        let types = self.types;
        let spelled = match kind {
            Kind::Int => Some(Used::Int),
            Kind::Uint => Some(Used::Uint),
            Kind::String => Some(Used::Text),
            _ => None,
        };
        match (&types[to], kind, spelled) {
            (Type::S8 | Type::S16 | Type::S32 | Type::S64, Kind::Int | Kind::Uint, Some(used)) => {
                self.mirror.saw_signed(used);
            }
            (Type::U8 | Type::U16 | Type::U32 | Type::U64, Kind::Int | Kind::Uint, Some(used)) => {
                self.mirror.saw_unsigned(used);
            }
            (Type::Enum(_), _, Some(used)) => self.mirror.saw_enum(used),
            (Type::Flags(_), Kind::Int | Kind::Uint, Some(used)) => self.mirror.saw_flags(used),
            (Type::Variant(_) | Type::Result { .. }, _, Some(used)) => self.mirror.saw_tag(used),
            (Type::Option(some), ..) => self.declare(from, *some, seen),
            (
                Type::List(inner) | Type::FixedList(inner, _),
                Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }),
                _,
            ) => self.declare(*element, *inner, seen),
            (Type::List(inner), Kind::Defined(Wire::Map { key, element }), _) => {
                let pair: Vec<TypeId> = types[*inner].parts().collect();
                if let [to_key, to_element] = pair[..] {
                    self.declare(*key, to_key, seen);
                    self.declare(*element, to_element, seen);
                }
            }
            (
                Type::Tuple(parts),
                Kind::Defined(Wire::Array { element, .. } | Wire::Slice { element }),
                _,
            ) => parts.iter().for_each(|part| self.declare(*element, *part, seen)),
            (Type::Tuple(parts), Kind::Defined(Wire::Struct { .. }), _) => {
                let names: Vec<String> = (0..parts.len()).map(|part| format!("f{part}")).collect();
                let members: Vec<_> =
                    names.iter().zip(parts).map(|(name, ty)| (&name[..], Some(*ty))).collect();
                self.declare_members(from, Members::Of(to), &members, seen);
            }
            (Type::Record(fields), Kind::Defined(Wire::Struct { .. }), _) => {
                let members: Vec<_> =
                    fields.iter().map(|field| (&field.name[..], Some(field.ty))).collect();
                self.declare_members(from, Members::Of(to), &members, seen);
            }
            (Type::Variant(cases), Kind::Defined(Wire::Struct { .. }), _) => {
                let cases: Vec<_> = cases.iter().map(|case| (&case.name[..], case.ty)).collect();
                self.declare_cases(from, to, &cases, seen);
            }
            (Type::Result { ok, err }, Kind::Defined(Wire::Struct { .. }), _) => {
                self.declare_cases(from, to, &[("ok", *ok), ("err", *err)], seen);
            }
            _ => {}
        }
    }

    fn declare_cases(
        &mut self,
        from: GobType,
        to: TypeId,
        cases: &[(&str, Option<TypeId>)],
        seen: &mut HashSet<(GobType, TypeId)>,
    ) {
        let mut members = vec![("tag", None)];
        members.extend_from_slice(cases);
        self.declare_members(from, Members::Of(to), &members, seen);
        let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        let Ok(matched) = self.matched(from, Members::Of(to), &names) else { return };
        let tag = matched.first().copied().flatten();
        if let Some(Kind::Defined(Wire::Struct { fields, .. })) = self.kind(from).ok()
            && let Some(field) = tag.and_then(|tag| fields.get(tag))
        {
            match field.ty {
                GobType::INT => self.mirror.saw_tag(Used::Int),
                GobType::UINT => self.mirror.saw_tag(Used::Uint),
                GobType::STRING => self.mirror.saw_tag(Used::Text),
                _ => {}
            }
        }
    }

    fn declare_members(
        &mut self,
        from: GobType,
        of: Members,
        members: &[(&str, Option<TypeId>)],
        seen: &mut HashSet<(GobType, TypeId)>,
    ) {
        let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        let Ok(matched) = self.matched(from, of, &names) else { return };
        let Ok(Kind::Defined(Wire::Struct { fields, .. })) = self.kind(from) else { return };
        for ((_, to), index) in members.iter().zip(matched.iter()) {
            let field = index.and_then(|index| fields.get(index));
            if let (Some(to), Some(field)) = (to, field) {
                self.declare(field.ty, *to, seen);
            }
        }
    }
}
