//! The `wharf` command: a registry, a host, and what one needs beside them.
//!
//! Arguments are parsed whole before anything is bound; each command is a module of its own.

mod args;
mod call;
mod exit;
mod host;
mod identity;
mod inspect;
mod keeping;
mod listen;
mod logging;
mod registry;
mod services;
mod shutdown;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

/// Gives the memory of a large compilation back to the system, which glibc's keeps in the arenas of
/// the threads that compiled.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_server =
        matches!(arguments.command, Command::Up(_) | Command::Host(_) | Command::Registry(_));
    // Before anything speaks HTTP: the exporter of spans does.
    wharf_registry_api::choose_cryptography();
    quiet_opening();
    let _logging = logging::start(is_server);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("no async runtime")),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Up(up) => up::run(up).await,
            Command::Host(host) => host::run(host).await,
            Command::Registry(registry) => registry::run(registry).await,
            Command::Call(call) => call::run(call).await,
            Command::Services(services) => services::run(services).await,
            Command::Inspect(inspect) => inspect::run(&inspect),
        }
    });
    // A guest or a lookup that does not end must not hold the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

/// A damaged store of the registry is told as an error; the panic by which its library found out would
/// only stand before it.
fn quiet_opening() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(wharf_registry::OPENING_THREAD) {
            tell(panic);
        }
    }));
}
