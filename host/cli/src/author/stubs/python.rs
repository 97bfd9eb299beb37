//! Stubs in Python, over what componentize-py generates.

use std::fmt::Write;

use heck::{ToSnakeCase, ToUpperCamelCase};

use super::{comment, unwritten};
use crate::args::Language;
use crate::author::interface::Interfaces;
use crate::author::keywords::escaped;

pub(super) fn source(interfaces: &Interfaces) -> String {
    let mut text = String::from("from wit_world import exports\n");
    for (id, service) in &interfaces.services {
        let name = service.name().interface.to_upper_camel_case();
        let _ = writeln!(text, "\n\nclass {name}(exports.{name}):");
        for (place, function) in interfaces.interface(*id).functions.values().enumerate() {
            let params =
                function.params.iter().map(|param| format!(", {}", identifier(&param.name)));
            let params: String = params.collect();
            text.push_str(if place > 0 { "\n" } else { "" });
            text.push_str(&comment(function.docs.contents.as_deref(), "    # "));
            let _ = writeln!(
                text,
                "    def {}(self{params}):\n        raise NotImplementedError(\"{}\")",
                identifier(&function.name),
                unwritten(&service.name().interface, &function.name)
            );
        }
    }
    text
}

fn identifier(name: &str) -> String {
    escaped(Language::Python, name.to_snake_case())
}
