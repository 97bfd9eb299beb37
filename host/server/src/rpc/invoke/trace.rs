//! The span of a call, as part of its caller's trace.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wharf_wire::TraceParent;

/// A span for a call. The output of the guest and messages about it are logged within this span.
///
/// If the caller records its trace, the span has level INFO and contains the trace id. Any other
/// span has level DEBUG: by default it is disabled and costs almost nothing.
pub(super) fn span<'n>(parent: Option<TraceParent>, method: impl FnOnce() -> &'n str) -> Span {
    let Some(parent) = parent else {
        return tracing::debug_span!(target: "wharf_host::call", "call", method = method());
    };
    let trace_id = TraceId::from_bytes(parent.trace_id);
    let parent_id = SpanId::from_bytes(parent.span_id);
    let span = if parent.sampled {
        tracing::info_span!(target: "wharf_host::call", "call", method = method(), %trace_id, %parent_id)
    } else {
        tracing::debug_span!(target: "wharf_host::call", "call", method = method(), %trace_id, %parent_id)
    };
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let context = SpanContext::new(trace_id, parent_id, flags, true, TraceState::default());
    // This fails without an exporter, and then the parent is not needed.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    span
}
