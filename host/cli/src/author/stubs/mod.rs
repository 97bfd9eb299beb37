//! The source of a service whose methods are not written yet: what an author starts from who has an
//! interface already.

mod c;
mod javascript;
mod python;
mod rust;

use super::interface::Interfaces;
use crate::args::Language;

/// The source, in the file where the templates of the language have it.
pub(super) fn source(language: Language, interfaces: &Interfaces) -> anyhow::Result<String> {
    match language {
        Language::Rust => Ok(rust::source(interfaces)),
        Language::Python => Ok(python::source(interfaces)),
        Language::Js => Ok(javascript::source(interfaces)),
        Language::C => c::source(interfaces),
    }
}

/// What a method says that is not written yet.
fn unwritten(service: &str, method: &str) -> String {
    format!("{service}.{method} is not written yet")
}

/// The doc comment of a method, as lines that begin with `mark`.
fn comment(docs: Option<&str>, mark: &str) -> String {
    let lines = docs.unwrap_or_default().lines().map(|line| format!("{mark}{}", line.trim()));
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}
