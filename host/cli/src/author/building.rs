//! `wharf build`: makes a project's plugin.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use wharf_runtime::Inspection;

use super::project::{self, Project};
use crate::args::Build;
use crate::component;

/// The most bytes of WIT that are put into a component.
const MAX_WIT: usize = 512 * 1024;

pub(crate) async fn run(arguments: Build) -> anyhow::Result<()> {
    let project = Project::open(&arguments.dir)?;
    let built = build(&project, Signals::OfTerminal).await?;
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
pub(super) async fn build(project: &Project, signals: Signals) -> anyhow::Result<Inspection> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&project.build).current_dir(&project.root).kill_on_drop(true);
    // For templates that need this program to build.
    command.env("WHARF", std::env::current_exe()?).stdin(Stdio::null());
    if signals == Signals::Handled {
        command.process_group(0);
    }
    let mut child = command.spawn().context("the shell 'sh' cannot be started")?;
    let mut group = Group(child.id().filter(|_| signals == Signals::Handled));
    let status = child.wait().await?;
    group.0 = None;
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

/// Who ends what a build has started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    /// The terminal tells all processes, as it tells this one.
    OfTerminal,
    /// This process hears of signals, and ends the build when it drops the future.
    Handled,
}

/// The processes of a build, which end when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            // If they have ended by themselves, there is nobody to end.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
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
        let text = project::text(&path, left)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        // What is too large goes without.
        if let Some(text) = text {
            left -= text.len();
            sources.push(text);
        }
    }
    Ok(sources)
}
