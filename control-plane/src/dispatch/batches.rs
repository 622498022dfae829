//! Batches in the ledger: how many of a batch run, when too many have failed, and what is tried again.
//!
//! INVARIANT: the counts of a batch are stored in the same transaction as what they count, and no task of a stopped batch
//! starts.

use std::collections::BTreeSet;
use std::sync::Arc;

use lictor_proto::v1::{BatchProgress, TaskResult, TaskState};

use super::Ledger;
use super::task::{LiveTask, Phase};
use crate::clock::{Now, UnixMillis};
use crate::failure;

/// A batch that is not finished.
#[derive(Debug, Clone)]
pub(crate) struct BatchEntry {
    pub(crate) batch_id: Arc<str>,
    /// Most tasks that run at once; 0 is any number.
    pub(crate) concurrency: u32,
    pub(crate) threshold: Option<Threshold>,
    pub(crate) stop: Option<Stop>,
    pub(crate) progress: BatchProgress,
    /// Tasks that wait to be tried again.
    pub(crate) paused: BTreeSet<String>,
}

/// How many tasks of a batch may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threshold {
    Count(u32),
    /// Of a hundred.
    Percent(u32),
}

/// Why a batch was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) at: UnixMillis,
}

/// What is to be stored of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchRecord {
    pub(crate) batch_id: Arc<str>,
    pub(crate) progress: BatchProgress,
    pub(crate) stop: Option<Stop>,
    pub(crate) finished: bool,
}

impl Threshold {
    fn is_passed(self, failures: u32, total: u32) -> bool {
        match self {
            Self::Count(most) => failures > most,
            Self::Percent(most) => u64::from(failures) * 100 > u64::from(most) * u64::from(total),
        }
    }
}

impl BatchEntry {
    fn is_full(&self) -> bool {
        self.concurrency > 0 && self.progress.running >= self.concurrency
    }
}

/// Tasks that did not end well. Every final state but Succeeded counts.
fn failures(progress: &BatchProgress) -> u32 {
    progress.failed + progress.cancelled + progress.timed_out + progress.rejected + progress.unknown
}

impl Ledger {
    /// Takes in a new batch and its tasks, stored already.
    pub(crate) fn submit_batch(&mut self, batch: BatchEntry, tasks: Vec<LiveTask>, now: Now) {
        self.batches.insert(Arc::clone(&batch.batch_id), batch);
        for task in tasks {
            let (task_id, deadline) = (task.task_id.clone(), now.instant + task.queue_timeout);
            self.queue.insert(&task);
            self.tasks.insert(task_id.clone(), task);
            self.set_deadline(&task_id, Some(deadline));
        }
    }

    /// Asks for cancellation of a batch. Running tasks are cancelled at once, waiting ones some at a time.
    /// False when it is finished.
    pub(crate) fn cancel_batch(&mut self, batch_id: &str, reason: &str, now: Now) -> bool {
        if !self.batches.contains_key(batch_id) {
            return false;
        }
        let message = if reason.is_empty() { "the batch was cancelled".to_owned() } else { reason.to_owned() };
        self.stop_batch(batch_id, Stop { code: CANCELLED.into(), message, at: now.wall });
        let running: Vec<String> = self
            .busy
            .tasks()
            .filter(|id| self.tasks.get(*id).is_some_and(|task| task.claim.batch.as_deref() == Some(batch_id)))
            .cloned()
            .collect();
        for task_id in running {
            self.cancel(&task_id, reason, now);
        }
        true
    }

    fn stop_batch(&mut self, batch_id: &str, stop: Stop) {
        let Some(batch) = self.batches.get_mut(batch_id) else { return };
        // A batch that failed too often may be cancelled on top, for the sake of what still runs.
        batch.stop.get_or_insert(stop);
        self.stopping.insert(Arc::clone(&batch.batch_id));
        self.changed_batches.insert(Arc::clone(&batch.batch_id));
    }

    /// Ends some of the waiting tasks of stopped batches: ending ten thousand at once would keep agents waiting.
    pub(super) fn work_off_stopped(&mut self, now: Now) {
        let mut left = ENDS_PER_TURN;
        while let Some(batch_id) = self.stopping.first().cloned() {
            let mut some = self.queue.some_of_batch(&batch_id, left);
            if let Some(batch) = self.batches.get(&batch_id) {
                some.extend(batch.paused.iter().take(left - some.len()).cloned());
            }
            left -= some.len();
            for task_id in &some {
                self.end_with_its_batch(&batch_id, task_id, now);
            }
            if left == 0 {
                return;
            }
            self.stopping.remove(&batch_id);
        }
    }

    fn end_with_its_batch(&mut self, batch_id: &str, task_id: &str, now: Now) {
        let Some(batch) = self.batches.get(batch_id) else { return };
        let Some(stop) = &batch.stop else { return };
        let failure = (stop.code == THRESHOLD).then(|| failure::batch_threshold(&stop.message));
        if let Some(task) = self.tasks.get_mut(task_id)
            && stop.code == CANCELLED
        {
            task.cancel.get_or_insert_with(|| stop.message.clone());
        }
        self.finish(task_id, failure::result(TaskState::Cancelled, failure), Vec::new(), false, now);
    }

    /// True while waiting tasks of stopped batches are still to be ended.
    pub(super) fn has_ends_to_work_off(&self) -> bool {
        !self.stopping.is_empty()
    }

    pub(super) fn batch_holds_back(&self, batch_id: &str) -> Option<(&'static str, String)> {
        let batch = self.batches.get(batch_id)?;
        if let Some(stop) = &batch.stop {
            return Some(("batch_stopped", format!("its batch was stopped: {}", stop.message)));
        }
        let most = batch.concurrency;
        batch.is_full().then(|| ("batch_limit", format!("{most} tasks of its batch run already (concurrency)")))
    }

    pub(super) fn batch_is_held_back(&self, batch_id: &str) -> bool {
        self.batches.get(batch_id).is_some_and(|batch| batch.stop.is_some() || batch.is_full())
    }

    /// A task of a batch was given to an agent.
    pub(super) fn batch_runs_one(&mut self, batch_id: Option<&Arc<str>>) {
        if let Some(batch) = batch_id.and_then(|id| self.batches.get_mut(id)) {
            batch.progress.waiting = batch.progress.waiting.saturating_sub(1);
            batch.progress.running += 1;
            self.changed_batches.insert(Arc::clone(&batch.batch_id));
        }
    }

    /// A task of a batch waits again.
    pub(super) fn batch_waits_one(&mut self, batch_id: Option<&Arc<str>>) {
        if let Some(batch) = batch_id.and_then(|id| self.batches.get_mut(id)) {
            batch.progress.running = batch.progress.running.saturating_sub(1);
            batch.progress.waiting += 1;
            if batch.stop.is_some() {
                self.stopping.insert(Arc::clone(&batch.batch_id));
            }
            self.changed_batches.insert(Arc::clone(&batch.batch_id));
        }
    }

    /// A task of a batch ended: counts it, and stops the batch when that was one failure too many.
    pub(super) fn batch_ends_one(&mut self, task: &mut LiveTask, outcome: TaskState, now: Now) {
        let Some(batch) = task.claim.batch.as_ref().and_then(|id| self.batches.get_mut(id)) else { return };
        batch.paused.remove(&task.task_id);
        let progress = &mut batch.progress;
        let left = if task.phase == Phase::Queued { &mut progress.waiting } else { &mut progress.running };
        *left = left.saturating_sub(1);
        let ended = match outcome {
            TaskState::Succeeded => &mut progress.succeeded,
            TaskState::Failed => &mut progress.failed,
            TaskState::Cancelled => &mut progress.cancelled,
            TaskState::TimedOut => &mut progress.timed_out,
            TaskState::Rejected => &mut progress.rejected,
            _ => &mut progress.unknown,
        };
        *ended += 1;
        let failures = failures(progress);
        task.claim.batch_ended = Some(progress.succeeded + failures);
        let batch_id = Arc::clone(&batch.batch_id);
        let total = progress.total;
        if batch.threshold.is_some_and(|threshold| threshold.is_passed(failures, total)) && batch.stop.is_none() {
            let message = match batch.threshold {
                Some(Threshold::Percent(most)) => {
                    format!("{failures} of {total} tasks failed, more than {most} %")
                }
                Some(Threshold::Count(most)) => format!("{failures} of {total} tasks failed, more than {most}"),
                None => String::new(),
            };
            self.stop_batch(&batch_id, Stop { code: THRESHOLD.into(), message, at: now.wall });
        }
        self.changed_batches.insert(batch_id);
    }

    /// Whether the end that an agent reported is not the end of its task, where the credential was not refused.
    pub(super) fn is_tried_again(&self, task_id: &str, result: &TaskResult) -> bool {
        let Some(task) = self.tasks.get(task_id) else { return false };
        let goes_on = task.claim.batch.as_ref().and_then(|id| self.batches.get(id)).is_some_and(|b| b.stop.is_none());
        let may_help = matches!(result.outcome(), TaskState::Failed | TaskState::TimedOut | TaskState::Unknown);
        task.idempotent && task.claim.retries_left > 0 && task.cancel.is_none() && goes_on && may_help
    }

    /// Puts a task aside until it is tried again.
    pub(super) fn try_again_later(&mut self, task_id: &str, result: TaskResult, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        self.outcome.tried.push(task.reference());
        task.claim.retries_left -= 1;
        task.hitch = None;
        task.claim.last_result = Some(Box::new(result));
        self.put_aside(task_id, now);
    }

    /// What is to be stored of batches; those that are finished are forgotten.
    pub(super) fn take_batch_records(&mut self) -> Vec<BatchRecord> {
        let changed = std::mem::take(&mut self.changed_batches);
        let mut records = Vec::with_capacity(changed.len());
        for batch_id in changed {
            let Some(batch) = self.batches.get(&batch_id) else { continue };
            let finished = batch.progress.waiting == 0 && batch.progress.running == 0;
            let (progress, stop) = (batch.progress, batch.stop.clone());
            if finished {
                self.batches.remove(&batch_id);
            }
            records.push(BatchRecord { batch_id, progress, stop, finished });
        }
        records
    }
}

/// Codes of [`Stop`].
const THRESHOLD: &str = "batch.threshold";
const CANCELLED: &str = "batch.cancelled";
/// Some ten milliseconds of the database's time.
const ENDS_PER_TURN: usize = 500;
