//! Reads what a file is, what it exports and what it imports, without compiling or running it.

use wharf_schema::{Service, service_from_wit};
use wit_component::DecodedWasm;
use wit_parser::{Interface, InterfaceId, Resolve, WorldId, WorldItem};

use crate::error::{LoadError, Uncallable};
use crate::imports::{Import, Need};
use crate::splice::reasons;
use crate::wit_text::WitText;
use crate::{features, type_sizes, wording};

/// What a component exports and imports.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The interfaces that it exports, in order.
    pub services: Vec<Service>,
    /// The names under which the component exports them, in the same order.
    pub(crate) exports: Vec<String>,
    /// Exported interfaces that are no services: WASI's own, and those that a toolchain adds for
    /// itself.
    pub no_services: Vec<String>,
    /// Functions outside any interface. They cannot be called.
    pub stray_functions: Vec<String>,
    /// What it imports.
    pub imports: Vec<Import>,
}

impl Inspection {
    /// Why none of its methods can be called. `None` if one can.
    pub(crate) fn nothing_to_call(&self) -> Option<Uncallable> {
        let methods = self.services.iter().flat_map(|service| {
            let interface = &service.name().interface;
            let methods = service.methods().iter();
            methods.map(move |method| (format!("{interface}.{}", method.name), &method.signature))
        });
        let mut uncallable = Uncallable {
            stray_functions: self.stray_functions.clone(),
            no_services: self.no_services.clone(),
            ..Uncallable::default()
        };
        for (name, signature) in methods {
            uncallable.methods.push((name, signature.as_ref().err()?.clone()));
        }
        Some(uncallable)
    }

    /// For each service, the callable methods that no codec calls, each with the reason. Their values
    /// pass through wasmtime's dynamic values, which is slow for large lists. `bytes` must be the
    /// inspected file.
    #[must_use]
    pub fn without_codec(&self, bytes: &[u8]) -> Vec<Vec<(String, &'static str)>> {
        let reasons = reasons(bytes, &self.services, &self.exports);
        let of_service = |(service, reasons): (&Service, Vec<Option<&'static str>>)| {
            let slow = service.methods().iter().zip(reasons).filter(|(m, _)| m.signature.is_ok());
            slow.filter_map(|(method, reason)| Some((method.name.clone(), reason?))).collect()
        };
        self.services.iter().zip(reasons).map(of_service).collect()
    }
}

/// Reads a file that may be a plugin.
///
/// # Errors
/// When it is not a component. The error says what it is instead.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    check_kind(bytes)?;
    let decoded = wit_component::decode(bytes).map_err(|error| unreadable(&error, bytes.len()))?;
    let (mut resolve, world) = match decoded {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => return Err(LoadError::WitPackage),
    };
    features::check(bytes)?;
    type_sizes::check(&resolve)?;
    crate::documentation::document(&mut resolve, bytes);
    let mut text = WitText::new(&resolve);
    let mut inspection = Inspection {
        services: Vec::new(),
        exports: Vec::new(),
        no_services: Vec::new(),
        stray_functions: Vec::new(),
        imports: imports(&resolve, world),
    };
    for (key, item) in &resolve.worlds[world].exports {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Interface { id, .. } => {
                let interface = &resolve.interfaces[*id];
                if is_of_toolchain(&name, interface) {
                    inspection.no_services.push(name);
                    continue;
                }
                let wit = text.of(*id, &name);
                let service = service_from_wit(&resolve, interface, &name, wit)
                    .map_err(|error| LoadError::Invalid(error.to_string()))?;
                inspection.services.push(service);
                inspection.exports.push(name);
            }
            WorldItem::Function(function) => inspection.stray_functions.push(function.name.clone()),
            WorldItem::Type { .. } => {}
        }
    }
    Ok(inspection)
}

/// Checks the first eight bytes of a WebAssembly file: they distinguish modules from components.
fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    let Some(header) = bytes.first_chunk::<8>() else {
        return Err(if b"\0asm".starts_with(bytes.get(..4).unwrap_or(bytes)) {
            LoadError::Truncated { len: bytes.len() }
        } else {
            LoadError::NotWebAssembly
        });
    };
    match header {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0] => Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', ..] => Err(LoadError::Invalid(
            "it has a WebAssembly version that Wharf does not support".into(),
        )),
        _ => Err(LoadError::NotWebAssembly),
    }
}

fn unreadable(error: &impl std::fmt::Debug, len: usize) -> LoadError {
    let text = format!("{error:?}");
    if wording::is_truncated(&text) {
        return LoadError::Truncated { len };
    }
    // The first line says what is wrong. The rest says where in the decoder it was found.
    LoadError::Invalid(text.lines().next().unwrap_or_default().to_owned())
}

fn imports(resolve: &Resolve, world: WorldId) -> Vec<Import> {
    resolve.worlds[world]
        .imports
        .iter()
        .filter(|(_, item)| !matches!(item, WorldItem::Type { .. }))
        .map(|(key, item)| {
            let name = resolve.name_world_key(key);
            // An interface of types alone needs no implementation.
            let only_types = match item {
                WorldItem::Interface { id, .. } => has_only_types(resolve, *id),
                _ => false,
            };
            let need = if only_types { Need::Nothing } else { Need::of(&name) };
            Import { name, need }
        })
        .collect()
}

fn has_only_types(resolve: &Resolve, id: InterfaceId) -> bool {
    let interface = &resolve.interfaces[id];
    let is_resource = |id: &wit_parser::TypeId| {
        matches!(resolve.types[*id].kind, wit_parser::TypeDefKind::Resource)
    };
    interface.functions.is_empty() && !interface.types.values().any(is_resource)
}

/// Whether an exported interface is not the author's: WASI's own (`wasi:cli/run`), or the interface
/// `exports` by which componentize-py starts Python.
fn is_of_toolchain(name: &str, interface: &Interface) -> bool {
    name.starts_with("wasi:") || (name == "exports" && interface.functions.contains_key("init"))
}
