//! Who does what: the tasks that are not final, the agents, and every decision about them.
//!
//! Sans-I/O: it takes events and a [`Now`], changes its own state, and collects what must be stored and sent in an
//! [`Outcome`]. It never reads a clock, a socket or the database. The engine feeds it, stores the outcome in one
//! transaction and only then lets anything leave: what an agent or a user was told is on disk.

mod agent;
mod batches;
mod kerberos;
mod link;
mod pauses;
mod polling;
mod queue;
mod routing;
mod schedule;
mod secrets;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_proto::v1::{
    Agent, Cancel, Candidate, Drain, Failure, Goodbye, GoodbyeReason, OutputAck, ServerEvent, TaskRef, TaskResult,
    TaskState, server_event,
};

use crate::clock::{Now, UnixMillis};
use crate::failure::{self, Vanished};

use polling::Polling;
use queue::Queue;
use schedule::Busy;

pub(crate) use agent::{AgentEntry, SessionId};
pub(crate) use batches::{BatchEntry, BatchRecord, Stop, Threshold};
pub(crate) use kerberos::{Needs, is_kerberos_only, is_on_agent};
pub(crate) use link::{HeldFact, HeldFacts, ProtocolError, check_hello};
#[cfg(feature = "simulation")]
pub(crate) use routing::DIAGNOSIS;
pub(crate) use routing::Route;
pub(crate) use schedule::{Backlog, Limits};
pub(crate) use secrets::{BUILT_IN, Errand, ManagerState, ON_AGENTS, Reach, SecretState, Secrets, seal_id};
pub(crate) use task::{Append, Claim, Evidence, Finished, LiveTask, Phase, host_key};

/// Waits and bounds that the ledger goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) lost_wait: Duration,
    pub(crate) restart_grace: Duration,
    pub(crate) output_limit: u64,
    pub(crate) limits: Limits,
}

/// What the ledger knows of a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CredentialState {
    pub(crate) version: u64,
    pub(crate) rejected: bool,
    pub(crate) needs: Needs,
}

/// What must be stored and sent.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Live tasks whose record changed.
    pub(crate) changed_tasks: HashSet<String>,
    /// Tasks that became final.
    pub(crate) finished: Vec<Finished>,
    /// Tries that ended without ending their task.
    pub(crate) tried: Vec<TaskRef>,
    /// Batches whose record changed.
    pub(crate) batches: Vec<BatchRecord>,
    /// Agents whose record changed.
    pub(crate) changed_agents: BTreeSet<String>,
    /// Output to be stored, in order.
    pub(crate) appends: Vec<Append>,
    /// Results that came too late.
    pub(crate) evidence: Vec<Evidence>,
    /// Credential versions that a host rejected.
    pub(crate) rejected_credentials: Vec<(String, u64)>,
    /// What to send once all this is stored, in order.
    pub(crate) outgoing: Vec<(SessionId, Outgoing)>,
    /// Assignments that go once more to the agent that has them, in the Welcome of this session: the engine adds them.
    pub(crate) resealed: Vec<(SessionId, Assign)>,
}

/// Something for one session.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// An event as it is.
    Event(Box<ServerEvent>),
    /// An assignment; the engine adds the specification and the sealed credential.
    Assign(Assign),
    /// The last event; the session ends behind it.
    Close(Goodbye),
}

/// A task was given to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assign {
    pub(crate) agent_id: String,
    pub(crate) task_id: String,
    pub(crate) epoch: u64,
    pub(crate) credential_version: u64,
    pub(crate) lease: Duration,
}

impl Outcome {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed_tasks.is_empty()
            && self.finished.is_empty()
            && self.tried.is_empty()
            && self.batches.is_empty()
            && self.changed_agents.is_empty()
            && self.appends.is_empty()
            && self.evidence.is_empty()
            && self.rejected_credentials.is_empty()
            && self.outgoing.is_empty()
    }
}

/// All live tasks, all agents.
pub(crate) struct Ledger {
    settings: Settings,
    started: Instant,
    agents: BTreeMap<String, AgentEntry>,
    /// By agent: its processes before the one that spoke last, as far back as anything of theirs may still arrive.
    former_processes: HashMap<String, link::Former>,
    /// The session of each agent that began last, of those whose first words were heard.
    newest_sessions: HashMap<String, SessionId>,
    tasks: HashMap<String, LiveTask>,
    queue: Queue,
    /// What the tasks that agents hold take up.
    busy: Busy,
    deadlines: BTreeSet<(Instant, String)>,
    batches: HashMap<Arc<str>, BatchEntry>,
    /// Stopped batches that have waiting tasks still to be ended.
    stopping: BTreeSet<Arc<str>>,
    changed_batches: BTreeSet<Arc<str>>,
    credentials: HashMap<String, CredentialState>,
    secrets: Secrets,
    /// Output acknowledgements of this batch; the newest of a task is enough.
    acks: BTreeMap<(SessionId, String, u64), OutputAck>,
    polling: Polling,
    outcome: Outcome,
}

impl Ledger {
    /// Takes up what the database holds. Every wait that was under way gets at least the restart grace.
    pub(crate) fn new(
        settings: Settings,
        agents: Vec<AgentEntry>,
        tasks: Vec<LiveTask>,
        batches: Vec<BatchEntry>,
        credentials: HashMap<String, CredentialState>,
        now: Now,
    ) -> Self {
        let mut ledger = Self {
            settings,
            started: now.instant,
            agents: agents.into_iter().map(|agent| (agent.agent_id.clone(), agent)).collect(),
            former_processes: HashMap::new(),
            newest_sessions: HashMap::new(),
            tasks: HashMap::new(),
            queue: Queue::default(),
            busy: Busy::default(),
            deadlines: BTreeSet::new(),
            stopping: batches.iter().filter(|b| b.stop.is_some()).map(|b| Arc::clone(&b.batch_id)).collect(),
            batches: batches.into_iter().map(|batch| (Arc::clone(&batch.batch_id), batch)).collect(),
            changed_batches: BTreeSet::new(),
            credentials,
            secrets: Secrets::default(),
            acks: BTreeMap::new(),
            polling: Polling::default(),
            outcome: Outcome::default(),
        };
        for mut task in tasks {
            task.received = task.output_bytes.saturating_sub(task.output_base);
            let wait = match task.phase {
                Phase::Queued if let Some(at) = task.claim.retry_at => {
                    // The calendar may have stood still, or jumped.
                    let left = Duration::from_millis(u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0));
                    left.min(pauses::LONGEST_PAUSE)
                }
                Phase::Queued => {
                    let waited = u64::try_from(now.wall.0.saturating_sub(task.queued_at.0)).unwrap_or(0);
                    task.queue_timeout.saturating_sub(Duration::from_millis(waited))
                }
                Phase::Held => settings.lease,
                Phase::Lost => settings.lost_wait,
            };
            match task.phase {
                Phase::Queued if task.claim.retry_at.is_some() => {
                    if let Some(batch) = task.claim.batch.as_ref().and_then(|id| ledger.batches.get_mut(id)) {
                        batch.paused.insert(task.task_id.clone());
                    }
                }
                Phase::Queued => ledger.queue.insert(&task),
                Phase::Held | Phase::Lost => ledger.busy.take(&task),
            }
            let (id, deadline) = (task.task_id.clone(), now.instant + wait.max(settings.restart_grace));
            ledger.tasks.insert(id.clone(), task);
            ledger.set_deadline(&id, Some(deadline));
        }
        ledger
    }

    /// When [`Ledger::tick`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        // What is to be worked off is due at once.
        let at_once = self.has_ends_to_work_off().then_some(self.started);
        let task = self.deadlines.first().map(|(deadline, _)| *deadline);
        at_once.into_iter().chain(task).chain(self.polling.next_deadline()).min()
    }

    /// Hands over what must be stored and sent since the last call.
    pub(crate) fn take_outcome(&mut self) -> Outcome {
        for ((session, ..), ack) in std::mem::take(&mut self.acks) {
            self.outcome.outgoing.push((session, Outgoing::Event(event(server_event::Event::OutputAck(ack)))));
        }
        self.outcome.batches = self.take_batch_records();
        std::mem::take(&mut self.outcome)
    }

    pub(crate) fn task(&self, task_id: &str) -> Option<&LiveTask> {
        self.tasks.get(task_id)
    }

    pub(crate) fn agent(&self, agent_id: &str) -> Option<&AgentEntry> {
        self.agents.get(agent_id)
    }

    /// Finds an agent by id or by name.
    pub(crate) fn find_agent(&self, id_or_name: &str) -> Option<&AgentEntry> {
        self.agents.get(id_or_name).or_else(|| self.agents.values().find(|agent| agent.name == id_or_name))
    }

    /// Every agent as users see it, by name.
    pub(crate) fn agent_views(&self) -> Vec<Agent> {
        let mut views: Vec<Agent> = self.agents.values().map(|agent| self.polling.view(agent)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// How many tasks wait.
    pub(crate) fn waiting(&self) -> usize {
        self.tasks.len() - self.busy.len()
    }

    pub(crate) fn connected_agents(&self) -> usize {
        self.agents.values().filter(|agent| agent.link.is_some() || self.is_between_polls(&agent.agent_id)).count()
    }

    /// Every agent and why it can or cannot take a waiting task. Nothing for other tasks.
    pub(crate) fn candidates(&self, task_id: &str) -> Vec<Candidate> {
        match self.tasks.get(task_id) {
            Some(task) if task.phase == Phase::Queued => self.candidates_of(task),
            _ => Vec::new(),
        }
    }

    fn candidates_of(&self, task: &LiveTask) -> Vec<Candidate> {
        let (held_back, credential) = (self.held_back(task), self.credentials.get(&task.credential));
        let candidate = |agent| {
            let obstacle = routing::obstacle(agent, task, credential, &self.secrets).or_else(|| held_back.clone());
            self.polling.candidate(routing::candidate(agent, obstacle))
        };
        let mut all: Vec<Candidate> = self.agents.values().map(candidate).collect();
        all.sort_by(|a, b| a.agent_name.cmp(&b.agent_name));
        all.truncate(MAX_CANDIDATES);
        all
    }

    /// Takes in a new task, stored already.
    pub(crate) fn submit(&mut self, task: LiveTask, now: Now) {
        let id = task.task_id.clone();
        self.tasks.insert(id.clone(), task);
        self.enqueue(&id, now);
    }

    /// Asks for cancellation. False when the task is not live.
    pub(crate) fn cancel(&mut self, task_id: &str, reason: &str, now: Now) -> bool {
        let Some(task) = self.tasks.get_mut(task_id) else { return false };
        if task.cancel.is_some() {
            return true;
        }
        task.cancel = Some(reason.to_owned());
        self.outcome.changed_tasks.insert(task_id.to_owned());
        if task.phase == Phase::Queued {
            self.finish(task_id, failure::result(TaskState::Cancelled, None), Vec::new(), false, now);
            return true;
        }
        let reference = task.reference();
        let holder = task.agent_id.clone();
        if let Some(session) = holder.and_then(|id| self.session_of(&id)) {
            let cancel = Cancel { task: Some(reference), reason: reason.to_owned() };
            self.send(session, server_event::Event::Cancel(cancel));
        }
        true
    }

    /// Takes in an agent that has enrolled, for the first time or again. Whatever was connected under its name is not
    /// it any more.
    pub(crate) fn enrolled(&mut self, mut agent: AgentEntry) {
        if let Some(old) = self.agents.get(&agent.agent_id) {
            if let Some(link) = &old.link {
                let goodbye = goodbye(GoodbyeReason::Superseded, "the agent enrolled again");
                self.outcome.outgoing.push((link.session, Outgoing::Close(goodbye)));
            }
            agent.journal_lost = true;
        }
        agent.link = None;
        self.outcome.changed_agents.insert(agent.agent_id.clone());
        self.agents.insert(agent.agent_id.clone(), agent);
    }

    /// Notes an agent's new sealing key and the end of its new certificate.
    pub(crate) fn renewed(&mut self, agent_id: &str, sealing_key: Vec<u8>, not_after: UnixMillis) {
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.sealing_key = sealing_key;
            agent.certificate_not_after = not_after;
            self.outcome.changed_agents.insert(agent_id.to_owned());
        }
    }

    /// Asks an agent to take nothing new.
    pub(crate) fn drain(&mut self, agent_id: &str, reason: &str) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        agent.drain_reason = Some(reason.to_owned());
        self.outcome.changed_agents.insert(agent_id.to_owned());
        if let Some(session) = self.session_of(agent_id) {
            self.send(session, server_event::Event::Drain(Drain { reason: reason.to_owned() }));
        }
    }

    /// Takes an agent's identity away. What it held may have started and is not waited for.
    pub(crate) fn revoke(&mut self, agent_id: &str, reason: &str, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.revoked.is_none() {
            agent.revoked = Some((now.wall, reason.to_owned()));
        }
        if let Some(link) = agent.link.take() {
            let goodbye = goodbye(GoodbyeReason::Revoked, reason);
            self.outcome.outgoing.push((link.session, Outgoing::Close(goodbye)));
        }
        self.outcome.changed_agents.insert(agent_id.to_owned());
        for task_id in self.held_by(agent_id) {
            self.vanish(&task_id, Vanished::Revoked, now);
        }
    }

    /// The connection of a session is gone. Its leases go on.
    pub(crate) fn disconnected(&mut self, agent_id: &str, session: SessionId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.link.as_ref().is_some_and(|link| link.session == session) {
            agent.link = None;
            agent.last_seen_at = Some(now.wall);
            self.polling.rest(agent_id, now.instant + self.settings.lease);
            self.outcome.changed_agents.insert(agent_id.to_owned());
        }
    }

    /// Says goodbye to every connected agent.
    pub(crate) fn shutdown(&mut self) {
        for link in self.agents.values_mut().filter_map(|agent| agent.link.take()) {
            let goodbye = goodbye(GoodbyeReason::Shutdown, "the control plane stops");
            self.outcome.outgoing.push((link.session, Outgoing::Close(goodbye)));
        }
    }

    pub(crate) fn credential(&self, name: &str) -> Option<&CredentialState> {
        self.credentials.get(name)
    }

    /// A credential was stored.
    pub(crate) fn credential_stored(&mut self, name: &str, state: CredentialState) {
        self.credentials.insert(name.to_owned(), state);
    }

    /// A credential was deleted: tasks that wait for it are rejected.
    pub(crate) fn credential_deleted(&mut self, name: &str, now: Now) {
        self.credentials.remove(name);
        self.reject_waiting_for(name, now);
    }

    /// A host rejected this version of a credential: it is handed out no more. What is on agents changes there, without a new
    /// version: each agent remembers by itself what was rejected.
    pub(crate) fn credential_rejected(&mut self, name: &str, version: u64, now: Now) {
        match self.credentials.get_mut(name) {
            // The secret has changed meanwhile: the rejection is about another one.
            Some(state) if state.version == version && !state.rejected && !state.needs.on_agent => {
                state.rejected = true
            }
            _ => return,
        }
        self.outcome.rejected_credentials.push((name.to_owned(), version));
        self.reject_waiting_for(name, now);
    }

    fn reject_waiting_for(&mut self, credential: &str, now: Now) {
        let mut waiting: Vec<(i64, String)> = self
            .tasks
            .values()
            .filter(|task| task.phase == Phase::Queued && task.credential == credential)
            .map(|task| (task.seq, task.task_id.clone()))
            .collect();
        waiting.sort_unstable();
        for (_, task_id) in waiting {
            self.reject_unless_credential_usable(&task_id, now);
        }
    }

    fn reject_unless_credential_usable(&mut self, task_id: &str, now: Now) {
        let Some(task) = self.tasks.get(task_id) else { return };
        let failure = match self.credentials.get(&task.credential) {
            Some(state) if state.rejected => failure::credential_rejected(&task.credential, state.version),
            Some(_) => return,
            None if task.route.errand.is_some() => return,
            None => failure::credential_deleted(&task.credential),
        };
        self.reject(task_id, failure, now);
    }

    /// Ends a task that has waited for an agent for as long as it may.
    fn nobody_took(&mut self, task_id: &str, now: Now) {
        let Some(waited) = self.tasks.get(task_id).map(|task| task.queue_timeout) else { return };
        let candidates = self.candidates(task_id);
        let failure = failure::no_agent(waited, &candidates);
        let result = failure::result(TaskState::Rejected, Some(failure));
        self.finish(task_id, result, candidates, false, now);
    }

    /// Ends a task that was never started.
    fn reject(&mut self, task_id: &str, failure: Failure, now: Now) {
        self.finish(task_id, failure::result(TaskState::Rejected, Some(failure)), Vec::new(), false, now);
    }

    /// Lets everything whose time has come happen.
    pub(crate) fn tick(&mut self, now: Now) {
        self.outcome.changed_agents.extend(self.polling.expire(now.instant));
        while let Some((deadline, task_id)) = self.deadlines.first().cloned() {
            if deadline > now.instant {
                break;
            }
            self.set_deadline(&task_id, None);
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            match task.phase {
                Phase::Queued if task.claim.retry_at.is_some() => self.enqueue(&task_id, now),
                Phase::Queued if task.hitch.is_some() => self.hitch_is_due(&task_id, now),
                Phase::Queued => self.nobody_took(&task_id, now),
                Phase::Held => {
                    task.phase = Phase::Lost;
                    self.outcome.changed_tasks.insert(task_id.clone());
                    self.set_deadline(&task_id, Some(now.instant + self.settings.lost_wait));
                }
                Phase::Lost => self.vanish(&task_id, Vanished::LeaseExpired, now),
            }
        }
        self.work_off_stopped(now);
    }

    fn assign(&mut self, task_id: &str, agent_id: &str, now: Now) {
        let deadline = self.lease_end(now);
        let (Some(task), Some(agent)) = (self.tasks.get_mut(task_id), self.agents.get_mut(agent_id)) else { return };
        let credential_version = match self.credentials.get(&task.credential) {
            Some(credential) => credential.version,
            None if task.route.errand.is_some() => 0,
            None => return,
        };
        let Some(link) = agent.link.as_mut() else { return };
        self.queue.turn_taken(task);
        self.queue.remove(task);
        self.busy.take(task);
        let batch_id = task.claim.batch.clone();
        task.phase = Phase::Held;
        task.epoch += 1;
        task.agent_id = Some(agent_id.to_owned());
        (task.accepted, task.started, task.unsent) = (false, false, false);
        task.credential_version = credential_version;
        task.assigned_at = Some(now.wall);
        task.started_at = None;
        task.output_base = task.output_bytes;
        task.received = 0;
        link.spent += 1;
        link.held.insert(task_id.to_owned());
        self.outcome.changed_tasks.insert(task_id.to_owned());
        self.outcome.outgoing.push((
            link.session,
            Outgoing::Assign(Assign {
                agent_id: agent_id.to_owned(),
                task_id: task_id.to_owned(),
                epoch: task.epoch,
                credential_version,
                lease: self.settings.lease,
            }),
        ));
        self.set_deadline(task_id, Some(deadline));
        self.batch_runs_one(batch_id.as_ref());
    }

    /// An assignment could not be made ready and was not sent: its credit is unspent, its task rejected, or cancelled if that
    /// was asked for meanwhile.
    pub(crate) fn assignment_failed(&mut self, assign: &Assign, failure: Failure, now: Now) {
        if self.takes_back(assign, now) {
            self.reject(&assign.task_id, failure, now);
        }
    }

    /// Takes back an assignment of which the agent has never heard. False when there is nothing more to do about the task.
    fn takes_back(&mut self, assign: &Assign, now: Now) -> bool {
        let task = self.tasks.get(&assign.task_id).filter(|task| task.phase != Phase::Queued);
        let Some(task) = task.filter(|task| task.epoch == assign.epoch) else { return false };
        let cancelled = task.cancel.is_some();
        self.give_credit_back(assign);
        if cancelled {
            self.finish(&assign.task_id, failure::result(TaskState::Cancelled, None), Vec::new(), false, now);
        }
        !cancelled
    }

    fn give_credit_back(&mut self, assign: &Assign) {
        // A later session has a count of its own.
        let link = self.agents.get_mut(&assign.agent_id).and_then(|agent| agent.link.as_mut());
        if let Some(link) = link.filter(|link| link.held.contains(&assign.task_id)) {
            link.spent = link.spent.saturating_sub(1);
        }
    }

    /// Puts a task (back) into the queue, at its place by age.
    fn enqueue(&mut self, task_id: &str, now: Now) {
        self.leave_pause(task_id);
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let holder = task.agent_id.clone();
        let given_back = (task.phase != Phase::Queued).then(|| task.claim.batch.clone()).flatten();
        if task.phase != Phase::Queued {
            self.busy.give_back(task, &self.settings.limits, &mut self.queue);
        }
        task.phase = Phase::Queued;
        (task.accepted, task.started) = (false, false);
        task.queued_at = now.wall;
        self.queue.insert(task);
        let deadline = task.hitch.as_ref().map(|hitch| hitch.deadline(now));
        let deadline = deadline.unwrap_or(now.instant + task.queue_timeout);
        self.outcome.changed_tasks.insert(task_id.to_owned());
        self.let_go(holder.as_deref(), task_id);
        self.set_deadline(task_id, Some(deadline));
        self.batch_waits_one(given_back.as_ref());
        if self.tasks.get(task_id).is_some_and(|task| task.tries() >= MAX_DELIVERIES) {
            self.reject(task_id, failure::too_many_assignments(MAX_DELIVERIES), now);
        }
        self.reject_unless_credential_usable(task_id, now);
    }

    /// What becomes of an assignment whose agent cannot tell any more.
    fn vanish(&mut self, task_id: &str, why: Vanished, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        // It was something else this time.
        task.hitch = None;
        let unheard = task.unsent || matches!(why, Vanished::Forgotten);
        let untouched = !task.accepted && !task.started && unheard;
        let harmless = task.route.only_looks();
        if (untouched || harmless) && task.cancel.is_some() {
            self.finish(task_id, failure::result(TaskState::Cancelled, None), Vec::new(), false, now);
        } else if untouched || (task.idempotent && task.cancel.is_none() && task.tries() < MAX_ASSIGNMENTS) {
            task.may_have_run |= !untouched && !harmless;
            self.enqueue(task_id, now);
        } else if harmless {
            self.reject(task_id, failure::too_many_assignments(MAX_ASSIGNMENTS), now);
        } else {
            self.finish_unknown(task_id, why, now);
        }
    }

    /// The database is an older one: whatever is not final in it may have been carried out since.
    pub(crate) fn settle_restored(&mut self, now: Now) -> usize {
        let live: Vec<String> = self.tasks.keys().cloned().collect();
        for task_id in &live {
            if let Some(task) = self.tasks.get_mut(task_id) {
                // Nor is it known that there was no other try.
                task.claim.last_result = None;
            }
            let result = failure::result(TaskState::Unknown, Some(failure::restored()));
            self.finish(task_id, result, Vec::new(), false, now);
        }
        live.len()
    }

    fn finish_unknown(&mut self, task_id: &str, why: Vanished, now: Now) {
        let Some(task) = self.tasks.get(task_id) else { return };
        let agent_id = task.agent_id.as_deref().unwrap_or_default();
        let agent_name = self.agents.get(agent_id).map_or(agent_id, |agent| agent.name.as_str());
        let failure = failure::vanished(why, agent_name);
        self.finish(task_id, failure::result(TaskState::Unknown, Some(failure)), Vec::new(), false, now);
    }

    fn finish(&mut self, task_id: &str, result: TaskResult, candidates: Vec<Candidate>, reported: bool, now: Now) {
        self.set_deadline(task_id, None);
        let Some(mut task) = self.tasks.remove(task_id) else { return };
        let waited = task.phase == Phase::Queued;
        let result = match task.claim.last_result.take() {
            _ if task.may_have_run && reported => failure::perhaps_done_before_reported(result),
            _ if task.may_have_run => failure::perhaps_done_before(result),
            // It was not tried again: how the last try ended is how it ended.
            Some(last) if waited => *last,
            _ => result,
        };
        self.batch_ends_one(&mut task, result.outcome(), now);
        match task.phase {
            Phase::Queued => self.queue.remove(&task),
            Phase::Held | Phase::Lost => self.busy.give_back(&task, &self.settings.limits, &mut self.queue),
        }
        self.let_go(task.agent_id.as_deref(), task_id);
        self.outcome.changed_tasks.remove(task_id);
        self.outcome.finished.push(Finished { task, result, candidates, at: now.wall, reported });
    }

    fn let_go(&mut self, agent_id: Option<&str>, task_id: &str) {
        if let Some(link) = agent_id.and_then(|id| self.agents.get_mut(id)).and_then(|agent| agent.link.as_mut()) {
            link.held.remove(task_id);
        }
    }

    fn held_by(&self, agent_id: &str) -> Vec<String> {
        let held = self.busy.tasks().filter_map(|task_id| self.tasks.get(task_id));
        held.filter(|task| task.agent_id.as_deref() == Some(agent_id)).map(|task| task.task_id.clone()).collect()
    }

    fn session_of(&self, agent_id: &str) -> Option<SessionId> {
        self.agents.get(agent_id)?.link.as_ref().map(|link| link.session)
    }

    fn send(&mut self, session: SessionId, what: server_event::Event) {
        self.outcome.outgoing.push((session, Outgoing::Event(event(what))));
    }

    /// INVARIANT: no lease ends within the grace after the control plane's own start.
    fn lease_end(&self, now: Now) -> Instant {
        (now.instant + self.settings.lease).max(self.started + self.settings.restart_grace)
    }

    fn set_deadline(&mut self, task_id: &str, deadline: Option<Instant>) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        if let Some(old) = task.deadline.take() {
            self.deadlines.remove(&(old, task_id.to_owned()));
        }
        task.deadline = deadline;
        if let Some(new) = deadline {
            self.deadlines.insert((new, task_id.to_owned()));
        }
    }
}

fn event(event: server_event::Event) -> Box<ServerEvent> {
    Box::new(ServerEvent { event: Some(event) })
}

pub(crate) fn goodbye(reason: GoodbyeReason, detail: &str) -> Goodbye {
    Goodbye { reason: reason.into(), detail: detail.to_owned() }
}

/// Most candidates in one answer; bounds it where fleets are large.
const MAX_CANDIDATES: usize = 1000;
/// A task that is given back or lost unstarted again and again must come to an end, too; draining a fleet one by one
/// takes fewer.
const MAX_DELIVERIES: u64 = 100;
/// An idempotent task that takes down every agent it meets must come to an end.
const MAX_ASSIGNMENTS: u64 = 10;
