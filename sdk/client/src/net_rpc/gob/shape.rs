//! Makes types of Go for a JSON value.
//!
//! An object is a struct whose fields have the names of its members; `a` and `howMany` become `A` and
//! `HowMany`. A whole number is an `int`, and one with a point (`7.0`) a `float64`. What the service
//! said that it wants takes precedence.
//!
//! Go's decoder takes two types in one value for the same if they are read into one type of its own, and
//! then confuses their fields. So all objects that could be of one type are: a struct has the fields of
//! all of them. Of those that an object does not have nothing is sent, and Go skips what it does not
//! know.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use serde_json::Value;
use wharf_gob::{Encoder, Field, TypeId, Wire};

use super::learned::{Learned, ROOT, Want};

/// The type of a value, with the structs that are in it.
#[derive(Clone, Debug, Default, Hash)]
pub(in crate::net_rpc) struct Shape {
    pub(super) root: Ty,
    pub(super) structs: Vec<Vec<(String, Ty)>>,
}

/// A type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Ty {
    /// That of null. As a field it is left out.
    #[default]
    Nothing,
    Bool,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    List(Box<Ty>),
    Array(Box<Ty>, u64),
    Map(Box<Ty>, Box<Ty>),
    /// An object without members.
    Empty,
    /// The struct with this number.
    Struct(usize),
}

impl Shape {
    /// The type that a value looks like.
    ///
    /// # Errors
    /// When it has none. The error says why.
    pub(in crate::net_rpc) fn guess(value: &Value) -> Result<Self, String> {
        let mut shape = Shape::default();
        shape.root = match shape.of(value)? {
            // A method without a use for its argument takes any struct.
            Ty::Nothing => Ty::Empty,
            root => root,
        };
        Ok(shape)
    }

    /// Tells types apart.
    pub(in crate::net_rpc) fn signature(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    fn of(&mut self, value: &Value) -> Result<Ty, String> {
        Ok(match value {
            Value::Null => Ty::Nothing,
            Value::Bool(_) => Ty::Bool,
            Value::String(_) => Ty::String,
            Value::Number(number) if number.is_f64() => Ty::Float,
            Value::Number(number) if number.is_i64() => Ty::Int,
            Value::Number(_) => Ty::Uint,
            Value::Array(elements) => Ty::List(Box::new(self.common(elements.iter())?)),
            Value::Object(members) if members.is_empty() => Ty::Empty,
            Value::Object(members) if members.keys().all(|name| is_field(name)) => {
                let mut fields = Vec::new();
                for (member, value) in members {
                    fields.push((field_name(member), self.of(value)?));
                }
                self.struct_with(fields)
            }
            Value::Object(members) => {
                Ty::Map(Box::new(Ty::String), Box::new(self.common(members.values())?))
            }
        })
    }

    /// The type that all elements of a list have.
    fn common<'v>(&mut self, values: impl Iterator<Item = &'v Value>) -> Result<Ty, String> {
        let mut common = Ty::Nothing;
        for value in values {
            let ty = self.of(value)?;
            common = common.with(&ty).ok_or("the elements of a list have one type in Go")?;
        }
        Ok(common)
    }

    /// A struct that has these fields: one that is there already, if it can have them.
    fn struct_with(&mut self, fields: Vec<(String, Ty)>) -> Ty {
        for (number, known) in self.structs.iter_mut().enumerate() {
            if let Some(merged) = merged(known, &fields) {
                *known = merged;
                return Ty::Struct(number);
            }
        }
        self.structs.push(fields);
        Ty::Struct(self.structs.len() - 1)
    }

    /// The same type, as far as the service said nothing else.
    ///
    /// # Errors
    /// When the value does not look like what the service wants.
    pub(in crate::net_rpc) fn refined(&self, learned: &Learned) -> Result<Self, String> {
        let mut refined = self.clone();
        if let Some(want) = learned.at(ROOT) {
            refined.root = self.wanted(ROOT, &self.root, want)?;
        }
        for (number, fields) in refined.structs.iter_mut().enumerate() {
            for (name, ty) in fields {
                if let Some(want) = learned.at(&format!("{}.{name}", struct_name(number))) {
                    *ty = self.wanted(name, ty, want)?;
                }
            }
        }
        Ok(refined)
    }

    /// What a service wants, if something that looks like `ty` can be that.
    fn wanted(&self, place: &str, ty: &Ty, want: &Want) -> Result<Ty, String> {
        let unfit = || format!("{place}: the service wants {want} there");
        Ok(match (want, ty) {
            (Want::Bool, Ty::Bool | Ty::Nothing) => Ty::Bool,
            // Numbers may be strings of digits.
            (Want::Int, Ty::Int | Ty::Uint | Ty::String | Ty::Nothing) => Ty::Int,
            (Want::Uint, Ty::Int | Ty::Uint | Ty::String | Ty::Nothing) => Ty::Uint,
            (Want::Float, Ty::Int | Ty::Uint | Ty::Float | Ty::Nothing) => Ty::Float,
            (Want::String, Ty::String | Ty::Nothing) => Ty::String,
            (Want::Bytes, Ty::String | Ty::Nothing) => Ty::Bytes,
            (Want::List(element), Ty::List(inside)) => {
                Ty::List(Box::new(self.wanted(place, inside, element)?))
            }
            (Want::Array(element, len), Ty::List(inside)) => {
                Ty::Array(Box::new(self.wanted(place, inside, element)?), *len)
            }
            (Want::Map(key, element), Ty::Map(_, inside)) => Ty::Map(
                Box::new(self.wanted(place, &Ty::Nothing, key)?),
                Box::new(self.wanted(place, inside, element)?),
            ),
            // An object may be either.
            (Want::Map(..), Ty::Struct(number)) => {
                let mut fields = self.structs.get(*number).into_iter().flatten();
                let inside = fields.try_fold(Ty::Nothing, |common, (_, ty)| common.with(ty));
                let inside = inside.ok_or_else(unfit)?;
                self.wanted(place, &Ty::Map(Box::default(), Box::new(inside)), want)?
            }
            (Want::Map(..), Ty::Empty) => {
                self.wanted(place, &Ty::Map(Box::default(), Box::default()), want)?
            }
            (Want::Struct, Ty::Struct(_) | Ty::Empty) => ty.clone(),
            (Want::Struct, Ty::Nothing) => Ty::Empty,
            _ => return Err(unfit()),
        })
    }

    pub(super) fn is_struct(&self) -> bool {
        matches!(self.root, Ty::Empty | Ty::Struct(_))
    }

    /// The type's id in a stream, with the definitions that it needs.
    pub(super) fn define(&self, encoder: &mut Encoder, out: &mut Vec<u8>) -> TypeId {
        // Structs come first, at their numbers.
        let nothing = Wire::Struct { name: String::new(), fields: Vec::new() };
        let mut group = vec![nothing; self.structs.len()];
        for (number, fields) in self.structs.iter().enumerate() {
            let mut field =
                |(name, ty): &(String, Ty)| Field { name: name.clone(), ty: wire(ty, &mut group) };
            let fields = fields.iter().filter(|(_, ty)| *ty != Ty::Nothing);
            let fields = fields.map(&mut field).collect();
            if let Some(place) = group.get_mut(number) {
                *place = Wire::Struct { name: struct_name(number), fields };
            }
        }
        let root = wire(&self.root, &mut group);
        let ids = encoder.define_group(group, out);
        ids.iter()
            .enumerate()
            .find(|(place, _)| TypeId::in_group(*place) == root)
            .map_or(root, |(_, id)| *id)
    }
}

/// A type in a group.
fn wire(ty: &Ty, group: &mut Vec<Wire>) -> TypeId {
    let new = match ty {
        Ty::Nothing | Ty::Int => return TypeId::INT,
        Ty::Bool => return TypeId::BOOL,
        Ty::Uint => return TypeId::UINT,
        Ty::Float => return TypeId::FLOAT,
        Ty::String => return TypeId::STRING,
        Ty::Bytes => return TypeId::BYTES,
        Ty::Struct(number) => return TypeId::in_group(*number),
        Ty::List(element) => Wire::Slice { element: wire(element, group) },
        Ty::Array(element, len) => Wire::Array { element: wire(element, group), len: *len },
        Ty::Map(key, element) => Wire::Map { key: wire(key, group), element: wire(element, group) },
        Ty::Empty => Wire::Struct { name: "Empty".to_owned(), fields: Vec::new() },
    };
    group.push(new);
    TypeId::in_group(group.len() - 1)
}

fn struct_name(number: usize) -> String {
    format!("T{number}")
}

/// The fields of two objects, if one struct can have them.
fn merged(known: &[(String, Ty)], new: &[(String, Ty)]) -> Option<Vec<(String, Ty)>> {
    let mut all = known.to_vec();
    for (name, ty) in new {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = known.with(ty)?,
            None => all.push((name.clone(), ty.clone())),
        }
    }
    Some(all)
}

impl Ty {
    /// The type that can hold both.
    fn with(&self, other: &Ty) -> Option<Ty> {
        Some(match (self, other) {
            (Ty::Nothing, other) | (other, Ty::Nothing) => other.clone(),
            (Ty::Int | Ty::Uint, Ty::Float) | (Ty::Float, Ty::Int | Ty::Uint) => Ty::Float,
            (Ty::Int, Ty::Uint) | (Ty::Uint, Ty::Int) => Ty::Uint,
            (Ty::List(a), Ty::List(b)) => Ty::List(Box::new(a.with(b)?)),
            (Ty::Map(key, a), Ty::Map(_, b)) => Ty::Map(key.clone(), Box::new(a.with(b)?)),
            (Ty::Empty, some @ (Ty::Struct(_) | Ty::Map(..)))
            | (some @ (Ty::Struct(_) | Ty::Map(..)), Ty::Empty) => some.clone(),
            (one, other) if one == other => one.clone(),
            _ => return None,
        })
    }
}

/// Whether the name of a member can be that of a field.
fn is_field(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic())
        && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// `howMany`, `how-many` and `HowMany` are `HowMany`; `userID` is `UserID`.
pub(super) fn field_name(member: &str) -> String {
    if member.contains(['-', '_']) && !member.starts_with(|c: char| c.is_uppercase()) {
        return wharf_schema::net_rpc(member);
    }
    let mut rest = member.chars();
    rest.next().into_iter().flat_map(char::to_uppercase).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_structs_and_numbers_are_what_they_look_like() {
        let value =
            json!({ "a": 7, "howMany": 7.0, "user-id": "x", "URL": [1, 2.5], "gone": null });
        let shape = Shape::guess(&value).unwrap();
        let mut fields = shape.structs[0].clone();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            fields,
            [
                ("A".to_owned(), Ty::Int),
                ("Gone".to_owned(), Ty::Nothing),
                ("HowMany".to_owned(), Ty::Float),
                ("URL".to_owned(), Ty::List(Box::new(Ty::Float))),
                ("UserId".to_owned(), Ty::String),
            ]
        );
        let root = |value: &Value| Shape::guess(value).unwrap().root;
        assert_eq!(root(&json!(u64::MAX)), Ty::Uint);
        let map = Ty::Map(Box::new(Ty::String), Box::new(Ty::Int));
        assert_eq!(root(&json!({ "two words": 1 })), map);
        assert!(Shape::guess(&json!([1, "x"])).is_err());
    }

    #[test]
    fn objects_that_could_be_of_one_type_are() {
        let tree = json!({ "label": "a", "left": { "label": "b", "left": { "size": 7 } } });
        let shape = Shape::guess(&tree).unwrap();
        assert_eq!((shape.root, shape.structs.len()), (Ty::Struct(0), 1));
        let apart = json!({ "id": 7, "owner": { "id": "x" } });
        assert_eq!(Shape::guess(&apart).unwrap().structs.len(), 2);
    }

    #[test]
    fn what_the_service_said_takes_precedence_and_has_to_fit() {
        let mut learned = Learned::default();
        learned.take("gob: wrong type (uint) for received field T0.A").unwrap();
        let shape = |value| Shape::guess(&value).unwrap().refined(&learned);
        assert_eq!(shape(json!({ "a": 7 })).unwrap().structs[0], [("A".to_owned(), Ty::Uint)]);
        let error = shape(json!({ "a": true })).unwrap_err();
        assert_eq!(error, "A: the service wants uint there");
    }
}
