//! Stubs in C: the functions that wit-bindgen declares.

use std::fmt::Write;

use anyhow::Context;

use crate::author::componentize::generated;
use crate::author::interface::Interfaces;

pub(super) fn source(interfaces: &Interfaces) -> anyhow::Result<String> {
    let files = generated(&interfaces.resolve, interfaces.world)?;
    let (name, header) = files
        .iter()
        .find(|(name, _)| name.ends_with(".h"))
        .context("wit-bindgen has made no header")?;
    let header = String::from_utf8_lossy(header);
    let mut text = format!("#include \"{name}\"\n");
    for prototype in exported(&header) {
        let _ = write!(text, "\n{prototype} {{\n  // Not written yet.\n  __builtin_trap();\n}}\n");
    }
    Ok(text)
}

/// The declarations of what a component exports, without their semicolons.
fn exported(header: &str) -> impl Iterator<Item = &str> {
    let mut is_exported = false;
    header.lines().filter_map(move |line| {
        if line.starts_with("// ") && line.contains(" Functions") {
            is_exported = line.starts_with("// Exported Functions");
        }
        line.strip_suffix(';').filter(|line| is_exported && line.ends_with(')'))
    })
}
