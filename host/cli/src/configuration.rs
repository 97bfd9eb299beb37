//! Where flags come from: the command line, then the environment, then a file. Each flag of a server has the
//! same name in all three: `--max-connections`, `WHARF_MAX_CONNECTIONS`, `max-connections = 100`.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::args::Arguments;
use crate::exit::Exit;

/// The commands that take their flags from a file too.
const SERVERS: [&str; 3] = ["up", "host", "registry"];

/// The largest file, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Parses the command line, together with the environment and the file that it names. Ends the process
/// with a message if that cannot be done, and after `--help`.
pub(crate) fn arguments() -> anyhow::Result<Arguments> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = with_environment(Arguments::command());
    let words = with_file(&command, words)?;
    let matches = command.get_matches_from(words);
    Arguments::from_arg_matches(&matches).map_err(|error| error.exit())
}

/// Gives each flag of a server its variable.
fn with_environment(mut command: Command) -> Command {
    for server in SERVERS {
        command = command.mut_subcommand(server, |server| {
            server.mut_args(|flag| match (flag.get_long(), flag.get_env()) {
                (Some("help" | "version"), _) | (None, _) | (_, Some(_)) => flag,
                (Some(long), None) => {
                    let name = format!("WHARF_{}", long.replace('-', "_").to_uppercase());
                    flag.env(name).hide_env(true)
                }
            })
        });
    }
    command
}

/// Adds the flags that the file names, right behind the command.
fn with_file(command: &Command, mut words: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    // What is wrong is said later, about all flags together.
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(&words);
    let Ok(lenient) = lenient else { return Ok(words) };
    let Some((name, matches)) = lenient.subcommand() else { return Ok(words) };
    if !SERVERS.contains(&name) || matches.subcommand().is_some() {
        return Ok(words);
    }
    let Some(path) = matches.get_one::<PathBuf>("config") else { return Ok(words) };
    let Some(server) = command.find_subcommand(name) else { return Ok(words) };
    let table = read(path)?;
    let added = flags(&table, server, matches)
        .map_err(|why| Exit::Usage(format!("{}: {why}", path.display())))?;
    let place = words.iter().position(|word| word == name).map_or(words.len(), |place| place + 1);
    words.splice(place..place, added);
    Ok(words)
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .with_context(|| format!("the configuration {} cannot be read", path.display()))?;
    if text.len() as u64 > LARGEST {
        let why = format!("{}: a configuration has at most 1 MiB", path.display());
        return Err(Exit::Usage(why).into());
    }
    text.parse().map_err(|error: toml::de::Error| {
        Exit::Usage(format!("{}: {}", path.display(), error.to_string().trim_end())).into()
    })
}

/// The flags of a table that were not said elsewhere.
fn flags(table: &Table, server: &Command, said: &ArgMatches) -> Result<Vec<OsString>, String> {
    let mut flags = Vec::new();
    for (key, value) in table {
        if let (true, Value::Table(own)) = (SERVERS.contains(&&key[..]), value) {
            // One file for several servers: what is for one of them has a table of its own.
            if key == server.get_name() {
                flags.extend(self::flags(own, server, said)?);
            }
            continue;
        }
        let known = server.get_arguments().find(|flag| flag.get_long() == Some(&key[..]));
        let known = known.filter(|_| !matches!(&key[..], "config" | "help" | "version"));
        let Some(flag) = known else {
            return Err(format!(
                "'{key}' is no flag of 'wharf {0}': see 'wharf {0} --help'",
                server.get_name()
            ));
        };
        let source = said.value_source(flag.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let is_switch = matches!(flag.get_action(), ArgAction::SetTrue);
        match (is_switch, value) {
            (true, Value::Boolean(true)) => flags.push(format!("--{key}").into()),
            (true, Value::Boolean(false)) => {}
            (true, _) => return Err(format!("{key} is true or false, not a {}", value.type_str())),
            (false, Value::Array(values)) => {
                for value in values {
                    flags.push(spelled(key, value)?);
                }
            }
            (false, value) => flags.push(spelled(key, value)?),
        }
    }
    Ok(flags)
}

fn spelled(key: &str, value: &Value) -> Result<OsString, String> {
    match value {
        Value::String(text) => Ok(format!("--{key}={text}").into()),
        Value::Integer(number) => Ok(format!("--{key}={number}").into()),
        _ => Err(format!(
            "{key} is a text or a number, as it would stand behind --{key}, not a {}",
            value.type_str()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags_of(text: &str, words: &[&str]) -> Result<Vec<String>, String> {
        let command = Arguments::command();
        let words = [&["wharf", "registry"], words].concat();
        let matches = command.clone().ignore_errors(true).get_matches_from(words);
        let (name, matches) = matches.subcommand().unwrap();
        let server = command.find_subcommand(name).unwrap();
        let flags = flags(&text.parse().unwrap(), server, matches)?;
        Ok(flags.into_iter().map(|flag| flag.into_string().unwrap()).collect())
    }

    #[test]
    fn flags_of_a_file_stand_behind_those_that_were_said() {
        let text = "listen = '10.0.0.2:8500'\nttl = '20s'\nanyone-may-write = true
            max-connections = 100\n[host]\nplugins = 'p'\n[registry]\ndns-domain = ['consul', 'a.b']";
        let all = [
            "--anyone-may-write",
            "--listen=10.0.0.2:8500",
            "--max-connections=100",
            "--dns-domain=consul",
            "--dns-domain=a.b",
            "--ttl=20s",
        ];
        let sorted = |mut flags: Vec<String>| {
            flags.sort();
            flags
        };
        let expected = sorted(all.map(str::to_owned).to_vec());
        assert_eq!(sorted(flags_of(text, &[]).unwrap()), expected);
        let said = flags_of(text, &["--ttl", "5s", "--listen=127.0.0.1:1"]).unwrap();
        assert_eq!(said.len(), expected.len() - 2);
    }

    #[test]
    fn what_is_no_flag_or_no_value_of_one_is_refused() {
        for (text, why) in [
            ("lisen = ''", "'lisen' is no flag of 'wharf registry'"),
            ("plugins = 'x'", "'plugins' is no flag"),
            ("config = 'x'", "'config' is no flag"),
            ("anyone-may-write = 'yes'", "true or false"),
            ("listen = true", "a text or a number"),
            ("ttl = [1.5]", "a text or a number"),
            ("registry = 'x'", "'registry' is no flag of 'wharf registry'"),
        ] {
            let error = flags_of(text, &[]).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn each_flag_of_a_server_has_a_variable_of_its_own() {
        let command = with_environment(Arguments::command());
        command.clone().debug_assert();
        for server in SERVERS {
            let server = command.find_subcommand(server).unwrap();
            for flag in server.get_arguments().filter(|flag| flag.get_long() != Some("help")) {
                assert!(flag.get_env().is_some(), "{:?}", flag.get_id());
            }
        }
    }
}
