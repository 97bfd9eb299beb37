//! Structs of Go, which are records, tuples, variants and the parameters of a method.

use std::sync::Arc;

use wharf_gob::{Kind, Reader, TypeId as GobType, Types as GobTypes, Wire, skip};
use wharf_schema::encoding::{put_char, put_flags, put_unsigned};
use wharf_schema::{Type, TypeId, ValueError, find_name};

use super::super::mirror::Used;
use super::{MAX_MATCHED, Members, Translation, integer, invalid, used};

impl Translation<'_> {
    /// The members of a record, a tuple or of the parameters, out of a struct. Go's order is not WIT's,
    /// so the fields are found first.
    pub(super) fn fields(
        &mut self,
        reader: &mut Reader<'_>,
        from: GobType,
        (members, names, types): (Members, &[&str], &[TypeId]),
    ) -> Result<(), ValueError> {
        let matched = self.matched(from, members, names)?;
        let found = Found::read(self.gob, reader, from)?;
        for (place, (name, to)) in names.iter().zip(types).enumerate() {
            let index = matched.get(place).copied().flatten();
            let done = match index.map(|index| (index, found.get(index))) {
                Some((_, Some(mut at))) => {
                    let ty = found.ty(self.gob, from, index)?;
                    self.value(&mut at, ty, *to)
                }
                Some((index, None)) => self.zero(*to, found.ty(self.gob, from, Some(index))?),
                // A field that the struct does not have is none.
                None if matches!(self.types[*to], Type::Option(_)) => {
                    self.out.push(0);
                    Ok(())
                }
                None => {
                    let notation = self.types.notation(*to);
                    Err(ValueError::new(format!("the struct has no such field ({notation})")))
                }
            };
            done.map_err(|error| error.within(name))?;
        }
        Ok(())
    }

    /// `Tag` says which case it is, by name or number, and the field with the name of the case has its
    /// payload. A case without payload may also be its name or number alone.
    pub(super) fn variant(
        &mut self,
        reader: &mut Reader<'_>,
        from: GobType,
        (to, cases): (TypeId, &[(&str, Option<TypeId>)]),
    ) -> Result<(), ValueError> {
        let kind = self.kind(from)?;
        if !matches!(kind, Kind::Defined(Wire::Struct { .. })) {
            let case = self.case(reader, from, to, cases)?;
            if cases[case].1.is_some() {
                return Err(ValueError::new(format!("the case {} has a payload", cases[case].0)));
            }
            put_unsigned(self.out, case as u64);
            return Ok(());
        }
        if cases.iter().any(|(name, payload)| *name == "tag" && payload.is_some()) {
            return Err(ValueError::new(
                "it has a case 'tag', and in Go that says which case it is",
            ));
        }
        let names: Vec<&str> =
            std::iter::once("tag").chain(cases.iter().map(|(name, _)| *name)).collect();
        let matched = self.matched(from, Members::Of(to), &names)?;
        let found = Found::read(self.gob, reader, from)?;
        let tag = matched.first().copied().flatten();
        let sent =
            |case: usize| matched.get(case + 1).copied().flatten().and_then(|at| found.get(at));
        let case = match tag.map(|tag| (found.get(tag), found.ty(self.gob, from, Some(tag)))) {
            Some((Some(mut at), ty)) => self.case(&mut at, ty?, to, cases)?,
            // The number 0 is left out.
            Some((None, Ok(GobType::INT | GobType::UINT))) => 0,
            _ => {
                let mut given = (0..cases.len()).filter(|case| sent(*case).is_some());
                match (given.next(), given.next()) {
                    (Some(only), None) => only,
                    _ => return Err(ValueError::new("'Tag' does not say which case it is")),
                }
            }
        };
        put_unsigned(self.out, case as u64);
        let (name, payload) = cases[case];
        let Some(payload) = payload else { return Ok(()) };
        let place = matched.get(case + 1).copied().flatten();
        let done = match (sent(case), place) {
            (Some(mut at), _) => {
                let ty = found.ty(self.gob, from, place)?;
                self.value(&mut at, ty, payload)
            }
            (None, Some(_)) => {
                let ty = found.ty(self.gob, from, place)?;
                self.zero(payload, ty)
            }
            (None, None) if matches!(self.types[payload], Type::Option(_)) => {
                self.out.push(0);
                Ok(())
            }
            (None, None) => Err(ValueError::new("the struct has no such field")),
        };
        done.map_err(|error| error.within(name))
    }

    fn case(
        &mut self,
        reader: &mut Reader<'_>,
        from: GobType,
        to: TypeId,
        cases: &[(&str, Option<TypeId>)],
    ) -> Result<usize, ValueError> {
        let kind = self.kind(from)?;
        match kind {
            Kind::String => {
                self.mirror.saw_tag(Used::Text);
                let text = self.text(reader, to)?;
                find_name(cases.iter().map(|(name, _)| *name), text)
                    .ok_or_else(|| self.mismatch(to, text))
            }
            Kind::Int | Kind::Uint => {
                self.mirror.saw_tag(used(kind));
                let number = integer(reader, kind)?;
                let index = usize::try_from(number).ok().filter(|index| *index < cases.len());
                index.ok_or_else(|| self.mismatch(to, &number.to_string()))
            }
            _ => Err(self.found(from, to)),
        }
    }

    /// A field that was declared and left out: Go leaves out what is zero.
    fn zero(&mut self, to: TypeId, from: GobType) -> Result<(), ValueError> {
        self.has_room()?;
        let is_text = from == GobType::STRING;
        if is_text && matches!(self.types[to], Type::Enum(_) | Type::Char) {
            return Err(self.mismatch(to, "an empty text"));
        }
        self.put_zero(to, from)
    }

    fn put_zero(&mut self, to: TypeId, from: GobType) -> Result<(), ValueError> {
        let types = self.types;
        match &types[to] {
            Type::Bool | Type::U8 | Type::S8 | Type::U16 | Type::U32 | Type::U64 => {
                self.out.push(0);
            }
            Type::S16 | Type::S32 | Type::S64 | Type::Enum(_) => self.out.push(0),
            Type::F32 => self.out.extend_from_slice(&[0; 4]),
            Type::F64 => self.out.extend_from_slice(&[0; 8]),
            Type::Char => put_char(self.out, '\0'),
            Type::String | Type::Bytes | Type::List(_) | Type::Option(_) => self.out.push(0),
            Type::Flags(names) => put_flags(self.out, &vec![false; names.len()]),
            Type::FixedList(inner, len) => {
                for _ in 0..*len {
                    self.zero(*inner, from)?;
                }
            }
            Type::Tuple(parts) => {
                for part in parts {
                    self.zero(*part, from)?;
                }
            }
            Type::Record(fields) => {
                for field in fields {
                    self.zero(field.ty, from).map_err(|error| error.within(&field.name))?;
                }
            }
            Type::Variant(_) | Type::Result { .. } => {
                return Err(ValueError::new(format!(
                    "expected {}, found nothing",
                    self.types.notation(to)
                )));
            }
        }
        Ok(())
    }

    /// Which field of a struct is which member, by name. It is found once for each pair of types.
    pub(super) fn matched(
        &mut self,
        from: GobType,
        members: Members,
        names: &[&str],
    ) -> Result<Arc<[Option<usize>]>, ValueError> {
        if let Some(known) = self.binding.matched.get(&(from, members)) {
            return Ok(known.clone());
        }
        let Kind::Defined(Wire::Struct { fields, .. }) = self.kind(from)? else {
            return Err(ValueError::new("expected a struct"));
        };
        let mut matched = vec![None; names.len()];
        for (index, field) in fields.iter().enumerate() {
            if let Some(place) = find_name(names.iter().copied(), &field.name) {
                // Of two spellings, the first counts.
                matched[place].get_or_insert(index);
            }
        }
        let matched: Arc<[Option<usize>]> = matched.into();
        if self.binding.matched.len() >= MAX_MATCHED {
            self.binding.matched.clear();
        }
        self.binding.matched.insert((from, members), matched.clone());
        Ok(matched)
    }
}

/// The fields of a struct that were sent.
struct Found<'a>(Vec<(usize, Reader<'a>)>);

impl<'a> Found<'a> {
    /// Reads to the end of a struct.
    fn read(gob: &GobTypes, reader: &mut Reader<'a>, from: GobType) -> Result<Self, ValueError> {
        let Kind::Defined(Wire::Struct { fields, .. }) = gob.kind(from).map_err(invalid)? else {
            return Err(ValueError::new("expected a struct"));
        };
        let (mut found, mut before) = (Vec::with_capacity(fields.len().min(64)), None);
        while let Some(index) = reader.field(before, fields.len()).map_err(invalid)? {
            found.push((index, *reader));
            let ty = fields.get(index).map(|field| field.ty);
            skip(gob, reader, ty.ok_or_else(|| ValueError::new("expected a struct"))?)
                .map_err(invalid)?;
            before = Some(index);
        }
        Ok(Found(found))
    }

    /// Where the value of a field begins.
    fn get(&self, index: usize) -> Option<Reader<'a>> {
        let at = self.0.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.0.get(at).map(|(_, reader)| *reader)
    }

    fn ty(
        &self,
        gob: &GobTypes,
        from: GobType,
        index: Option<usize>,
    ) -> Result<GobType, ValueError> {
        match gob.kind(from).map_err(invalid)? {
            Kind::Defined(Wire::Struct { fields, .. }) => {
                let field = index.and_then(|index| fields.get(index));
                field.map(|field| field.ty).ok_or_else(|| ValueError::new("expected a struct"))
            }
            _ => Err(ValueError::new("expected a struct")),
        }
    }
}
