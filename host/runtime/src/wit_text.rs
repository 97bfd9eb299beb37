//! An interface as WIT, for people. Its length is bounded before it is printed.
//!
//! A component shares its types by number. WIT shares only types that have a name, so printed, a small
//! component can take gigabytes: a tuple of twice the same tuple, and so on.

use std::collections::HashMap;

use wit_component::{Output, WitPrinter};
use wit_parser::{Function, Interface, InterfaceId, Resolve, Type, TypeDefKind, TypeId};

/// The most bytes of WIT that are printed for all interfaces of one component together.
const MAX_BYTES: u64 = 2 * 1024 * 1024;

/// Prints the interfaces of one component.
pub(crate) struct WitText<'r> {
    resolve: &'r Resolve,
    /// How long references to types are.
    widths: HashMap<TypeId, u64>,
    left: u64,
}

impl<'r> WitText<'r> {
    pub(crate) fn new(resolve: &'r Resolve) -> Self {
        WitText { resolve, widths: HashMap::new(), left: MAX_BYTES }
    }

    /// One interface, or a comment that says why it is not there.
    pub(crate) fn of(&mut self, id: InterfaceId, name: &str) -> String {
        let resolve = self.resolve;
        let interface = &resolve.interfaces[id];
        let width = self.interface(interface);
        if width > self.left {
            return "// This interface is not shown: its WIT is too long.\n".to_owned();
        }
        self.left -= width;
        let mut printer = WitPrinter::default();
        let short = interface.name.as_deref().unwrap_or(name);
        let printed = printer.print_interface_outer(resolve, id, short).and_then(|()| {
            printer.output.indent_start();
            let printed = printer.print_interface(resolve, id);
            printer.output.indent_end();
            printed
        });
        match printed {
            Ok(()) => printer.output.to_string(),
            Err(_) => String::new(),
        }
    }

    /// About how many bytes the text of an interface has. Never much less.
    fn interface(&mut self, interface: &Interface) -> u64 {
        let docs = |docs: &wit_parser::Docs| {
            let text = docs.contents.as_deref().unwrap_or_default();
            // Each line is indented and begins with slashes.
            (text.len() + 16 * (1 + text.lines().count())) as u64
        };
        let mut all = docs(&interface.docs);
        for function in interface.functions.values() {
            all = all.saturating_add(docs(&function.docs)).saturating_add(self.function(function));
        }
        for (name, id) in &interface.types {
            let ty = &self.resolve.types[*id];
            let body = match &ty.kind {
                TypeDefKind::Record(record) => record.fields.iter().fold(0u64, |all, field| {
                    all.saturating_add(docs(&field.docs) + field.name.len() as u64 + 16)
                }),
                TypeDefKind::Variant(variant) => variant.cases.iter().fold(0u64, |all, case| {
                    all.saturating_add(docs(&case.docs) + case.name.len() as u64 + 16)
                }),
                TypeDefKind::Enum(cases) => cases.cases.iter().fold(0u64, |all, case| {
                    all.saturating_add(docs(&case.docs) + case.name.len() as u64 + 16)
                }),
                TypeDefKind::Flags(flags) => flags.flags.iter().fold(0u64, |all, flag| {
                    all.saturating_add(docs(&flag.docs) + flag.name.len() as u64 + 16)
                }),
                _ => 0,
            };
            let parts = self.parts(*id);
            let own = docs(&ty.docs) + 2 * name.len() as u64 + 64;
            all = all.saturating_add(own).saturating_add(body).saturating_add(parts);
        }
        all
    }

    fn function(&mut self, function: &Function) -> u64 {
        let mut all = function.name.len() as u64 + 64;
        for param in &function.params {
            all = all.saturating_add(param.name.len() as u64 + 8 + self.width(&param.ty));
        }
        all.saturating_add(function.result.as_ref().map_or(0, |ty| self.width(ty)))
    }

    /// How long a reference to a type is. A type with a name is referred to by it.
    fn width(&mut self, ty: &Type) -> u64 {
        let Type::Id(id) = ty else { return 16 };
        if let Some(name) = &self.resolve.types[*id].name {
            return name.len() as u64 + 2;
        }
        if let Some(known) = self.widths.get(id) {
            return *known;
        }
        let width = self.parts(*id).saturating_add(32);
        self.widths.insert(*id, width);
        width
    }

    /// How long the references of a type to others are.
    fn parts(&mut self, id: TypeId) -> u64 {
        let resolve = self.resolve;
        let types: Vec<&Type> = match &resolve.types[id].kind {
            TypeDefKind::Record(record) => record.fields.iter().map(|field| &field.ty).collect(),
            TypeDefKind::Tuple(tuple) => tuple.types.iter().collect(),
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().filter_map(|case| case.ty.as_ref()).collect()
            }
            TypeDefKind::Result(result) => result.ok.iter().chain(&result.err).collect(),
            TypeDefKind::Map(key, value) => vec![key, value],
            TypeDefKind::Option(ty)
            | TypeDefKind::List(ty)
            | TypeDefKind::FixedLengthList(ty, _)
            | TypeDefKind::Type(ty) => vec![ty],
            TypeDefKind::Future(ty) | TypeDefKind::Stream(ty) => ty.iter().collect(),
            _ => Vec::new(),
        };
        types.into_iter().fold(0u64, |all, ty| all.saturating_add(self.width(ty)).saturating_add(2))
    }
}

#[cfg(test)]
mod tests {
    use wit_component::DecodedWasm;

    use super::*;

    #[test]
    fn types_that_double_are_not_printed_and_others_are() {
        let mut doubling = String::from("(type $t0 (tuple u8 u8))");
        for depth in 1..18 {
            let inner = depth - 1;
            doubling.push_str(&format!("(type $t{depth} (tuple $t{inner} $t{inner}))"));
        }
        for (types, result, shown) in [(&*doubling, "$t17", false), ("", "u8", true)] {
            let text = format!(
                r#"(component
                    {types}
                    (core module $m (memory (export "memory") 1)
                        (func (export "f") (result i32) i32.const 0))
                    (core instance $i (instantiate $m))
                    (func $f (result {result})
                        (canon lift (core func $i "f") (memory $i "memory")))
                    (instance $x (export "f" (func $f)))
                    (export "a:b/x" (instance $x)))"#
            );
            let bytes = wat::parse_str(text).unwrap();
            let DecodedWasm::Component(resolve, _) = wit_component::decode(&bytes).unwrap() else {
                panic!("it is a component");
            };
            let (id, _) = resolve.interfaces.iter().next_back().unwrap();
            let wit = WitText::new(&resolve).of(id, "a:b/x");
            assert_eq!(wit.contains("f: func() -> u8"), shown, "{wit}");
            assert_eq!(wit.contains("not shown"), !shown, "{wit}");
        }
    }
}
