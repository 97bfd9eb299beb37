//! Doc comments for a component's WIT.
//!
//! Components carry their types but not their documentation: the linker of every toolchain drops
//! it. A plugin can carry its WIT source in a custom section of its core module (the `wit_docs!`
//! macro of wharf-guest adds it). The doc comments found there are copied onto the component's real
//! types. The source has no other effect, so false WIT in it can only change texts.

use std::path::Path;

use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Parser, Payload};
use wit_parser::{
    Docs, Interface, Resolve, TypeDefKind, TypeId, UnresolvedPackage, UnresolvedPackageGroup,
};

/// The custom section: WIT documents, each followed by a zero byte.
const SECTION: &str = "wharf:wit";

/// The most bytes of documentation that are read from one component.
const MAX_BYTES: usize = 1024 * 1024;

/// A component that carries these WIT documents, for [`crate::inspect()`] and for hosts. Nothing else changes.
#[must_use]
pub fn with_documentation(mut component: Vec<u8>, sources: &[String]) -> Vec<u8> {
    let mut data = Vec::new();
    for source in sources {
        data.extend_from_slice(source.as_bytes());
        data.push(0);
    }
    if !data.is_empty() {
        let section = CustomSection { name: SECTION.into(), data: data.into() };
        section.append_to_component(&mut component);
    }
    component
}

/// Copies the documentation that `bytes` carries onto the interfaces of `resolve`.
pub(crate) fn document(resolve: &mut Resolve, bytes: &[u8]) {
    let mut left = MAX_BYTES;
    for payload in Parser::new(0).parse_all(bytes) {
        // The caller has validated the bytes. If they still cannot be parsed, there is no
        // documentation.
        let Ok(payload) = payload else { return };
        let Payload::CustomSection(section) = payload else { continue };
        if section.name() != SECTION || section.data().len() > left {
            continue;
        }
        left -= section.data().len();
        for source in section.data().split(|byte| *byte == 0) {
            let source = std::str::from_utf8(source).ok().filter(|text| !text.trim().is_empty());
            let parsed = source
                .and_then(|text| UnresolvedPackageGroup::parse(Path::new("docs.wit"), text).ok());
            if let Some(group) = parsed {
                overlay(resolve, &group.main);
            }
        }
    }
}

fn overlay(resolve: &mut Resolve, source: &UnresolvedPackage) {
    for (_, documented) in source.interfaces.iter() {
        let target = resolve.interfaces.iter().find(|(_, interface)| {
            let package = interface.package.map(|id| &resolve.packages[id].name);
            interface.name == documented.name
                && package.is_some_and(|name| {
                    name.namespace == source.name.namespace && name.name == source.name.name
                })
        });
        if let Some((id, _)) = target {
            overlay_interface(resolve, id, documented, source);
        }
    }
}

fn overlay_interface(
    resolve: &mut Resolve,
    target: wit_parser::InterfaceId,
    documented: &Interface,
    source: &UnresolvedPackage,
) {
    let interface = &mut resolve.interfaces[target];
    copy(&mut interface.docs, &documented.docs);
    for (name, function) in &documented.functions {
        if let Some(target) = interface.functions.get_mut(name) {
            copy(&mut target.docs, &function.docs);
        }
    }
    let types: Vec<(TypeId, TypeId)> = documented
        .types
        .iter()
        .filter_map(|(name, from)| Some((*interface.types.get(name)?, *from)))
        .collect();
    for (target, from) in types {
        let (target, from) = (&mut resolve.types[target], &source.types[from]);
        copy(&mut target.docs, &from.docs);
        match (&mut target.kind, &from.kind) {
            (TypeDefKind::Record(to), TypeDefKind::Record(from)) => {
                copy_members(
                    &mut to.fields,
                    &from.fields,
                    |m| &m.name,
                    |m| &m.docs,
                    |m| &mut m.docs,
                );
            }
            (TypeDefKind::Variant(to), TypeDefKind::Variant(from)) => {
                copy_members(&mut to.cases, &from.cases, |m| &m.name, |m| &m.docs, |m| &mut m.docs);
            }
            (TypeDefKind::Enum(to), TypeDefKind::Enum(from)) => {
                copy_members(&mut to.cases, &from.cases, |m| &m.name, |m| &m.docs, |m| &mut m.docs);
            }
            (TypeDefKind::Flags(to), TypeDefKind::Flags(from)) => {
                copy_members(&mut to.flags, &from.flags, |m| &m.name, |m| &m.docs, |m| &mut m.docs);
            }
            _ => {}
        }
    }
}

fn copy_members<T>(
    targets: &mut [T],
    sources: &[T],
    name: fn(&T) -> &str,
    docs: fn(&T) -> &Docs,
    docs_mut: fn(&mut T) -> &mut Docs,
) {
    for target in targets {
        if let Some(source) = sources.iter().find(|source| name(source) == name(target)) {
            copy(docs_mut(target), docs(source));
        }
    }
}

fn copy(target: &mut Docs, source: &Docs) {
    if target.contents.is_none() {
        target.contents.clone_from(&source.contents);
    }
}
