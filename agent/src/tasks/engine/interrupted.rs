//! Tasks that an earlier process of this agent started: they wait for their assignments, hold their slots, and are followed.
//!
//! It must never start a command, nor let anybody take an awaited shell for one that was left behind.

use std::sync::Arc;

use tracing::Instrument as _;

use super::jobs::follow;
use super::{Engine, Phase};
use crate::failure::{self, StopCause};
use crate::tasks::spans;
use crate::tasks::task::Task;
use crate::tasks::{Event, Resumption, TaskKey};

impl Engine {
    /// The control plane has said how to go on with a task that an earlier process started.
    pub(super) async fn resume(&mut self, resumption: Resumption) {
        let Resumption { key, assignment, output_acked, stale } = resumption;
        let Some(held) = self.held.get_mut(&key) else { return };
        let Phase::Interrupted(start) = &held.phase else { return };
        let traceparent = assignment.as_ref().map(|assignment| assignment.traceparent.clone()).unwrap_or_default();
        let mut start = (**start).clone();
        start.skipped = held.log.resume(output_acked);
        if stale {
            held.log.discard();
            held.orders.send_modify(|orders| {
                orders.forget = true;
                orders.stop.get_or_insert(StopCause::Cancelled("the assignment is stale".into()));
            });
        }
        let task = match assignment {
            Some(assignment) => Task::resumed(key.clone(), *assignment, start.clone(), (self.born.0, &self.born.1)),
            None => Err("the control plane did not give the assignment again".to_owned()),
        };
        // What may be reached is for the policy to say, also for what was begun under another one.
        let task = task.and_then(|mut task| match self.worker.sessions.permit(&mut task.plan, task.job) {
            Ok(()) => Ok(task),
            Err(refusal) => Err(failure::chain(&refusal)),
        });
        let task = match task {
            Ok(task) => task,
            Err(why) if stale => {
                tracing::warn!(task = %key, target = start.host, error = why, "A stale command cannot be ended on its host");
                self.remove(&key);
                return self.settle(0).await;
            }
            Err(why) => {
                tracing::warn!(task = %key, target = start.host, error = why, "A task ran when the agent ended, its end is unknown");
                let end = failure::not_followed(&start.host, &start.command_id, &why);
                return self.give_up(&key, end).await;
            }
        };
        let (worker, log, orders) = (Arc::clone(&self.worker), held.log.clone(), held.orders.subscribe());
        held.phase = Phase::Active;
        let span = spans::task(&key, task.plan.host(), &traceparent);
        let job = follow(worker, task, log, orders, Arc::clone(&held.started));
        let handle = self.jobs.spawn(job.instrument(span));
        self.job_keys.insert(handle.id(), key);
    }

    /// Ends a task that waited for its assignment, without having followed it.
    pub(super) async fn give_up(&mut self, key: &TaskKey, end: failure::End) {
        let Some(log) = self.held.get(key).map(|held| held.log.clone()) else { return };
        let result = self.end_unseen(key, &log, end).await;
        self.worker.tell(Event::Ended { key: key.clone(), result: result.clone(), log }).await;
        if let Some(held) = self.held.get_mut(key) {
            let before = std::mem::replace(&mut held.phase, Phase::Ended(result));
            self.let_go(&before);
        }
        self.settle(0).await;
    }

    /// A task that waited for its assignment waits no more: neither for its shell nor for its slot.
    pub(super) fn let_go(&mut self, phase: &Phase) {
        if let Phase::Interrupted(start) = phase {
            self.worker.sessions.spare_no_more(&start.shell_id);
            self.withheld += 1;
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.held.values().any(|held| matches!(held.phase, Phase::Interrupted(_)))
    }

    /// The agent stops. What still waits for its assignment stays in the journal: nobody here can end it on its host.
    pub(super) async fn leave_interrupted(&mut self) {
        let waiting = self.held.iter().filter(|(_, held)| matches!(held.phase, Phase::Interrupted(_)));
        let waiting: Vec<TaskKey> = waiting.map(|(key, _)| key.clone()).collect();
        for key in waiting {
            tracing::warn!(task = %key, "A task that was to be followed again is left to the next start");
            self.held.remove(&key);
            self.worker.tell(Event::Left(key)).await;
        }
    }
}
