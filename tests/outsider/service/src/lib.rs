//! A shop's stock. Each article has ten at first; nothing is kept between calls.

mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "../wit", world: "plugin" });
    export!(Plugin);
}

use bindings::exports::shop::stock::stock::{Article, Guest, Refusal};

wharf_guest::wit_docs!("../wit/stock.wit");

struct Plugin;

impl Guest for Plugin {
    fn take(name: String, count: u32) -> Result<Article, Refusal> {
        match 10u32.checked_sub(count) {
            _ if name.is_empty() => Err(Refusal::Unknown),
            Some(left) => Ok(Article { name, left }),
            None => Err(Refusal::TooFew(10)),
        }
    }
}
