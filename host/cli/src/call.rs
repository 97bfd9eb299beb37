//! `wharf call`

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_client::{CallOptions, Client, Failure, Outcome, RpcError, Status};
use wharf_schema::{MethodPath, ValueError, printable_json, printable_lines};

use crate::args::Call;
use crate::exit::{Exit, said};
use crate::explain::explain;
use crate::given::{self, Given};

/// How long saving the lists of endpoints may take.
const SAVING: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Call) -> anyhow::Result<()> {
    let done = make(&arguments).await;
    // The method's own error is printed already.
    if let Err(error) = &done
        && arguments.json
        && !matches!(error.downcast_ref(), Some(Exit::Application(_)))
    {
        said(writeln!(std::io::stdout().lock(), "{}", failure(error)))?;
    }
    done
}

async fn make(arguments: &Call) -> anyhow::Result<()> {
    let path =
        MethodPath::parse(&arguments.method).map_err(|error| Exit::Usage(error.to_string()))?;
    let texts = Given::all(&arguments.arguments, &mut std::io::stdin().lock())?;
    let client = arguments.callee.client(arguments.timeout).await?;
    let outcome = call(&client, &path, (arguments, &texts)).await;
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
            said(writeln!(std::io::stdout().lock(), "{}", printable_json(&json)))?;
            Err(Exit::Application(format!("{path} returned an error")).into())
        }
        Outcome::Err(json) => {
            let message = format!("{path} returned an error: {}", for_people(&json)?);
            Err(Exit::Application(message).into())
        }
    }
}

async fn call(
    client: &Client,
    path: &MethodPath,
    (arguments, given): (&Call, &[Given]),
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let described = client.describe(&path.service.to_string()).await;
    let values = match described {
        // Nobody describes it. A text that is no JSON stands for itself.
        Err(RpcError { failure: Failure::NetRpc { .. }, .. }) => {
            given::undescribed(given, &mut std::io::stdin().lock())?
        }
        described => {
            let service = described?;
            let method = service.method(&path.method);
            match method.and_then(|method| method.signature.as_ref().ok()) {
                Some(signature) => {
                    let stdin = &mut std::io::stdin().lock();
                    given::values(service.types(), &signature.params, given, stdin)?
                }
                // The call below refuses it with a better message.
                None => vec![Value::Null; given.len()],
            }
        }
    };
    let left = arguments.timeout.saturating_sub(start.elapsed());
    // The parent process may pass a trace. If it cannot be parsed, it is ignored.
    let trace_parent = std::env::var("TRACEPARENT").ok().and_then(|text| text.parse().ok());
    let options = CallOptions { timeout: Some(left), trace_parent, ..CallOptions::default() };
    Ok(client.call_json_with(&arguments.method, &values, options).await?)
}

/// A failure for scripts, as hosts tell it over HTTP: one of gRPC's codes and a message.
fn failure(error: &anyhow::Error) -> String {
    let status = match (error.downcast_ref::<RpcError>(), error.downcast_ref::<Exit>()) {
        (Some(error), _) => error.status(),
        (None, Some(Exit::NotFound(_))) => Status::NotFound,
        (None, Some(Exit::Usage(_))) => Status::InvalidArgument,
        _ if error.is::<ValueError>() => Status::InvalidArgument,
        _ => Status::Unknown,
    };
    let message = wharf_net::chain(error.as_ref());
    let code = status.name().to_ascii_lowercase();
    printable_json(&json!({ "code": code, "message": message }).to_string()).into_owned()
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
