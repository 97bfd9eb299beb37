//! The arguments of identities: trust domains, tokens, and what a registry gives out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use wharf_client::TrustDomain;

use crate::values::{certificate_life, time};

const IDENTITY_EXAMPLES: &str = "\
Examples:
  wharf identity init acme.internal --identity domain
  wharf registry --identity domain
  wharf identity token --host edge-1 --identity domain
  wharf host --registry https://10.0.0.2:8500 --identity member --join TOKEN
  wharf identity token --caller shop --identity domain
  wharf identity join TOKEN --registry https://10.0.0.2:8500 --identity shop
  wharf call --registry https://10.0.0.2:8500 --identity shop arith.multiply '{\"a\":7,\"b\":8}'";

#[derive(Debug, Args)]
#[command(after_help = IDENTITY_EXAMPLES)]
pub(crate) struct IdentityCommand {
    #[command(subcommand)]
    pub(crate) verb: IdentityVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityVerb {
    /// Make a trust domain: a root, and an issuer for a registry
    Init {
        /// Its name, as in acme.internal
        domain: TrustDomain,
        #[command(flatten)]
        folder: IdentityFolder,
    },
    /// Print a token that lets a host, a caller or a registry into the trust domain
    Token {
        #[command(flatten)]
        who: Joiner,
        /// How long the token can be used
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = time)]
        life: Duration,
        #[command(flatten)]
        folder: IdentityFolder,
    },
    /// Join a trust domain with a token, and keep the certificate in the folder
    Join {
        /// The token
        token: String,
        /// The registry that gives out certificates
        #[arg(long, value_name = "URL", env = "WHARF_REGISTRY")]
        registry: String,
        /// The name to take, if the token allows several
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        folder: IdentityFolder,
    },
    /// Say who the folder's certificate is for
    Show {
        #[command(flatten)]
        folder: IdentityFolder,
    },
    /// Exchange the root: add the next one, use it, drop the others
    Root {
        /// The step: `add`; a minute later `use`; when all certificates are new `drop`
        step: RootStep,
        #[command(flatten)]
        folder: IdentityFolder,
    },
}

/// Whom a token lets in.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Joiner {
    /// A host of this name; * at its end stands for anything
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// A caller of this name; * at its end stands for anything
    #[arg(long, value_name = "NAME")]
    pub(crate) caller: Option<String>,
    /// A further registry
    #[arg(long)]
    pub(crate) registry: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum RootStep {
    Add,
    Use,
    Drop,
}

/// Where an identity is kept.
#[derive(Debug, Args)]
pub(crate) struct IdentityFolder {
    /// The folder of the identity; default: wharf/identity in the user's state directory
    #[arg(long, value_name = "DIR", env = "WHARF_IDENTITY")]
    pub(crate) identity: Option<PathBuf>,
}

/// How a registry gives out certificates.
#[derive(Debug, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct Issuing {
    /// Give out certificates for the trust domain in this folder, made by `wharf identity init` or --join
    #[arg(long, value_name = "DIR", env = "WHARF_IDENTITY", conflicts_with = "tls_certificate")]
    pub(crate) identity: Option<PathBuf>,
    /// Join a trust domain as a further registry, with a token from `wharf identity token --registry`
    #[arg(long, value_name = "TOKEN", env = "WHARF_JOIN", hide_env_values = true, requires_all = ["identity", "join_at"])]
    pub(crate) join: Option<String>,
    /// The registry that has the trust domain, for a registry that joined
    #[arg(long, value_name = "URL", requires = "identity")]
    pub(crate) join_at: Option<String>,
    /// DNS name or IP address to put into the registry's certificate, for clients other than Wharf's;
    /// may be repeated
    #[arg(long, value_name = "NAME", requires = "identity")]
    pub(crate) certificate_name: Vec<String>,
    /// How long the certificates of hosts and callers last
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = certificate_life)]
    pub(crate) certificate_life: Duration,
}
