//! Stubs in Rust, over what wit-bindgen generates.

use std::fmt::Write;

use heck::{ToSnakeCase, ToUpperCamelCase};
use wit_parser::{Resolve, Type, TypeDefKind};

use super::{comment, unwritten};
use crate::args::Language;
use crate::author::interface::Interfaces;
use crate::author::keywords::escaped;

pub(super) fn source(interfaces: &Interfaces) -> String {
    let mut text = format!(
        "mod bindings {{\n    use super::Plugin;\n\n    wit_bindgen::generate!({{ path: \"wit\", world: \"{}\", generate_all }});\n    export!(Plugin);\n}}\n\n",
        interfaces.world_name()
    );
    for (id, service) in &interfaces.services {
        let name = service.name();
        let package = name.package.as_deref().unwrap_or_default();
        let (namespace, package) = package.split_once(':').unwrap_or_default();
        let path = [namespace, package, &name.interface].map(identifier).join("::");
        let module = identifier(&name.interface);
        let _ = writeln!(text, "use bindings::exports::{path};");
        let _ = writeln!(text, "\n#[allow(unused_variables, reason = \"not written yet\")]");
        let _ = writeln!(text, "impl {module}::Guest for Plugin {{");
        for (place, function) in interfaces.interface(*id).functions.values().enumerate() {
            let resolve = &interfaces.resolve;
            let params: Vec<String> = function
                .params
                .iter()
                .map(|param| {
                    format!("{}: {}", identifier(&param.name), ty(resolve, &module, &param.ty))
                })
                .collect();
            let result = function.result.as_ref();
            let result = result.map(|result| format!(" -> {}", ty(resolve, &module, result)));
            text.push_str(if place > 0 { "\n" } else { "" });
            text.push_str(&comment(function.docs.contents.as_deref(), "    /// "));
            let _ = writeln!(
                text,
                "    fn {}({}){} {{\n        todo!(\"{}\")\n    }}",
                identifier(&function.name),
                params.join(", "),
                result.unwrap_or_default(),
                unwritten(&name.interface, &function.name)
            );
        }
        text.push_str("}\n\n");
    }
    text.push_str("struct Plugin;\n");
    text
}

fn identifier(name: &str) -> String {
    escaped(Language::Rust, name.to_snake_case())
}

/// A type as wit-bindgen has it in the exports of the interface with this module.
fn ty(resolve: &Resolve, module: &str, of: &Type) -> String {
    let part = |of: &Type| ty(resolve, module, of);
    let side = |of: &Option<Type>| of.as_ref().map_or_else(|| "()".to_owned(), part);
    match of {
        Type::Bool => "bool".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::U16 => "u16".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::S8 => "i8".to_owned(),
        Type::S16 => "i16".to_owned(),
        Type::S32 => "i32".to_owned(),
        Type::S64 => "i64".to_owned(),
        Type::F32 => "f32".to_owned(),
        Type::F64 => "f64".to_owned(),
        Type::Char => "char".to_owned(),
        Type::String => "String".to_owned(),
        Type::Id(id) => {
            let definition = &resolve.types[*id];
            if let Some(name) = &definition.name {
                return format!("{module}::{}", name.to_upper_camel_case());
            }
            match &definition.kind {
                TypeDefKind::List(element) => format!("Vec<{}>", part(element)),
                TypeDefKind::FixedLengthList(element, len) => format!("[{}; {len}]", part(element)),
                TypeDefKind::Option(some) => format!("Option<{}>", part(some)),
                TypeDefKind::Result(result) => {
                    format!("Result<{}, {}>", side(&result.ok), side(&result.err))
                }
                TypeDefKind::Tuple(tuple) => {
                    let parts: Vec<String> = tuple.types.iter().map(part).collect();
                    let comma = if parts.len() == 1 { "," } else { "" };
                    format!("({}{comma})", parts.join(", "))
                }
                TypeDefKind::Type(same) => part(same),
                // Nothing else has no name; the compiler says what is wanted.
                _ => "_".to_owned(),
            }
        }
        Type::ErrorContext => "_".to_owned(),
    }
}
