//! Compiles a component in a child process, which may take a limited time and a limited amount of
//! memory.
//!
//! A compiler's time and memory can grow far faster than its input: a component of a few kilobytes can
//! ask for minutes and gigabytes. Cranelift has no limits of its own, so the system enforces them. The
//! child is the same program. It reads the component from its standard input and writes the code to its
//! standard output.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::ends::{INVALID, NO_MEMORY, is_out_of_memory};
use crate::cache::MAX_ENTRY;
use crate::error::CompileError;

/// The most bytes that are read of what the child says on its standard error.
const MAX_WORDS: u64 = 16 * 1024;

/// How to start a process that compiles a component. It must call [`crate::compile_in_this_process`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerProcess {
    /// The program and its arguments. The limit on memory is added as a last argument, in bytes.
    pub command: Vec<OsString>,
    /// The memory that compiling one component may take, in bytes.
    pub memory: u64,
    /// The time that compiling one component may take.
    pub time: Duration,
}

/// What came of a compilation.
pub(super) enum Compiled {
    /// The code.
    Code(Vec<u8>),
    /// The component is not valid: why.
    Invalid(String),
}

impl CompilerProcess {
    /// Compiles a component. Dropping the future ends the process.
    pub(super) async fn compile(&self, component: &[u8]) -> Result<Compiled, CompileError> {
        match tokio::time::timeout(self.time, self.run(component)).await {
            Ok(compiled) => compiled,
            Err(_) => Err(CompileError::Time { limit: self.time }),
        }
    }

    async fn run(&self, component: &[u8]) -> Result<Compiled, CompileError> {
        let mut command = self.command.iter();
        let program = command.next().ok_or_else(|| std::io::Error::other("no program is named"))?;
        let mut child = Command::new(program)
            .args(command)
            .arg(self.memory.to_string())
            // The environment may hold secrets, and the compiler needs none of it.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output, words) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let give = async {
            if let Some(mut input) = input {
                // A child that has ended, for example at its limit, does not read. Its status says why.
                let _ = input.write_all(component).await;
            }
        };
        let ((), code, words) = tokio::join!(give, read(output, MAX_ENTRY), read(words, MAX_WORDS));
        let status = child.wait().await?;
        if status.success() {
            return Ok(Compiled::Code(code?));
        }
        self.judge(status, &String::from_utf8_lossy(&words?))
    }

    fn judge(&self, status: ExitStatus, words: &str) -> Result<Compiled, CompileError> {
        let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        match status.code() {
            Some(NO_MEMORY) => Err(CompileError::Memory { limit: self.memory }),
            Some(INVALID) => Ok(Compiled::Invalid(first.to_owned())),
            _ if is_out_of_memory(words) => Err(CompileError::Memory { limit: self.memory }),
            _ => Err(CompileError::Ended(format!("{status}; {first}"))),
        }
    }
}

/// Reads all, up to `max` bytes, and discards the rest.
async fn read(from: Option<impl AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let Some(from) = from else { return Ok(all) };
    let mut limited = from.take(max);
    limited.read_to_end(&mut all).await?;
    tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await?;
    Ok(all)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn process(script: &str) -> CompilerProcess {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        CompilerProcess { command, memory: 64 << 20, time: Duration::from_secs(20) }
    }

    async fn failure(script: &str) -> String {
        match process(script).compile(b"component").await {
            Err(error) => error.to_string(),
            Ok(_) => "compiled".to_owned(),
        }
    }

    #[tokio::test]
    async fn each_end_of_the_process_has_its_own_words() {
        let aborted = "echo 'memory allocation of 99 bytes failed' >&2; kill -ABRT $$";
        assert!(failure(aborted).await.contains("64 MiB of memory, the limit (--compile-memory)"));
        let killed = failure("kill -KILL $$").await;
        assert!(killed.contains("ended without a result: signal: 9"), "{killed}");
        let panicked = failure("echo 'thread main panicked' >&2; exit 101").await;
        assert!(panicked.contains("101; thread main panicked"), "{panicked}");
        let invalid = process("echo no >&2; exit 3").compile(b"component").await;
        assert!(matches!(invalid, Ok(Compiled::Invalid(why)) if why == "no"));
    }

    #[tokio::test]
    async fn a_compilation_that_takes_too_long_is_ended() {
        let slow = CompilerProcess { time: Duration::from_millis(50), ..process("sleep 600") };
        let error = slow.compile(b"component").await.err().unwrap().to_string();
        assert!(error.contains("longer than 50ms, the limit (--compile-timeout)"), "{error}");
    }

    #[tokio::test]
    async fn a_component_larger_than_a_pipe_goes_through_and_the_environment_does_not() {
        let large = vec![b'x'; 1 << 20];
        match process("cat; printf %s \"$HOME$WHARF_TOKEN\"").compile(&large).await {
            Ok(Compiled::Code(code)) => assert!(code == large),
            _ => panic!("it was not compiled"),
        }
    }
}
