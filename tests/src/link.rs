//! Two network namespaces that a link joins, so that a network can be slow, far away or lossy.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::thread::ThreadNameSpaceType;

use crate::programs::{installed, say_skipped};
use crate::{Process, Wharf};

/// The caller's side of a link.
const NEAR: &str = "10.77.0.1";
/// The other side.
const FAR: &str = "10.77.0.2";

/// A link between two namespaces that exist as long as it does.
#[derive(Debug)]
pub struct Link {
    near: NameSpace,
    far: NameSpace,
}

/// A machine of its own, as far as the network goes: all ports are free, and nobody else is reached.
#[derive(Debug)]
pub struct Alone(NameSpace);

impl Alone {
    /// A new one; or `None` if this machine cannot make one, which is said. In CI, that is a failure.
    #[must_use]
    #[allow(clippy::panic, reason = "CI skips nothing")]
    pub fn if_possible() -> Option<Self> {
        installed("ip", "Debian: iproute2")?;
        installed("unshare", "Debian: util-linux")?;
        match NameSpace::new() {
            Ok(space) => Some(Alone(space)),
            Err(error) if std::env::var_os("CI").is_some() => panic!("{error:#}"),
            Err(error) => {
                say_skipped(&format!("{error:#}"));
                None
            }
        }
    }

    /// A command that runs there.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.0.command(program)
    }
}

/// A network namespace, and the process that keeps it.
#[derive(Debug)]
struct NameSpace(Child);

impl NameSpace {
    fn new() -> anyhow::Result<Self> {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "a network namespace needs root and iproute2");
        Ok(NameSpace(keeper))
    }

    /// A command that runs inside.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string()]).arg(program);
        command
    }

    /// What a command prints.
    fn run(&self, command: &str) -> anyhow::Result<String> {
        let mut words = command.split(' ');
        let program = words.next().context("no command")?;
        let output = self.command(program).args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for NameSpace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Link {
    /// A link without limits; or `None` if this machine cannot make one, which is said. In CI, that is a
    /// failure.
    #[must_use]
    #[allow(clippy::panic, reason = "CI skips nothing")]
    pub fn if_possible() -> Option<Self> {
        for (program, package) in [
            ("ip", "Debian: iproute2"),
            ("tc", "Debian: iproute2"),
            ("nft", "Debian: nftables"),
            ("unshare", "Debian: util-linux"),
        ] {
            installed(program, package)?;
        }
        match Link::new() {
            Ok(link) => Some(link),
            Err(error) if std::env::var_os("CI").is_some() => panic!("{error:#}"),
            Err(error) => {
                say_skipped(&format!("{error:#}"));
                None
            }
        }
    }

    /// A link without limits.
    ///
    /// # Errors
    /// When the namespaces cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let (near, far) = (NameSpace::new()?, NameSpace::new()?);
        let target = far.0.id();
        near.run(&format!("ip link add near type veth peer name far netns {target}"))?;
        for (space, name, address) in [(&near, "near", NEAR), (&far, "far", FAR)] {
            space.run(&format!("ip address add {address}/24 dev {name}"))?;
            space.run(&format!("ip link set {name} up"))?;
        }
        Ok(Link { near, far })
    }

    /// Shapes both directions. `discipline` is a queueing discipline with its arguments, as `tc` takes
    /// them.
    ///
    /// # Errors
    /// When `tc` refuses it.
    pub fn shape(&self, discipline: &str) -> anyhow::Result<()> {
        self.near.run(&format!("tc qdisc replace dev near root {discipline}"))?;
        self.far.run(&format!("tc qdisc replace dev far root {discipline}"))?;
        Ok(())
    }

    /// The same for the near side's loopback.
    ///
    /// # Errors
    /// When `tc` refuses it.
    pub fn shape_loopback(&self, discipline: &str) -> anyhow::Result<()> {
        self.near.run(&format!("tc qdisc replace dev lo root {discipline}"))?;
        Ok(())
    }

    /// Loses so many of a thousand packets that arrive on the near side, also over its loopback.
    ///
    /// # Errors
    /// When `nft` refuses it.
    pub fn lose(&self, of_a_thousand: u32) -> anyhow::Result<()> {
        self.near.run("nft add table inet link")?;
        self.near.run("nft add chain inet link in { type filter hook input priority 0 ; }")?;
        let rule = "nft add rule inet link in meta l4proto tcp numgen random mod 1000 lt";
        self.near.run(&format!("{rule} {of_a_thousand} counter drop"))?;
        Ok(())
    }

    /// How many packets were lost so.
    ///
    /// # Errors
    /// When `nft` does not say it.
    pub fn lost(&self) -> anyhow::Result<u64> {
        let listed = self.near.run("nft list chain inet link in")?;
        let (_, counted) = listed.split_once("counter packets ").context("no counter")?;
        Ok(counted.split(' ').next().unwrap_or_default().parse()?)
    }

    /// Runs what `run` begins on the near side, on threads of its own.
    ///
    /// # Errors
    /// When the threads cannot enter it.
    pub fn inside<F: Future>(&self, run: impl FnOnce() -> F + Send) -> anyhow::Result<F::Output>
    where
        F::Output: Send,
    {
        let space = std::fs::File::open(format!("/proc/{}/ns/net", self.near.0.id()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                rustix::thread::move_into_thread_name_spaces(
                    space.as_fd(),
                    ThreadNameSpaceType::NETWORK,
                )?;
                // The runtime's threads begin where this one is.
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                anyhow::Ok(runtime.block_on(run()))
            });
            thread.join().map_err(|_| anyhow::anyhow!("it panicked inside"))?
        })
    }

    /// Starts `wharf up` on the far side. It has to be called inside.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn far_wharf(&self, plugins: &[(&str, &[u8])]) -> anyhow::Result<Wharf> {
        let folder = tempfile::tempdir()?;
        for (name, bytes) in plugins {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        let mut command = self.far.command(Process::program()?);
        command.arg("up").arg("--plugins").arg(folder.path());
        command.args(["--listen", &format!("{FAR}:0"), "--registry-listen", "127.0.0.1:0"]);
        command.args(["--http-listen", "127.0.0.1:0", "--anyone-may-call"]);
        command.env("WHARF_CACHE", "none").env("WHARF_LOG", "info");
        Wharf::of(Process::run(command.into())?, folder).await
    }
}
