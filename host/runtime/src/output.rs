//! Writes what guests print to the log, line by line and at a limited rate.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wharf_schema::printable;

/// The longest line that is logged in one piece, in bytes.
const LINE: usize = 4 * 1024;

/// The name of the stream whose last line is kept.
const STDERR: &str = "stderr";

/// What Rust prints behind the message of a panic. It says nothing about the failure.
const HINT: &str = "note: run with `RUST_BACKTRACE=1`";

/// The most bytes that are kept of a last line.
const WORDS: usize = 200;

/// Lines that one plugin may log within [`PERIOD`].
const LINES: u32 = 200;

/// How long a budget of lines lasts.
const PERIOD: Duration = Duration::from_secs(1);

/// Bytes that a guest may write in one operation.
const WRITE: usize = 64 * 1024;

/// The stdout or stderr of one instance. All instances of a plugin share a budget.
#[derive(Clone)]
pub(crate) struct Output {
    plugin: Arc<str>,
    stream: &'static str,
    budget: Arc<Mutex<Budget>>,
    /// The names of the plugin's methods, by their place.
    methods: Arc<[String]>,
    scene: Arc<Scene>,
}

/// What an instance is doing while it prints.
#[derive(Default)]
pub(crate) struct Scene {
    /// The number of its current or last call; 0 while it starts.
    call: AtomicU32,
    /// The place of that call's method among the plugin's.
    method: AtomicUsize,
    /// The last line on stderr, and the call in which it was printed.
    last: Mutex<Option<(u32, String)>>,
}

impl Scene {
    /// A call begins. It takes no lock.
    pub(crate) fn begin(&self, call: u32, method: usize) {
        self.method.store(method, Ordering::Relaxed);
        self.call.store(call, Ordering::Relaxed);
    }

    /// The last line that the guest printed on stderr in its current call, for people.
    pub(crate) fn last_words(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (call, line) = last.as_ref()?;
        (*call == self.call.load(Ordering::Relaxed)).then(|| line.clone())
    }

    fn keep(&self, line: &str) {
        let line = &line[..line.floor_char_boundary(WORDS)];
        let call = self.call.load(Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((call, line.to_owned()));
    }
}

struct Budget {
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl Output {
    /// Both streams of a plugin. They share one budget.
    pub(crate) fn pair(plugin: Arc<str>, methods: Arc<[String]>) -> (Output, Output) {
        let budget = Arc::new(Mutex::new(Budget { since: Instant::now(), lines: 0, dropped: 0 }));
        let stdout = Output { plugin, stream: "stdout", budget, methods, scene: Arc::default() };
        let stderr = Output { stream: STDERR, ..stdout.clone() };
        (stdout, stderr)
    }

    /// The same stream of an instance, whose calls are set in `scene`.
    pub(crate) fn of(&self, scene: &Arc<Scene>) -> Output {
        Output { scene: scene.clone(), ..self.clone() }
    }

    /// Whether one more line of this plugin may be logged.
    pub(crate) fn permit(&self) -> bool {
        let now = Instant::now();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(budget.since) >= PERIOD {
            if budget.dropped > 0 {
                tracing::warn!(plugin = %self.plugin, lines = budget.dropped, "dropped output of a plugin that prints or traps too much");
            }
            *budget = Budget { since: now, lines: 0, dropped: 0 };
        }
        if budget.lines == LINES {
            budget.dropped += 1;
            return false;
        }
        budget.lines += 1;
        true
    }

    /// Whether the budget of this plugin is used up for now. If so, counts the lines of `bytes` as
    /// dropped.
    fn drops_all(&self, bytes: &[u8]) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let exhausted = budget.lines == LINES && budget.since.elapsed() < PERIOD;
        if exhausted {
            budget.dropped += memchr::memchr_iter(b'\n', bytes).count() as u64;
        }
        exhausted
    }

    fn log(&self, line: &[u8]) {
        let text = printable(&String::from_utf8_lossy(line));
        let says_why = !text.trim().is_empty() && !text.starts_with(HINT);
        if self.stream == STDERR && says_why {
            self.scene.keep(text.trim());
        }
        if self.permit() {
            let call = self.scene.call.load(Ordering::Relaxed);
            let method = self.methods.get(self.scene.method.load(Ordering::Relaxed));
            let method = method.filter(|_| call > 0).map(String::as_str);
            tracing::info!(plugin = %self.plugin, stream = self.stream, method, call, "{text}");
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 calls this, and Wharf does not link WASI 0.3.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { output: self.clone(), line: Vec::new() })
    }
}

/// One handle that a guest holds on its output.
struct Lines {
    output: Output,
    line: Vec<u8>,
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // wasmtime-wasi does not check the size of a write, so a guest can exceed what was
        // permitted.
        if bytes.len() > WRITE {
            return Err(StreamError::trap("a write beyond what check-write permitted"));
        }
        // While the budget is used up, the text is not processed further.
        if self.output.drops_all(&bytes) {
            self.line.clear();
            return Ok(());
        }
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', &bytes) {
            self.append(&bytes[begin..end]);
            self.end_line();
            begin = end + 1;
        }
        self.append(&bytes[begin..]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE)
    }
}

impl Lines {
    fn append(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(LINE) {
            if self.line.len() + part.len() > LINE {
                self.end_line();
            }
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self) {
        self.output.log(&self.line);
        self.line.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_on_stderr_belongs_to_the_call_that_printed_it() {
        let (stdout, stderr) = Output::pair("test".into(), Arc::new([]));
        let scene = Arc::default();
        let (stdout, stderr) = (stdout.of(&scene), stderr.of(&scene));
        stderr.log(b"while it starts");
        scene.begin(1, 0);
        assert_eq!(scene.last_words(), None);
        stderr.log(b"Traceback\x1b");
        stderr.log(&[b'x'; 2 * WORDS]);
        stderr.log(b"  ");
        // A panic in Rust ends with a hint, which is not why it panicked.
        stderr.log(HINT.as_bytes());
        stdout.log(b"not this");
        assert_eq!(scene.last_words(), Some("x".repeat(WORDS)));
        scene.begin(2, 0);
        assert_eq!(scene.last_words(), None);
    }

    #[test]
    fn a_plugin_that_prints_too_much_is_cut_short() {
        let (stdout, stderr) = Output::pair("test".into(), Arc::new([]));
        let permitted = (0..10 * LINES).filter(|_| stdout.permit() && stderr.permit()).count();
        assert!(permitted <= LINES as usize, "{permitted} lines");
    }
}
