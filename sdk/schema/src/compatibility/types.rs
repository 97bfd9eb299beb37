//! What differs between two types, and whether callers by name notice.

use std::collections::{HashMap, HashSet};

use crate::types::short;
use crate::{Case, Field, Type, TypeId, Types};

/// The place of a method's whole result.
const RESULT: &str = "the result";

/// The deepest place that is named in full; the differences below are told at its end.
const MAX_PLACE: usize = 200;

/// Which way a value goes. A caller may go on sending less than is taken, and must not be sent more than
/// it knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Argument,
    Result,
}

/// Walks both sides of one method.
pub(super) struct Walk<'t> {
    old: &'t Types,
    new: &'t Types,
    found: Vec<(String, bool)>,
    max: usize,
    /// Pairs that were compared already. A graph of types can be exponentially large when it is written
    /// out.
    seen: HashSet<(TypeId, TypeId, Way)>,
}

impl<'t> Walk<'t> {
    pub(super) fn new((old, new): (&'t Types, &'t Types), max: usize) -> Self {
        Walk { old, new, found: Vec::new(), max, seen: HashSet::new() }
    }

    /// What was found, each with whether callers by name notice it.
    pub(super) fn found(self) -> Vec<(String, bool)> {
        self.found
    }

    pub(super) fn tell(&mut self, what: String, named: bool) {
        if self.found.len() < self.max {
            self.found.push((what, named));
        } else if let Some((last, is_noticed)) = self.found.last_mut() {
            // The last one stands for all that follow.
            *is_noticed |= named;
            if !last.ends_with(", and more") {
                last.push_str(", and more");
            }
        }
    }

    pub(super) fn new_type(&self, ty: TypeId) -> &'t Type {
        &self.new[ty]
    }

    pub(super) fn argument(&mut self, name: &str, old: TypeId, new: TypeId) {
        self.compare(name, old, new, Way::Argument);
    }

    pub(super) fn results(&mut self, old: Option<TypeId>, new: Option<TypeId>) {
        match (old, new) {
            (Some(old), Some(new)) => self.compare(RESULT, old, new, Way::Result),
            // Go's clients expect an empty struct where there is none.
            (None, Some(_)) => self.tell("it has a result now".to_owned(), true),
            (Some(_), None) => self.tell("it has no result any more".to_owned(), true),
            (None, None) => {}
        }
    }

    fn compare(&mut self, place: &str, old: TypeId, new: TypeId, way: Way) {
        let (types, others) = (self.old, self.new);
        // Simple types are told at each place where they stand.
        let has_parts = types[old].parts().next().is_some();
        if has_parts && !self.seen.insert((old, new, way)) {
            return;
        }
        match (&types[old], &others[new]) {
            (Type::List(old), Type::List(new)) => {
                self.map(place, *old, *new, way);
                self.compare(&of(place, "[]"), *old, *new, way);
            }
            (Type::FixedList(old, a), Type::FixedList(new, b)) => {
                if a != b {
                    self.tell(format!("{place} has {b} elements, and had {a}"), true);
                }
                self.compare(&of(place, "[]"), *old, *new, way);
            }
            (Type::Tuple(old), Type::Tuple(new)) => {
                if old.len() != new.len() {
                    let what = format!("{place} has {} parts, and had {}", new.len(), old.len());
                    self.tell(what, true);
                }
                for (index, (old, new)) in old.iter().zip(new).enumerate() {
                    self.compare(&of(place, &format!(".{index}")), *old, *new, way);
                }
            }
            (Type::Record(old), Type::Record(new)) => self.records(place, old, new, way),
            (Type::Variant(old), Type::Variant(new)) => self.variants(place, old, new, way),
            (Type::Enum(old), Type::Enum(new)) => {
                self.names((place, "case"), &places(old, |n| n), &places(new, |n| n), way);
            }
            (Type::Flags(old), Type::Flags(new)) => {
                self.names((place, "flag"), &places(old, |n| n), &places(new, |n| n), way);
            }
            (Type::Option(old), Type::Option(new)) => {
                let is_option = |ty: &Type| matches!(ty, Type::Option(_));
                // An option within an option is written in another way.
                if is_option(&types[*old]) != is_option(&others[*new]) {
                    self.tell(format!("{place} is another option than it was"), true);
                } else {
                    self.compare(place, *old, *new, way);
                }
            }
            (_, Type::Option(some)) => {
                self.tell(format!("{place} is optional now"), way == Way::Result);
                self.compare(place, old, *some, way);
            }
            (Type::Option(some), _) => {
                // A result alone, and a record for models, look otherwise when they are optional.
                let looks_otherwise =
                    place == RESULT && matches!(others[new], Type::Result { .. } | Type::Record(_));
                let is_noticed = way == Way::Argument || looks_otherwise;
                self.tell(format!("{place} is no longer optional"), is_noticed);
                self.compare(place, *some, new, way);
            }
            (
                Type::Result { ok: old_ok, err: old_err },
                Type::Result { ok: new_ok, err: new_err },
            ) => {
                self.sides((place, "its value"), *old_ok, *new_ok, way);
                self.sides((&of(place, ".err"), "its error"), *old_err, *new_err, way);
            }
            (a, b) if a == b => {}
            (a, b) => {
                let (from, to) = (types.notation(old), others.notation(new));
                let (from, to) = (short(&from), short(&to));
                let is_noticed = match way {
                    Way::Argument => !holds(b, a),
                    Way::Result => !holds(a, b) || is_text(a) != is_text(b),
                };
                self.tell(format!("{place} is {to}, and was {from}"), is_noticed);
            }
        }
    }

    fn sides(
        &mut self,
        (place, what): (&str, &str),
        old: Option<TypeId>,
        new: Option<TypeId>,
        way: Way,
    ) {
        match (old, new) {
            (Some(old), Some(new)) => self.compare(place, old, new, way),
            (None, Some(_)) => self.tell(format!("{place}: {what} carries something now"), true),
            (Some(_), None) => self.tell(format!("{place}: {what} carries nothing any more"), true),
            (None, None) => {}
        }
    }

    /// Go's maps fill lists of records with two fields, by their places.
    fn map(&mut self, place: &str, old: TypeId, new: TypeId, way: Way) {
        let (Type::Record(before), Type::Record(after)) = (&self.old[old], &self.new[new]) else {
            return;
        };
        let names = |fields: &[Field]| -> Vec<String> {
            fields.iter().map(|field| field.name.clone()).collect()
        };
        if way == Way::Argument && before.len() == 2 && names(before) != names(after) {
            self.tell(format!("{place} is no longer what Go's maps fill"), true);
        }
    }

    fn records(&mut self, place: &str, old: &[Field], new: &[Field], way: Way) {
        let (before, after) = (places(old, |f| &f.name), places(new, |f| &f.name));
        let inside = |field: &Field| of(place, &format!(".{}", short(&field.name)));
        let mut kept = Vec::new();
        for field in old {
            match after.get(&field.name[..]) {
                Some(at) => {
                    kept.push(*at);
                    self.compare(&inside(field), field.ty, new[*at].ty, way);
                }
                None => self.tell(format!("{} is gone", inside(field)), true),
            }
        }
        for field in new.iter().filter(|field| !before.contains_key(&field.name[..])) {
            let is_optional = matches!(self.new[field.ty], Type::Option(_));
            let must = match (way, is_optional) {
                (Way::Result, _) => "",
                (Way::Argument, true) => ", and optional",
                (Way::Argument, false) => ", and must be given",
            };
            let what = format!("{} is new{must}", inside(field));
            self.tell(what, way == Way::Argument && !is_optional);
        }
        if !kept.is_sorted() {
            self.tell(format!("the fields of {place} are in another order"), false);
        }
    }

    fn variants(&mut self, place: &str, old: &[Case], new: &[Case], way: Way) {
        let (before, after) = (places(old, |c| &c.name), places(new, |c| &c.name));
        self.names((place, "case"), &before, &after, way);
        for case in old {
            let Some(next) = after.get(&case.name[..]) else { continue };
            let inside = of(place, &format!(".{}", short(&case.name)));
            self.sides((&inside, "the case"), case.ty, new[*next].ty, way);
        }
    }

    /// The cases of an enum or a variant, and the labels of flags. net/rpc has them as numbers, so their
    /// places matter to callers by name too.
    fn names(&mut self, (place, kind): (&str, &str), old: &Places<'_>, new: &Places<'_>, way: Way) {
        let of_others = |names: &Places<'_>, others: &Places<'_>| -> Vec<String> {
            let mut names: Vec<_> =
                names.iter().filter(|(name, _)| !others.contains_key(*name)).collect();
            names.sort_unstable_by_key(|(_, at)| **at);
            names.into_iter().map(|(name, _)| short(name).to_owned()).collect()
        };
        for name in of_others(old, new) {
            self.tell(format!("{place}: the {kind} {name} is gone"), way == Way::Argument);
        }
        for name in of_others(new, old) {
            self.tell(format!("{place}: the {kind} {name} is new"), way == Way::Result);
        }
        if old.iter().any(|(name, at)| new.get(name).is_some_and(|now| now != at)) {
            self.tell(format!("{place}: its {kind}s have other numbers"), true);
        }
    }
}

/// Names with their places.
type Places<'n> = HashMap<&'n str, usize>;

fn places<T>(members: &[T], name: impl Fn(&T) -> &str) -> Places<'_> {
    members.iter().enumerate().map(|(at, member)| (name(member), at)).collect()
}

fn of(place: &str, part: &str) -> String {
    if place.len() > MAX_PLACE { place.to_owned() } else { format!("{place}{part}") }
}

/// Whether every value of `inner` is one of `outer`, as callers by name write them. Go's integers keep their
/// signedness.
fn holds(outer: &Type, inner: &Type) -> bool {
    match (integer(outer), integer(inner)) {
        (Some((outer_signed, outer)), Some((inner_signed, inner))) => {
            outer_signed == inner_signed && outer >= inner
        }
        _ => matches!((outer, inner), (Type::F64, Type::F32)),
    }
}

/// Whether models get it as a text, because their numbers have too few bits.
fn is_text(ty: &Type) -> bool {
    matches!(ty, Type::U64 | Type::S64)
}

/// Whether an integer has a sign, and its bits.
fn integer(ty: &Type) -> Option<(bool, u8)> {
    Some(match ty {
        Type::U8 => (false, 8),
        Type::U16 => (false, 16),
        Type::U32 => (false, 32),
        Type::U64 => (false, 64),
        Type::S8 => (true, 8),
        Type::S16 => (true, 16),
        Type::S32 => (true, 32),
        Type::S64 => (true, 64),
        _ => return None,
    })
}
