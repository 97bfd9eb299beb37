//! The commands for installing and watching over this program.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::values::time;

const COMPLETIONS_EXAMPLES: &str = "\
The script asks this program, so that services and methods complete too, as the registry lists them.

Examples:
  source <(wharf completions bash)
  wharf completions zsh > ~/.zfunc/_wharf
  wharf completions fish > ~/.config/fish/completions/wharf.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  wharf man --out /usr/local/share/man/man1";

const VERSION_EXAMPLES: &str = "\
Examples:
  wharf version --json";

const HEALTH_EXAMPLES: &str = "\
For the health checks of containers: exits with 0 if the answer is 200, and with 5 otherwise.

Examples:
  wharf health                             GET http://127.0.0.1:7401/readyz
  wharf health 127.0.0.1:8500 --path /healthz";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct Completions {
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct Man {
    /// Directory to write the pages to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = VERSION_EXAMPLES)]
pub(crate) struct Version {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = HEALTH_EXAMPLES)]
pub(crate) struct Health {
    /// Address of a host's HTTP side, or of a registry
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:7401")]
    pub(crate) address: String,
    /// What to ask for
    #[arg(long, default_value = "/readyz")]
    pub(crate) path: String,
    /// How long the answer may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) timeout: Duration,
}
