//! The spans of a task on the agent; those of its exchanges with the host are `lictor-winrm`'s, and lie within them.
//!
//! INVARIANT: what a span says comes from here, and is names, numbers, identifiers and the host alone: no command line, no
//! script, no user, nothing of a credential. `docs/observability.md` lists them. Called by the engine and by `execute`.

use lictor_proto::v1::{Failure, TaskState};
use lictor_telemetry::context;
use tracing::Span;
use tracing::field::Empty;

use super::TaskKey;

/// All of it: from the assignment to the acknowledged end. A child of what the assignment names, when anything is traced.
pub(super) fn task(key: &TaskKey, host: &str, traceparent: &str) -> Span {
    let span = tracing::info_span!(
        "task",
        task_id = %key.task_id,
        attempt = i64::try_from(key.epoch).unwrap_or(i64::MAX),
        target = host,
        trace_id = Empty,
        outcome = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    );
    context::adopt(&span, traceparent);
    if let Some(trace_id) = context::trace_id(&span) {
        span.record("trace_id", trace_id);
    }
    span
}

/// It is written down.
pub(super) fn accept() -> Span {
    tracing::debug_span!("accept")
}

/// Its secret is opened; keys or tickets of the agent are found.
pub(super) fn credential() -> Span {
    tracing::debug_span!("credential")
}

/// A secret manager is asked.
pub(super) fn secret_manager() -> Span {
    tracing::debug_span!("secret_manager")
}

/// It waits for a session, which is opened if need be.
pub(super) fn lease() -> Span {
    tracing::debug_span!("lease", reused = Empty)
}

/// The start is written down, and Command is sent.
pub(super) fn start() -> Span {
    tracing::debug_span!("start")
}

/// The command runs.
pub(super) fn run() -> Span {
    tracing::debug_span!("run")
}

/// The end is written down and told, until the control plane has stored it.
pub(super) fn deliver() -> Span {
    tracing::debug_span!("deliver")
}

/// Notes how a task ended, on its own span.
pub(super) fn note_end(state: TaskState, failure: Option<&Failure>) {
    let span = Span::current();
    let outcome = match state {
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::TimedOut => "timed_out",
        _ => "unknown",
    };
    span.record("outcome", outcome);
    if let Some(failure) = failure {
        span.record("error.type", failure.code.as_str());
    }
    if state != TaskState::Succeeded {
        span.record("otel.status_code", "ERROR");
    }
}

/// Notes that a task was handed back.
pub(super) fn note_handed_back(failure: &Failure) {
    let span = Span::current();
    span.record("outcome", "handed_back");
    span.record("error.type", failure.code.as_str());
}
