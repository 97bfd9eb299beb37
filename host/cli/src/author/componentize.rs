//! `wharf bindings` and `wharf componentize`: what authors in C need beside clang.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::Files;
use wit_component::ComponentEncoder;
use wit_parser::{Resolve, TypeDefKind, WorldId};

use super::interface::Interfaces;
use super::project::write;
use crate::args::{Bindings, Componentize};

pub(crate) fn bindings(arguments: &Bindings) -> anyhow::Result<()> {
    let interfaces = Interfaces::read(&arguments.wit, arguments.world.as_deref())?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("{} cannot be made", arguments.out.display()))?;
    let mut out = std::io::stdout().lock();
    for (name, content) in generated(&interfaces.resolve, interfaces.world)? {
        let path = arguments.out.join(name);
        write(&path, &content)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// The files that C needs, by name.
pub(super) fn generated(
    resolve: &Resolve,
    world: WorldId,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let unknown = resolve.types.iter().find_map(|(_, ty)| match ty.kind {
        TypeDefKind::FixedLengthList(..) => Some("lists of a fixed length"),
        TypeDefKind::Map(..) => Some("maps"),
        _ => None,
    });
    if let Some(unknown) = unknown {
        anyhow::bail!("the WIT has {unknown}, which wit-bindgen does not know for C: use list<T>");
    }
    let mut files = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve.clone(), world, &mut files)?;
    Ok(files.iter().map(|(name, content)| (name.to_owned(), content.to_owned())).collect())
}

pub(crate) fn componentize(arguments: &Componentize) -> anyhow::Result<()> {
    let module = crate::component::bytes(&arguments.module)?;
    let component = component(&module)
        .with_context(|| format!("{} is no module for a component", arguments.module.display()))?;
    write(Path::new(&arguments.out), &component)
}

fn component(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = ComponentEncoder::default().validate(true).module(module)?;
    // The encoder leaves out what the module does not import.
    encoder = encoder
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
    encoder.encode()
}
