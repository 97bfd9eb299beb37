//! What a new version of a service changes for those who call the old one.
//!
//! Callers differ in what they depend on. Those of Wharf's own protocol depend on the bytes: whoever
//! sends a fingerprint is refused when anything about the types has changed. Those who call by names
//! (HTTP with JSON, JSON-RPC, net/rpc, tools) depend on names and on values: they do not notice a new
//! optional field. Whoever asks for one exact version depends on that.

mod types;

use std::fmt;

use crate::{Method, Param, Service, ServiceName, Type};

use self::types::Walk;

/// The most differences that one method is told of. More make nothing clearer.
const MAX_DIFFERENCES: usize = 20;

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
            found.push(Difference { place, what, broken: Broken::Pinned });
        }
        if old.fingerprint() != new.fingerprint() || parameters_differ(old, new) {
            methods(old, new, &mut found);
        }
    }
    for new in after.iter().filter(|new| !compared.contains(&new.name())) {
        let (place, what) = (new.name().to_string(), "the service is new".to_owned());
        found.push(Difference { place, what, broken: Broken::Nobody });
    }
    found
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

/// The names of parameters are no part of a fingerprint.
fn parameters_differ(old: &Service, new: &Service) -> bool {
    let names = |method: &Method| -> Vec<String> {
        let params = method.signature.as_ref().map(|signature| &signature.params[..]);
        params.unwrap_or_default().iter().map(|param| param.name.clone()).collect()
    };
    old.methods()
        .iter()
        .any(|method| new.method(&method.name).is_none_or(|new| names(new) != names(method)))
}

fn methods(old: &Service, new: &Service, found: &mut Vec<Difference>) {
    let place = |method: &Method| format!("{}.{}", old.name().interface, method.name);
    for method in old.methods() {
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
                let typed = before.fingerprint != after.fingerprint;
                let mut walk = Walk::new((old.types(), new.types()), MAX_DIFFERENCES);
                parameters(&mut walk, &before.params, &after.params);
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

/// Parameters are found by name, and what has no counterpart by its place: then it was renamed.
fn parameters(walk: &mut Walk<'_>, before: &[Param], after: &[Param]) {
    let named = |params: &[Param], name: &str| params.iter().position(|param| param.name == name);
    for (place, param) in before.iter().enumerate() {
        let next = match named(after, &param.name) {
            Some(next) => &after[next],
            None => match after.get(place).filter(|next| named(before, &next.name).is_none()) {
                Some(next) => {
                    let what = format!("parameter {} is now called {}", param.name, next.name);
                    walk.tell(what, true);
                    next
                }
                None => {
                    walk.tell(format!("parameter {} is gone", param.name), true);
                    continue;
                }
            },
        };
        walk.argument(&param.name, param.ty, next.ty);
    }
    for (place, param) in after.iter().enumerate() {
        let renamed = before.get(place).is_some_and(|old| named(after, &old.name).is_none());
        if named(before, &param.name).is_none() && !renamed {
            let is_optional = matches!(walk.new_type(param.ty), Type::Option(_));
            let must = if is_optional { "and optional" } else { "and must be given" };
            walk.tell(format!("parameter {} is new, {must}", param.name), !is_optional);
        }
    }
    let order = |params: &[Param], others: &[Param]| -> Vec<String> {
        let both = params.iter().filter(|param| named(others, &param.name).is_some());
        both.map(|param| param.name.clone()).collect()
    };
    if order(before, after) != order(after, before) {
        walk.tell("its parameters are in another order".to_owned(), true);
    }
}

#[cfg(test)]
#[cfg(feature = "wit")]
mod tests;
