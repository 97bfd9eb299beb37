//! `wharf call`

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use wharf_client::{CallOptions, Client, Failure, Outcome, RpcError};
use wharf_schema::{MethodPath, argument_from_text, most_similar, printable_lines};

use crate::args::Call;
use crate::exit::Exit;

/// How long saving the lists of endpoints may take.
const SAVING: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Call) -> anyhow::Result<()> {
    let path = MethodPath::parse(&arguments.method)?;
    let mut builder = Client::builder().timeout(arguments.timeout);
    if let Some(token) = &arguments.token {
        builder = builder.token(token.as_str());
    }
    let client = match &arguments.direct {
        Some(address) => builder.direct(address),
        None => builder.registry_client(arguments.asked.client()?),
    };
    let outcome = call(&client, &path, &arguments).await;
    // The next call begins with the lists of this one.
    let _ = tokio::time::timeout(SAVING, client.lists_saved()).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return Err(explain(error, &client, &path).await),
    };
    match outcome {
        Outcome::Ok(json) => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", if arguments.json { json } else { for_people(&json)? })?;
            Ok(())
        }
        Outcome::Err(json) if arguments.json => Err(Exit::Application(json).into()),
        Outcome::Err(json) => {
            let message = format!("{path} returned an error: {}", for_people(&json)?);
            Err(Exit::Application(message).into())
        }
    }
}

async fn call(client: &Client, path: &MethodPath, arguments: &Call) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let service = client.describe(&path.service.to_string()).await?;
    let signature = service.method(&path.method).and_then(|method| method.signature.as_ref().ok());
    let mut values = Vec::new();
    for (index, text) in arguments.arguments.iter().enumerate() {
        // An argument without a parameter or a method becomes null here. The call below refuses it
        // with a better message.
        let param = signature.and_then(|signature| signature.params.get(index));
        let value = param.map(|param| argument_from_text(service.types(), param, text));
        values.push(value.transpose()?.unwrap_or(Value::Null));
    }
    let left = arguments.timeout.saturating_sub(start.elapsed());
    // The parent process may pass a trace. If it cannot be parsed, it is ignored.
    let trace_parent = std::env::var("TRACEPARENT").ok().and_then(|text| text.parse().ok());
    let options = CallOptions { timeout: Some(left), trace_parent, ..CallOptions::default() };
    Ok(client.call_json_with(&arguments.method, &values, options).await?)
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
        _ => error,
    }
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
    fn results_are_printed_for_people() {
        assert_eq!(for_people("\"a b\"").unwrap(), "a b");
        assert_eq!(for_people("18446744073709551615").unwrap(), "18446744073709551615");
        assert_eq!(for_people("\"a\\nb\\u001b[2J\"").unwrap(), "a\nb\\u{1b}[2J");
        assert_eq!(for_people("[1]").unwrap(), "[\n  1\n]");
    }
}
