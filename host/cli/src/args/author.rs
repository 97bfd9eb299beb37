//! The commands for authors of services.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::values::{HttpListen, address, http_listen, time};

const NEW_EXAMPLES: &str = "\
Examples:
  wharf new hello                          a service in Rust
  wharf new hello --lang python
  wharf new stock --lang js --wit stock.wit  one that exports the interfaces of this file";

const BUILD_EXAMPLES: &str = "\
Runs the build command of wharf.toml, puts the documentation of the WIT into the component, and writes it
to NAME.wasm, beside its sidecar NAME.toml. Copy both into a host's plugins folder.

Examples:
  wharf build
  wharf build hello";

const DEV_EXAMPLES: &str = "\
A build that fails leaves the old version serving.

Examples:
  wharf dev                                the project in this directory
  wharf dev hello --listen 127.0.0.1:7500";

const TEST_EXAMPLES: &str = "\
Builds the project, makes the calls of calls.toml against a fresh host, and exits with 7 if one of them
does not end as it says.

Examples:
  wharf test
  wharf test hello --no-build";

const BINDINGS_EXAMPLES: &str = "\
Examples:
  wharf bindings wit --out build           plugin.h, plugin.c and plugin_component_type.o";

const COMPONENTIZE_EXAMPLES: &str = "\
The module is one that was linked with what 'wharf bindings' makes. If it imports WASI as C libraries do
(preview 1), an adapter is put into the component.

Examples:
  wharf componentize build/hello.module.wasm --out build/hello.wasm";

/// A language that a service can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Rust, with wit-bindgen
    Rust,
    /// Python, with componentize-py
    #[value(alias = "py")]
    Python,
    /// JavaScript, with componentize-js
    #[value(alias = "javascript")]
    Js,
    /// C, with clang, lld and wasi-libc
    C,
}

#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct New {
    /// Name of the service, of its directory and of its plugin: letters, digits and '-'
    pub(crate) name: String,
    /// Language that it is written in
    #[arg(long, value_enum, default_value = "rust")]
    pub(crate) lang: Language,
    /// Start from the interfaces of this WIT file or directory
    #[arg(long, value_name = "PATH")]
    pub(crate) wit: Option<PathBuf>,
    /// World of --wit to implement, if there are several
    #[arg(long, value_name = "NAME", requires = "wit")]
    pub(crate) world: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub(crate) struct Build {
    /// Directory of the project
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = DEV_EXAMPLES)]
pub(crate) struct Dev {
    /// Directory of the project
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Address where calls are accepted
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Address of the host's HTTP side, or `none`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7401", value_parser = http_listen)]
    pub(crate) http_listen: HttpListen,
    /// Address where the registry listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8500", value_parser = address)]
    pub(crate) registry_listen: SocketAddr,
}

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub(crate) struct Test {
    /// Directory of the project
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Take the component as it was built last
    #[arg(long)]
    pub(crate) no_build: bool,
    /// How long each call may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
#[command(after_help = BINDINGS_EXAMPLES)]
pub(crate) struct Bindings {
    /// WIT file or directory
    pub(crate) wit: PathBuf,
    /// World to make them for, if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) world: Option<String>,
    /// Directory to write them to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = COMPONENTIZE_EXAMPLES)]
pub(crate) struct Componentize {
    /// The module
    pub(crate) module: PathBuf,
    /// File to write the component to
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}
