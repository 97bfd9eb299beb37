//! Reads the WIT, and chooses which interfaces are called.

use std::path::{Path, PathBuf};

use wharf_schema::{NameError, Service, service_from_wit};
use wit_parser::{InterfaceId, PackageId, Resolve, WorldItem, WorldKey};

use crate::input::Input;

/// A WIT package, and its services.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) resolve: Resolve,
    /// The package that was asked for. Other packages are those that it uses.
    pub(crate) package: PackageId,
    pub(crate) services: Vec<(InterfaceId, Service)>,
    /// The files that were read.
    pub(crate) sources: Vec<PathBuf>,
}

/// Why no stubs can be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no WIT at {0}: the path is relative to the package's Cargo.toml")]
    NotThere(PathBuf),
    /// An error in the WIT, with its file, line and text.
    #[error("{0}")]
    Wit(String),
    #[error("the WIT has several worlds, say which: world: {0}")]
    Worlds(String),
    #[error("the WIT has no world '{world}'; it has {known}")]
    NoWorld { world: String, known: String },
    #[error("the world '{0}' exports no service, which is an interface with functions")]
    NoExports(String),
    #[error("the WIT has no service, which is an interface with functions")]
    NoInterface,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("idempotent: no service of the WIT has a method '{method}'; there are {known}")]
    NoMethod { method: String, known: String },
    #[error("several services have a method '{method}': say which is idempotent: {known}")]
    Ambiguous { method: String, known: String },
    #[error("{location}: {what}")]
    Type { location: String, what: String },
}

/// Reads the WIT that the macro's input names.
pub(crate) fn load(base: &Path, input: &Input) -> Result<Loaded, Error> {
    let path = base.join(input.path.value());
    if !path.exists() {
        return Err(Error::NotThere(path));
    }
    let mut resolve = Resolve::default();
    resolve.features.extend(input.features.iter().map(syn::LitStr::value));
    let (package, sources) = match resolve.push_path(&path) {
        Ok(read) => read,
        Err(error) => return Err(Error::Wit(resolve.render_error(&error))),
    };
    let sources = sources.paths().map(Path::to_owned).collect();
    let world = input.world.as_ref().map(syn::LitStr::value);
    let mut services = Vec::new();
    for (id, name) in called(&resolve, package, world.as_deref())? {
        let interface = &resolve.interfaces[id];
        services.push((id, service_from_wit(&resolve, interface, &name, String::new())?));
    }
    Ok(Loaded { resolve, package, services, sources })
}

/// The interfaces that are called, with their names: the exports of a world, or all interfaces if
/// there is no world.
fn called(
    resolve: &Resolve,
    package: PackageId,
    wanted: Option<&str>,
) -> Result<Vec<(InterfaceId, String)>, Error> {
    let package = &resolve.packages[package];
    let known = || package.worlds.keys().map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(", ");
    let world = match (wanted, package.worlds.len()) {
        (Some(world), _) => Some(
            *package
                .worlds
                .get(world)
                .ok_or_else(|| Error::NoWorld { world: world.to_owned(), known: known() })?,
        ),
        (None, 0) => None,
        (None, 1) => package.worlds.values().next().copied(),
        (None, _) => return Err(Error::Worlds(known())),
    };
    // Services use an interface that has only types; it is not a service itself.
    let is_service = |id: &InterfaceId| !resolve.interfaces[*id].functions.is_empty();
    let Some(world) = world else {
        let all = package.interfaces.values().filter(|id| is_service(id));
        let named: Vec<_> = all.filter_map(|id| Some((*id, resolve.id_of(*id)?))).collect();
        return if named.is_empty() { Err(Error::NoInterface) } else { Ok(named) };
    };
    let world = &resolve.worlds[world];
    let mut exports = Vec::new();
    for (key, item) in &world.exports {
        let WorldItem::Interface { id, .. } = item else { continue };
        if !is_service(id) {
            continue;
        }
        let name = match key {
            WorldKey::Name(name) => Some(name.clone()),
            WorldKey::Interface(id) => resolve.id_of(*id),
        };
        exports.extend(name.map(|name| (*id, name)));
    }
    if exports.is_empty() {
        return Err(Error::NoExports(world.name.clone()));
    }
    Ok(exports)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Loads WIT with options for the macro.
    pub(crate) fn load_text(wit: &str, options: &str) -> Result<(Loaded, Input), Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("api.wit"), wit).unwrap();
        let input = format!("{{ path: \"api.wit\", {options} }}");
        let input: Input = syn::parse_str(&input).unwrap();
        load(folder.path(), &input).map(|loaded| (loaded, input))
    }

    fn error(wit: &str, options: &str) -> String {
        load_text(wit, options).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_in_the_wit_is_shown_with_its_line() {
        let wit = "package a:b;\ninterface api {\n    f: func(x: u9) -> u8;\n}\n";
        let error = error(wit, "");
        assert!(error.contains("u9"), "{error}");
        assert!(error.contains("api.wit:3:"), "{error}");
    }

    #[test]
    fn the_exports_of_a_world_are_called_and_what_is_missing_is_named() {
        let wit = "package a:b@1.0.0; interface one { f: func(); } interface two { g: func(); }
                   world w { import one; export two; export inline: interface { h: func(); } }";
        let (loaded, _) = load_text(wit, "").unwrap();
        let names: Vec<String> =
            loaded.services.iter().map(|(_, service)| service.name().to_string()).collect();
        assert_eq!(names, ["a:b/two@1.0.0", "inline"]);
        let (loaded, _) =
            load_text("package a:b; interface one {} interface two { g: func(); }", "").unwrap();
        assert_eq!(loaded.services.len(), 1);
        let two = "package a:b; world v {} world w {}";
        assert_eq!(error(two, ""), "the WIT has several worlds, say which: world: \"v\", \"w\"");
        assert_eq!(
            error(two, "world: \"v\""),
            "the world 'v' exports no service, which is an interface with functions"
        );
        assert!(error(two, "world: \"x\"").contains("it has \"v\", \"w\""));
        assert!(error("package a:b;", "").contains("the WIT has no service"));
    }

    #[test]
    fn packages_that_are_encoded_as_components_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let deps = folder.path().join("wit/deps");
        std::fs::create_dir_all(&deps).unwrap();
        let wit = "package a:b; interface api { use c:d/types.{p}; f: func(x: p); }";
        std::fs::write(folder.path().join("wit/api.wit"), wit).unwrap();
        let mut resolve = Resolve::default();
        let types = "package c:d; interface types { record p { x: u8 } }";
        let package = resolve.push_source("types.wit", types).unwrap();
        let encoded = wit_component::encode(&resolve, package).unwrap();
        std::fs::write(deps.join("types.wasm"), encoded).unwrap();
        let input: Input = syn::parse_str("\"wit\"").unwrap();
        let loaded = load(folder.path(), &input).unwrap();
        assert_eq!(loaded.services[0].1.name().to_string(), "a:b/api");
        assert!(loaded.services[0].1.methods()[0].signature.is_ok());
    }

    #[test]
    fn a_path_that_leads_nowhere_is_shown_whole() {
        let input: Input = syn::parse_str("\"nowhere\"").unwrap();
        let error = load(Path::new("/base"), &input).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("there is no WIT at /base/nowhere"), "{error}");
    }
}
