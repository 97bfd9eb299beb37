//! What the outermost component of a file holds: who lifts its exports, and how far its index spaces
//! have come.

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

/// How many of each kind the outermost component has so far: the next one gets that index.
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
    /// By function index; `None` for those that it does not lift itself, or in a way of its own.
    functions: Vec<Option<Lift>>,
    instances: Vec<Names<u32>>,
    /// The exports of nested components: by which import each is satisfied.
    nested: Vec<Names<String>>,
    /// Bytes of names that instances took: one may export again what another has, many times.
    named: usize,
    /// By the names of interfaces.
    exports: HashMap<String, u32>,
    /// The bounds of all memories, in pages, wherever they are.
    bounds: Vec<u64>,
    /// All memories and core instances, wherever they are.
    memories: usize,
    core_instances: usize,
}

/// Functions by their names, where they are known; shared by those that export the same.
type Names<F> = Rc<HashMap<String, F>>;

/// The most bytes of names, and of what goes with them, that are noted of all instances together: far
/// beyond any real component.
const MAX_NAMED: usize = 16 * 1024 * 1024;

impl Outermost {
    /// Reads a component that is known to be valid.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut outermost = Outermost::default();
        // Nested ones are told apart by their depth.
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

    /// The core function behind a method of an exported interface, if the outermost component lifts it.
    pub(super) fn lift(&self, interface: &str, method: &str) -> Option<&Lift> {
        let instance = self.instances.get(*self.exports.get(interface)? as usize)?;
        self.functions.get(*instance.get(method)? as usize)?.as_ref()
    }

    /// Whether one memory and two core instances more are within what an instance may have.
    pub(super) fn has_room(&self) -> bool {
        self.memories < MAX_MEMORIES && self.core_instances + 2 <= MAX_CORE_INSTANCES
    }

    /// Whether some memory has just this bound.
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

    /// The functions of an instance that is made.
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
            // What wit-component writes: a component that exports again what it is given.
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

    /// Notes a function of an instance, as long as there is room.
    fn note(&mut self, functions: &mut HashMap<String, u32>, name: &str, function: u32) {
        self.named = self.named.saturating_add(name.len() + size_of::<(String, u32)>());
        if self.named <= MAX_NAMED {
            functions.insert(name.to_owned(), function);
        }
    }

    fn export(&mut self, export: &ComponentExport<'_>) {
        // What is exported gets an index of its own.
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

/// A component inside of the outermost one, as far as it exports again what it imports.
#[derive(Default)]
struct Nested {
    is_component: bool,
    /// By function index: the import that it is, if it is one.
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

/// A lift in the plain way: UTF-8, synchronous.
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
