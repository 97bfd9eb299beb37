//! What a new version of a service changes for those who call the old one.
//!
//! Callers differ in what they depend on. Those of Wharf's own protocol depend on the bytes: whoever
//! sends a fingerprint is refused when anything about the types has changed. Those who call by names
//! (HTTP with JSON, JSON-RPC, net/rpc, tools) depend on names and on values: they do not notice a new
//! optional field. Whoever asks for one exact version depends on that.

mod types;

use std::fmt;

use crate::types::short;
use crate::{Method, Param, Service, ServiceName, Type};

use self::types::Walk;

/// The most differences that one method is told of. More make nothing clearer.
const MAX_DIFFERENCES: usize = 20;

/// The most of all methods together.
const MAX_ALL: usize = 1000;

/// Whose calls fail, or get another answer than they expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody's.
    Nobody,
    /// Those of Wharf's own protocol, with types that were made for the old version.
    Typed,
    /// Those that write names: HTTP with JSON, JSON-RPC, net/rpc, tools for models.
    Named,
    /// Those that ask for the version that is gone.
    Pinned,
    /// Those that give a short name, and now mean something else by it.
    Short,
    /// Everybody's.
    Everybody,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::Nobody => "nobody",
            Broken::Typed => "typed clients",
            Broken::Named => "callers by name",
            Broken::Pinned => "callers of that version",
            Broken::Short => "callers by short name",
            Broken::Everybody => "everybody",
        })
    }
}

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: `arith.multiply`, or `demo:arith/arith@0.1.0` for a whole service.
    pub place: String,
    /// What is different there.
    pub what: String,
    /// Whose calls it breaks.
    pub broken: Broken,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Compares what is served with what would be served instead, in the order of the old services. Services
/// without a difference yield nothing. Documentation does not count.
pub fn differences<'s>(
    before: impl IntoIterator<Item = &'s Service>,
    after: impl IntoIterator<Item = &'s Service>,
) -> Vec<Difference> {
    let before: Vec<&Service> = before.into_iter().collect();
    let after: Vec<&Service> = after.into_iter().collect();
    let mut found = Vec::new();
    let mut compared = Vec::new();
    for old in &before {
        let place = old.name().to_string();
        let same = after.iter().copied().find(|new| new.name() == old.name());
        let Some(new) = same.or_else(|| successor(old, &after)) else {
            let what = "the service is gone".to_owned();
            found.push(Difference { place, what, broken: Broken::Everybody });
            continue;
        };
        compared.push(new.name());
        if same.is_none() {
            let what = format!("version {} takes its place", version(new.name()));
            // Nobody can ask for no version.
            let is_pinned = old.name().version.is_some();
            let broken = if is_pinned { Broken::Pinned } else { Broken::Nobody };
            found.push(Difference { place, what, broken });
        }
        if old.fingerprint() != new.fingerprint() || parameters_differ(old, new) {
            methods(old, new, &mut found);
        }
    }
    for new in after.iter().filter(|new| !compared.contains(&new.name())) {
        let (what, broken) = arrival(new, &before);
        found.push(Difference { place: new.name().to_string(), what, broken });
    }
    if found.len() > MAX_ALL {
        // What breaks somebody must not be among those that are left out.
        found.sort_by_key(|difference| difference.broken == Broken::Nobody);
        found.truncate(MAX_ALL);
    }
    found
}

/// What a service that was not there means to those who give a short name, or no version.
fn arrival(new: &Service, before: &[&Service]) -> (String, Broken) {
    let same_name = |old: &&&Service| old.name().interface == new.name().interface;
    let others: Vec<&&Service> = before.iter().filter(same_name).collect();
    if let Some(other) = others.iter().find(|old| old.name().package != new.name().package) {
        let name = &new.name().interface;
        let what = format!("the service is new, and '{name}' alone means {} too", other.name());
        return (what, Broken::Short);
    }
    let newest = others.into_iter().max_by(|a, b| a.name().version.cmp(&b.name().version));
    if let Some(old) = newest.filter(|old| old.name().version < new.name().version) {
        let mut changes = Vec::new();
        methods(old, new, &mut changes);
        if changes.iter().any(|change| change.broken != Broken::Nobody) {
            let what = format!(
                "the service is new, and whoever names no version gets it instead of {}, from which it differs",
                version(old.name())
            );
            return (what, Broken::Short);
        }
    }
    ("the service is new".to_owned(), Broken::Nobody)
}

/// The newest version of the same interface.
fn successor<'s>(old: &Service, after: &[&'s Service]) -> Option<&'s Service> {
    let is_same = |new: &&&Service| {
        new.name().package == old.name().package && new.name().interface == old.name().interface
    };
    let newest = after.iter().filter(is_same);
    newest.max_by(|a, b| a.name().version.cmp(&b.name().version)).copied()
}

fn version(name: &ServiceName) -> String {
    name.version.as_ref().map_or_else(|| "(none)".to_owned(), ToString::to_string)
}

/// Whether methods may differ. The names of parameters are no part of a fingerprint.
fn parameters_differ(old: &Service, new: &Service) -> bool {
    old.methods().iter().any(|method| {
        new.method(&method.name).is_none_or(|next| match (&method.signature, &next.signature) {
            (Ok(before), Ok(after)) => !are_named_alike(&before.params, &after.params),
            _ => false,
        })
    })
}

fn are_named_alike(before: &[Param], after: &[Param]) -> bool {
    before.iter().map(|param| &param.name).eq(after.iter().map(|param| &param.name))
}

/// Whether more differences change nothing: those that are told already break somebody, and no more are told.
fn is_enough(found: &[Difference]) -> bool {
    found.len() >= MAX_ALL && found.iter().any(|difference| difference.broken != Broken::Nobody)
}

fn methods(old: &Service, new: &Service, found: &mut Vec<Difference>) {
    let interface = short(&old.name().interface);
    let place = |method: &Method| format!("{interface}.{}", short(&method.name));
    for method in old.methods() {
        if is_enough(found) {
            return;
        }
        let mut tell = |what: String, broken| {
            found.push(Difference { place: place(method), what, broken });
        };
        let Some(next) = new.method(&method.name) else {
            // Nobody could call it.
            if method.signature.is_ok() {
                tell("the method is gone".to_owned(), Broken::Everybody);
            }
            continue;
        };
        match (&method.signature, &next.signature) {
            (Ok(before), Ok(after)) => {
                let mut typed = before.fingerprint != after.fingerprint;
                if !typed && are_named_alike(&before.params, &after.params) {
                    continue;
                }
                let mut walk = Walk::new((old.types(), new.types()), MAX_DIFFERENCES);
                // Types that were swapped may be the same; then nothing refuses a typed client.
                typed |= parameters(&mut walk, &before.params, &after.params);
                walk.results(before.result, after.result);
                let mut told = walk.found();
                if typed && told.is_empty() {
                    told.push(("its types are others".to_owned(), false));
                }
                for (what, named) in told {
                    let broken = match (typed, named) {
                        (true, true) => Broken::Everybody,
                        (true, false) => Broken::Typed,
                        (false, true) => Broken::Named,
                        (false, false) => Broken::Nobody,
                    };
                    tell(what, broken);
                }
            }
            (Ok(_), Err(reason)) => {
                tell(format!("it can no longer be called: {reason}"), Broken::Everybody);
            }
            (Err(_), Ok(_)) => tell("it can be called now".to_owned(), Broken::Nobody),
            (Err(_), Err(_)) => {}
        }
    }
    for method in new.methods() {
        if old.method(&method.name).is_none() {
            let what = "the method is new".to_owned();
            found.push(Difference { place: place(method), what, broken: Broken::Nobody });
        }
    }
}

/// Parameters are found by name, and what has no counterpart by its place: then it was renamed. Returns
/// whether they are in another order.
fn parameters(walk: &mut Walk<'_>, before: &[Param], after: &[Param]) -> bool {
    let named = |params: &[Param], name: &str| params.iter().position(|param| param.name == name);
    let mut kept = Vec::new();
    for (place, param) in before.iter().enumerate() {
        let name = short(&param.name);
        let next = match named(after, &param.name) {
            Some(next) => next,
            None => match after.get(place).filter(|next| named(before, &next.name).is_none()) {
                Some(next) => {
                    let what = format!("parameter {name} is now called {}", short(&next.name));
                    walk.tell(what, true);
                    place
                }
                None => {
                    walk.tell(format!("parameter {name} is gone"), true);
                    continue;
                }
            },
        };
        kept.push(next);
        walk.argument(name, param.ty, after[next].ty);
    }
    let last = kept.iter().max().copied();
    // The only parameter may be written without its name, and where there is none, nothing is.
    let was_alone = before.len() <= 1;
    for (place, param) in after.iter().enumerate().filter(|(place, _)| !kept.contains(place)) {
        let name = short(&param.name);
        let is_optional = matches!(walk.new_type(param.ty), Type::Option(_));
        let is_behind = last.is_none_or(|last| place > last);
        let what = match (is_optional, is_behind, was_alone) {
            (false, ..) => format!("parameter {name} is new, and must be given"),
            (true, false, _) => format!("parameter {name} is new, before others"),
            (true, true, true) => {
                format!(
                    "parameter {name} is new, and optional; what was written without a name no longer fits"
                )
            }
            (true, true, false) => format!("parameter {name} is new, and optional"),
        };
        walk.tell(what, !is_optional || !is_behind || was_alone);
    }
    let is_other_order = !kept.is_sorted();
    if is_other_order {
        walk.tell("its parameters are in another order".to_owned(), true);
    }
    is_other_order
}

#[cfg(test)]
#[cfg(feature = "wit")]
mod tests;
