//! Which waiting task goes next: turns between lanes, bounds per host and per credential, an agent with room.
//!
//! Work per event grows with the lanes, selectors and credentials in use, never with the tasks that wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::pauses::Hitch;
use super::queue::{Lane, Pick, Queue, Shape};
use super::task::{LiveTask, Phase};
use super::{Ledger, routing};
use crate::clock::{Now, UnixMillis};

/// How many tasks may run at once, over all agents. 0: any number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) tasks_per_host: u32,
    pub(crate) tasks_per_credential: u32,
}

/// What waits and what runs, for whoever decides how many agents there should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) queued: usize,
    pub(crate) assigned: usize,
    pub(crate) running: usize,
    pub(crate) lost: usize,
    /// Since when the task waits that has waited longest.
    pub(crate) oldest: Option<UnixMillis>,
    /// Tasks that connected agents would take now.
    pub(crate) free_slots: u64,
    /// Connected agents whose version is too far from ours.
    pub(crate) incompatible: usize,
}

/// What the tasks that agents hold take up. Lost ones count: they may be running.
#[derive(Debug, Default)]
pub(super) struct Busy {
    tasks: BTreeSet<String>,
    hosts: HashMap<Arc<str>, u32>,
    credentials: HashMap<String, u32>,
}

impl Busy {
    pub(super) fn take(&mut self, task: &LiveTask) {
        self.tasks.insert(task.task_id.clone());
        *self.hosts.entry(Arc::clone(&task.claim.host)).or_default() += 1;
        *self.credentials.entry(task.credential.clone()).or_default() += 1;
    }

    pub(super) fn give_back(&mut self, task: &LiveTask, limits: &Limits, queue: &mut Queue) {
        self.tasks.remove(&task.task_id);
        if let Some(running) = self.credentials.get_mut(&task.credential) {
            *running -= 1;
            if *running == 0 {
                self.credentials.remove(&task.credential);
            }
        }
        let host = &task.claim.host;
        if let Some(running) = self.hosts.get_mut(host) {
            *running -= 1;
            if *running == 0 {
                self.hosts.remove(host);
            }
        }
        if !self.host_is_full(host, limits) {
            queue.host_has_room(host);
        }
    }

    /// Tasks that agents hold.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &String> {
        self.tasks.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks without a host, or without a credential, do not share one.
    fn host_is_full(&self, host: &str, limits: &Limits) -> bool {
        !host.is_empty() && is_full(self.hosts.get(host), limits.tasks_per_host)
    }

    fn credential_is_full(&self, credential: &str, limits: &Limits) -> bool {
        !credential.is_empty() && is_full(self.credentials.get(credential), limits.tasks_per_credential)
    }
}

fn is_full(running: Option<&u32>, limit: u32) -> bool {
    limit > 0 && running.is_some_and(|running| *running >= limit)
}

impl Ledger {
    /// Gives waiting tasks to agents: one of each lane in turn, each to the fitting agent with the most room.
    pub(crate) fn schedule(&mut self, now: Now) {
        let mut room: BTreeMap<String, u64> = self
            .agents
            .values()
            .filter(|agent| agent.revoked.is_none() && !agent.is_draining())
            .filter_map(|agent| Some((agent.agent_id.clone(), agent.link.as_ref()?.free())))
            .filter(|(_, free)| *free > 0)
            .collect();
        // What no agent with room fits, or whose credential is used up; room only shrinks meanwhile.
        let mut hopeless: HashSet<Arc<Shape>> = HashSet::new();
        let mut from = 0;
        while !room.is_empty() {
            // A lane that gets nothing keeps its place; one that gets something comes again behind all others.
            let Some((turn, lane)) = self.queue.lane_from(from) else { break };
            from = turn + 1;
            if let Lane::Batch(batch_id) = &lane
                && self.batch_is_held_back(batch_id)
            {
                continue;
            }
            let Self { agents, tasks, busy, queue, settings, credentials, secrets, .. } = self;
            let limits = &settings.limits;
            let pick = queue.pick(
                &lane,
                |host| busy.host_is_full(host, limits),
                |shape, task_id| {
                    if hopeless.contains(shape) || busy.credential_is_full(&shape.credential, limits) {
                        return None;
                    }
                    let task = tasks.get(task_id)?;
                    let credential = credentials.get(&task.credential);
                    let fitting = room.iter().filter(|(id, _)| {
                        agents
                            .get(*id)
                            .is_some_and(|agent| routing::obstacle(agent, task, credential, secrets).is_none())
                    });
                    let best = fitting.max_by_key(|(_, free)| **free).map(|(id, _)| id.clone());
                    if best.is_none() {
                        hopeless.insert(Arc::clone(shape));
                    }
                    best
                },
            );
            let Pick::Task(task_id, agent_id) = pick else { continue };
            match room.get_mut(&agent_id) {
                Some(free) if *free > 1 => *free -= 1,
                _ => drop(room.remove(&agent_id)),
            }
            self.assign(&task_id, &agent_id, now);
        }
    }

    /// What beside the agents holds a waiting task back: stable code and words.
    pub(super) fn held_back(&self, task: &LiveTask) -> Option<(&'static str, String)> {
        if task.claim.retry_at.is_some() {
            let words = task.hitch.as_ref().map(Hitch::words);
            let words = words.unwrap_or_else(|| "it failed and waits to be tried again".to_owned());
            return Some((routing::RETRY_PAUSE, words));
        }
        if let Some(held_back) = task.claim.batch.as_ref().and_then(|batch_id| self.batch_holds_back(batch_id)) {
            return Some(held_back);
        }
        let limits = &self.settings.limits;
        if self.busy.host_is_full(&task.claim.host, limits) {
            let most = limits.tasks_per_host;
            return Some((
                "host_busy",
                format!("{most} tasks run on {} already (limits.tasks_per_host)", task.claim.host),
            ));
        }
        if self.busy.credential_is_full(&task.credential, limits) {
            let (most, name) = (limits.tasks_per_credential, &task.credential);
            return Some((
                "credential_busy",
                format!("{most} tasks run as {name} already (limits.tasks_per_credential)"),
            ));
        }
        None
    }

    /// What waits and what runs.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog { queued: self.waiting(), oldest: self.queue.oldest(), ..Backlog::default() };
        for task in self.busy.tasks().filter_map(|task_id| self.tasks.get(task_id)) {
            match (task.phase, task.started) {
                (Phase::Lost, _) => backlog.lost += 1,
                (_, true) => backlog.running += 1,
                (_, false) => backlog.assigned += 1,
            }
        }
        let ready = self.agents.values().filter(|agent| agent.revoked.is_none() && !agent.is_draining());
        // One whose version is too far from ours gets nothing, whatever it asks for.
        let links = ready.filter_map(|agent| agent.link.as_ref()).filter(|link| link.mismatch.is_none());
        backlog.free_slots = links.map(|link| link.free()).sum();
        let links = self.agents.values().filter_map(|agent| agent.link.as_ref());
        backlog.incompatible = links.filter(|link| link.mismatch.is_some()).count();
        backlog
    }
}
