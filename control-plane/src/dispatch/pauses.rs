//! Tasks that are put aside for a while: a try that failed is tried again, and what kept a task from starting may have passed.
//!
//! INVARIANT: what passes is waited for as long as the task may wait in the queue and no longer, counted from the first time, from the
//! last time that an agent gave it back for something else, or from the start of this control plane.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lictor_proto::v1::{Candidate, Failure};

use super::task::{LiveTask, Phase};
use super::{Assign, Ledger, routing};
use crate::clock::Now;

/// What kept a task from starting and is expected to pass, such as a service that is out of reach or overloaded.
#[derive(Debug, Clone)]
pub(crate) struct Hitch {
    /// What was met last.
    pub(super) failure: Box<Failure>,
    /// Agents that met it. They are asked again once all others have met it, too, or are gone.
    pub(super) agents: BTreeSet<String>,
    /// How long it is waited for.
    pub(super) until: Instant,
}

impl Hitch {
    /// What a task waits for.
    pub(super) fn words(&self) -> String {
        format!("it is tried again in a while: {}", self.failure.message)
    }

    /// When something is to be done about a waiting task.
    pub(super) fn deadline(&self, now: Now) -> Instant {
        // The others may be gone meanwhile: nobody waits for them alone.
        if self.agents.is_empty() { self.until } else { self.until.min(now.instant + LONGEST_PAUSE) }
    }
}

impl Ledger {
    /// Something that passes kept a task from starting: on this agent, or before it was sent to any. Agents that have not met it
    /// are asked, some at once and the others after a pause; where there are none left, all are asked again after one.
    pub(super) fn hitched(&mut self, task_id: &str, agent_id: Option<&str>, failure: Failure, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let until = now.instant + task.queue_timeout;
        let hitch = task.hitch.get_or_insert_with(|| Hitch { failure: Box::default(), agents: BTreeSet::new(), until });
        *hitch.failure = failure;
        hitch.agents.extend(agent_id.map(str::to_owned));
        task.passed += 1;
        // That many of a large fleet make it likely that it is not the way of one agent: the others are asked after a pause.
        let turn_is_over = hitch.agents.len() % MOST_AT_ONCE == 0;
        let others = agent_id.is_some() && self.another_can(task_id);
        if others && !turn_is_over {
            self.enqueue(task_id, now);
            return;
        }
        if let Some(hitch) = self.tasks.get_mut(task_id).and_then(|task| task.hitch.as_mut()).filter(|_| !others) {
            hitch.agents.clear();
        }
        self.put_aside(task_id, now);
    }

    /// The same for an assignment that was made and never sent.
    pub(crate) fn assignment_hitched(&mut self, assign: &Assign, failure: Failure, now: Now) {
        if self.takes_back(assign, now) {
            self.hitched(&assign.task_id, None, failure, now);
        }
    }

    /// Whether an agent takes this task now, or once a slot is free.
    fn another_can(&self, task_id: &str) -> bool {
        let Some(task) = self.tasks.get(task_id) else { return false };
        let credential = self.credentials.get(&task.credential);
        self.agents.values().any(|agent| {
            let obstacle = routing::obstacle(agent, task, credential, &self.secrets);
            self.is_fit(agent, &task.route, credential, obstacle)
        })
    }

    /// The time of a waiting task has come that met something passing.
    pub(super) fn hitch_is_due(&mut self, task_id: &str, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let Some(hitch) = &task.hitch else { return };
        if hitch.until <= now.instant {
            let failure = (*hitch.failure).clone();
            // In the end it may be that nobody is there to ask any more.
            let is_asked = |candidate: &Candidate| candidate.eligible || candidate.code == routing::RETRY_PAUSE;
            if self.candidates(task_id).iter().any(is_asked) {
                self.reject(task_id, failure, now);
            } else {
                self.nobody_took(task_id, now);
            }
            return;
        }
        // Where it waits depends on who is asked.
        self.queue.remove(task);
        if let Some(hitch) = &mut task.hitch {
            hitch.agents.clear();
        }
        self.enqueue(task_id, now);
    }

    /// Puts a task aside, which is with an agent or was to be sent to one.
    pub(super) fn put_aside(&mut self, task_id: &str, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let mut pause = pause(task);
        if let Some(hitch) = &task.hitch {
            pause = pause.min(hitch.until.saturating_duration_since(now.instant));
        }
        let (holder, batch_id) = (task.agent_id.clone(), task.claim.batch.clone());
        self.busy.give_back(task, &self.settings.limits, &mut self.queue);
        task.phase = Phase::Queued;
        (task.accepted, task.started) = (false, false);
        task.queued_at = now.wall;
        task.claim.retry_at = Some(now.wall.plus(pause));
        self.outcome.changed_tasks.insert(task_id.to_owned());
        self.let_go(holder.as_deref(), task_id);
        self.set_deadline(task_id, Some(now.instant + pause));
        self.batch_waits_one(batch_id.as_ref());
        if let Some(batch) = batch_id.and_then(|id| self.batches.get_mut(&id)) {
            batch.paused.insert(task_id.to_owned());
        }
    }

    /// The pause of a task is over.
    pub(super) fn leave_pause(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.claim.retry_at = None;
        if let Some(batch) = task.claim.batch.as_ref().and_then(|id| self.batches.get_mut(id)) {
            batch.paused.remove(task_id);
        }
    }
}

/// Grows with each try, and differs between tasks so that they do not come back together. Taken from the task's id: the
/// ledger reads no source of chance.
fn pause(task: &LiveTask) -> Duration {
    let before = if task.hitch.is_some() { task.passed } else { task.tries() };
    let doublings = u32::try_from(before.saturating_sub(1).min(8)).unwrap_or(8);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let seed = task
        .task_id
        .bytes()
        .fold(task.epoch, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17));
    let share = u32::try_from(seed % 1000).unwrap_or(0);
    longest / 2 + longest * share / 2000
}

/// Agents that are asked without a pause between them.
const MOST_AT_ONCE: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// No task is put aside for longer at once.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
