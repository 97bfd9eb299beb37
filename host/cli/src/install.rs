//! `wharf completions`, `man` and `version`: what an installation has beside the program.

use std::io::Write;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::env::Shells;
use serde_json::json;
use wharf_client::PROTOCOL_VERSIONS;

use crate::args::{Arguments, Completions, Man, Shell, Version};

/// The variable by which a shell's script asks this program for completions.
pub(crate) const COMPLETE: &str = "COMPLETE";

pub(crate) fn completions(arguments: &Completions) -> anyhow::Result<()> {
    let name = match arguments.shell {
        Shell::Bash => "bash",
        Shell::Elvish => "elvish",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
        Shell::Zsh => "zsh",
    };
    let shells = Shells::builtins();
    let shell = shells.completer(name).context("this shell is not supported")?;
    let mut out = std::io::stdout().lock();
    shell.write_registration(COMPLETE, "wharf", "wharf", "wharf", &mut out)?;
    Ok(())
}

pub(crate) fn man(arguments: &Man) -> anyhow::Result<()> {
    let folder = &arguments.out;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder))
        .with_context(|| format!("the pages cannot be written to {}", folder.display()))
}

pub(crate) fn version(arguments: &Version) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    // Whoever builds it for others says which commit it is.
    let commit = option_env!("WHARF_COMMIT").filter(|commit| !commit.is_empty());
    let (oldest, newest) = PROTOCOL_VERSIONS;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let version = json!({
            "version": version,
            "commit": commit,
            "protocol": { "oldest": oldest, "newest": newest },
            "system": system,
            "processor": processor,
        });
        writeln!(out, "{version}")?;
    } else {
        let commit = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
        writeln!(out, "wharf {version} ({system}, {processor}{commit}; protocol {newest})")?;
    }
    Ok(())
}
