//! `wharf inspect`

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use wharf_runtime::{Inspection, Need};
use wharf_schema::{
    Broken, Difference, Service, ServiceName, differences, printable, printable_json,
    printable_lines,
};

use crate::args::Inspect;
use crate::component;
use crate::exit::{Exit, said};
use crate::explain::explained;
use crate::services::table;

/// How long asking hosts may take.
const ASKING: Duration = Duration::from_secs(10);

pub(crate) async fn run(arguments: Inspect) -> anyhow::Result<()> {
    let (bytes, inspection) = component::read(&arguments.file)?;
    if let Some(against) = &arguments.against {
        return compare(&arguments, &inspection, against).await;
    }
    let mut out = std::io::stdout().lock();
    let text = describe(&inspection, &inspection.without_codec(&bytes));
    write!(out, "{}", printable_lines(&text))?;
    Ok(())
}

/// Prints what is different, and fails if that breaks anybody.
async fn compare(
    arguments: &Inspect,
    inspection: &Inspection,
    against: &str,
) -> anyhow::Result<()> {
    let before = if component::is_file(against) {
        component::read(Path::new(against))?.1.services
    } else {
        let service =
            ServiceName::parse(against).map_err(|error| Exit::Usage(error.to_string()))?;
        let client = arguments.callee.client(ASKING).await?;
        match client.describe(against).await {
            Ok(service) => vec![Service::clone(&service)],
            Err(error) => return Err(explained(error.into(), &client, &service).await),
        }
    };
    let found = differences(&before, &inspection.services);
    let breaking = found.iter().filter(|found| found.broken != Broken::Nobody).count();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let change = |found: &Difference| {
            let Difference { place, what, broken } = found;
            json!({ "place": place, "what": what, "breaks": broken.to_string() })
        };
        let changes: Vec<Value> = found.iter().map(change).collect();
        let text = serde_json::to_string_pretty(&json!({ "changes": changes }))?;
        said(writeln!(out, "{}", printable_json(&text)))?;
    } else if found.is_empty() {
        said(writeln!(
            out,
            "No difference: everybody who calls the old one can call the new one."
        ))?;
    } else {
        let header = ["CHANGE", "BREAKS"].map(str::to_owned);
        let row = |found: &Difference| [printable(&found.to_string()), found.broken.to_string()];
        let rows: Vec<_> = std::iter::once(header).chain(found.iter().map(row)).collect();
        said(write!(out, "{}", table(&rows)))?;
    }
    match breaking {
        0 => Ok(()),
        1 => Err(Exit::Unlike("1 change breaks callers".to_owned()).into()),
        many => Err(Exit::Unlike(format!("{many} changes break callers")).into()),
    }
}

/// `slow` lists, for each service, the methods that no codec calls, with the reasons.
fn describe(inspection: &Inspection, slow: &[Vec<(String, &str)>]) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    if inspection.services.is_empty() {
        line("It exports no interface, so there is nothing to call.");
    }
    for (place, service) in inspection.services.iter().enumerate() {
        line(&format!("service {}", service.name()));
        line(&format!("fingerprint {}", service.fingerprint()));
        line("");
        line(service.wit().trim_end());
        line("");
        line("methods");
        for method in service.methods() {
            match &method.signature {
                Ok(signature) => {
                    line(&format!("  {}  {}", signature.fingerprint, service.notation(method)));
                }
                Err(reason) => line(&format!("  cannot be called: {}: {reason}", method.name)),
            }
        }
        if let Some(slow) = slow.get(place).filter(|slow| !slow.is_empty()) {
            line("");
            line("called with dynamic values, which is slow for large lists");
            for (method, reason) in slow {
                line(&format!("  {method}: {reason}"));
            }
        }
        line("");
    }
    if !inspection.stray_functions.is_empty() {
        line("functions outside any interface, which cannot be called");
        line(&format!("  {}", inspection.stray_functions.join(", ")));
        line("");
    }
    if !inspection.no_services.is_empty() {
        line("exports of WASI or of a toolchain, which are no services");
        line(&format!("  {}", inspection.no_services.join(", ")));
        line("");
    }
    line("imports");
    for import in &inspection.imports {
        line(&format!("  {}  {}", import.name, import.need));
    }
    if inspection.imports.is_empty() {
        line("  none: it needs nothing");
    }
    let has = |need: Need| inspection.imports.iter().any(|import| import.need == need);
    let grants = Need::GRANTED.into_iter().filter(|need| has(*need)).filter_map(Need::grant);
    let grants: Vec<_> = grants.collect();
    if !grants.is_empty() {
        line("");
        line("grants that it needs, in a .toml file beside it, for example");
        line("  [grants]");
        for (example, nothing) in grants {
            line(&format!("  {example}  # or {nothing}"));
        }
    }
    if has(Need::OtherWasi) {
        line("");
        line("A host refuses this component: it needs a version of WASI other than 0.2.");
    }
    if has(Need::Unknown) {
        line("");
        line("A host refuses this component: it imports interfaces that Wharf does not provide.");
    }
    text
}
