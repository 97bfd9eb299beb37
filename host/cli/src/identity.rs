//! `wharf identity`: makes a trust domain, and lets members in.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use etcetera::BaseStrategy;
use wharf_client::{Member, Role, SpiffeId};
use wharf_registry::identity::DomainFolder;

use crate::args::{IdentityCommand, IdentityFolder, IdentityVerb, Joiner, RootStep};
use crate::exit::Exit;

pub(crate) async fn run(command: IdentityCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command.verb {
        IdentityVerb::Init { domain, folder } => {
            let folder = DomainFolder::at(folder.path()?);
            folder.init(&domain)?;
            let path = folder.path().display();
            writeln!(
                out,
                "{path}: the trust domain {domain}; keep the folder private, and a copy of it safe"
            )?;
            writeln!(out, "next: wharf registry --identity {path}")?;
            writeln!(out, "      wharf identity token --host NAME --identity {path}")?;
        }
        IdentityVerb::Token { who, life, folder } => {
            let (role, name) = who.name()?;
            let token = DomainFolder::at(folder.path()?).token(role, &name, life)?;
            writeln!(out, "{token}")?;
        }
        IdentityVerb::Join { token, registry, name, folder } => {
            let path = folder.path()?;
            let member = Member::join(&path, &registry, &token, name.as_deref()).await?;
            writeln!(out, "{}: {}", path.display(), member.id())?;
            writeln!(
                out,
                "next: wharf services --registry {registry} --identity {}",
                path.display()
            )?;
        }
        IdentityVerb::Show { folder } => {
            let path = folder.path()?;
            let member = Member::open(&path)?;
            let due = if member.is_due() { ", to be renewed" } else { "" };
            writeln!(out, "{}: {}{due}", path.display(), member.id())?;
        }
        IdentityVerb::Root { step, folder } => {
            let folder = DomainFolder::at(folder.path()?);
            let said = match step {
                RootStep::Add => {
                    folder.add_root()?;
                    "members will believe both roots within a minute; then: wharf identity root use"
                }
                RootStep::Use => {
                    folder.use_root()?;
                    "everybody who runs renews within minutes; when all others have been on again: wharf identity root drop"
                }
                RootStep::Drop => {
                    folder.drop_roots()?;
                    "members will believe the new root only"
                }
            };
            writeln!(out, "{said}")?;
        }
    }
    out.flush()?;
    Ok(())
}

impl IdentityFolder {
    fn path(&self) -> anyhow::Result<PathBuf> {
        match &self.identity {
            Some(path) => Ok(path.clone()),
            None => Ok(state()?.join("identity")),
        }
    }
}

/// Where wharf keeps its state for this user (XDG Base Directory Specification).
pub(crate) fn state() -> anyhow::Result<PathBuf> {
    let base = etcetera::choose_base_strategy().ok();
    let base = base.map(|base| base.state_dir().unwrap_or_else(|| base.data_dir()));
    Ok(base.context("there is no home directory: say --identity DIR")?.join("wharf"))
}

impl Joiner {
    fn name(self) -> anyhow::Result<(Role, String)> {
        let (role, name) = match (self.host, self.caller) {
            (Some(name), _) => (Role::Host, name),
            (None, Some(name)) => (Role::Caller, name),
            (None, None) => return Ok((Role::Registry, String::new())),
        };
        let fixed = name.strip_suffix('*').unwrap_or(&name);
        if !fixed.is_empty() {
            SpiffeId::check_name(fixed).map_err(|error| Exit::Usage(error.to_string()))?;
        }
        Ok((role, name))
    }
}

/// The name of this machine, as it can stand in a certificate.
pub(crate) fn machine() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
    let name: String = name.chars().map(plain).take(100).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}
