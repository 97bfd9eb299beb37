//! Third-party programs that tests run. CI installs them; other machines may not have them.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Process, eventually, get};

/// The path of a program. If it is not installed, prints that the test is skipped and returns
/// `None`; in CI, it panics instead.
#[must_use]
#[allow(clippy::panic, reason = "CI skips nothing")]
pub fn installed(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.is_file());
    if found.is_none() {
        let why = format!("{program} is not installed ({package})");
        assert!(std::env::var_os("CI").is_none(), "{why}, and CI skips nothing");
        say_skipped(&why);
    }
    found
}

/// The path of a tool that `make tools` installs. If it is not there, prints that the test is skipped
/// and returns `None`.
///
/// # Errors
/// In CI, when it is not there.
pub fn tool(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target directory")?;
    let path = target.join("tools").join(name);
    if path.exists() {
        return Ok(Some(path));
    }
    missing(name, "make tools")
}

pub(crate) fn missing<T>(name: &str, how: &str) -> anyhow::Result<Option<T>> {
    ensure!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI skips nothing");
    say_skipped(&format!("{name} is not installed ({how})"));
    Ok(None)
}

/// Prints that something is not tested. It is printed even if the test harness captures output.
pub(crate) fn say_skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A port that nothing listens on now, for a program that cannot pick its own.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One member of an etcd cluster.
#[derive(Debug)]
pub struct Member {
    /// Its process, unless it was killed.
    pub process: Option<Process>,
    arguments: Vec<String>,
    /// The address for its clients.
    pub client: String,
    metrics: String,
}

/// An etcd cluster on loopback.
#[derive(Debug)]
pub struct EtcdCluster {
    /// Its members.
    pub members: Vec<Member>,
    program: PathBuf,
    data: TempDir,
}

impl EtcdCluster {
    /// Starts a cluster and waits until it has a leader. `None` if etcd is not installed.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(size: usize) -> anyhow::Result<Option<Self>> {
        Self::start_with(size, "http", &[]).await
    }

    /// Like [`EtcdCluster::start`], with further arguments for each member. `scheme` is that of the
    /// URLs for clients.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_with(
        size: usize,
        scheme: &str,
        further: &[&str],
    ) -> anyhow::Result<Option<Self>> {
        let Some(program) = installed("etcd", "Debian: etcd-server") else { return Ok(None) };
        let data = tempfile::tempdir()?;
        let ports: Vec<[u16; 3]> = (0..size)
            .map(|_| Ok([free_port()?, free_port()?, free_port()?]))
            .collect::<anyhow::Result<_>>()?;
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, [_, peer, _])| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let mut members = Vec::new();
        for (n, [client, peer, metrics]) in ports.iter().enumerate() {
            let folder = data.path().join(format!("m{n}"));
            let client_url = format!("{scheme}://127.0.0.1:{client}");
            // This address also serves the member's health, without TLS and without authentication.
            let metrics_url = format!("http://127.0.0.1:{metrics}");
            let peer_url = format!("http://127.0.0.1:{peer}");
            let folder = folder.to_str().context("a path that is not UTF-8")?;
            let arguments = [
                ["--name", &format!("m{n}")],
                ["--data-dir", folder],
                ["--listen-client-urls", &client_url],
                ["--advertise-client-urls", &client_url],
                ["--listen-peer-urls", &peer_url],
                ["--initial-advertise-peer-urls", &peer_url],
                ["--initial-cluster", &peers.join(",")],
                ["--initial-cluster-state", "new"],
                ["--listen-metrics-urls", &metrics_url],
                ["--log-level", "error"],
            ];
            let arguments = arguments.iter().flatten().chain(further);
            members.push(Member {
                process: None,
                arguments: arguments.map(|&argument| argument.to_owned()).collect(),
                client: format!("127.0.0.1:{client}"),
                metrics: format!("127.0.0.1:{metrics}"),
            });
        }
        let mut cluster = EtcdCluster { members, program, data };
        for n in 0..size {
            cluster.start_member(n)?;
        }
        eventually("the etcd cluster has a leader", async || {
            let url = format!("http://{}/health", cluster.members[0].metrics);
            get(&url).await.ok().filter(|(status, _)| *status == 200)
        })
        .await?;
        Ok(Some(cluster))
    }

    /// Starts a member, or starts it again after it was killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_member(&mut self, n: usize) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        let member = self.members.get_mut(n).context("no such member")?;
        command.args(&member.arguments);
        // Registries that come and go leave connections that it would complain of.
        command.env("ETCD_HEARTBEAT_INTERVAL", "100").env("ETCD_ELECTION_TIMEOUT", "1000");
        member.process = Some(Process::run(command)?);
        Ok(())
    }

    /// Deletes the data of a member that was killed.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn lose_data(&self, n: usize) -> anyhow::Result<()> {
        Ok(std::fs::remove_dir_all(self.folder(n))?)
    }

    /// The folder with a member's data.
    #[must_use]
    pub fn folder(&self, n: usize) -> PathBuf {
        self.data.path().join(format!("m{n}"))
    }

    /// The value for `wharf registry --store`.
    #[must_use]
    pub fn store(&self) -> String {
        let members: Vec<&str> = self.members.iter().map(|member| &member.client[..]).collect();
        format!("etcd://{}", members.join(","))
    }

    /// The member that is the leader.
    ///
    /// # Errors
    /// When there is no leader.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        eventually("somebody leads", async || {
            for (n, member) in self.members.iter().enumerate() {
                let status = self.ask(member, "maintenance/status", "{}").await;
                let Ok(status) = status else { continue };
                if status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
                {
                    return Some(n);
                }
            }
            None
        })
        .await
    }

    /// Sends a request to a member through etcd's JSON gateway.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask(
        &self,
        member: &Member,
        what: &str,
        body: &str,
    ) -> anyhow::Result<serde_json::Value> {
        let url = format!("http://{}/v3/{what}", member.client);
        let timeout = std::time::Duration::from_secs(2);
        let request = crate::http_client()?.post(url).body(body.to_owned()).timeout(timeout);
        Ok(serde_json::from_str(&request.send().await?.text().await?)?)
    }
}
