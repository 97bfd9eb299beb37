//! Who may do what: the file of principals, and `wharf rights`.

use std::io::Write;
use std::net::SocketAddr;

use wharf_net::principals::{Callee, Principals};
use wharf_schema::MethodPath;

use crate::args::{Check, Rights, RightsCommand, RightsVerb};
use crate::exit::Exit;

impl Rights {
    /// Reads the file, if there is one.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Principals>> {
        Ok(self.principals.as_deref().map(Principals::load).transpose()?)
    }
}

/// Refuses to listen where strangers are if they may do everything.
///
/// # Errors
/// When they may, and nobody said that this is meant.
pub(crate) fn check_listen(
    flag: &str,
    listen: SocketAddr,
    principals: &Principals,
    anyone_may_call: bool,
) -> anyhow::Result<()> {
    if listen.ip().is_loopback() || anyone_may_call || !principals.known().is_open() {
        return Ok(());
    }
    anyhow::bail!(
        "{flag} {listen}: whoever reaches this address could call everything: say who may with --principals FILE (or --token SECRET, for one secret that may call everything), listen on loopback, or say --anyone-may-call"
    );
}

pub(crate) fn run(command: RightsCommand) -> anyhow::Result<()> {
    match command.verb {
        RightsVerb::Check(check) => check.run(),
    }
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        let known = Principals::load(&self.file)?.known();
        let Some(principal) = known.named(&self.principal) else {
            let names: Vec<&str> = known.names().collect();
            let message = format!(
                "{} has no principal '{}': it has {}",
                self.file.display(),
                self.principal,
                names.join(", ")
            );
            return Err(Exit::NotFound(message).into());
        };
        let path =
            MethodPath::parse(&self.method).map_err(|error| Exit::Usage(error.to_string()))?;
        let package = path.service.package.as_deref();
        let callee =
            Callee { package: package.unwrap_or_default(), interface: &path.service.interface };
        let Some(pattern) = principal.calls().of_method(callee, &path.method) else {
            let full = match package {
                Some(_) => "",
                None => {
                    "; patterns with a package only count for a full name, as demo:arith/arith.multiply"
                }
            };
            anyhow::bail!(
                "no: nothing in the calls of '{}' allows {}{full}",
                principal.name(),
                self.method
            );
        };
        let mut out = std::io::stdout();
        writeln!(
            out,
            "yes: {}, line {}: '{}' in the calls of '{}'",
            self.file.display(),
            pattern.line(),
            pattern.text(),
            principal.name()
        )?;
        Ok(())
    }
}
