//! `wharf dev`: serves a project while it is written.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use wharf_host::{FileState, Host};
use wharf_schema::{Broken, Service, differences, printable, printable_lines};

use super::building::{Signals, build};
use super::project::Project;
use super::watching::Watching;
use crate::args::{Arguments, Command, Dev, Up};
use crate::describe::Examples;
use crate::up::{Running, serve};

pub(crate) async fn run(arguments: Dev, files: Option<u64>) -> anyhow::Result<()> {
    // A mistake in it is told before anything is bound.
    let project = Project::open(&arguments.dir)?;
    let folder = tempfile::tempdir()?;
    let up = up(&arguments, folder.path())?;
    let plugins = folder.path();
    let mut hangup = signal(SignalKind::hangup())?;
    let beside = async |running: Running<'_>| {
        let mut session = Session { running, plugins, served: Vec::new() };
        tokio::select! {
            ended = session.follow(project) => ended,
            // The terminal is closed.
            _ = hangup.recv() => Ok(()),
        }
    };
    serve(up, files, beside).await
}

/// The same as `wharf up` for the folder.
fn up(arguments: &Dev, folder: &Path) -> anyhow::Result<Up> {
    let http = arguments.http_listen.0.map_or_else(|| "none".to_owned(), |http| http.to_string());
    let flags = [
        ("--plugins", folder.display().to_string()),
        ("--listen", arguments.listen.to_string()),
        ("--http-listen", http),
        ("--registry-listen", arguments.registry_listen.to_string()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    let flags = ["wharf", "up"].map(str::to_owned).into_iter().chain(flags);
    match Arguments::try_parse_from(flags)?.command {
        Command::Up(up) => Ok(up),
        _ => anyhow::bail!("'up' is another command"),
    }
}

struct Session<'s> {
    running: Running<'s>,
    /// The folder that the host serves.
    plugins: &'s Path,
    /// What is served now.
    served: Vec<Service>,
}

impl Session<'_> {
    /// Builds and serves, at once and after each change.
    async fn follow(&mut self, mut project: Project) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        writeln!(
            out,
            "registry: {}\nhost: {}",
            self.running.registry,
            self.running.host.address()
        )?;
        loop {
            // What changes during the build is told after it.
            let mut watching = Watching::start(&project)?;
            for path in project.watch.iter().filter(|path| !path.exists()) {
                let path = printable(&path.display().to_string());
                writeln!(out, "warning: {path} is to be watched, and is not there")?;
            }
            if let Err(error) = self.turn(&project).await {
                // Whoever prints the output may be gone.
                writeln!(out, "error: {}", printable_lines(&wharf_net::chain(error.as_ref())))?;
                if !self.served.is_empty() {
                    writeln!(out, "the version before goes on serving")?;
                }
            }
            writeln!(out, "waiting for changes")?;
            out.flush()?;
            watching.changed().await;
            project = match Project::open(&project.root) {
                Ok(project) => project,
                Err(error) => {
                    writeln!(out, "error: {}", printable_lines(&wharf_net::chain(error.as_ref())))?;
                    project
                }
            };
        }
    }

    /// Builds the component, and waits until the host has taken or refused it.
    async fn turn(&mut self, project: &Project) -> anyhow::Result<()> {
        let start = Instant::now();
        let services = build(project, Signals::Handled).await?.services;
        let built = start.elapsed();
        let file = format!("{}.wasm", project.name);
        let host = self.running.host;
        let attempts = attempts(host, &file);
        let start = Instant::now();
        project.install(self.plugins)?;
        let mut changes = host.changes();
        while self::attempts(host, &file) == attempts {
            if changes.changed().await.is_err() {
                anyhow::bail!("the host has ended");
            }
        }
        if let Some(FileState::Refused(reason)) = host.files().get(&file).map(|f| f.state.clone()) {
            anyhow::bail!("{file} does not load: {reason}");
        }
        // Callers find it by the registry.
        host.announced().await;
        let mut out = std::io::stdout().lock();
        writeln!(out, "built in {built:.1?}, serves after {:.1?} more", start.elapsed())?;
        if self.served.is_empty() {
            self.greet(&services, &mut out)?;
        }
        for difference in differences(&self.served, &services) {
            if !self.served.is_empty() {
                let text = printable(&difference.to_string());
                match difference.broken {
                    Broken::Nobody => writeln!(out, "  {text}")?,
                    broken => writeln!(out, "  {text} (breaks {broken})")?,
                }
            }
        }
        self.served = services;
        Ok(())
    }

    /// How each method is called.
    fn greet(&self, services: &[Service], out: &mut impl Write) -> std::io::Result<()> {
        for service in services {
            writeln!(out, "  {}", service.name())?;
            for method in service.methods() {
                match Examples::of(service, method) {
                    Ok(examples) => {
                        let call = format!("wharf call{}", self.running.flags());
                        let command = examples.command.replacen("wharf call", &call, 1);
                        writeln!(out, "    {}", printable(&command))?;
                    }
                    Err(reason) => {
                        let name = &method.name;
                        writeln!(out, "    {name} cannot be called: {}", printable(&reason))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// How often the host has loaded or refused a file.
fn attempts(host: &Host, file: &str) -> u64 {
    host.files().get(file).map(|report| report.attempts).unwrap_or_default()
}
