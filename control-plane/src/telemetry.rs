//! Logs, for people or as JSON, whose level can be changed at run time; and the spans of a task's way through here.
//!
//! INVARIANT: what a span says is identifiers, numbers and names of agents' ids alone. `docs/observability.md` lists them. Set
//! up by the command line; spans are made by `api` and `engine`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lictor_proto::v1::Task;
use lictor_telemetry::context::Value;
use lictor_telemetry::{Format, Options, Telemetry, Traces, context};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::field::Empty;
use tracing::{Level, Span};

use crate::clock::UnixMillis;
use crate::config::{Config, LogFormat};

/// Starts logging. Nothing when this process has logs already, which then stay as they are.
pub(crate) fn start(config: &Config, traces: Traces) -> Option<Telemetry> {
    lictor_telemetry::start(Options {
        format: match config.log.format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        },
        filter: config.log.level.clone(),
        caps: caps(),
        traces,
        version: env!("CARGO_PKG_VERSION"),
    })
    .ok()
}

/// The submission of a task: the beginning of its trace, or a part of its caller's.
pub(crate) struct Submission {
    pub(crate) span: Span,
    /// What follows from it is a part of this.
    pub(crate) traceparent: Option<String>,
}

impl Submission {
    /// Of a call with this metadata.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let caller = metadata.get("traceparent").and_then(|value| value.to_str().ok());
        let caller = caller.and_then(context::parse).map(|parent| context::text(&parent));
        let span = tracing::info_span!(
            "submit",
            task_id = Empty,
            trace_id = Empty,
            otel.kind = "server",
            rpc.grpc.status_code = Empty,
            otel.status_code = Empty,
        );
        if let Some(caller) = &caller {
            context::adopt(&span, caller);
        }
        if let Some(trace_id) = context::trace_id(&span) {
            span.record("trace_id", trace_id);
        }
        // Where nothing is traced, the caller's trace goes on at the agent.
        let traceparent = context::of(&span).or(caller);
        Self { span, traceparent }
    }
}

/// Notes how a submission ended.
pub(crate) fn note_submission(span: &Span, result: &Result<Task, Status>) {
    match result {
        Ok(task) => {
            span.record("task_id", task.task_id.as_str());
        }
        Err(status) => {
            span.record("rpc.grpc.status_code", status.code() as i32);
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// The trace that a `traceparent` names, for log lines.
pub(crate) fn trace_id(traceparent: Option<&str>) -> Option<String> {
    traceparent.and_then(context::parse).map(|context| context.trace_id().to_string())
}

/// One assignment of a task.
pub(crate) struct Assigned<'a> {
    pub(crate) task_id: &'a str,
    pub(crate) epoch: u64,
    pub(crate) agent_id: &'a str,
    /// Since when it waited; nothing when it did not, because its agent gets it again.
    pub(crate) queued_at: Option<UnixMillis>,
    /// When it was decided about.
    pub(crate) now: UnixMillis,
}

impl Assigned<'_> {
    /// Tells of the wait and of the assignment, as parts of the submission; where that is not known, they begin a trace. What
    /// the agent does is a part of the returned; empty when nothing is traced.
    pub(crate) fn trace(&self, submission: Option<&str>) -> String {
        let attempt = i64::try_from(self.epoch).unwrap_or(i64::MAX);
        let about = || [("task_id", Value::from(self.task_id.to_owned())), ("attempt", Value::from(attempt))];
        let waited = self.queued_at.and_then(|since| context::past("queue", submission, moment(since), about()));
        let about = about().into_iter().chain([("agent_id", Value::from(self.agent_id.to_owned()))]);
        let parent = submission.or(waited.as_deref());
        let assigned = context::past("assign", parent, moment(self.now), about);
        assigned.or_else(|| submission.map(str::to_owned)).unwrap_or_default()
    }
}

fn moment(at: UnixMillis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// The most that libraries may say. A target stands for everything below it too.
fn caps() -> Vec<(&'static str, Level)> {
    CAPPED.iter().map(|target| (*target, Level::INFO)).chain(lictor_telemetry::AWS.iter().copied()).collect()
}

/// Libraries that may show headers, and with them tokens, at debug or trace.
const CAPPED: &[&str] = &["hyper", "hyper_util", "h2", "tower", "tonic", "rustls"];
