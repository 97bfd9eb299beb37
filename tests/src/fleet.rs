//! A fleet whose members belong to a trust domain: a registry, hosts and callers, each with a certificate.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;
use wharf_client::Member;

use crate::process::{Process, plugin, wharf};

/// The trust domain of test fleets.
pub const DOMAIN: &str = "test.internal";

/// A trust domain and its registry.
#[derive(Debug)]
pub struct Fleet {
    /// The registry, unless it is away.
    pub registry: Option<Process>,
    /// The registry's URL.
    pub url: String,
    arguments: Vec<String>,
    folder: TempDir,
}

/// A host of a fleet.
#[derive(Debug)]
pub struct FleetHost {
    /// The process.
    pub process: Process,
    /// The address for calls.
    pub address: String,
    /// The URL of its HTTP side.
    pub http: String,
    /// Its plugins.
    pub plugins: PathBuf,
}

impl Fleet {
    /// Makes a trust domain, and starts its registry with these arguments.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut fleet = Fleet { registry: None, url: String::new(), arguments, folder };
        fleet.identity(&["init", DOMAIN]).await?;
        fleet.start_registry("127.0.0.1:0").await?;
        Ok(fleet)
    }

    /// Starts its registry, which is away, at this address.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_registry(&mut self, listen: &str) -> anyhow::Result<()> {
        let store = self.path("registry.redb")?;
        let domain = self.path("domain")?;
        let mut all = vec!["registry", "--listen", listen, "--identity", &domain];
        if !self.arguments.iter().any(|argument| argument == "--store") {
            all.extend(["--store", &store]);
        }
        all.extend(self.arguments.iter().map(String::as_str));
        let mut registry = Process::start(&all)?;
        self.url = registry.announced("registry").await?;
        self.registry = Some(registry);
        Ok(())
    }

    /// The address of its registry, without the scheme.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("https://")
    }

    /// Kills its registry.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn lose_registry(&mut self) -> anyhow::Result<()> {
        self.registry.take().context("the registry is away already")?.kill().await
    }

    /// A path in the fleet's folder.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn path(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.path().join(name);
        Ok(path.to_str().context("the path is not UTF-8")?.to_owned())
    }

    /// Runs `wharf identity` on the trust domain, and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub async fn identity(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let domain = self.path("domain")?;
        let done = wharf(&[&["identity"], arguments, &["--identity", &domain]].concat()).await?;
        anyhow::ensure!(done.code == Some(0), "{arguments:?}: {}", done.stderr);
        Ok(done.stdout.trim().to_owned())
    }

    /// A join token, as for `["--host", "edge-1"]`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn token(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.identity(&[&["token"], arguments].concat()).await
    }

    /// Starts a host of this name, with arith and textkit.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn host(&self, name: &str, arguments: &[&str]) -> anyhow::Result<FleetHost> {
        let token = self.token(&["--host", name]).await?;
        let plugins = self.folder.path().join(format!("plugins-{name}"));
        std::fs::create_dir_all(&plugins)?;
        for service in ["arith", "textkit"] {
            std::fs::write(plugins.join(format!("{service}.wasm")), plugin(service)?)?;
        }
        let folder = self.path(&format!("host-{name}"))?;
        let path = plugins.to_str().context("the path is not UTF-8")?;
        let base = ["host", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        let paths = ["--plugins", path, "--identity", &folder, "--join", &token];
        let registry = ["--registry", &self.url];
        let mut process = Process::start(&[&base[..], &paths, &registry, arguments].concat())?;
        let address = process.announced("host").await?;
        let http = process.announced("http").await?;
        Ok(FleetHost { process, address, http, plugins })
    }

    /// A caller of this name, who has joined.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn caller(&self, name: &str) -> anyhow::Result<Member> {
        let token = self.token(&["--caller", name]).await?;
        let folder = self.path(&format!("caller-{name}"))?;
        Ok(Member::join(Path::new(&folder), &self.url, &token, None).await?)
    }

    /// A client for this member, which follows the fleet's registry.
    ///
    /// # Errors
    /// When the registry's address is not valid.
    pub fn client(&self, member: &Member) -> anyhow::Result<wharf_client::Client> {
        let builder = wharf_client::Client::builder().without_lists().identity(member.identity());
        Ok(builder.registry_client(member.registry(&self.url)?))
    }
}
