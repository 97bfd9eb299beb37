//! Stubs in Python, over what componentize-py generates.

use std::fmt::Write;

use heck::{ToSnakeCase, ToUpperCamelCase};

use super::{comment, unwritten};
use crate::author::interface::Interfaces;

pub(super) fn source(interfaces: &Interfaces) -> String {
    let mut text = String::from("from wit_world import exports\n");
    for (id, service) in &interfaces.services {
        let name = service.name().interface.to_upper_camel_case();
        let _ = writeln!(text, "\n\nclass {name}(exports.{name}):");
        for (place, function) in interfaces.interface(*id).functions.values().enumerate() {
            let params =
                function.params.iter().map(|param| format!(", {}", param.name.to_snake_case()));
            let params: String = params.collect();
            text.push_str(if place > 0 { "\n" } else { "" });
            text.push_str(&comment(function.docs.contents.as_deref(), "    # "));
            let _ = writeln!(
                text,
                "    def {}(self{params}):\n        raise NotImplementedError(\"{}\")",
                function.name.to_snake_case(),
                unwritten(&service.name().interface, &function.name)
            );
        }
    }
    text
}
