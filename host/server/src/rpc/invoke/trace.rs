//! The span of a call, as part of the trace that its caller is in.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wharf_wire::TraceParent;

/// A span for a call; what the guest prints, and what is said about it, is logged within.
///
/// One whose caller records its trace is of level INFO and names it. Any other is of level DEBUG: by
/// default nobody listens, and it costs next to nothing.
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
    // Without an exporter there is nothing to tell this to.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    span
}
