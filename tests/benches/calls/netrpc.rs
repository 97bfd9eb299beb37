//! Go's net/rpc: a process of its own, built when there is a Go toolchain.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::load::{Load, Round, Work};

const PROGRAM: &str = include_str!("netrpc.go");

pub(crate) struct Peer {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// `None` where there is no Go.
    pub(crate) fn start() -> Option<Self> {
        Command::new("go").arg("version").output().ok()?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("netrpc.go"), PROGRAM).unwrap();
        let built = Command::new("go")
            .args(["build", "-o", "netrpc", "netrpc.go"])
            .env("GOCACHE", folder.path().join("cache"))
            .current_dir(folder.path())
            .status();
        assert!(built.unwrap().success());
        let mut process = Command::new(folder.path().join("netrpc"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Some(Peer { input: process.stdin.take(), process, output, _folder: folder })
    }

    pub(crate) fn run(&mut self, load: &Load, length: Duration) -> Round {
        let bytes = match load.work {
            Work::Multiply => 0,
            Work::Echo(bytes) => bytes,
        };
        let input = self.input.as_mut().unwrap();
        let milliseconds = length.as_millis();
        writeln!(input, "{} {} {bytes} {milliseconds}", load.connections, load.in_flight).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let figures: Vec<u64> =
            line.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
        let [calls, took, p50] = figures[..] else { panic!("net/rpc said {line:?}") };
        let (took, p50) = (Duration::from_nanos(took), Some(Duration::from_nanos(p50)));
        Round { calls, took, p50 }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}
