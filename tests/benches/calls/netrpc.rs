//! Go's net/rpc: one process for the server and one for the callers, built if there is a Go
//! toolchain.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::load::{Load, Round, Work};

const PROGRAM: &str = include_str!("netrpc.go");

/// Callers in Go, and the server that they call.
pub(crate) struct Peer {
    callers: Process,
    /// `None` if it is somebody else's.
    _server: Option<Process>,
}

/// The program, built.
pub(crate) struct Built(tempfile::TempDir);

impl Built {
    /// `None` if Go is not installed.
    pub(crate) fn build() -> Option<Self> {
        Command::new("go").arg("version").output().ok()?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("netrpc.go"), PROGRAM).unwrap();
        let built = Command::new("go")
            .args(["build", "-o", "netrpc", "netrpc.go"])
            .env("GOCACHE", folder.path().join("cache"))
            .current_dir(folder.path())
            .status();
        assert!(built.unwrap().success());
        Some(Built(folder))
    }

    /// Callers of Go's own server.
    pub(crate) fn of_go(&self) -> Peer {
        let program = self.0.path().join("netrpc");
        let mut server = Process::start(&program, None);
        let callers = Process::start(&program, Some(&server.line()));
        Peer { callers, _server: Some(server) }
    }

    /// Callers of whatever serves at an address.
    pub(crate) fn of(&self, address: &str) -> Peer {
        let program = self.0.path().join("netrpc");
        Peer { callers: Process::start(&program, Some(address)), _server: None }
    }
}

impl Peer {
    pub(crate) fn run(&mut self, load: &Load, length: Duration) -> Round {
        let bytes = match load.work {
            Work::Multiply => 0,
            Work::Echo(bytes) => bytes,
        };
        let Load { connections, in_flight, .. } = load;
        let input = self.callers.input.as_mut().unwrap();
        writeln!(input, "{connections} {in_flight} {bytes} {}", length.as_millis()).unwrap();
        let line = self.callers.line();
        let figures: Vec<u64> =
            line.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
        let [calls, took, p50] = figures[..] else { panic!("net/rpc said {line:?}") };
        let (took, p50) = (Duration::from_nanos(took), Some(Duration::from_nanos(p50)));
        Round { calls, took, p50 }
    }
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(program: &Path, argument: Option<&str>) -> Self {
        let mut command = Command::new(program);
        command.args(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { input: child.stdin.take(), child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process ends when its input is closed.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
