//! `wharf call`

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;
use wharf_client::{CallOptions, Client, Failure, Identity, Member, Outcome, RpcError};
use wharf_schema::{MethodPath, argument_from_text, most_similar, printable_json, printable_lines};

use crate::args::Call;
use crate::exit::Exit;

/// How long saving the lists of endpoints may take.
const SAVING: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Call) -> anyhow::Result<()> {
    let path =
        MethodPath::parse(&arguments.method).map_err(|error| Exit::Usage(error.to_string()))?;
    let texts = arguments.arguments.iter().map(|text| given(text, &mut std::io::stdin().lock()));
    let texts = texts.collect::<anyhow::Result<Vec<String>>>()?;
    let mut builder = Client::builder().timeout(arguments.timeout).without_doubt();
    if let Some(token) = &arguments.token {
        builder = builder.token(token.as_str());
    }
    let member = arguments.asked.member().await?;
    if let Some(identity) = identity(&arguments, member.as_ref())? {
        builder = builder.identity(&identity);
    }
    if let Some(name) = &arguments.host_name {
        builder = builder.host_name(name);
    }
    let client = match &arguments.direct {
        Some(address) => builder.direct(address),
        None => builder.registry_client(arguments.asked.client(member.as_ref())?),
    };
    let outcome = call(&client, &path, (&arguments, &texts)).await;
    // The next call begins with the lists of this one.
    let _ = tokio::time::timeout(SAVING, client.lists_saved()).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return Err(explain(error, &client, &path).await),
    };
    match outcome {
        Outcome::Ok(json) => {
            let mut out = std::io::stdout().lock();
            let text = match arguments.json {
                true => printable_json(&json).into_owned(),
                false => for_people(&json)?,
            };
            writeln!(out, "{text}")?;
            Ok(())
        }
        Outcome::Err(json) if arguments.json => {
            // For scripts: the error where they look for the result, and the exit code tells which.
            writeln!(std::io::stdout().lock(), "{}", printable_json(&json))?;
            Err(Exit::Application(format!("{path} returned an error")).into())
        }
        Outcome::Err(json) => {
            let message = format!("{path} returned an error: {}", for_people(&json)?);
            Err(Exit::Application(message).into())
        }
    }
}

/// The largest argument that is read from a file or from standard input, in bytes.
const MAX_ARGUMENT: u64 = 64 * 1024 * 1024;

/// The text of an argument: as it stands, from a file (`@FILE`), or from standard input (`-`).
fn given(argument: &str, stdin: &mut impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let (name, read) = match argument.strip_prefix('@') {
        Some(path) => {
            let file = std::fs::File::open(path)
                .map_err(|error| Exit::NotFound(format!("{path} cannot be read: {error}")))?;
            (path, file.take(MAX_ARGUMENT + 1).read_to_string(&mut text))
        }
        None if argument == "-" => {
            ("standard input", stdin.take(MAX_ARGUMENT + 1).read_to_string(&mut text))
        }
        None => return Ok(argument.to_owned()),
    };
    let read = read.map_err(|error| Exit::Usage(format!("{name} cannot be read: {error}")))?;
    if read as u64 > MAX_ARGUMENT {
        return Err(Exit::Usage(format!("{name} has more than {MAX_ARGUMENT} bytes")).into());
    }
    // A file ends with a line end, which is no part of a text.
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

async fn call(
    client: &Client,
    path: &MethodPath,
    (arguments, texts): (&Call, &[String]),
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let described = client.describe(&path.service.to_string()).await;
    let (service, mut values) = match described {
        // Nobody describes it. A text that is no JSON stands for itself.
        Err(RpcError { failure: Failure::NetRpc { .. }, .. }) => (None, net_rpc_values(texts)),
        described => (Some(described?), Vec::new()),
    };
    let signature = service.as_ref().and_then(|service| {
        let method = service.method(&path.method)?;
        Some((service.types(), method.signature.as_ref().ok()?))
    });
    let texts = if service.is_some() { texts } else { &[] };
    for (index, text) in texts.iter().enumerate() {
        // An argument without a parameter or a method becomes null here. The call below refuses it
        // with a better message.
        let param =
            signature.and_then(|(types, signature)| Some((types, signature.params.get(index)?)));
        let value = param.map(|(types, param)| argument_from_text(types, param, text));
        values.push(value.transpose()?.unwrap_or(Value::Null));
    }
    let left = arguments.timeout.saturating_sub(start.elapsed());
    // The parent process may pass a trace. If it cannot be parsed, it is ignored.
    let trace_parent = std::env::var("TRACEPARENT").ok().and_then(|text| text.parse().ok());
    let options = CallOptions { timeout: Some(left), trace_parent, ..CallOptions::default() };
    Ok(client.call_json_with(&arguments.method, &values, options).await?)
}

/// Arguments for a service of Go's net/rpc.
fn net_rpc_values(texts: &[String]) -> Vec<Value> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| text[..].into());
    texts.iter().map(value).collect()
}

/// If the error is about an unknown name, suggests the most similar name.
async fn explain(error: anyhow::Error, client: &Client, path: &MethodPath) -> anyhow::Error {
    let failure = error.downcast_ref::<RpcError>().map(|error| &error.failure);
    match failure {
        Some(Failure::NoEndpoint { reason, .. }) if reason.is_empty() => {
            let Some(registry) = client.registry() else { return error };
            let known = registry.services().await.map(|list| list.services).unwrap_or_default();
            let names = known.iter().map(|service| &service.service[..]);
            let meant = most_similar(&path.service.interface, names);
            let hint = match meant {
                Some(meant) => format!("; did you mean '{meant}'?"),
                None if known.is_empty() => {
                    format!(": nothing is registered at {}", registry.address())
                }
                None => ": run 'wharf services' to list all services".to_owned(),
            };
            Exit::NotFound(format!("no service '{}'{hint}", path.service)).into()
        }
        Some(Failure::Method(_)) => {
            let service = client.describe(&path.service.to_string()).await;
            let meant = service.ok().and_then(|service| {
                if service.method(&path.method).is_some() {
                    // The method exists, so the error itself says what is wrong.
                    return None;
                }
                let names = service.methods().iter().map(|method| &method.name[..]);
                most_similar(&path.method, names).map(str::to_owned)
            });
            match meant {
                Some(meant) => {
                    let message = format!(
                        "no method '{}' in the service '{}'; did you mean '{meant}'?",
                        path.method, path.service
                    );
                    Exit::NotFound(message).into()
                }
                None => error,
            }
        }
        Some(Failure::ConnectionLost { .. } | Failure::Connect(_))
            if client.registry().is_none() =>
        {
            error.context(
                "is it a Wharf host? A server of Go's net/rpc is called by its name, once it is registered",
            )
        }
        _ => error,
    }
}

/// What the call shows to hosts, and whom it believes.
fn identity(arguments: &Call, member: Option<&Member>) -> anyhow::Result<Option<Identity>> {
    if let Some(member) = member {
        return Ok(Some(member.identity().clone()));
    }
    let Some(authorities) = &arguments.host_authorities else { return Ok(None) };
    Ok(Some(Identity::load(authorities, arguments.host_certificate.as_deref())?))
}

/// Prints a string without quotes, and anything else as JSON. Objects and arrays take several
/// lines.
fn for_people(json: &str) -> serde_json::Result<String> {
    Ok(match serde_json::from_str(json)? {
        Value::String(text) => printable_lines(&text),
        structure @ (Value::Object(_) | Value::Array(_)) => {
            // JSON escapes control characters, and no others.
            printable_lines(&serde_json::to_string_pretty(&structure)?)
        }
        // Keep the host's text, because a number may have more digits than an f64 holds.
        _ => json.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_may_come_from_a_file_or_from_standard_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\":7}\n").unwrap();
        let from_file = given(&format!("@{}", file.path().display()), &mut std::io::empty());
        assert_eq!(from_file.unwrap(), "{\"a\":7}");
        assert_eq!(given("-", &mut "text\n\n".as_bytes()).unwrap(), "text\n");
        assert_eq!(given("plain", &mut std::io::empty()).unwrap(), "plain");
        let missing = given("@/missing/file", &mut std::io::empty()).unwrap_err().to_string();
        assert!(missing.starts_with("/missing/file cannot be read"), "{missing}");
    }

    #[test]
    fn results_are_printed_for_people() {
        assert_eq!(for_people("\"a b\"").unwrap(), "a b");
        assert_eq!(for_people("18446744073709551615").unwrap(), "18446744073709551615");
        assert_eq!(for_people("\"a\\nb\\u001b[2J\"").unwrap(), "a\nb\\u{1b}[2J");
        assert_eq!(for_people("[1]").unwrap(), "[\n  1\n]");
    }
}
