//! `wharf inspect`

use std::io::Write;

use wharf_runtime::{Inspection, Need};
use wharf_schema::printable_lines;

use crate::args::Inspect;
use crate::exit::Exit;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1024 * 1024 * 1024;

pub(crate) fn run(arguments: &Inspect) -> anyhow::Result<()> {
    let file = arguments.file.display();
    let not_found =
        |error: &std::io::Error| Exit::NotFound(format!("{file} cannot be read: {error}"));
    let len = std::fs::metadata(&arguments.file).map_err(|error| not_found(&error))?.len();
    anyhow::ensure!(
        len <= MAX_SIZE,
        "{file} has {len} bytes, but at most {MAX_SIZE} are supported"
    );
    let bytes = std::fs::read(&arguments.file).map_err(|error| not_found(&error))?;
    let inspection =
        wharf_runtime::inspect(&bytes).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
    let mut out = std::io::stdout().lock();
    let text = describe(&inspection, &inspection.without_codec(&bytes));
    write!(out, "{}", printable_lines(&text))?;
    Ok(())
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
