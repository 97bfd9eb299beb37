//! Logs to stderr: as text on a terminal, otherwise as JSON. Exports the spans of calls to a
//! collector.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The environment variables that name a collector, according to the OpenTelemetry specification.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The target of the spans that are exported. Each call has one such span.
const CALLS: &str = "wharf_host::call";

/// Exports the last spans when it is dropped.
pub(crate) struct Logging(Option<SdkTracerProvider>);

/// Starts logging. By default, servers log at level info, and other commands only errors.
///
/// Call it outside of an async runtime, because the exporter has its own thread.
pub(crate) fn start(is_server: bool) -> Logging {
    let default = if is_server { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("WHARF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = fmt::layer().with_writer(std::io::stderr);
    let logs = if std::io::stderr().is_terminal() {
        logs.compact().with_target(false).boxed()
    } else {
        logs.json().flatten_event(true).boxed()
    };
    let exporting = is_server && ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some());
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
    Logging(provider.ok().flatten().cloned())
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
