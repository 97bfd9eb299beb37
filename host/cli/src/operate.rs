//! `wharf registry status`, `hosts`, `drain`, `remove`, `backup` and `restore`.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use wharf_registry::backup;
use wharf_registry_api::{
    BackupRecord, EndpointState, HostSummary, RegistryClient, RegistryStatus, Restored,
};
use wharf_schema::{printable, printable_json};

use crate::args::{Asked, BackupFile, DrainArguments, NamedHost, RegistryQuestion, RegistryVerb};
use crate::exit::Exit;
use crate::services::table;

/// How many bytes of records are sent at a time. A registry takes bodies of 4 MiB.
const BATCH: usize = 1024 * 1024;

pub(crate) async fn run(verb: RegistryVerb) -> anyhow::Result<ExitCode> {
    match verb {
        RegistryVerb::Status(question) => return status(question).await,
        RegistryVerb::Hosts(question) => hosts(question).await?,
        RegistryVerb::Drain(arguments) => drain(arguments).await?,
        RegistryVerb::Remove(named) => remove(named).await?,
        RegistryVerb::Backup(file) => back_up(file).await?,
        RegistryVerb::Restore(file) => restore(file).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn client(asked: &Asked) -> anyhow::Result<RegistryClient> {
    let member = asked.member().await?;
    asked.client(member.as_ref())
}

async fn status(question: RegistryQuestion) -> anyhow::Result<ExitCode> {
    let registry = client(&question.asked).await?;
    let status = registry.status().await?;
    let mut out = std::io::stdout().lock();
    if question.json {
        writeln!(out, "{}", printable_json(&serde_json::to_string_pretty(&status)?))?;
    } else {
        let ready = match &status.why {
            None => "ready".to_owned(),
            Some(why) => format!("not ready: {why}"),
        };
        writeln!(out, "{}: {}", registry.address(), printable(&ready))?;
        for (what, value) in lines(&status) {
            writeln!(out, "  {what:<14}{}", printable(&value))?;
        }
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(status: &RegistryStatus) -> Vec<(&'static str, String)> {
    let time = |millis| humantime::format_duration(Duration::from_millis(millis)).to_string();
    let up = Duration::from_secs(status.uptime_ms / 1000);
    let elected = match (status.elected, &status.store[..]) {
        (true, "etcd") => " (this process drops silent hosts and makes checks)",
        (false, _) => " (another process drops silent hosts and makes checks)",
        (true, _) => "",
    };
    let unverified = match status.unverified {
        0 => String::new(),
        some => format!(", {some} of these may be gone"),
    };
    let mut lines = vec![
        ("version", status.version.clone()),
        ("up for", humantime::format_duration(up).to_string()),
        ("store", format!("{}{elected}", status.store)),
        (
            "hosts",
            format!("{}, and {} registrations{unverified}", status.hosts, status.registrations),
        ),
        ("services", format!("{} at {} endpoints", status.services, status.endpoints)),
        (
            "heartbeats",
            format!("every {}; dropped after {}", time(status.heartbeat_ms), time(status.ttl_ms)),
        ),
        ("last change", status.index.to_string()),
    ];
    if status.silent > 0 {
        let held = format!("{}, held back: too many fell silent together", status.silent);
        lines.push(("silent", held));
    }
    lines
}

async fn hosts(question: RegistryQuestion) -> anyhow::Result<()> {
    let registry = client(&question.asked).await?;
    let list = registry.hosts().await?;
    let mut out = std::io::stdout().lock();
    if question.json {
        writeln!(out, "{}", printable_json(&serde_json::to_string_pretty(&list)?))?;
        return Ok(());
    }
    if list.hosts.is_empty() {
        writeln!(out, "No host and no service has registered itself at {}.", registry.address())?;
        return Ok(());
    }
    let mut rows = vec![["HOST", "ADDRESS", "ENDPOINTS", "HEARD", "STATE"].map(str::to_owned)];
    // Hosts choose these texts.
    rows.extend(list.hosts.iter().map(|host| row(host).map(|cell| printable(&cell))));
    write!(out, "{}", table(&rows))?;
    Ok(())
}

fn row(host: &HostSummary) -> [String; 5] {
    let heard = match host.heard_ms_ago {
        Some(ago) => {
            let ago = Duration::from_secs(ago / 1000);
            format!("{} ago", humantime::format_duration(ago))
        }
        None => "not yet".to_owned(),
    };
    let mut state = host.state.to_string();
    if host.unverified {
        state.push_str(", may be gone");
    }
    if let Some(reason) = &host.reason {
        state = format!("{state}: {reason}");
    }
    [host.host.clone(), host.address.clone(), host.endpoints.to_string(), heard, state]
}

/// The host or registration with this name.
async fn find(registry: &RegistryClient, name: &str) -> anyhow::Result<HostSummary> {
    let hosts = registry.hosts().await?.hosts;
    hosts.into_iter().find(|host| host.host == name).ok_or_else(|| {
        let message = format!(
            "no host '{name}' is registered at {}: 'wharf registry hosts' lists them",
            registry.address()
        );
        Exit::NotFound(message).into()
    })
}

async fn drain(arguments: DrainArguments) -> anyhow::Result<()> {
    let DrainArguments { named: NamedHost { host: name, asked }, undo } = arguments;
    let registry = client(&asked).await?;
    let host = find(&registry, &name).await?;
    if host.registration {
        anyhow::bail!(
            "'{name}' is a registration, which does not drain: withdraw it with 'wharf registry remove {name}', or set it into maintenance by Consul's API"
        );
    }
    let state = if undo { EndpointState::Serving } else { EndpointState::Draining };
    registry.set_state(&name, host.session, state).await?;
    let now = match undo {
        true => "takes calls again",
        false => "gets no new calls, until it is started again or 'wharf registry drain --undo'",
    };
    println!("{} {now}", printable(&name));
    Ok(())
}

async fn remove(named: NamedHost) -> anyhow::Result<()> {
    let NamedHost { host: name, asked } = named;
    let registry = client(&asked).await?;
    let host = find(&registry, &name).await?;
    if host.registration {
        let (service, address) = name.rsplit_once('@').unwrap_or((&name, &host.address));
        registry.deregister(service, address).await?;
    } else {
        registry.withdraw(&name, host.session).await?;
    }
    let again = if host.registration { "" } else { "; if it lives, it declares itself again" };
    println!("{} is withdrawn{again}", printable(&name));
    Ok(())
}

async fn back_up(arguments: BackupFile) -> anyhow::Result<()> {
    let BackupFile { file, asked } = arguments;
    let registry = client(&asked).await?;
    let mut backup = registry.backup().await?;
    let mut name = file.clone().into_os_string();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    let written = |path: &Path| format!("{} cannot be written", path.display());
    let mut options = OpenOptions::new();
    // Metadata may have secrets.
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut out = options.open(&unfinished).with_context(|| written(&unfinished))?;
    while let Some(chunk) = backup.chunk().await? {
        out.write_all(&chunk).with_context(|| written(&unfinished))?;
    }
    out.sync_all().with_context(|| written(&unfinished))?;
    let (head, _) = read(&unfinished)?;
    std::fs::rename(&unfinished, &file).with_context(|| written(&file))?;
    println!("{}: {} records of {}", file.display(), head.records, head.taken);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<(backup::Head, Vec<BackupRecord>)> {
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    backup::read(BufReader::new(file)).with_context(|| path.display().to_string())
}

async fn restore(arguments: BackupFile) -> anyhow::Result<()> {
    let BackupFile { file, asked } = arguments;
    let (head, records) = read(&file)?;
    let registry = client(&asked).await?;
    let mut all = Restored::default();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut records = records.into_iter().peekable();
    let size = |record: &BackupRecord| record.key.len() + record.record.get().len();
    while let Some(record) = records.next() {
        bytes += size(&record);
        batch.push(record);
        // A large record goes alone.
        if records.peek().is_none_or(|next| bytes + size(next) > BATCH) {
            bytes = 0;
            let Restored { restored, present } =
                registry.restore(std::mem::take(&mut batch)).await?;
            all.restored += restored;
            all.present += present;
        }
    }
    println!(
        "{} records of {} were restored; {} were there already and stay as they are",
        all.restored, head.taken, all.present
    );
    Ok(())
}
