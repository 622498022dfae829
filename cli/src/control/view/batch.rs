//! Batches: how far they are, and why they were stopped.

use lictor_proto::v1;
use serde::Serialize;

use super::time;
use crate::console;
use crate::failure::clean;

/// A batch.
#[derive(Debug, Serialize)]
pub(in crate::control) struct BatchView {
    batch_id: String,
    /// `running`, `stopping` or `finished`.
    state: &'static str,
    label: String,
    credential: String,
    scope: String,
    concurrency: u32,
    max_failures: Option<u32>,
    max_failures_percent: Option<u32>,
    retries: u32,
    submitted_by: String,
    submitted_at: Option<String>,
    finished_at: Option<String>,
    tasks: CountsView,
    stop: Option<StopView>,
}

#[derive(Debug, Serialize)]
struct CountsView {
    total: u32,
    waiting: u32,
    running: u32,
    succeeded: u32,
    failed: u32,
    cancelled: u32,
    timed_out: u32,
    rejected: u32,
    unknown: u32,
}

#[derive(Debug, Serialize)]
struct StopView {
    code: String,
    message: String,
    stopped_at: Option<String>,
}

impl From<v1::Batch> for BatchView {
    fn from(batch: v1::Batch) -> Self {
        use v1::batch::FailureThreshold::{MaxFailures, MaxFailuresPercent};
        let state = match (&batch.finished_at, &batch.stop) {
            (Some(_), _) => "finished",
            (None, Some(_)) => "stopping",
            (None, None) => "running",
        };
        let progress = batch.progress.unwrap_or_default();
        Self {
            batch_id: batch.batch_id,
            state,
            label: batch.label,
            credential: batch.credential,
            scope: batch.scope,
            concurrency: batch.concurrency,
            max_failures: match batch.failure_threshold {
                Some(MaxFailures(most)) => Some(most),
                _ => None,
            },
            max_failures_percent: match batch.failure_threshold {
                Some(MaxFailuresPercent(most)) => Some(most),
                _ => None,
            },
            retries: batch.retries,
            submitted_by: batch.submitted_by,
            submitted_at: time(batch.submitted_at),
            finished_at: time(batch.finished_at),
            tasks: CountsView {
                total: progress.total,
                waiting: progress.waiting,
                running: progress.running,
                succeeded: progress.succeeded,
                failed: progress.failed,
                cancelled: progress.cancelled,
                timed_out: progress.timed_out,
                rejected: progress.rejected,
                unknown: progress.unknown,
            },
            stop: batch.stop.map(|stop| StopView {
                code: stop.code,
                message: stop.message,
                stopped_at: time(stop.stopped_at),
            }),
        }
    }
}

impl BatchView {
    pub(in crate::control) fn is_finished(&self) -> bool {
        self.state == "finished"
    }

    pub(in crate::control) fn all_succeeded(&self) -> bool {
        self.is_finished() && self.tasks.succeeded == self.tasks.total
    }

    /// Counts that are not 0.
    pub(in crate::control) fn counts_line(&self) -> String {
        let tasks = &self.tasks;
        let counts = [
            ("waiting", tasks.waiting),
            ("running", tasks.running),
            ("succeeded", tasks.succeeded),
            ("failed", tasks.failed),
            ("cancelled", tasks.cancelled),
            ("timed out", tasks.timed_out),
            ("rejected", tasks.rejected),
            ("unknown", tasks.unknown),
        ];
        let named = counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
        format!("{} tasks: {}", tasks.total, named.collect::<Vec<_>>().join(", "))
    }

    /// The batch in one line.
    pub(in crate::control) fn state_line(&self) -> String {
        let stop =
            self.stop.as_ref().map(|stop| format!("; stopped [{}]: {}", clean(&stop.code), clean(&stop.message)));
        format!("batch {}: {}, {}{}\n", clean(&self.batch_id), self.state, self.counts_line(), stop.unwrap_or_default())
    }
}

/// Batches in lines.
pub(in crate::control) fn batch_table(batches: &[BatchView]) -> String {
    console::table(
        &["batch", "state", "tasks", "waiting", "running", "succeeded", "not", "submitted", "label"],
        batches.iter().map(|batch| {
            let tasks = &batch.tasks;
            let not = tasks.total.saturating_sub(tasks.waiting + tasks.running + tasks.succeeded);
            vec![
                batch.batch_id.clone(),
                batch.state.to_owned(),
                tasks.total.to_string(),
                tasks.waiting.to_string(),
                tasks.running.to_string(),
                tasks.succeeded.to_string(),
                not.to_string(),
                batch.submitted_at.clone().unwrap_or_default(),
                batch.label.clone(),
            ]
        }),
    )
}

/// One batch on a page.
pub(in crate::control) fn batch_page(batch: &BatchView) -> String {
    let tolerance = match (batch.max_failures, batch.max_failures_percent) {
        (Some(most), _) => most.to_string(),
        (_, Some(most)) => format!("{most} %"),
        _ => String::new(),
    };
    let number = |value: u32| if value == 0 { String::new() } else { value.to_string() };
    let mut rows = vec![
        ("batch", batch.batch_id.clone()),
        ("state", batch.state.to_owned()),
        ("tasks", batch.counts_line()),
        ("stopped", batch.stop.as_ref().map(|s| format!("[{}] {}", s.code, s.message)).unwrap_or_default()),
        ("credential", batch.credential.clone()),
        ("label", batch.label.clone()),
        ("scope", batch.scope.clone()),
        ("concurrency", number(batch.concurrency)),
        ("max failures", tolerance),
        ("retries", number(batch.retries)),
        ("submitted by", batch.submitted_by.clone()),
        ("submitted", batch.submitted_at.clone().unwrap_or_default()),
        ("finished", batch.finished_at.clone().unwrap_or_default()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    rows.iter().map(|(name, value)| format!("{name:<14}{}\n", clean(value))).collect()
}
