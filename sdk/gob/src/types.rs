//! The types of a stream.

use std::collections::HashMap;

use crate::{GobError, Limits};

/// The number of a type in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) i64);

impl TypeId {
    /// `bool`
    pub const BOOL: TypeId = TypeId(1);
    /// All signed integers of Go.
    pub const INT: TypeId = TypeId(2);
    /// All unsigned integers of Go.
    pub const UINT: TypeId = TypeId(3);
    /// `float32` and `float64`
    pub const FLOAT: TypeId = TypeId(4);
    /// `[]byte`
    pub const BYTES: TypeId = TypeId(5);
    /// `string`
    pub const STRING: TypeId = TypeId(6);
    /// `complex64` and `complex128`
    pub const COMPLEX: TypeId = TypeId(7);
    /// All interfaces.
    pub const INTERFACE: TypeId = TypeId(8);

    /// Its number in the stream.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }

    /// The type at this place of a group that is defined at once.
    #[must_use]
    pub fn in_group(place: usize) -> TypeId {
        TypeId(i64::try_from(place).map_or(i64::MIN, |place| -1 - place))
    }

    pub(crate) fn place_in_group(self) -> Option<usize> {
        usize::try_from(self.0.checked_add(1)?.checked_neg()?).ok()
    }

    /// The first id of a type that a stream defines. Go before 1.20 begins with 65.
    pub(crate) const FIRST: i64 = 64;
}

/// A type that a stream defines. Other types may be defined later than the type that refers to them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// `[N]T`
    Array {
        /// The type of its elements.
        element: TypeId,
        /// Their number.
        len: u64,
    },
    /// `[]T`
    Slice {
        /// The type of its elements.
        element: TypeId,
    },
    /// `struct`
    Struct {
        /// Its name in Go. Readers do not compare it.
        name: String,
        /// The exported fields.
        fields: Vec<Field>,
    },
    /// `map[K]V`
    Map {
        /// The type of the keys.
        key: TypeId,
        /// The type of the values.
        element: TypeId,
    },
    /// A type that encodes itself.
    Opaque {
        /// Its name in Go.
        name: String,
        /// How it does so.
        by: Opaque,
    },
}

impl Wire {
    /// The same type, referring to others by what `new` gives for their ids.
    pub(crate) fn referring(mut self, new: impl Fn(TypeId) -> TypeId) -> Self {
        match &mut self {
            Wire::Array { element, .. } | Wire::Slice { element } => *element = new(*element),
            Wire::Struct { fields, .. } => {
                fields.iter_mut().for_each(|field| field.ty = new(field.ty));
            }
            Wire::Map { key, element } => (*key, *element) = (new(*key), new(*element)),
            Wire::Opaque { .. } => {}
        }
        self
    }
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name in Go.
    pub name: String,
    /// Its type.
    pub ty: TypeId,
}

/// How a type encodes itself. The order is that of gob's `wireType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opaque {
    /// `GobEncoder`
    Gob,
    /// `encoding.BinaryMarshaler`, for example `time.Time`
    Binary,
    /// `encoding.TextMarshaler`
    Text,
}

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `bool`
    Bool,
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// A floating-point number.
    Float,
    /// `[]byte`
    Bytes,
    /// `string`
    String,
    /// A complex number.
    Complex,
    /// An interface.
    Interface,
    /// A type that the stream defines.
    Defined(&'a Wire),
}

/// The types that a stream has defined so far.
#[derive(Clone, Debug, Default)]
pub struct Types {
    defined: HashMap<i64, Wire>,
    /// Bytes of their definitions.
    bytes: usize,
}

impl Types {
    /// What a type is.
    ///
    /// # Errors
    /// When it is not defined.
    pub fn kind(&self, ty: TypeId) -> Result<Kind<'_>, GobError> {
        Ok(match ty {
            TypeId::BOOL => Kind::Bool,
            TypeId::INT => Kind::Int,
            TypeId::UINT => Kind::Uint,
            TypeId::FLOAT => Kind::Float,
            TypeId::BYTES => Kind::Bytes,
            TypeId::STRING => Kind::String,
            TypeId::COMPLEX => Kind::Complex,
            TypeId::INTERFACE => Kind::Interface,
            TypeId(id) => Kind::Defined(self.defined.get(&id).ok_or(GobError::Undefined(id))?),
        })
    }

    /// Adds a type. Its definition has `bytes` bytes.
    pub(crate) fn define(
        &mut self,
        id: i64,
        wire: Wire,
        bytes: usize,
        limits: &Limits,
    ) -> Result<(), GobError> {
        if id < TypeId::FIRST || self.defined.contains_key(&id) {
            return Err(GobError::Duplicate(id));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.defined.len() >= limits.types || self.bytes > limits.definitions {
            return Err(GobError::TooManyTypes);
        }
        self.defined.insert(id, wire);
        Ok(())
    }

    /// Takes a type back, whose definition has `bytes` bytes.
    pub(crate) fn forget(&mut self, id: i64, bytes: usize) {
        if self.defined.remove(&id).is_some() {
            self.bytes -= bytes;
        }
    }

    /// A type in Go's notation, for people. It is cut where it nests deeply.
    #[must_use]
    pub fn notation(&self, ty: TypeId) -> String {
        let mut out = String::new();
        self.write(ty, 4, &mut out);
        out
    }

    fn write(&self, ty: TypeId, depth: usize, out: &mut String) {
        const ENOUGH: usize = 500;
        if depth == 0 || out.len() > ENOUGH {
            out.push('…');
            return;
        }
        let wire = match self.kind(ty) {
            Ok(Kind::Defined(wire)) => wire,
            Ok(kind) => return out.push_str(kind.name()),
            Err(_) => return out.push('?'),
        };
        match wire {
            Wire::Array { element, len } => {
                out.push_str(&format!("[{len}]"));
                self.write(*element, depth - 1, out);
            }
            Wire::Slice { element } => {
                out.push_str("[]");
                self.write(*element, depth - 1, out);
            }
            Wire::Struct { fields, .. } => {
                out.push_str("struct{");
                for (place, field) in fields.iter().enumerate() {
                    out.push_str(if place > 0 { "; " } else { "" });
                    if out.len() > ENOUGH {
                        out.push('…');
                        break;
                    }
                    let shown = field.name.floor_char_boundary(100);
                    out.push_str(&field.name[..shown]);
                    out.push(' ');
                    self.write(field.ty, depth - 1, out);
                }
                out.push('}');
            }
            Wire::Map { key, element } => {
                out.push_str("map[");
                self.write(*key, depth - 1, out);
                out.push(']');
                self.write(*element, depth - 1, out);
            }
            Wire::Opaque { name, .. } => {
                out.push_str(&name[..name.floor_char_boundary(100)]);
            }
        }
    }
}

impl Kind<'_> {
    fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Float => "float64",
            Kind::Bytes => "[]byte",
            Kind::String => "string",
            Kind::Complex => "complex128",
            Kind::Interface => "interface{}",
            Kind::Defined(_) => "a defined type",
        }
    }
}
