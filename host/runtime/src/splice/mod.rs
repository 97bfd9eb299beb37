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
use wharf_schema::{Method, Service};

pub(crate) use self::codec::{MAX_BYTES, MAX_RESULT};
pub(crate) use self::helpers::{
    ARGUMENTS_TOO_LARGE, MALFORMED, NO_CASE, NO_CHAR, NO_TEXT, NOT_ALIGNED, OUT_OF_BOUNDS,
    TOO_LARGE,
};

use self::codec::{CodecMethod, MAX_METHODS, MAX_PAGES, Wanted};
use crate::features::supported;

use self::layout::Layouts;
use self::outermost::{Lift, Outermost};

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
    let Plan { layouts, wanted, methods, numbers } = plan(&outermost, services, exports);
    if methods.is_empty() {
        return None;
    }
    let module = codec::module(layouts, &methods, &wanted)?;
    let bytes = append(bytes, &outermost, &module, &wanted);
    if let Err(error) = Validator::new_with_features(supported()).validate_all(&bytes) {
        tracing::warn!(%error, "cannot splice a codec into a component; its calls use dynamic values, which is slower");
        return None;
    }
    let number = |method: Result<u32, WhyNot>| method.ok();
    let services = numbers.into_iter().map(|numbers| numbers.into_iter().map(number).collect());
    Some(Spliced { bytes, numbers: MethodNumbers { services: services.collect() } })
}

/// Why a codec does not call a method, for people.
pub(crate) type WhyNot = &'static str;

/// For each service, why the codec does not call some of its methods. `None` where it does.
pub(crate) fn reasons(
    bytes: &[u8],
    services: &[Service],
    exports: &[String],
) -> Vec<Vec<Option<WhyNot>>> {
    let all = |reason: WhyNot| {
        let of = |service: &Service| vec![Some(reason); service.methods().len()];
        services.iter().map(of).collect()
    };
    let Ok(outermost) = Outermost::read(bytes) else { return all("the component cannot be read") };
    let plan = plan(&outermost, services, exports);
    if !plan.methods.is_empty() && splice(bytes, services, exports).is_none() {
        return all("no codec can be made for this component");
    }
    let of_service = |numbers: Vec<Result<u32, WhyNot>>| numbers.into_iter().map(Result::err);
    plan.numbers.into_iter().map(|numbers| of_service(numbers).collect()).collect()
}

/// What a codec will consist of.
struct Plan<'s> {
    layouts: Vec<Layouts<'s>>,
    wanted: Wanted,
    methods: Vec<CodecMethod<'s>>,
    /// For each service, the number of each method in `methods`.
    numbers: Vec<Vec<Result<u32, WhyNot>>>,
}

fn plan<'s>(outermost: &Outermost, services: &'s [Service], exports: &[String]) -> Plan<'s> {
    let mut plan = Plan {
        layouts: services.iter().map(|service| Layouts::new(service.types())).collect(),
        wanted: Wanted {
            memory: None,
            reallocs: Vec::new(),
            functions: Vec::new(),
            post_returns: Vec::new(),
        },
        methods: Vec::new(),
        numbers: Vec::new(),
    };
    let has_room = outermost.has_room() && !outermost.has_memory_of(MAX_PAGES);
    for ((index, service), export) in services.iter().enumerate().zip(exports) {
        let methods = service.methods().iter();
        let numbers = methods.map(|method| {
            if !has_room {
                return Err("the component has too many memories and instances beside it");
            }
            plan.add(index, method, outermost.lift(export, &method.name))
        });
        let numbers = numbers.collect();
        plan.numbers.push(numbers);
    }
    plan
}

impl<'s> Plan<'s> {
    /// Adds a method. Returns its number.
    fn add(
        &mut self,
        service: usize,
        method: &'s Method,
        lift: Option<&Lift>,
    ) -> Result<u32, WhyNot> {
        let signature = method.signature.as_ref().map_err(|_| "it cannot be called")?;
        let lift =
            lift.ok_or("the outermost component does not lift it itself, or not in UTF-8")?;
        let (known, wanted) = (self.wanted.memory, &mut self.wanted);
        if known.is_some() && lift.memory.is_some() && known != lift.memory {
            return Err("it uses another memory than the methods before it");
        }
        let layouts = self.layouts.get_mut(service).ok_or("its service is not known")?;
        if !codec::supports(layouts, signature, lift) {
            return Err("its types are too large, or its guest gives no memory for them");
        }
        if self.methods.len() >= MAX_METHODS {
            return Err("there are too many methods");
        }
        wanted.memory = wanted.memory.or(lift.memory);
        if let Some(realloc) = lift.realloc.filter(|own| !wanted.reallocs.contains(own)) {
            wanted.reallocs.push(realloc);
        }
        wanted.functions.push(lift.function);
        wanted.post_returns.push(lift.post_return);
        let number = u32::try_from(self.methods.len()).map_err(|_| "there are too many methods")?;
        self.methods.push(CodecMethod { signature, lift: lift.clone(), service });
        Ok(number)
    }
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
