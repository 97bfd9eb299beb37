//! Stubs in JavaScript, as componentize-js finds them.

use std::fmt::Write;

use heck::ToLowerCamelCase;

use super::{comment, unwritten};
use crate::args::Language;
use crate::author::interface::Interfaces;
use crate::author::keywords::escaped;

pub(super) fn source(interfaces: &Interfaces) -> String {
    let mut text = String::new();
    for (place, (id, service)) in interfaces.services.iter().enumerate() {
        text.push_str(if place > 0 { "\n" } else { "" });
        // An object can have any name as an export, and not as a constant.
        let export = service.name().interface.to_lower_camel_case();
        let object = escaped(Language::Js, export.clone());
        let keyword = if object == export { "export " } else { "" };
        let _ = writeln!(text, "{keyword}const {object} = {{");
        for (place, function) in interfaces.interface(*id).functions.values().enumerate() {
            let params = function
                .params
                .iter()
                .map(|param| escaped(Language::Js, param.name.to_lower_camel_case()));
            let params: Vec<String> = params.collect();
            text.push_str(if place > 0 { "\n" } else { "" });
            text.push_str(&comment(function.docs.contents.as_deref(), "  // "));
            let _ = writeln!(
                text,
                "  {}({}) {{\n    throw new Error(\"{}\");\n  }},",
                function.name.to_lower_camel_case(),
                params.join(", "),
                unwritten(&service.name().interface, &function.name)
            );
        }
        text.push_str("};\n");
        if object != export {
            let _ = writeln!(text, "export {{ {object} as {export} }};");
        }
    }
    text
}
