//! The commands that look at services and call them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::Asked;
use crate::complete;
use crate::values::{time, token};

const CALL_EXAMPLES: &str = "\
Each argument is one parameter, as JSON, in order or as NAME=VALUE; where the only parameter is a record,
NAME may be one of its fields. Strings and enum cases may be written without quotes, and options at the
end may be left out. @FILE stands for what is in a file, - for what comes on standard input.
'wharf describe SERVICE' shows an example of each call.

Examples:
  wharf call arith.multiply a=7 b=8
  wharf call arith.multiply '{\"a\":7,\"b\":8}'
  wharf call Arith.Divide a=7 b=0          prints the error and exits with 3
  wharf call textkit.recase 'hello there' to=title
  wharf call --direct 127.0.0.1:7400 arith.multiply a=7 b=8";

const SERVICES_EXAMPLES: &str = "\
Examples:
  wharf services
  wharf services --watch
  wharf services --registry http://10.0.0.2:8500 --json";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  wharf describe arith                     WIT, endpoints, and an example of each call
  wharf describe arith.multiply --json
  wharf describe plugins/arith.wasm        a file that no host serves";

const INSPECT_EXAMPLES: &str = "\
With --against, prints what is different and whom that breaks, and exits with 7 if it breaks anybody.

Examples:
  wharf inspect plugins/arith.wasm
  wharf inspect new/arith.wasm --against plugins/arith.wasm
  wharf inspect new/arith.wasm --against arith";

#[derive(Debug, Args)]
#[command(after_help = CALL_EXAMPLES)]
pub(crate) struct Call {
    /// SERVICE.METHOD: arith.multiply, Arith.Multiply or demo:arith/arith@0.1.0.multiply
    #[arg(add = ArgValueCompleter::new(complete::methods))]
    pub(crate) method: String,
    /// The parameters, as JSON, in order or as NAME=VALUE; @FILE reads a file, - reads standard input
    #[arg(allow_negative_numbers = true)]
    pub(crate) arguments: Vec<String>,
    /// Print the result, or the error, as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// How long the call may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) callee: Callee,
}

/// The hosts that a command calls, how it finds them, and what it shows them.
#[derive(Debug, Args)]
pub(crate) struct Callee {
    /// Call this host directly, without a registry; default port: 7400
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) direct: Option<String>,
    /// Name that the host of --direct has to prove; default: its address
    #[arg(long, value_name = "NAME", requires = "direct")]
    pub(crate) host_name: Option<String>,
    /// Call only hosts that prove their name with a certificate from one of these authorities, in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    pub(crate) host_authorities: Option<PathBuf>,
    /// Client certificate for hosts and its private key, both in one PEM file
    #[arg(long, value_name = "FILE", requires = "host_authorities")]
    pub(crate) host_certificate: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Token for the host
    #[arg(long, env = "WHARF_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = SERVICES_EXAMPLES)]
pub(crate) struct Services {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the list again whenever it changes, until it is interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = DESCRIBE_EXAMPLES)]
pub(crate) struct Describe {
    /// SERVICE or SERVICE.METHOD as hosts serve it, or a component's file
    #[arg(add = ArgValueCompleter::new(complete::services))]
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) callee: Callee,
}

#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub(crate) struct Inspect {
    /// The component to inspect
    pub(crate) file: PathBuf,
    /// Compare it with this file, or with this service as hosts serve it
    #[arg(long, value_name = "FILE|SERVICE")]
    pub(crate) against: Option<String>,
    /// Print the comparison as JSON
    #[arg(long, requires = "against")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) callee: Callee,
}
