//! Converts WIT names to Rust names.

use heck::{ToSnakeCase, ToUpperCamelCase};
use proc_macro2::{Ident, Span};

/// A field, parameter, method or module.
pub(crate) fn snake(name: &str) -> Ident {
    ident(&name.to_snake_case())
}

/// A type or case.
pub(crate) fn camel(name: &str) -> Ident {
    ident(&name.to_upper_camel_case())
}

/// A constant.
pub(crate) fn screaming(name: &str) -> Ident {
    ident(&name.to_snake_case().to_uppercase())
}

/// A method of a client. Its name must differ from those that every client has.
pub(crate) fn method(name: &str) -> Ident {
    match &*name.to_snake_case() {
        taken @ ("new" | "with_options" | "clone" | "fmt") => ident(&format!("{taken}_")),
        free => ident(free),
    }
}

/// Escapes Rust's keywords, so that they can be names.
fn ident(name: &str) -> Ident {
    // `gen` is a keyword only since the 2024 edition, and syn does not know it.
    if name != "gen" && syn::parse_str::<Ident>(name).is_ok() {
        return Ident::new(name, Span::call_site());
    }
    match name {
        "self" | "Self" | "super" | "crate" | "_" => {
            Ident::new(&format!("{name}_"), Span::call_site())
        }
        _ => Ident::new_raw(name, Span::call_site()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wit_name_is_a_rust_name() {
        assert_eq!(snake("word-counts").to_string(), "word_counts");
        assert_eq!(camel("get-HTTP").to_string(), "GetHttp");
        assert_eq!(screaming("ignore-case").to_string(), "IGNORE_CASE");
        assert_eq!(snake("type").to_string(), "r#type");
        assert_eq!(snake("gen").to_string(), "r#gen");
        assert_eq!(method("with-options").to_string(), "with_options_");
        assert_eq!(snake("self").to_string(), "self_");
        assert_eq!(camel("self").to_string(), "Self_");
    }
}
