//! The interfaces that a service is to export: WIT files, as an author has them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use wharf_schema::{Service, service_from_wit};
use wit_parser::{
    FunctionKind, Interface, InterfaceId, PackageId, PackageName, Resolve, TypeDefKind, WorldId,
    WorldItem, WorldKey,
};

use super::project;
use crate::exit::Exit;

/// The world of projects that are made here, unless their WIT has one.
pub(super) const WORLD: &str = "plugin";

/// The most bytes of WIT that are copied into a project.
const MAX_WIT: usize = 4 * 1024 * 1024;

/// How deep files of WIT may lie.
const MAX_DEPTH: usize = 4;

/// WIT that was read, and what its world exports.
pub(super) struct Interfaces {
    pub(super) resolve: Resolve,
    pub(super) world: WorldId,
    pub(super) services: Vec<(InterfaceId, Service)>,
    /// The files, by their paths in a project's `wit/`.
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Interfaces {
    /// Reads a file, or a directory as WIT's tools have it, with `deps/`. A package without a world gets
    /// one that exports all of its interfaces that have functions.
    pub(super) fn read(path: &Path, world: Option<&str>) -> anyhow::Result<Self> {
        Interfaces::at(path, path, world)
    }

    /// The same, where errors name another path.
    fn at(path: &Path, named: &Path, world: Option<&str>) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        collect(path, Path::new(""), &mut MAX_WIT.clone(), &mut files)?;
        let (mut resolve, package) = parse(path)?;
        if resolve.packages[package].worlds.is_empty() {
            let is_free =
                |name: &String| files.iter().all(|(path, _)| path.as_os_str() != name.as_str());
            let mut names = std::iter::once("world.wit".to_owned())
                .chain((2..).map(|number| format!("world-{number}.wit")));
            let name = names.find(is_free).unwrap_or_default();
            files.push((PathBuf::from(name), world_of_all(&resolve, package)?));
            let folder = tempfile::tempdir()?;
            lay_out(&files, folder.path())?;
            return Interfaces::at(folder.path(), named, world);
        }
        let world = resolve.select_world(&[package], world).map_err(|error| {
            let known: Vec<&str> =
                resolve.packages[package].worlds.keys().map(String::as_str).collect();
            let message = format!(
                "{}: {error:#}; --world may be one of {}",
                named.display(),
                known.join(", ")
            );
            Exit::Usage(message)
        })?;
        let name = &resolve.worlds[world].name;
        let alone = format!("package a:b; world {name} {{}}");
        if Resolve::default().push_str("world.wit", &alone).is_err() {
            anyhow::bail!(
                "{}: the world is called '{name}', which is a word of WIT that tools do not take: rename it",
                named.display()
            );
        }
        let services = services(&mut resolve, world)
            .with_context(|| format!("{} cannot be a service", named.display()))?;
        Ok(Interfaces { resolve, world, services, files })
    }

    /// The same for WIT that is text.
    pub(super) fn of(text: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("service.wit");
        std::fs::write(&path, text)?;
        Interfaces::read(&path, None)
    }

    pub(super) fn world_name(&self) -> &str {
        &self.resolve.worlds[self.world].name
    }

    pub(super) fn interface(&self, id: InterfaceId) -> &Interface {
        &self.resolve.interfaces[id]
    }
}

/// Reads WIT. The error has the file, the line and the text.
pub(super) fn parse(path: &Path) -> anyhow::Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    match resolve.push_path(path) {
        Ok((package, _)) => Ok((resolve, package)),
        Err(_) if !path.exists() => {
            Err(Exit::NotFound(format!("there is no WIT at {}", path.display())).into())
        }
        Err(error) => Err(anyhow::anyhow!("{}", resolve.render_error(&error).trim_end())),
    }
}

fn world_of_all(resolve: &Resolve, package: PackageId) -> anyhow::Result<String> {
    let package = &resolve.packages[package];
    // Any of these names may be a word of WIT, which a percent sign in front of it allows.
    let PackageName { namespace, name, version } = &package.name;
    let version = version.as_ref().map(|version| format!("@{version}")).unwrap_or_default();
    let mut text = format!("package %{namespace}:%{name}{version};\n\nworld {WORLD} {{\n");
    let mut any = false;
    for (name, id) in &package.interfaces {
        if !resolve.interfaces[*id].functions.is_empty() {
            let _ = writeln!(text, "    export %{name};");
            any = true;
        }
    }
    anyhow::ensure!(any, "{}: it has no interface with functions", package.name);
    text.push_str("}\n");
    Ok(text)
}

/// What the world exports, if it can be called.
fn services(resolve: &mut Resolve, world: WorldId) -> anyhow::Result<Vec<(InterfaceId, Service)>> {
    let mut services = Vec::new();
    for (key, item) in &resolve.worlds[world].exports {
        let (WorldItem::Interface { id, .. }, WorldKey::Interface(_)) = (item, key) else {
            anyhow::bail!(
                "world {} exports something that is no interface of a package: only functions of such can be called",
                resolve.worlds[world].name
            );
        };
        let interface = &resolve.interfaces[*id];
        if interface.functions.is_empty() {
            continue;
        }
        let name = resolve.id_of(*id).unwrap_or_default();
        for function in interface.functions.values() {
            if function.kind != FunctionKind::Freestanding {
                anyhow::bail!(
                    "{name}.{}: functions of resources and async functions cannot be called from outside",
                    function.name
                );
            }
        }
        let mut types = interface.types.values();
        if types.any(|ty| matches!(resolve.types[*ty].kind, TypeDefKind::Resource)) {
            anyhow::bail!("{name} has a resource, which no caller can reach: take it out");
        }
        let service = service_from_wit(resolve, interface, &name, String::new())?;
        let short = &service.name().interface;
        if services.iter().any(|(_, other): &(_, Service)| other.name().interface == *short) {
            anyhow::bail!("it exports two interfaces called '{short}': make a project for each");
        }
        services.push((*id, service));
    }
    anyhow::ensure!(
        !services.is_empty(),
        "world {} exports no interface with functions",
        resolve.worlds[world].name
    );
    Ok(services)
}

/// Collects the WIT files at `path`, with their places in a project.
fn collect(
    path: &Path,
    place: &Path,
    left: &mut usize,
    files: &mut Vec<(PathBuf, String)>,
) -> anyhow::Result<()> {
    // Packages are in deps/NAME/. Whatever is deeper is no WIT of this project, or a link in a circle.
    if place.components().count() > MAX_DEPTH {
        return Ok(());
    }
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let (path, place) = (entry.path(), place.join(entry.file_name()));
            let is_wit = path.extension().is_some_and(|extension| extension == "wit");
            if path.is_dir() || is_wit {
                collect(&path, &place, left, files)?;
            }
        }
        return Ok(());
    }
    // What is not there, or is no text, is told by whoever parses it.
    let Ok(text) = project::text(path, *left) else { return Ok(()) };
    let text = text.with_context(|| {
        format!("{}: more than {MAX_WIT} bytes of WIT are not taken", path.display())
    })?;
    *left -= text.len();
    let place = match place.as_os_str().is_empty() {
        true => path.file_name().map(PathBuf::from).unwrap_or_default(),
        false => place.to_owned(),
    };
    files.push((place, text));
    Ok(())
}

fn lay_out(files: &[(PathBuf, String)], folder: &Path) -> anyhow::Result<()> {
    for (place, text) in files {
        let path = folder.join(place);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_world_gets_one() {
        let interfaces = Interfaces::of(
            "package a:b@1.0.0; interface c { f: func(); } interface d { type x = u8; }",
        )
        .unwrap();
        assert_eq!(interfaces.world_name(), "plugin");
        assert_eq!(interfaces.services.len(), 1);
        assert_eq!(interfaces.files.len(), 2);
    }

    #[test]
    fn words_of_wit_may_be_names_and_files_of_the_author_stay() {
        let folder = tempfile::tempdir().unwrap();
        let wit = "package %use:%interface; interface %list { f: func(); }";
        std::fs::write(folder.path().join("world.wit"), wit).unwrap();
        let interfaces = Interfaces::read(&folder.path().join("world.wit"), None).unwrap();
        assert_eq!(interfaces.services.len(), 1);
        let files = interfaces.files.iter();
        let paths: Vec<_> = files.map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(paths, ["world.wit", "world-2.wit"]);
    }

    #[test]
    fn what_cannot_be_a_service_is_refused_with_the_reason() {
        for (wit, words) in [
            ("package a:b; interface c { f: func( }", "expected"),
            ("package a:b; interface c { type x = u8; }", "no interface with functions"),
            ("package a:b; interface c { resource r { f: func(); } }", "functions of resources"),
            (
                "package a:b; interface c { resource r; f: func(); }",
                "has a resource, which no caller",
            ),
            (
                "package a:b; interface c { f: func(); } world %world { export c; }",
                "the world is called 'world'",
            ),
            ("package a:b; world w { export f: func(); }", "no interface of a package"),
            (
                "package a:b; interface c { f: func(); } world v { export c; } world w { export c; }",
                "--world may be one of v, w",
            ),
        ] {
            let error = format!("{:#}", Interfaces::of(wit).err().unwrap());
            assert!(error.contains(words), "{wit}: {error}");
        }
        let error = Interfaces::read(Path::new("/missing/x.wit"), None).err().unwrap();
        assert_eq!(error.to_string(), "there is no WIT at /missing/x.wit");
    }
}
