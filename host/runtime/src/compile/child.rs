//! The side of the child process: reads a component, compiles it and writes the code.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use super::ends::{INVALID, NO_MEMORY, is_out_of_memory};
use crate::config;
#[cfg(target_os = "linux")]
use crate::threads::NICENESS;

/// The largest component that is read, in bytes.
const MAX_COMPONENT: u64 = 4 * 1024 * 1024 * 1024;

/// Compiles the component on standard input, and writes the code to standard output. The process may
/// take at most `memory` bytes, and ends when the one that started it does. A process that calls this
/// must do nothing else.
///
/// The exit code and standard error are for [`crate::CompilerProcess`].
#[must_use]
pub fn compile_in_this_process(memory: u64) -> ExitCode {
    match confine(memory).and_then(|()| compile()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let words = error.to_string();
            // Without standard error, the exit code has to do.
            let _ = writeln!(io::stderr(), "{words}");
            let code = if is_out_of_memory(&words) { NO_MEMORY } else { INVALID };
            ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
        }
    }
}

fn compile() -> io::Result<()> {
    let mut component = Vec::new();
    io::stdin().lock().take(MAX_COMPONENT).read_to_end(&mut component)?;
    let failed = |error: wasmtime::Error| io::Error::other(format!("{error:#}"));
    // It runs nothing, so it needs no pool of instances.
    let engine = wasmtime::Engine::new(&config::new()).map_err(failed)?;
    let code = engine.precompile_component(&component).map_err(failed)?;
    let mut out = io::stdout().lock();
    out.write_all(&code)?;
    out.flush()
}

/// Limits the memory of this process, lowers its priority, and ends it together with its parent.
#[cfg(target_os = "linux")]
fn confine(memory: u64) -> io::Result<()> {
    use rustix::process::{
        Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit,
    };

    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Counts all memory that is private and can be written, and not addresses that are only reserved.
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, limit(memory))?;
    setrlimit(Resource::Core, limit(0))?;
    // Below guests: calls that run matter more than a plugin that does not serve yet.
    nice(2 * NICENESS).map(|_| ())?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn confine(_: u64) -> io::Result<()> {
    Ok(())
}
