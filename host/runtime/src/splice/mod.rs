//! Splices a codec into a component. A codec is a core module that is generated for the types of
//! this one component. It reads postcard directly into the guest's memory, and writes the guest's
//! results as postcard.
//!
//! The codec is appended to the component's binary. In the output of wit-component, everything that
//! it needs can be referenced from there: the core functions that the component lifts, its memory,
//! and the functions that allocate and free memory. The codec is compiled together with the plugin,
//! so untrusted bytes are decoded inside the sandbox, at the speed of handwritten code. If the
//! outermost component does not lift its exports itself, or a codec does not support a type, the
//! dynamic path serves the call.

mod body;
mod codec;
mod entry;
mod helpers;
mod layout;
mod outermost;
mod reading;
mod writing;

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentSection, ComponentSectionId, ComponentTypeSection,
    ComponentValType, ExportKind, InstanceSection, ModuleArg, PrimitiveValType, RawSection,
};
use wasmparser::Validator;
use wharf_schema::Service;

pub(crate) use self::codec::{MAX_BYTES, MAX_RESULT};
pub(crate) use self::helpers::{
    ARGUMENTS_TOO_LARGE, MALFORMED, NO_CASE, NO_CHAR, NO_TEXT, NOT_ALIGNED, OUT_OF_BOUNDS,
    TOO_LARGE,
};

use self::codec::{CodecMethod, MAX_METHODS, MAX_PAGES, Wanted};
use crate::features::supported;

use self::layout::Layouts;
use self::outermost::Outermost;

/// The name under which the codec's only function is exported. Its type is
/// `func(method: u32, limit: u32, arguments: list<u8>) -> tuple<u32, list<u8>>`.
pub(crate) const EXPORT: &str = "wharf-codec";

/// A component with a codec.
#[derive(Debug)]
pub(crate) struct Spliced {
    pub(crate) bytes: Vec<u8>,
    pub(crate) numbers: MethodNumbers,
}

/// The numbers by which a codec calls the methods of a component's services. Methods without a
/// number are called with dynamic values. By default, no method has a number.
#[derive(Clone, Debug, Default)]
pub(crate) struct MethodNumbers {
    /// For each service, the number of each of its methods.
    services: Vec<Vec<Option<u32>>>,
}

impl MethodNumbers {
    /// The number of a method. `service` and `method` are positions.
    pub(crate) fn of(&self, service: usize, method: usize) -> Option<u32> {
        *self.services.get(service)?.get(method)?
    }

    /// Whether the codec calls no method at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.iter().flatten().all(Option::is_none)
    }

    /// Keeps the numbers of those services that are to be kept.
    pub(crate) fn retain_services(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.services.retain(|_| keep.next().copied().unwrap_or(false));
    }

    /// Removes the numbers of all methods that are not wanted. `wanted` is given their positions.
    pub(crate) fn retain(&mut self, wanted: impl Fn(usize, usize) -> bool) {
        for (service, numbers) in self.services.iter_mut().enumerate() {
            for (method, number) in numbers.iter_mut().enumerate() {
                *number = number.filter(|_| wanted(service, method));
            }
        }
    }
}

/// Splices a codec into a component, for as many methods of its services as possible. `exports` are
/// the names of the services' interfaces. `None` if it supports no method.
pub(crate) fn splice(bytes: &[u8], services: &[Service], exports: &[String]) -> Option<Spliced> {
    let outermost = Outermost::read(bytes).ok()?;
    if outermost.has_memory_of(MAX_PAGES) || !outermost.has_room() {
        return None;
    }
    let mut layouts: Vec<Layouts<'_>> =
        services.iter().map(|service| Layouts::new(service.types())).collect();
    let mut wanted = Wanted {
        memory: None,
        reallocs: Vec::new(),
        functions: Vec::new(),
        post_returns: Vec::new(),
    };
    let (mut methods, mut numbers) = (Vec::new(), Vec::new());
    for ((index, service), export) in services.iter().enumerate().zip(exports) {
        let mut of_service = Vec::new();
        for method in service.methods() {
            let lift = outermost.lift(export, &method.name);
            let suitable = method.signature.as_ref().ok().zip(lift).filter(|(signature, lift)| {
                // All methods must use the same memory.
                let known = wanted.memory;
                (known.is_none() || lift.memory.is_none() || known == lift.memory)
                    && layouts.get_mut(index).is_some_and(|l| codec::supports(l, signature, lift))
            });
            let suitable = suitable.filter(|_| methods.len() < MAX_METHODS);
            let Some((signature, lift)) = suitable else {
                of_service.push(None);
                continue;
            };
            wanted.memory = wanted.memory.or(lift.memory);
            if let Some(realloc) = lift.realloc.filter(|own| !wanted.reallocs.contains(own)) {
                wanted.reallocs.push(realloc);
            }
            wanted.functions.push(lift.function);
            wanted.post_returns.push(lift.post_return);
            of_service.push(u32::try_from(methods.len()).ok());
            methods.push(CodecMethod { signature, lift: lift.clone(), service: index });
        }
        numbers.push(of_service);
    }
    if methods.is_empty() {
        return None;
    }
    let module = codec::module(layouts, &methods, &wanted)?;
    let bytes = append(bytes, &outermost, &module, &wanted);
    if let Err(error) = Validator::new_with_features(supported()).validate_all(&bytes) {
        tracing::warn!(%error, "cannot splice a codec into a component; its calls use dynamic values, which is slower");
        return None;
    }
    Some(Spliced { bytes, numbers: MethodNumbers { services: numbers } })
}

/// Appends sections to the component that instantiate the codec and export its function.
fn append(bytes: &[u8], outermost: &Outermost, module: &[u8], wanted: &Wanted) -> Vec<u8> {
    let counts = &outermost.counts;
    let mut all = bytes.to_vec();
    RawSection { id: ComponentSectionId::CoreModule.into(), data: module }
        .append_to_component(&mut all);

    // An instance of what the codec imports from the guest, and the instance of the codec itself.
    let mut instances = InstanceSection::new();
    let mut items: Vec<(String, ExportKind, u32)> = Vec::new();
    items.extend(wanted.memory.map(|m| (codec::MEMORY.to_owned(), ExportKind::Memory, m)));
    for (index, function) in wanted.reallocs.iter().enumerate() {
        items.push((codec::realloc_name(index), ExportKind::Func, *function));
    }
    for (index, function) in wanted.functions.iter().enumerate() {
        items.push((codec::function_name(index), ExportKind::Func, *function));
    }
    for (index, function) in wanted.post_returns.iter().enumerate() {
        items.extend(function.map(|f| (codec::post_return_name(index), ExportKind::Func, f)));
    }
    instances.export_items(items);
    let (guest, own) = (counts.core_instances, counts.core_instances + 1);
    instances.instantiate(counts.core_modules, [(codec::GUEST, ModuleArg::Instance(guest))]);
    instances.append_to_component(&mut all);

    let mut aliases = ComponentAliasSection::new();
    for (kind, name) in [
        (ExportKind::Func, codec::CALL),
        (ExportKind::Func, codec::REALLOC),
        (ExportKind::Memory, codec::MEMORY),
    ] {
        aliases.alias(Alias::CoreInstanceExport { instance: own, kind, name });
    }
    aliases.append_to_component(&mut all);

    let mut types = ComponentTypeSection::new();
    let (list, tuple, function) = (counts.types, counts.types + 1, counts.types + 2);
    let number = ComponentValType::Primitive(PrimitiveValType::U32);
    types.ty().defined_type().list(PrimitiveValType::U8);
    types.ty().defined_type().tuple([number, ComponentValType::Type(list)]);
    types
        .ty()
        .function()
        .params([
            ("method", number),
            ("limit", number),
            ("arguments", ComponentValType::Type(list)),
        ])
        .result(Some(ComponentValType::Type(tuple)));
    types.append_to_component(&mut all);

    let mut lifts = CanonicalFunctionSection::new();
    let (call, realloc) = (counts.core_functions, counts.core_functions + 1);
    let options =
        [CanonicalOption::Memory(counts.core_memories), CanonicalOption::Realloc(realloc)];
    lifts.lift(call, function, options);
    lifts.append_to_component(&mut all);

    let mut exports = ComponentExportSection::new();
    exports.export(EXPORT, ComponentExportKind::Func, counts.functions, None);
    exports.append_to_component(&mut all);
    all
}
