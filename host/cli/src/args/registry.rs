//! `wharf registry` and its commands for operators.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Asked, Configured, Issuing, Keeping, Rights, Tls};
use crate::values::address;

const REGISTRY_EXAMPLES: &str = "\
Examples:
  wharf registry                        keeps records in a file in the user's state directory
  wharf registry --store /var/lib/wharf/registry.redb
  wharf registry --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
  wharf registry --listen 10.0.0.2:8500 --principals principals.toml --tls-certificate cert.pem --tls-key key.pem
  wharf registry --listen 10.0.0.2:8500 --identity domain
  wharf registry --dns-listen 127.0.0.1:8600
  wharf registry status                 asks a registry that runs
  dig @127.0.0.1 -p 8600 arith.service.wharf SRV
  curl 'localhost:8500/register?name=Arith&addr=localhost:1234'
  curl 'localhost:8500/heartbeat?name=Arith'
  curl localhost:8500/services";

const BACKUP_EXAMPLES: &str = "\
The file has all records of one moment, also while the registry runs, and replaces an older one as a
whole. It needs the scope \"admin\" where there are principals.

Examples:
  wharf registry backup wharf-backup.ndjson";

const RESTORE_EXAMPLES: &str = "\
Records that are there already stay as they are. What is restored is dropped again if it is not heard
within a time to live.

Examples:
  wharf registry restore wharf-backup.ndjson";

#[derive(Debug, Args)]
#[command(after_help = REGISTRY_EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct RegistryArguments {
    #[command(subcommand)]
    pub(crate) verb: Option<RegistryVerb>,
    #[command(flatten)]
    pub(crate) serving: RegistryServing,
}

/// What a registry is started with.
#[derive(Debug, Args)]
pub(crate) struct RegistryServing {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8500", value_parser = address)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) configured: Configured,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
    /// Connections that may be open at once
    #[arg(long, value_name = "COUNT", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: u32,
    #[command(flatten)]
    pub(crate) issuing: Issuing,
    #[command(flatten)]
    pub(crate) tls: Tls,
    #[command(flatten)]
    pub(crate) rights: Rights,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryVerb {
    /// Show how a registry is; exits with 1 if it is not ready
    Status(RegistryQuestion),
    /// List hosts and registrations
    Hosts(RegistryQuestion),
    /// Let a host take no new calls, until it is started again or --undo
    Drain(DrainArguments),
    /// Withdraw a host that is gone, or a registration
    Remove(NamedHost),
    /// Write all records into a file
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(BackupFile),
    /// Write the records of a backup that are not there
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(BackupFile),
}

#[derive(Debug, Args)]
pub(crate) struct RegistryQuestion {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    pub(crate) named: NamedHost,
    /// Let it take calls again
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NamedHost {
    /// Its name, as `wharf registry hosts` shows it
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, Args)]
pub(crate) struct BackupFile {
    /// The file
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) asked: Asked,
}
