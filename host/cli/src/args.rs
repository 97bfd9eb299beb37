//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use wharf_host::{Compatible, Door};

mod author;
mod calling;
mod identity;
mod install;
mod registry;

pub(crate) use self::author::{Bindings, Build, Componentize, Dev, Language, New, Test};
pub(crate) use self::calling::{Call, Callee, Describe, Inspect, Services};
pub(crate) use self::identity::{
    IdentityCommand, IdentityFolder, IdentityVerb, Issuing, Joiner, RootStep,
};
pub(crate) use self::install::{Completions, Health, Man, Shell, Version};
pub(crate) use self::registry::{
    BackupFile, DrainArguments, NamedHost, RegistryArguments, RegistryQuestion, RegistryServing,
    RegistryVerb,
};
use crate::values::{
    HttpListen, address, compatible, domain, door, host_name, http_listen, memory, metadatum,
    origin, secret, size, time, token, ttl,
};

/// The default address of a registry: `up` and `registry` listen there by default.
pub(crate) const REGISTRY: &str = "http://127.0.0.1:8500";

/// The default plugins folder. `up` creates it.
pub(crate) const PLUGINS: &str = "plugins";

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the command or the call failed
  2  the command line is wrong
  3  the method returned its own error
  4  there is no such service, method or file
  5  the registry or the host cannot be reached
  6  the deadline passed
  7  callers of the old version break, or an example call went wrong

Environment:
  WHARF_REGISTRY  address of the registry, like --registry
  WHARF_TOKEN     token for calls, like --token
  WHARF_REGISTRY_TOKEN, WHARF_REGISTRY_AUTHORITIES, WHARF_REGISTRY_CERTIFICATE
                  like --registry-token, --registry-authorities, --registry-certificate
  WHARF_IDENTITY  folder of a certificate, like --identity
  WHARF_JOIN      join token, like --join
  WHARF_ETCD_USER NAME:PASSWORD for a registry's etcd cluster
  WHARF_CONFIG    file of flags for servers, like --config; each flag of a server can also be given as
                  WHARF_ and its name, as in WHARF_MAX_CONNECTIONS
  WHARF_LOG       log filter, for example info or wharf_host=debug
  TRACEPARENT     the trace that a call belongs to (W3C Trace Context)
  OTEL_EXPORTER_OTLP_ENDPOINT
                  servers export the spans of calls to this address, by OTLP over HTTP;
                  without it, they do not export spans";

const UP_EXAMPLES: &str = "\
Examples:
  wharf up                              registry, and host for plugins/
  wharf up --plugins services           host for another folder
  wharf up --listen 0.0.0.0:7400 --advertise 10.0.0.7:7400
  wharf up --secure                     the same, encrypted, and everybody proves who he is";

const HOST_EXAMPLES: &str = "\
Examples:
  wharf host                            serves plugins/, announced to a registry on this machine
  wharf host --registry http://10.0.0.2:8500 --listen 0.0.0.0:7400 --advertise 10.0.0.7:7400
  wharf host --registry none            not announced; call it with --direct

The file plugins/arith.toml sets the limits and grants of plugins/arith.wasm. See README.";

const RIGHTS_EXAMPLES: &str = "\
Prints the line that allows it, or fails.

Examples:
  wharf rights check principals.toml --as shop demo:arith/arith.multiply";

/// Drop a WebAssembly component into plugins/; call it by name from anywhere.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a registry, and a host for plugins/, in one process
    Up(Up),
    /// Run a host: serve the plugins of a folder, and announce them to a registry
    Host(HostArguments),
    /// Run a registry, or ask and operate one that runs
    Registry(RegistryArguments),
    /// Call a method
    Call(Call),
    /// List the services that hosts have announced
    Services(Services),
    /// Show a service: its WIT, its endpoints, and how to call each method
    Describe(Describe),
    /// Show what a component exports and needs, or whom it would break
    Inspect(Inspect),
    /// Make a project for a service, in Rust, Python, JavaScript or C
    New(New),
    /// Build a project, serve it, and follow changes of its sources
    Dev(Dev),
    /// Build a project, and make its example calls against a fresh host
    Test(Test),
    /// Build a project's plugin
    Build(Build),
    /// Make the C declarations of a WIT interface
    Bindings(Bindings),
    /// Make a component of a module that was linked with `wharf bindings`
    Componentize(Componentize),
    /// Make a trust domain, and let hosts and callers into it
    Identity(IdentityCommand),
    /// Ask a file of principals who may call what
    Rights(RightsCommand),
    /// Ask a host or a registry whether it is ready
    Health(Health),
    /// Print a shell's completions
    Completions(Completions),
    /// Write man pages
    Man(Man),
    /// Print the version of this program, and of what it speaks
    Version(Version),
    /// Compile a component from standard input to standard output; hosts run this
    #[command(hide = true)]
    Compile(Compile),
}

#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// Bytes of memory that compiling may take
    pub(crate) memory: u64,
}

#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) configured: Configured,
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// Address where the registry listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8500", value_parser = address)]
    pub(crate) registry_listen: SocketAddr,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Make a trust domain for this machine: registry, host and calls prove who they are, and are encrypted
    #[arg(long, conflicts_with_all = ["identity", "tls_certificate"])]
    pub(crate) secure: bool,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
    #[command(flatten)]
    pub(crate) tls: Tls,
    #[command(flatten)]
    pub(crate) rights: Rights,
}

/// Where flags are written too.
#[derive(Debug, Args)]
pub(crate) struct Configured {
    /// File in which any of these flags may stand, in TOML: listen = "10.0.0.2:8500"; what is said here
    /// or in the environment goes before
    #[arg(long, value_name = "FILE", env = "WHARF_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// TLS with certificates of your own.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Tls {
    /// Serve TLS with this certificate, in PEM; read again at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The private key of --tls-certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Accept only clients with a certificate from one of these authorities, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_client_authorities: Option<PathBuf>,
}

/// Who may do what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rights")]
pub(crate) struct Rights {
    /// File that says who may do what: principals, their secrets and rights; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) principals: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RightsCommand {
    #[command(subcommand)]
    pub(crate) verb: RightsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RightsVerb {
    /// Say whether a principal may call a method, and which line of the file allows it
    Check(Check),
}

#[derive(Debug, Args)]
#[command(after_help = RIGHTS_EXAMPLES)]
pub(crate) struct Check {
    /// The file of principals
    pub(crate) file: PathBuf,
    /// The name of a principal; `anonymous` is who shows no secret
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) principal: String,
    /// The method's full name, demo:arith/arith.multiply, or its short one
    pub(crate) method: String,
}

/// How a registry stores records, and who may write them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct Keeping {
    /// Drop a host or service that is silent for this long
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = ttl)]
    pub(crate) ttl: Duration,
    /// Where to keep records: a file, `memory`, or etcd://HOST:PORT,HOST:PORT (etcds:// with TLS)
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Authorities, in PEM, that must have issued the certificate of an etcd cluster
    #[arg(long, value_name = "FILE", requires = "store")]
    pub(crate) etcd_authorities: Option<PathBuf>,
    /// Client certificate for an etcd cluster and its private key, both in one PEM file
    #[arg(long, value_name = "FILE", requires = "store")]
    pub(crate) etcd_certificate: Option<PathBuf>,
    /// Listen beyond loopback without principals or client certificates: anyone may write records
    #[arg(long)]
    pub(crate) anyone_may_write: bool,
    /// Keep a critical service of Consul's clients at least so long, whatever its
    /// DeregisterCriticalServiceAfter says
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = time)]
    pub(crate) shortest_deregister: Duration,
    /// Answer DNS here, over UDP and TCP: SERVICE.service.wharf; whoever reaches it may ask
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) dns_listen: Option<SocketAddr>,
    /// Answer DNS for this domain too, as `consul` for SERVICE.service.consul; may be repeated
    #[arg(long, value_name = "DOMAIN", value_parser = domain, requires = "dns_listen")]
    pub(crate) dns_domain: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = HOST_EXAMPLES)]
pub(crate) struct HostArguments {
    #[command(flatten)]
    pub(crate) configured: Configured,
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// The registry to announce to, or `none`; separate several of one cluster with commas
    #[arg(
        long,
        value_name = "URL",
        default_value = REGISTRY,
        env = "WHARF_REGISTRY"
    )]
    pub(crate) registry: String,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Join a trust domain with this token from `wharf identity token`; the certificate is kept in --identity
    #[arg(
        long,
        value_name = "TOKEN",
        env = "WHARF_JOIN",
        hide_env_values = true,
        requires = "identity"
    )]
    pub(crate) join: Option<String>,
    #[command(flatten)]
    pub(crate) tls: Tls,
    #[command(flatten)]
    pub(crate) rights: Rights,
}

/// The registry that a command asks.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// The registry to ask; separate several of one cluster with commas
    #[arg(
        long,
        value_name = "URL",
        default_value = REGISTRY,
        env = "WHARF_REGISTRY"
    )]
    pub(crate) registry: String,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// How a client authenticates itself to a registry, and how it verifies the registry.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Folder with this program's certificate in a trust domain: registries and hosts have to belong to it
    #[arg(long, value_name = "DIR", env = "WHARF_IDENTITY")]
    pub(crate) identity: Option<PathBuf>,
    /// Token for the registry
    #[arg(long, value_name = "SECRET", env = "WHARF_REGISTRY_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) registry_token: Option<String>,
    /// Trust only registries with a certificate from one of these authorities, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "WHARF_REGISTRY_AUTHORITIES",
        conflicts_with = "identity"
    )]
    pub(crate) registry_authorities: Option<PathBuf>,
    /// Client certificate for the registry and its private key, both in one PEM file
    #[arg(
        long,
        value_name = "FILE",
        env = "WHARF_REGISTRY_CERTIFICATE",
        conflicts_with = "identity"
    )]
    pub(crate) registry_certificate: Option<PathBuf>,
}

/// What `up` and `host` have in common.
#[derive(Debug, Args)]
pub(crate) struct Serving {
    /// Folder whose *.wasm files are served
    #[arg(long, value_name = "DIR", default_value = PLUGINS)]
    pub(crate) plugins: PathBuf,
    /// Others may write to the plugins folder: their sidecars grant nothing
    #[arg(long)]
    pub(crate) plugins_shared: bool,
    /// File with the grants of all plugins; sidecars then grant nothing
    #[arg(long, value_name = "FILE")]
    pub(crate) grants: Option<PathBuf>,
    /// Whether a replacement may break those who call what it replaces: `any` warns in the log,
    /// `required` refuses it; a plugin's .toml file overrides it
    #[arg(long, value_name = "WHICH", default_value = "any", value_parser = compatible)]
    pub(crate) compatible: Compatible,
    /// Address where calls are accepted
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Address that serves /healthz, /readyz, /metrics and /services, or `none`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7401", value_parser = http_listen)]
    pub(crate) http_listen: HttpListen,
    /// Address to announce; needed if --listen is an unspecified address such as 0.0.0.0
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Name of this host in the registry; default: the machine's name and the port
    #[arg(long, value_parser = host_name)]
    pub(crate) name: Option<String>,
    /// Metadata of this host in the registry, for programs that select hosts; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = metadatum)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Where to keep compiled plugins, or `none`; default: wharf in the user's cache directory
    #[arg(long, value_name = "DIR", env = "WHARF_CACHE")]
    pub(crate) cache: Option<PathBuf>,
    /// Longest time that a call may take; a plugin's .toml file overrides it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(crate) call_timeout: Duration,
    /// Memory that one instance of a plugin may take, a size or a number of MiB; a plugin's .toml
    /// file overrides it
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory)]
    pub(crate) memory: u64,
    /// Memory that the guests of all plugins may take together; default: half of the machine's
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) guest_memory: Option<u64>,
    /// Memory that compiling one plugin may take
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub(crate) compile_memory: u64,
    /// Time that compiling one plugin may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub(crate) compile_timeout: Duration,
    /// Connections that may be open at once
    #[arg(long, value_name = "COUNT", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: u32,
    /// Memory for replies that callers have not read yet, all connections together
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size)]
    pub(crate) max_unread: u64,
    /// Close a connection that is idle for this long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub(crate) idle_timeout: Duration,
    /// How long calls in flight may take to finish at shutdown
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) drain_timeout: Duration,
    /// Token that callers must send, of 16 characters or more; who has it may call everything
    #[arg(long, conflicts_with = "principals", env = "WHARF_TOKEN", hide_env_values = true, value_parser = secret)]
    pub(crate) token: Option<String>,
    /// Listen beyond loopback without --principals or --token: anyone may call everything
    #[arg(long)]
    pub(crate) anyone_may_call: bool,
    /// Protocols that callers may speak, separated by commas: wharf, gob (Go's net/rpc), jsonrpc, http
    /// and mcp
    #[arg(long, value_name = "NAMES", default_value = "wharf,gob,jsonrpc,http,mcp", value_delimiter = ',', value_parser = door)]
    pub(crate) doors: Vec<Door>,
    /// Origin of web pages whose scripts may call over HTTP, as `https://app.example`; may be repeated
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub(crate) allow_origin: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
