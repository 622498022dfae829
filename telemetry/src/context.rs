//! W3C Trace Context: from a span to the text that travels, and back.
//!
//! What others send is looked at strictly and passed over when it does not parse: a trace is never worth a task. Called by
//! both programs where a trace crosses between them.

use std::sync::OnceLock;
use std::time::SystemTime;

pub use opentelemetry::Value;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The tracer of this process, once there is one.
pub(crate) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// A `traceparent` of version 00, taken apart. Nothing when it is not one.
#[must_use]
pub fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A later version may have more parts; what is known of them is in the first four.
    let one_like_ours = version == "00" && parts.next().is_none() && text.len() == LENGTH;
    let later = version.len() == 2 && is_hex(version) && !matches!(version, "00" | "ff") && text.len() <= MAX_LENGTH;
    let lengths = (trace.len(), span.len(), flags.len()) == (32, 16, 2);
    if !(one_like_ours || later) || !lengths || ![trace, span, flags].into_iter().all(is_hex) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// The `traceparent` of a span's context.
#[must_use]
pub fn text(context: &SpanContext) -> String {
    let sampled = u8::from(context.is_sampled());
    format!("00-{}-{}-{sampled:02x}", context.trace_id(), context.span_id())
}

/// Makes `span` a child of what `traceparent` names. To be called before the span is entered.
pub fn adopt(span: &Span, traceparent: &str) {
    if TRACER.get().is_some()
        && let Some(parent) = parse(traceparent)
    {
        // A span that nobody traces has no parent to be set.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The `traceparent` for what `span` causes elsewhere. Nothing when nothing is traced.
#[must_use]
pub fn of(span: &Span) -> Option<String> {
    TRACER.get()?;
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| text(&context))
}

/// The trace's identifier alone, for log lines. Nothing when nothing is traced, or not this.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    TRACER.get()?;
    let context = span.context();
    let context = context.span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then(|| context.trace_id().to_string())
}

/// A span of which only its end was noticed: it began at `since` and is over now. Its `traceparent`, for what follows from
/// it; nothing when nothing is traced. Without a usable parent it begins a trace.
#[must_use]
pub fn past(
    name: &'static str,
    parent: Option<&str>,
    since: SystemTime,
    attributes: impl IntoIterator<Item = (&'static str, Value)>,
) -> Option<String> {
    let tracer = TRACER.get()?;
    let parent = parent.and_then(parse).map_or_else(Context::new, |it| Context::new().with_remote_span_context(it));
    let attributes: Vec<KeyValue> = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    let builder = tracer
        .span_builder(name)
        .with_kind(SpanKind::Internal)
        // A clock that was set back must not make spans that end before they begin.
        .with_start_time(since.min(SystemTime::now()))
        .with_attributes(attributes);
    let mut span = tracer.build_with_context(builder, &parent);
    let text = text(span.span_context());
    span.end();
    Some(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Version, trace, span and flags with dashes between them.
const LENGTH: usize = 55;
/// Of what later versions may look like.
const MAX_LENGTH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_recommendation_comes_back_as_it_was() {
        let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parse(example).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(text(&context), example);
        assert!(!parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap().is_sampled());
        assert!(
            parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like").is_some()
        );
    }

    #[test]
    fn what_is_no_traceparent_is_passed_over() {
        for text in [
            "",
            "-",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_is_valid_and_stays_the_same(text in "(00|cc|ff)?-?[0-9a-fA-F]{0,33}-[0-9a-f]{0,17}-[0-9a-g]{0,3}(-x)?") {
            if let Some(context) = parse(&text) {
                assert!(context.is_valid());
                assert_eq!(parse(&super::text(&context)), Some(context));
            }
        }
    }
}
