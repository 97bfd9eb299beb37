//! Logs to stderr: as text on a terminal, otherwise as JSON. Exports the spans of calls to a
//! collector.

use std::io::{IsTerminal, Write};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};
use wharf_schema::{did_you_mean, printable_json};

use crate::exit::Exit;

/// The environment variables that name a collector, according to the OpenTelemetry specification.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The target of the spans that are exported. Each call has one such span.
const CALLS: &str = "wharf_host::call";

/// Exports the last spans when it is dropped.
pub(crate) struct Logging(Option<SdkTracerProvider>);

/// Who reads the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// An operator, of a server.
    Operator,
    /// An author, of the own plugin: what it prints, and how it dies. The command itself says what is loaded.
    Author,
    /// Whoever uses a command.
    User,
}

impl Reader {
    fn filter(self) -> &'static str {
        match self {
            Reader::Operator => "info",
            Reader::Author => "warn,wharf_runtime::output=info,wharf_host::plugins::loader=off",
            Reader::User => "error",
        }
    }
}

/// Starts logging.
///
/// Call it outside of an async runtime, because the exporter has its own thread.
///
/// # Errors
/// When `WHARF_LOG` is not a filter.
pub(crate) fn start(reader: Reader) -> anyhow::Result<Logging> {
    let wanted = std::env::var("WHARF_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = filter(wanted.as_deref().unwrap_or(reader.filter()))?;
    let logs = fmt::layer().with_writer(|| Printable(std::io::stderr()));
    let is_terminal = std::io::stderr().is_terminal();
    let logs = match reader {
        Reader::Author => {
            logs.compact().without_time().with_target(false).with_ansi(is_terminal).boxed()
        }
        _ if is_terminal => logs.compact().with_target(false).boxed(),
        _ => logs.json().flatten_event(true).boxed(),
    };
    let exporting =
        reader == Reader::Operator && ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some());
    let provider = exporting.then(exporter).transpose();
    let provider = provider.as_ref().map(Option::as_ref);
    let spans = provider.as_ref().ok().copied().flatten().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("wharf"))
            .with_filter(Targets::new().with_target(CALLS, LevelFilter::DEBUG))
    });
    tracing_subscriber::registry().with(logs.with_filter(filter)).with(spans).init();
    if let Err(error) = provider {
        tracing::error!("the spans of calls are not exported: {error}");
    }
    Ok(Logging(provider.ok().flatten().cloned()))
}

/// Writes whole lines in a form that deceives nobody: plugins, hosts and callers choose texts in them.
struct Printable<W>(W);

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(printable_json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What logs here, by the names that a filter may have.
const CRATES: [&str; 7] = [
    "wharf",
    "wharf_client",
    "wharf_host",
    "wharf_net",
    "wharf_registry",
    "wharf_registry_api",
    "wharf_runtime",
];

/// A filter, as in `info` or `warn,wharf_host=debug`. A mistyped level would otherwise count as the name
/// of a target, and silence everything.
fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        // A filter for a crate that does not exist would silently show nothing.
        let target = directive.split(['=', '[', ':']).next().unwrap_or_default().trim();
        if target.starts_with("wharf") && !CRATES.contains(&target) {
            let message = format!(
                "WHARF_LOG={text}: Wharf has no part '{target}'{} There are {}",
                ended(did_you_mean(target, CRATES)),
                CRATES.join(", ")
            );
            return Err(Exit::Usage(message).into());
        }
        let is_level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        let names_a_target = directive.contains(['=', '[', ':']) || directive.contains('_');
        if !is_level && !names_a_target {
            let message = format!(
                "WHARF_LOG={text}: '{directive}' is not a level{} Write a level ({}), or TARGET=LEVEL, as in warn,wharf_host=debug",
                ended(did_you_mean(directive, LEVELS)),
                LEVELS.join(", ")
            );
            return Err(Exit::Usage(message).into());
        }
    }
    let parsed = EnvFilter::try_new(text);
    parsed.map_err(|error| Exit::Usage(format!("WHARF_LOG={text}: {error}")).into())
}

/// A sentence that may have ended with a suggestion already.
fn ended(hint: String) -> String {
    if hint.is_empty() { ".".to_owned() } else { hint }
}

fn exporter() -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let exporter =
        SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build()?;
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "wharf".to_owned());
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(name).build())
        .build())
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!("the last spans are not exported: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_hides_nothing() {
        let mut written = Vec::new();
        Printable(&mut written).write_all("{\"file\":\"a\u{202e}b\"}\n".as_bytes()).unwrap();
        assert_eq!(written, b"{\"file\":\"a\\u202eb\"}\n");
    }

    #[test]
    fn a_mistyped_level_is_refused() {
        for good in ["info", "WARN", "warn,wharf_host=debug", "wharf_host", "info,wharf_host::rpc"]
        {
            filter(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        filter("info,").unwrap();
        let error = filter("zzz").unwrap_err().to_string();
        assert!(error.contains("'zzz' is not a level. Write a level"), "{error}");
        let error = filter("inof").unwrap_err().to_string();
        assert!(error.contains("'inof' is not a level; did you mean 'info'?"), "{error}");
        assert!(filter("warn,wharf_host=louder").is_err());
        let error = filter("warn,wharf_hots=debug").unwrap_err().to_string();
        assert!(error.contains("no part 'wharf_hots'; did you mean 'wharf_host'?"), "{error}");
    }
}
