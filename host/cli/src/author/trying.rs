//! `wharf test`: makes a project's example calls against a fresh host.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tokio::net::TcpListener;
use wharf_client::{CallOptions, Client, Outcome, Status};
use wharf_host::{FileState, Host};
use wharf_schema::{arguments_from_body, printable, printable_lines, result_to_json};

use super::building::{self, Signals};
use super::calls::{self, Call};
use super::project::Project;
use crate::args::{Arguments, Command, Test};
use crate::exit::{Exit, said};

pub(crate) async fn run(arguments: Test) -> anyhow::Result<()> {
    let project = Project::open(&arguments.dir)?;
    // Mistakes in it are told before a build that takes minutes.
    let calls = calls::read(&project)?;
    if arguments.no_build {
        crate::component::read(&project.plugin())?;
    } else {
        building::build(&project, Signals::OfTerminal).await?;
    }
    let folder = tempfile::tempdir()?;
    project.install(folder.path())?;
    let host = start(folder.path()).await?;
    host.ready().await;
    for (file, report) in host.files() {
        if let FileState::Refused(reason) = report.state {
            anyhow::bail!("{file} does not load: {reason}");
        }
    }
    let client = Client::builder().timeout(arguments.timeout).direct(&host.address().to_string());
    let mut wrong = 0;
    for (index, call) in calls.iter().enumerate() {
        let outcome = make(&client, call, arguments.timeout).await;
        let shown = match &call.arguments {
            Some(arguments) => format!("{} {arguments}", call.method),
            None => call.method.to_string(),
        };
        let difference = call.expected.compare(&outcome);
        wrong += usize::from(difference.is_some());
        said(print(&shown, index, difference.as_deref()))?;
    }
    host.drain().await;
    let all = calls.len();
    if wrong > 0 {
        return Err(Exit::Unlike(format!("of {all} calls, {wrong} went wrong")).into());
    }
    let mut out = std::io::stdout().lock();
    match all {
        0 => writeln!(out, "no calls: write some into calls.toml")?,
        1 => writeln!(out, "1 call, which is as it should be")?,
        all => writeln!(out, "{all} calls, all as they should be")?,
    }
    Ok(())
}

/// Says how a call went.
fn print(shown: &str, index: usize, difference: Option<&str>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let shown = printable(shown);
    let Some(difference) = difference else { return writeln!(out, "ok    {shown}") };
    writeln!(out, "FAIL  {shown} (call {})", index + 1)?;
    for line in printable_lines(difference).lines() {
        writeln!(out, "      {line}")?;
    }
    Ok(())
}

/// A host for this folder alone, which is announced nowhere.
async fn start(folder: &Path) -> anyhow::Result<Host> {
    let folder = folder.display().to_string();
    let flags =
        ["wharf", "host", "--registry", "none", "--http-listen", "none", "--plugins", &folder];
    let Command::Host(host) = Arguments::try_parse_from(flags)?.command else {
        anyhow::bail!("'host' is another command");
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut config = crate::host::config(&host.serving, listener.local_addr()?, None)?;
    // Whoever has a token for other hosts has none for this one.
    config.rpc.principals = wharf_net::principals::Principals::open();
    Ok(Host::start(listener, None, config)?)
}

/// Makes a call. A failure is told with its status.
async fn make(
    client: &Client,
    call: &Call,
    timeout: Duration,
) -> Result<Outcome, (Status, String)> {
    let method = call.method.to_string();
    let failed = |error: wharf_client::RpcError| (error.status(), wharf_net::chain(&error));
    let service = client.describe(&call.method.service.to_string()).await.map_err(failed)?;
    let signature = service.method(&call.method.method).map(|method| &method.signature);
    let (arguments, result) = match signature {
        Some(Ok(signature)) => {
            let body = call.arguments.as_ref();
            let arguments = arguments_from_body(service.types(), &signature.params, body);
            let arguments =
                arguments.map_err(|error| (Status::InvalidArgument, error.to_string()))?;
            (arguments, signature.result)
        }
        // The host says what is wrong.
        _ => (Vec::new(), None),
    };
    let options = CallOptions { timeout: Some(timeout), ..CallOptions::default() };
    let bytes = client.call_bytes(&method, arguments.into(), options).await.map_err(failed)?;
    result_to_json(service.types(), result, &bytes)
        .map_err(|error| (Status::Internal, error.to_string()))
        .map(|outcome| match outcome {
            Outcome::Ok(json) => Outcome::Ok(one_line(&json)),
            Outcome::Err(json) => Outcome::Err(one_line(&json)),
        })
}

fn one_line(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}
