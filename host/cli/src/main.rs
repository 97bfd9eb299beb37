//! The `wharf` command: a registry, a host, and the commands to use them.
//!
//! All arguments are parsed before anything is bound. Each command is a module.

mod access;
mod args;
mod author;
mod call;
mod callee;
mod complete;
mod component;
mod configuration;
mod describe;
mod exit;
mod explain;
mod given;
mod health;
mod host;
mod identity;
mod inspect;
mod install;
mod keeping;
mod listen;
mod logging;
mod operate;
mod registry;
mod reloading;
mod rights;
mod secure;
mod services;
mod shutdown;
mod supervisor;
mod tls;
mod up;
mod values;

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::CompleteEnv;

use crate::args::{Arguments, Command, RegistryArguments};
use crate::logging::Reader;

/// This allocator returns the memory of a burst of calls or of a large file to the system. glibc's
/// allocator keeps it in the arenas of the threads that used it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A shell asks for completions by a variable. This prints them, and ends the process.
    CompleteEnv::with_factory(Arguments::command).var(install::COMPLETE).complete();
    let arguments = match configuration::arguments() {
        Ok(arguments) => arguments,
        Err(error) => return exit::report(&error),
    };
    if let Command::Compile(compile) = &arguments.command {
        return wharf_runtime::compile_in_this_process(compile.memory);
    }
    let reader = match &arguments.command {
        Command::Up(_) | Command::Host(_) => Reader::Operator,
        Command::Registry(registry) if registry.verb.is_none() => Reader::Operator,
        Command::Dev(_) | Command::Test(_) => Reader::Author,
        _ => Reader::User,
    };
    let is_server = reader == Reader::Operator || matches!(&arguments.command, Command::Dev(_));
    // The usual limit is too low for a server. `None`: there is none.
    let files = if is_server { wharf_net::files::raise_limit() } else { None };
    // This must come before anything that uses HTTP, such as the exporter of spans.
    wharf_registry_api::choose_cryptography();
    quiet_opening();
    let _logging = match logging::start(reader) {
        Ok(logging) => logging,
        Err(error) => return exit::report(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("no async runtime")),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Up(up) => up::run(up, files).await,
            Command::Host(host) => host::run(host, files).await,
            Command::Registry(RegistryArguments { verb: Some(verb), .. }) => {
                return operate::run(verb).await;
            }
            Command::Registry(registry) => registry::run(registry.serving, files).await,
            Command::Call(call) => call::run(call).await,
            Command::Services(services) => services::run(services).await,
            Command::Inspect(inspect) => inspect::run(inspect).await,
            Command::Describe(describe) => describe::run(describe).await,
            Command::New(new) => author::new(&new),
            Command::Build(build) => author::build(build).await,
            Command::Dev(dev) => author::dev(dev, files).await,
            Command::Test(test) => author::test(test).await,
            Command::Bindings(bindings) => author::bindings(&bindings),
            Command::Componentize(module) => author::componentize(&module),
            Command::Identity(identity) => identity::run(identity).await,
            Command::Rights(rights) => rights::run(rights),
            Command::Health(health) => health::run(health).await,
            Command::Completions(completions) => install::completions(&completions),
            Command::Man(man) => install::man(&man),
            Command::Version(version) => install::version(&version),
            Command::Compile(_) => Ok(()),
        }?;
        Ok(ExitCode::SUCCESS)
    });
    // Do not wait for a guest or a name lookup that does not end.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

/// Hides the panic message when the registry's store is damaged. The storage library detects that
/// with a panic, and the registry then reports it as an error.
fn quiet_opening() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(wharf_registry::OPENING_THREAD) {
            tell(panic);
        }
    }));
}
