//! What a file is, what it offers and what it asks for, without running or compiling it.

use wharf_schema::{Service, service_from_wit};
use wit_component::{DecodedWasm, WitPrinter};
use wit_parser::{Interface, InterfaceId, Resolve, WorldId, WorldItem};

use crate::error::LoadError;
use crate::splice::splice;

/// What a component offers and asks for.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The interfaces that it exports, in order.
    pub services: Vec<Service>,
    /// By which names the component exports them, in the same order.
    pub(crate) exports: Vec<String>,
    /// Functions outside any interface: nobody can call them.
    pub stray_functions: Vec<String>,
    /// What it imports.
    pub imports: Vec<Import>,
}

impl Inspection {
    /// Of each service, the methods that no codec calls, though they can be called: their values go by
    /// wasmtime's dynamic ones, which is slow for large lists. `bytes` are those that were inspected.
    #[must_use]
    pub fn without_codec(&self, bytes: &[u8]) -> Vec<Vec<String>> {
        let spliced = splice(bytes, &self.services, &self.exports);
        let methods = spliced.map(|spliced| spliced.methods).unwrap_or_default();
        let of_service = |(place, service): (usize, &'_ Service)| {
            let numbers = methods.get(place);
            let has_codec = |index: usize| {
                numbers.and_then(|numbers| numbers.get(index)).is_some_and(Option::is_some)
            };
            let slow = service.methods().iter().enumerate();
            let slow = slow.filter(|(index, m)| m.signature.is_ok() && !has_codec(*index));
            slow.map(|(_, method)| method.name.clone()).collect()
        };
        self.services.iter().enumerate().map(of_service).collect()
    }
}

/// Something that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// `wasi:filesystem/types@0.2.6`
    pub name: String,
    /// What that asks of its operator.
    pub need: Need,
}

/// What an import asks of whoever runs the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: clocks, randomness, streams, the log.
    Nothing,
    /// Environment variables or arguments; without a grant there are none.
    Environment,
    /// Directories; they have to be granted.
    Directories,
    /// HTTP requests to others; it has to be granted.
    Http,
    /// The network; it has to be granted.
    Network,
    /// Something that Wharf does not provide: the component cannot be loaded.
    Unknown,
}

impl Need {
    /// The needs that have to be granted.
    pub const GRANTED: [Need; 3] = [Need::Directories, Need::Http, Need::Network];

    /// How a plugin's `.toml` file grants it, under `[grants]`, and how it says that there is to be
    /// nothing; none for what needs no grant.
    #[must_use]
    pub fn grant(self) -> Option<(&'static str, &'static str)> {
        match self {
            Need::Directories => Some((
                r#"dirs = [{ host = "/srv/data", guest = "/data", access = "read-only" }]"#,
                "dirs = []",
            )),
            Need::Http => Some((r#"http = ["api.example.com"]"#, "http = []")),
            Need::Network => Some((r#"tcp = ["10.0.0.7:5432"]"#, "tcp = []")),
            Need::Nothing | Need::Environment | Need::Unknown => None,
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Need::Nothing => "needs no grant",
            Need::Environment => "environment: needs no grant; empty unless 'env' fills it",
            Need::Directories => "directories: needs the grant 'dirs'",
            Need::Http => "outgoing HTTP: needs the grant 'http'",
            Need::Network => "outgoing TCP: needs the grant 'tcp'",
            Need::Unknown => "not provided by wharf",
        })
    }
}

/// Reads a file that may be a plugin.
///
/// # Errors
/// When it is not a component, says what it is instead.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    check_kind(bytes)?;
    let decoded = wit_component::decode(bytes).map_err(|error| unreadable(&error, bytes.len()))?;
    let (mut resolve, world) = match decoded {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => return Err(LoadError::WitPackage),
    };
    crate::documentation::document(&mut resolve, bytes);
    let mut inspection = Inspection {
        services: Vec::new(),
        exports: Vec::new(),
        stray_functions: Vec::new(),
        imports: imports(&resolve, world),
    };
    for (key, item) in &resolve.worlds[world].exports {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Interface { id, .. } => {
                let interface = &resolve.interfaces[*id];
                let wit = interface_text(&resolve, *id, interface, &name);
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

/// The eight bytes that every WebAssembly file begins with tell modules and components apart.
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
            "it is of a WebAssembly version that wharf does not know".into(),
        )),
        _ => Err(LoadError::NotWebAssembly),
    }
}

fn unreadable(error: &impl std::fmt::Debug, len: usize) -> LoadError {
    let text = format!("{error:?}");
    if text.contains("unexpected end") {
        return LoadError::Truncated { len };
    }
    // The first line is what is wrong; the rest is where in the decoder it was found.
    LoadError::Invalid(text.lines().next().unwrap_or_default().to_owned())
}

fn imports(resolve: &Resolve, world: WorldId) -> Vec<Import> {
    resolve.worlds[world]
        .imports
        .iter()
        .filter(|(_, item)| !matches!(item, WorldItem::Type { .. }))
        .map(|(key, _)| {
            let name = resolve.name_world_key(key);
            Import { need: need(&name), name }
        })
        .collect()
}

fn need(name: &str) -> Need {
    let interface = name.split('@').next().unwrap_or_default();
    match interface {
        "wasi:cli/environment" => Need::Environment,
        _ if interface.starts_with("wasi:filesystem/") => Need::Directories,
        "wasi:http/outgoing-handler" => Need::Http,
        "wasi:http/types" => Need::Nothing,
        // A name for types, and a handle that leads nowhere by itself.
        "wasi:sockets/network" | "wasi:sockets/instance-network" => Need::Nothing,
        _ if interface.starts_with("wasi:sockets/") => Need::Network,
        _ if ["wasi:cli/", "wasi:clocks/", "wasi:io/", "wasi:random/"]
            .iter()
            .any(|package| interface.starts_with(package)) =>
        {
            Need::Nothing
        }
        _ => Need::Unknown,
    }
}

/// One interface as WIT. What cannot be printed is left out: the text is for people only.
fn interface_text(resolve: &Resolve, id: InterfaceId, interface: &Interface, name: &str) -> String {
    let mut printer = WitPrinter::default();
    let short = interface.name.as_deref().unwrap_or(name);
    let printed = printer.print_interface_outer(resolve, id, short).and_then(|()| {
        use wit_component::Output;
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
