//! `wharf build`: makes a project's plugin.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;
use wharf_runtime::Inspection;

use super::project::{self, Project};
use crate::args::Build;
use crate::component;

/// The most bytes of WIT that are put into a component.
const MAX_WIT: usize = 512 * 1024;

pub(crate) async fn run(arguments: Build) -> anyhow::Result<()> {
    let project = Project::open(&arguments.dir)?;
    let built = build(&project).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", project.plugin().display())?;
    for service in &built.services {
        writeln!(out, "  {}", service.name())?;
    }
    Ok(())
}

/// Runs the build command, whose output is shown as it comes. Returns what the component offers.
///
/// # Cancel safety
/// Dropping the future ends the command.
pub(super) async fn build(project: &Project) -> anyhow::Result<Inspection> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&project.build).current_dir(&project.root).kill_on_drop(true);
    // For templates that need this program to build.
    command.env("WHARF", std::env::current_exe()?).stdin(Stdio::null());
    let status = command.status().await.context("the shell 'sh' cannot be started")?;
    if !status.success() {
        anyhow::bail!("the build failed ({status}): {}", project.build);
    }
    let made = &project.component;
    if !made.exists() {
        anyhow::bail!(
            "the build made no {}, which {} names as its component",
            made.display(),
            project::FILE
        );
    }
    let (bytes, _) = component::read(made)?;
    let sources = wit_sources(&project.wit())?;
    let bytes = wharf_runtime::with_documentation(bytes, &sources);
    project::write(&project.plugin(), &bytes)?;
    Ok(component::read(&project.plugin())?.1)
}

/// The WIT files of a project, whose doc comments no toolchain keeps.
fn wit_sources(folder: &Path) -> anyhow::Result<Vec<String>> {
    let Ok(listed) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut sources = Vec::new();
    let mut left = MAX_WIT;
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wit") {
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        if let Some(rest) = left.checked_sub(text.len()) {
            left = rest;
            sources.push(text);
        }
    }
    Ok(sources)
}
