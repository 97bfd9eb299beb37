//! Reads the outermost component of a file: how its exports are lifted, and how many entries each
//! of its index spaces has.

use std::collections::HashMap;
use std::rc::Rc;

use wasmparser::{
    BinaryReaderError, CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExport,
    ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef,
    ExternalKind, Parser, Payload,
};

use crate::capacity::{MAX_CORE_INSTANCES, MAX_MEMORIES};

/// A core function that the outermost component lifts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lift {
    pub(super) function: u32,
    pub(super) memory: Option<u32>,
    pub(super) realloc: Option<u32>,
    pub(super) post_return: Option<u32>,
}

/// How many entries of each kind the outermost component has so far. The next entry gets that
/// number as its index.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) core_modules: u32,
    pub(super) core_instances: u32,
    pub(super) core_functions: u32,
    pub(super) core_memories: u32,
    pub(super) types: u32,
    pub(super) functions: u32,
}

/// The outermost component.
#[derive(Debug, Default)]
pub(super) struct Outermost {
    pub(super) counts: Counts,
    /// By function index. `None` for functions that the outermost component does not lift itself,
    /// or lifts with other options than UTF-8, memory, realloc and post-return.
    functions: Vec<Option<Lift>>,
    instances: Vec<Names<u32>>,
    /// The exports of nested components, with the import that each export forwards.
    nested: Vec<Names<String>>,
    /// Bytes of the names of all instances. One instance can re-export the names of another many
    /// times, so the sum is limited.
    named: usize,
    /// The index of the exported instance, by the name of its interface.
    exports: HashMap<String, u32>,
    /// The maximum of every memory in the file, nested ones included, in pages.
    bounds: Vec<u64>,
    /// The number of memories and of core instances in the file, nested ones included.
    memories: usize,
    core_instances: usize,
}

/// Functions by name, as far as they are known. Instances that export the same functions share
/// them.
type Names<F> = Rc<HashMap<String, F>>;

/// The most bytes that are used for the names of all instances together, map entries included. Real
/// components need far less.
const MAX_NAMED: usize = 16 * 1024 * 1024;

impl Outermost {
    /// Reads a component. It must be valid.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut outermost = Outermost::default();
        // The depth of nested modules and components.
        let mut depth = 0;
        let mut nested = Nested::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            if let Payload::MemorySection(section) = &payload {
                for memory in section.clone() {
                    outermost.memories += 1;
                    outermost.bounds.extend(memory?.maximum);
                }
            }
            if let Payload::InstanceSection(section) = &payload {
                outermost.core_instances += section.count() as usize;
            }
            match (&payload, depth) {
                (Payload::ModuleSection { .. }, _) => {
                    if depth == 0 {
                        outermost.counts.core_modules += 1;
                    }
                    depth += 1;
                }
                (Payload::ComponentSection { .. }, _) => {
                    if depth == 0 {
                        nested = Nested::default();
                    }
                    depth += 1;
                }
                (Payload::End(_), 0) => {}
                (Payload::End(_), _) => {
                    depth -= 1;
                    if depth == 0 && nested.is_component {
                        outermost.nested.push(Rc::new(std::mem::take(&mut nested).exports));
                    }
                }
                (_, 0) => outermost.payload(payload)?,
                (_, 1) => nested.payload(payload)?,
                _ => {}
            }
        }
        Ok(outermost)
    }

    /// The core function behind a method of an exported interface, if the outermost component lifts
    /// it.
    pub(super) fn lift(&self, interface: &str, method: &str) -> Option<&Lift> {
        let instance = self.instances.get(*self.exports.get(interface)? as usize)?;
        self.functions.get(*instance.get(method)? as usize)?.as_ref()
    }

    /// Whether one more memory and two more core instances are within the limits of an instance.
    pub(super) fn has_room(&self) -> bool {
        self.memories < MAX_MEMORIES && self.core_instances + 2 <= MAX_CORE_INSTANCES
    }

    /// Whether some memory has exactly this maximum.
    pub(super) fn has_memory_of(&self, pages: u64) -> bool {
        self.bounds.contains(&pages)
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::InstanceSection(section) => self.counts.core_instances += section.count(),
            Payload::ComponentTypeSection(section) => self.counts.types += section.count(),
            Payload::ComponentImportSection(section) => {
                for import in section {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => self.counts.core_modules += 1,
                        ComponentTypeRef::Func(_) => self.function(None),
                        ComponentTypeRef::Type(_) => self.counts.types += 1,
                        ComponentTypeRef::Instance(_) => self.instances.push(Names::default()),
                        ComponentTypeRef::Component(_) => self.nested.push(Names::default()),
                        ComponentTypeRef::Value(_) => {}
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(&alias?);
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    match function? {
                        CanonicalFunction::Lift { core_func_index, options, .. } => {
                            self.function(lift(core_func_index, &options));
                        }
                        _ => self.counts.core_functions += 1,
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    let functions = self.instance(instance?);
                    self.instances.push(Rc::new(functions));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.export(&export?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn function(&mut self, lift: Option<Lift>) {
        self.functions.push(lift);
        self.counts.functions += 1;
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) {
        match alias {
            ComponentAlias::InstanceExport { kind, instance_index, name } => match kind {
                ComponentExternalKind::Module => self.counts.core_modules += 1,
                ComponentExternalKind::Func => {
                    let instance = self.instances.get(*instance_index as usize);
                    let function = instance.and_then(|instance| instance.get(*name)).copied();
                    let lift = function.and_then(|f| self.functions.get(f as usize).cloned());
                    self.function(lift.flatten());
                }
                ComponentExternalKind::Type => self.counts.types += 1,
                ComponentExternalKind::Instance => self.instances.push(Names::default()),
                ComponentExternalKind::Component => self.nested.push(Names::default()),
                ComponentExternalKind::Value => {}
            },
            ComponentAlias::CoreInstanceExport { kind, .. } => match kind {
                ExternalKind::Func | ExternalKind::FuncExact => self.counts.core_functions += 1,
                ExternalKind::Memory => self.counts.core_memories += 1,
                _ => {}
            },
            ComponentAlias::Outer { kind, .. } => match kind {
                ComponentOuterAliasKind::CoreModule => self.counts.core_modules += 1,
                ComponentOuterAliasKind::Type => self.counts.types += 1,
                ComponentOuterAliasKind::Component => self.nested.push(Names::default()),
                ComponentOuterAliasKind::CoreType => {}
            },
        }
    }

    /// The functions of a new instance.
    fn instance(&mut self, instance: ComponentInstance<'_>) -> HashMap<String, u32> {
        let mut functions = HashMap::new();
        match instance {
            ComponentInstance::FromExports(exports) => {
                for export in &exports {
                    if export.kind == ComponentExternalKind::Func {
                        self.note(&mut functions, export.name.name, export.index);
                    }
                }
            }
            // wit-component generates this: a component that re-exports what it is given.
            ComponentInstance::Instantiate { component_index, args } => {
                let given: HashMap<&str, u32> = args
                    .iter()
                    .filter(|arg| arg.kind == ComponentExternalKind::Func)
                    .map(|arg| (arg.name, arg.index))
                    .collect();
                let nested = self.nested.get(component_index as usize).cloned().unwrap_or_default();
                for (name, import) in nested.iter() {
                    if self.named > MAX_NAMED {
                        break;
                    }
                    if let Some(function) = given.get(import.as_str()) {
                        self.note(&mut functions, name, *function);
                    }
                }
            }
        }
        functions
    }

    /// Records a function of an instance, unless the names already take too many bytes.
    fn note(&mut self, functions: &mut HashMap<String, u32>, name: &str, function: u32) {
        self.named = self.named.saturating_add(name.len() + size_of::<(String, u32)>());
        if self.named <= MAX_NAMED {
            functions.insert(name.to_owned(), function);
        }
    }

    fn export(&mut self, export: &ComponentExport<'_>) {
        // Each export gets a new index.
        match export.kind {
            ComponentExternalKind::Module => self.counts.core_modules += 1,
            ComponentExternalKind::Func => {
                let lift = self.functions.get(export.index as usize).cloned().flatten();
                self.function(lift);
            }
            ComponentExternalKind::Type => self.counts.types += 1,
            ComponentExternalKind::Instance => {
                self.exports.insert(export.name.name.to_owned(), export.index);
                let instance = self.instances.get(export.index as usize).cloned();
                self.instances.push(instance.unwrap_or_default());
            }
            ComponentExternalKind::Component => {
                let nested = self.nested.get(export.index as usize).cloned();
                self.nested.push(nested.unwrap_or_default());
            }
            ComponentExternalKind::Value => {}
        }
    }
}

/// A component directly inside the outermost one. Only its re-exported imports are recorded.
#[derive(Default)]
struct Nested {
    is_component: bool,
    /// By function index: the name of the import, if the function is imported.
    functions: Vec<Option<String>>,
    exports: HashMap<String, String>,
}

impl Nested {
    fn payload(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::Version { encoding, .. } => {
                self.is_component = encoding == wasmparser::Encoding::Component;
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    if let ComponentTypeRef::Func(_) = import.ty {
                        self.functions.push(Some(import.name.name.to_owned()));
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    if let ComponentAlias::InstanceExport {
                        kind: ComponentExternalKind::Func,
                        ..
                    } = alias?
                    {
                        self.functions.push(None);
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    if let CanonicalFunction::Lift { .. } = function? {
                        self.functions.push(None);
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Func {
                        let import = self.functions.get(export.index as usize).cloned().flatten();
                        if let Some(import) = &import {
                            self.exports.insert(export.name.name.to_owned(), import.clone());
                        }
                        self.functions.push(import);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A plain lift: UTF-8 and synchronous. `None` for any other.
fn lift(function: u32, options: &[CanonicalOption]) -> Option<Lift> {
    let mut lift = Lift { function, memory: None, realloc: None, post_return: None };
    for option in options {
        match option {
            CanonicalOption::UTF8 => {}
            CanonicalOption::Memory(index) => lift.memory = Some(*index),
            CanonicalOption::Realloc(index) => lift.realloc = Some(*index),
            CanonicalOption::PostReturn(index) => lift.post_return = Some(*index),
            _ => return None,
        }
    }
    Some(lift)
}
