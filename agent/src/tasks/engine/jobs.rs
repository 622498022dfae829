//! What runs beside the engine: one job per task, from acceptance to the end that is safe and told.
//!
//! A job must tell nothing that is not journalled, but for ends that the journal cannot take.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lictor_proto::v1::TaskState;
use lictor_winrm::pool::Lease;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::Phase;
use super::trouble::Chore;
use crate::failure;
use crate::tasks::clock::Stamp;
use crate::tasks::execute::{Orders, Outcome, Run, Worker};
use crate::tasks::journal::Record;
use crate::tasks::output::Log;
use crate::tasks::spans;
use crate::tasks::task::{HostTask, Kind, Task};
use crate::tasks::{Event, TaskKey};

/// How a job left.
#[derive(Debug)]
pub(super) struct Left {
    /// Nothing: nobody waits for it.
    pub(super) phase: Option<Phase>,
    /// Its end is in the journal.
    pub(super) journalled: bool,
    /// Its end is on its way until this ends.
    pub(super) delivery: Span,
}

impl Left {
    /// Nobody waits for it.
    pub(super) fn unwanted() -> Self {
        Self { phase: None, journalled: true, delivery: Span::none() }
    }
}

/// Follows a task that an earlier process started.
pub(super) async fn follow(
    worker: Arc<Worker>,
    task: HostTask,
    log: Log,
    orders: watch::Receiver<Orders>,
    started: Arc<AtomicBool>,
) -> Left {
    let accepted = Instant::now();
    let _under_way = worker.metrics.task_under_way();
    let key = task.key.clone();
    let (start, shell_id) = match &task.kind {
        Kind::Follow(followed) => (Some(followed.start.clone()), followed.start.shell_id.clone()),
        Kind::ConnectionTest | Kind::Diagnosis | Kind::Posture { .. } | Kind::Run(_) => (None, String::new()),
    };
    let accepted_at = start.as_ref().map(|start| start.accepted.clone()).unwrap_or_default();
    let run = Run {
        worker: &worker,
        task: &task,
        log: &log,
        orders: orders.clone(),
        started: &started,
        accepted,
        accepted_at,
        start,
    };
    let (outcome, session) = run.execute().await;
    drop(task);
    let left = conclude(&worker, &key, &log, &orders, accepted, outcome, session).await;
    // Its session, which is on its way out, deletes the shell; should it fail, the shell is one that was left behind.
    worker.sessions.spare_no_more(&shell_id);
    left
}

pub(super) async fn job(
    worker: Arc<Worker>,
    task: Task,
    log: Log,
    orders: watch::Receiver<Orders>,
    started: Arc<AtomicBool>,
) -> Left {
    let (accepted, accepted_at) = (Instant::now(), Stamp::now());
    let key = task.key().clone();
    let (outcome, session) = match worker.journal.put(&key, &Record::Accepted).instrument(spans::accept()).await {
        Ok(()) => {
            worker.tell(Event::Accepted { key: key.clone(), log: log.clone() }).await;
            match &task {
                Task::Errand(errand) => (errand.run(&worker, orders.clone(), accepted).await, None),
                Task::Host(task) => {
                    let run = Run {
                        worker: &worker,
                        task,
                        log: &log,
                        orders: orders.clone(),
                        started: &started,
                        accepted,
                        accepted_at,
                        start: None,
                    };
                    run.execute().await
                }
            }
        }
        Err(error) => {
            let (reason, failure) = worker.impaired(failure::chain(&error)).await;
            (Outcome::HandedBack(reason, failure), None)
        }
    };
    // The sealed secret has served.
    drop(task);
    conclude(&worker, &key, &log, &orders, accepted, outcome, session).await
}

/// Makes the outcome safe and tells it, unless nobody wants it.
pub(super) async fn conclude(
    worker: &Worker,
    key: &TaskKey,
    log: &Log,
    orders: &watch::Receiver<Orders>,
    accepted: Instant,
    outcome: Outcome,
    session: Option<Lease>,
) -> Left {
    if orders.borrow().forget {
        return Left::unwanted();
    }
    let mut journalled = true;
    let delivery = spans::deliver();
    let phase = match outcome {
        Outcome::Ended(result) => {
            let state = TaskState::try_from(result.outcome).unwrap_or(TaskState::Unknown);
            worker.metrics.task_finished(state, accepted.elapsed());
            tracing::debug!(outcome = ?state, exit_code = result.exit_code, "Task ended");
            spans::note_end(state, result.failure.as_ref());
            journalled = worker.finish(key, log, result.clone(), session).instrument(delivery.clone()).await;
            Phase::Ended(result)
        }
        Outcome::HandedBack(reason, failure) => {
            worker.metrics.task_handed_back(reason);
            tracing::debug!(reason = ?reason, error = failure.message, "Task handed back");
            let event = Event::HandedBack { key: key.clone(), reason, failure: failure.clone() };
            spans::note_handed_back(&failure);
            worker.tell(event).instrument(delivery.clone()).await;
            Phase::HandedBack(reason, failure)
        }
    };
    Left { phase: Some(phase), journalled, delivery }
}

/// Takes an acknowledged task out of the journal.
pub(super) async fn removal(worker: Arc<Worker>, key: TaskKey) -> Chore {
    match worker.journal.remove(&key).await {
        Ok(()) => Chore::Done,
        Err(error) => {
            // Left in the journal it is sent again after a restart, and acknowledged again.
            tracing::warn!(error = %failure::chain(&error), "An acknowledged task stays in the journal");
            Chore::NotRemoved(key)
        }
    }
}
