//! Goes over a value without keeping anything of it.

use crate::{GobError, Kind, Limits, Reader, TypeId, Types, Wire, wire_type};

/// Goes over a value of a type in a message that a [`Decoder`](crate::Decoder) has accepted.
///
/// # Errors
/// When the bytes are not a value of this type, which the decoder rules out.
pub fn skip(types: &Types, reader: &mut Reader<'_>, ty: TypeId) -> Result<(), GobError> {
    let depth = Limits::default().depth;
    Walk { known: Known(types), depth }.value(reader, ty, depth)
}

/// Checks a value of a type to its end. Types that are defined inside of it are added to `types`, unless
/// there is an error.
pub(crate) fn check(
    types: &mut Types,
    reader: &mut Reader<'_>,
    ty: TypeId,
    limits: &Limits,
) -> Result<(), GobError> {
    let known = Growing { types, limits, new: Vec::new() };
    let mut walk = Walk { known, depth: limits.depth };
    let checked = walk.top(reader, ty);
    if checked.is_err() {
        let Growing { types, new, .. } = walk.known;
        new.into_iter().for_each(|(id, bytes)| types.forget(id, bytes));
    }
    checked
}

/// Reads the type of an interface's value. In front of it, types can be defined.
pub(crate) fn concrete(
    reader: &mut Reader<'_>,
    mut define: impl FnMut(i64, Wire, usize) -> Result<(), GobError>,
) -> Result<TypeId, GobError> {
    loop {
        let id = reader.int()?;
        if id >= 0 {
            return Ok(TypeId(id));
        }
        let before = reader.rest().len();
        let wire = wire_type::read(reader)?;
        define(id.checked_neg().ok_or(GobError::Definition)?, wire, before - reader.rest().len())?;
        // The length of what follows, another definition or the id. It may be that of a message, whose
        // bytes have not arrived yet.
        if reader.rest().is_empty() {
            return Err(GobError::Continued);
        }
        reader.uint()?;
    }
}

/// The types that a walk knows.
trait Knowing {
    fn types(&self) -> &Types;
    fn define(&mut self, id: i64, wire: Wire, bytes: usize) -> Result<(), GobError>;
}

/// All types are known.
struct Known<'t>(&'t Types);

impl Knowing for Known<'_> {
    fn types(&self) -> &Types {
        self.0
    }

    fn define(&mut self, _: i64, _: Wire, _: usize) -> Result<(), GobError> {
        Ok(())
    }
}

/// New types are added.
struct Growing<'t> {
    types: &'t mut Types,
    limits: &'t Limits,
    /// The types that were added, with the bytes of their definitions.
    new: Vec<(i64, usize)>,
}

impl Knowing for Growing<'_> {
    fn types(&self) -> &Types {
        self.types
    }

    fn define(&mut self, id: i64, wire: Wire, bytes: usize) -> Result<(), GobError> {
        self.types.define(id, wire, bytes, self.limits)?;
        self.new.push((id, bytes));
        Ok(())
    }
}

struct Walk<K> {
    known: K,
    depth: usize,
}

impl<K: Knowing> Walk<K> {
    /// A value that stands alone. If it is not a struct, a zero is in front of it.
    fn top(&mut self, reader: &mut Reader<'_>, ty: TypeId) -> Result<(), GobError> {
        begin(self.known.types(), reader, ty)?;
        self.value(reader, ty, self.depth)
    }

    fn value(&mut self, reader: &mut Reader<'_>, ty: TypeId, depth: usize) -> Result<(), GobError> {
        let inside = depth.checked_sub(1).ok_or(GobError::TooDeep(self.depth))?;
        match self.known.types().kind(ty)? {
            Kind::Bool => reader.bool().map(drop),
            Kind::Int | Kind::Uint | Kind::Float => reader.uint().map(drop),
            Kind::Bytes | Kind::String | Kind::Defined(Wire::Opaque { .. }) => {
                reader.bytes().map(drop)
            }
            Kind::Complex => reader.uint().and_then(|_| reader.uint()).map(drop),
            Kind::Interface => self.interface(reader, inside),
            Kind::Defined(&Wire::Array { element, len }) => {
                let found = reader.count()?;
                if found as u64 != len {
                    return Err(GobError::ArrayLength { found: found as u64, wanted: len });
                }
                self.elements(reader, element, found, inside)
            }
            Kind::Defined(&Wire::Slice { element }) => {
                let count = reader.count()?;
                self.elements(reader, element, count, inside)
            }
            Kind::Defined(&Wire::Map { key, element }) => {
                let count = reader.count()?;
                for _ in 0..count {
                    self.value(reader, key, inside)?;
                    self.value(reader, element, inside)?;
                }
                Ok(())
            }
            Kind::Defined(Wire::Struct { fields, .. }) => {
                let count = fields.len();
                let mut before = None;
                while let Some(field) = reader.field(before, count)? {
                    let ty = match self.known.types().kind(ty)? {
                        Kind::Defined(Wire::Struct { fields, .. }) => {
                            fields.get(field).ok_or(GobError::NoSuchField)?.ty
                        }
                        _ => return Err(GobError::NoSuchField),
                    };
                    self.value(reader, ty, inside)?;
                    before = Some(field);
                }
                Ok(())
            }
        }
    }

    fn elements(
        &mut self,
        reader: &mut Reader<'_>,
        element: TypeId,
        count: usize,
        depth: usize,
    ) -> Result<(), GobError> {
        for _ in 0..count {
            self.value(reader, element, depth)?;
        }
        Ok(())
    }

    /// The name of its type, the type, a length, and the value as it stands alone. A nil interface
    /// has an empty name and nothing else.
    fn interface(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<(), GobError> {
        if reader.bytes()?.is_empty() {
            return Ok(());
        }
        let ty = concrete(reader, |id, wire, bytes| self.known.define(id, wire, bytes))?;
        reader.uint()?;
        begin(self.known.types(), reader, ty)?;
        self.value(reader, ty, depth)
    }
}

/// Reads the zero that is in front of a value that stands alone, unless it is a struct.
pub(crate) fn begin(types: &Types, reader: &mut Reader<'_>, ty: TypeId) -> Result<(), GobError> {
    match types.kind(ty)? {
        Kind::Defined(Wire::Struct { .. }) => Ok(()),
        _ if reader.uint()? != 0 => Err(GobError::Singleton),
        _ => Ok(()),
    }
}

/// Begins to read an interface's value that a [`Decoder`](crate::Decoder) has accepted. Returns its type;
/// the value follows. `None` for nil.
///
/// # Errors
/// When the bytes are not an interface, which the decoder rules out.
pub fn interface(types: &Types, reader: &mut Reader<'_>) -> Result<Option<TypeId>, GobError> {
    if reader.bytes()?.is_empty() {
        return Ok(None);
    }
    let ty = concrete(reader, |_, _, _| Ok(()))?;
    reader.uint()?;
    begin(types, reader, ty)?;
    Ok(Some(ty))
}
