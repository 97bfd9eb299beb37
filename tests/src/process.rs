//! Runs the real binary, with ports that the system picks.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::within;

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The binary that `cargo build` made, with the profile of this test.
fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.parent().and_then(Path::parent).context("no target directory")?;
    let binary = profile.join("wharf");
    ensure!(binary.exists(), "{} is not built: run 'make test'", binary.display());
    Ok(binary)
}

/// An example service that `make plugins` built.
///
/// # Errors
/// When it is not built.
pub fn plugin(name: &str) -> anyhow::Result<Vec<u8>> {
    let path = root().join("plugins").join(format!("{name}.wasm"));
    std::fs::read(&path)
        .with_context(|| format!("{} is not built: run 'make test'", path.display()))
}

/// A service of `tests/guests` that `make guests` built.
///
/// # Errors
/// When it is not built.
pub fn guest(name: &str) -> anyhow::Result<Vec<u8>> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target directory")?;
    let path = target.join("wasm32-wasip2/plugin").join(format!("{name}.wasm"));
    std::fs::read(&path)
        .with_context(|| format!("{} is not built: run 'make test'", path.display()))
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it printed to stderr.
    pub stderr: String,
}

/// Runs `wharf` to its end.
///
/// # Errors
/// When it does not end.
pub async fn wharf(arguments: &[&str]) -> anyhow::Result<Finished> {
    run(&binary()?, arguments).await
}

/// Runs an example of the client, which is built with the tests, to its end.
///
/// # Errors
/// When it does not end.
pub async fn example(name: &str, arguments: &[&str]) -> anyhow::Result<Finished> {
    let wharf = binary()?;
    let folder = wharf.parent().context("no target directory")?.join("examples");
    run(&folder.join(name), arguments).await
}

async fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<Finished> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command.env_remove("WHARF_REGISTRY").env_remove("WHARF_LOG").env_remove("WHARF_TOKEN");
    // Keep its lists of endpoints apart: another test may have the same port.
    let cache = tempfile::tempdir()?;
    command.env("XDG_CACHE_HOME", cache.path());
    run_command(&mut command).await
}

/// Runs a command to its end.
///
/// # Errors
/// When it does not end.
pub async fn run_command(command: &mut Command) -> anyhow::Result<Finished> {
    command.kill_on_drop(true).stdin(Stdio::null());
    let output = within("a command ends", command.output()).await??;
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// A client of one or more registries. It writes nothing to disk, because a later test may have the
/// same port.
///
/// # Errors
/// When an address is not valid.
pub fn client(registry: &str) -> anyhow::Result<wharf_client::Client> {
    Ok(wharf_client::Client::builder().without_lists().registry(registry)?)
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Reads the log continuously: a server whose log is not read blocks.
    logging: JoinHandle<std::io::Result<()>>,
    /// What it has logged so far.
    log: watch::Receiver<String>,
    out: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `wharf` with these arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(arguments, &[])
    }

    /// Like [`Process::start`], with these environment variables.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        let serves = matches!(arguments.first(), Some(&"up" | &"host"));
        if serves && !arguments.contains(&"--http-listen") {
            command.args(["--http-listen", "127.0.0.1:0"]);
        }
        // By default, the registry of a test keeps its records in memory.
        if arguments.first() == Some(&"registry") && !arguments.contains(&"--store") {
            command.args(["--store", "memory"]);
        }
        command.env_remove("WHARF_REGISTRY").env_remove("WHARF_TOKEN").env("WHARF_LOG", "info");
        // There is no cache unless the test names one.
        command.env("WHARF_CACHE", "none").env_remove("TRACEPARENT");
        for (name, value) in environment {
            command.env(name, value);
        }
        Self::run(command)
    }

    /// The path of the `wharf` binary, for tests that start it in a way of their own.
    ///
    /// # Errors
    /// When it is not built.
    pub fn program() -> anyhow::Result<PathBuf> {
        binary()
    }

    /// Starts any program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(mut command: Command) -> anyhow::Result<Self> {
        command.kill_on_drop(true).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut stderr = child.stderr.take().context("no log")?;
        let (sender, log) = watch::channel(String::new());
        let logging = tokio::spawn(async move {
            let mut piece = vec![0; 16 * 1024];
            loop {
                let length = stderr.read(&mut piece).await?;
                if length == 0 {
                    return Ok(());
                }
                let piece = String::from_utf8_lossy(&piece[..length]);
                sender.send_modify(|log| log.push_str(&piece));
            }
        });
        Ok(Process { child, logging, log, out: BufReader::new(out).lines() })
    }

    /// Waits for the first line that begins with `key: `. Returns the rest of the line.
    ///
    /// # Errors
    /// When the process ends without it.
    pub async fn announced(&mut self, key: &str) -> anyhow::Result<String> {
        let prefix = format!("{key}: ");
        let announced = within("a server says where it is", async {
            while let Some(line) = self.out.next_line().await? {
                if let Some(value) = line.strip_prefix(&prefix) {
                    return anyhow::Ok(value.to_owned());
                }
            }
            anyhow::bail!("the server ended without a line '{prefix}'")
        });
        let announced = announced.await?;
        if announced.is_err() {
            // What it said is whole when its log is closed.
            within("a server closes its log", &mut self.logging).await???;
        }
        announced.with_context(|| format!("its log: {}", *self.log.borrow()))
    }

    /// Waits until it prints this line.
    ///
    /// # Errors
    /// When the process ends without it.
    pub async fn says(&mut self, wanted: &str) -> anyhow::Result<()> {
        let mut said = String::new();
        let saying = within("a process says something", async {
            while let Some(line) = self.out.next_line().await? {
                if line == wanted {
                    return anyhow::Ok(());
                }
                said.push_str(&line);
                said.push('\n');
            }
            anyhow::bail!("it ended")
        });
        let said_so = saying.await.and_then(|said| said);
        said_so.with_context(|| format!("'{wanted}' is not among\n{said}{}", *self.log.borrow()))
    }

    /// Waits until its log contains this text.
    ///
    /// # Errors
    /// When the process ends without it, or does not log it in time.
    pub async fn logged(&self, text: &str) -> anyhow::Result<()> {
        let mut log = self.log.clone();
        let said = within("a server logs something", log.wait_for(|log| log.contains(text))).await;
        match said {
            Ok(said) => said.map(drop).with_context(|| format!("it ended without '{text}'")),
            Err(error) => Err(error.context(format!("'{text}' in: {}", *self.log.borrow()))),
        }
    }

    /// Whether its log contains this text by now.
    #[must_use]
    pub fn has_logged(&self, text: &str) -> bool {
        self.log.borrow().contains(text)
    }

    /// How often its log contains this text by now.
    #[must_use]
    pub fn count_logged(&self, text: &str) -> usize {
        self.log.borrow().matches(text).count()
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// Bytes of resident memory.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Sends it a signal. `name` is for example `TERM`.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};

        // By the system's call: a minimal Debian has no `kill` program.
        let signal = match name {
            "CONT" => Signal::CONT,
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "KILL" => Signal::KILL,
            "STOP" => Signal::STOP,
            "TERM" => Signal::TERM,
            other => anyhow::bail!("no test sends {other} yet: add it here"),
        };
        let id = i32::try_from(self.id()?).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.context("the process has no id")?, signal)?)
    }

    /// Kills it, without an orderly shutdown.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it ends. Returns its exit status and its log.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        within("a server closes its log", &mut self.logging).await???;
        let status = within("a server ends", self.child.wait()).await??;
        let log = self.log.borrow().clone();
        Ok((status, log))
    }

    /// Asks it to shut down, and waits until it ends.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn terminate(self) -> anyhow::Result<(ExitStatus, String)> {
        self.signal("TERM")?;
        self.ended().await
    }
}

/// `wharf up` with its own plugins folder.
#[derive(Debug)]
pub struct Wharf {
    /// The process.
    pub process: Process,
    /// The registry's URL.
    pub registry: String,
    /// The address for calls.
    pub host: String,
    /// The URL of the host's HTTP side.
    pub http: String,
    plugins: TempDir,
    /// Kept for as long as the process may use it.
    cache: Option<TempDir>,
}

impl Wharf {
    /// Starts it with these plugins in its folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn up(plugins: &[(&str, &[u8])], arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, bytes) in plugins {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        Self::up_over(folder, arguments, &[]).await
    }

    /// Like [`Wharf::up`], with arith, textkit and the guests `zoo` and `rogue`.
    ///
    /// # Errors
    /// When one of them is not built, or the process does not come up.
    pub async fn up_with_services(arguments: &[&str]) -> anyhow::Result<Self> {
        let plugins = [
            ("arith.wasm", &plugin("arith")?[..]),
            ("textkit.wasm", &plugin("textkit")?[..]),
            ("zoo.wasm", &guest("zoo")?[..]),
            ("rogue.wasm", &guest("rogue")?[..]),
        ];
        Self::up(&plugins, arguments).await
    }

    /// Like [`Wharf::up`], with a cache, so that a plugin that is loaded again is not compiled
    /// again.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn up_cached(plugins: &[(&str, &[u8])]) -> anyhow::Result<Self> {
        let cache = tempfile::tempdir()?;
        let path = cache.path().to_str().context("the cache's path is not UTF-8")?;
        let wharf = Self::up(plugins, &["--cache", path]).await?;
        Ok(Wharf { cache: Some(cache), ..wharf })
    }

    /// Starts it with this plugins folder and these environment variables.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn up_over(
        folder: TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let path = folder.path().to_str().context("the folder's path is not UTF-8")?;
        let base = [
            "up",
            "--plugins",
            path,
            "--listen",
            "127.0.0.1:0",
            "--registry-listen",
            "127.0.0.1:0",
        ];
        Self::of(Process::start_with(&[&base, arguments].concat(), environment)?, folder).await
    }

    /// A process that was started in another way, and serves this folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn of(mut process: Process, folder: TempDir) -> anyhow::Result<Self> {
        let registry = process.announced("registry").await?;
        let host = process.announced("host").await?;
        let http = process.announced("http").await?;
        Ok(Wharf { process, registry, host, http, plugins: folder, cache: None })
    }

    /// The process and the plugins folder. A test can end the process and keep the folder.
    #[must_use]
    pub fn into_parts(self) -> (Process, TempDir) {
        (self.process, self.plugins)
    }

    /// Its cache, if it was started with [`Wharf::up_cached`].
    #[must_use]
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_ref().map(TempDir::path)
    }

    /// The path of a file in its plugins folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.plugins.path().join(name)
    }

    /// A client that uses its registry.
    ///
    /// # Errors
    /// When the address is not valid.
    pub async fn client(&self) -> anyhow::Result<wharf_client::Client> {
        client(&self.registry)
    }

    /// A client that calls its host directly, without a registry.
    #[must_use]
    pub fn direct(&self) -> wharf_client::Client {
        wharf_client::Client::builder().direct(&self.host)
    }
}
