//! A window onto the ledger for property tests that drive it against the agent's side.
//!
//! Behind a feature that no shipped program enables. It decides nothing: it does with each outcome what the engine and
//! the store do, on a disk that is a map, so that a crash leaves exactly what had been stored. Used by `lictor-tests`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use lictor_proto::v1::{
    AgentEvent, Assignment, Hello, ServerEvent, TaskRef, TaskResult, TaskState, agent_event, server_event,
};

use crate::clock::{Now, UnixMillis};
use crate::dispatch::{
    AgentEntry, Append, Assign, Claim, CredentialState, DIAGNOSIS, HeldFact, HeldFacts, Ledger, Limits, LiveTask,
    Outcome, Outgoing, Phase, Route, SessionId, Settings,
};

/// Waits and bounds.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// Lease.
    pub lease: Duration,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// From Lost to what follows.
    pub lost_wait: Duration,
    /// After a start.
    pub restart_grace: Duration,
    /// Most output stored per task.
    pub output_limit: u64,
}

/// A task to be submitted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its identifier.
    pub task_id: String,
    /// It may run twice.
    pub idempotent: bool,
    /// It is a diagnosis, which not every agent can make; else a command.
    pub diagnosis: bool,
    /// How long it may wait.
    pub queue_timeout: Duration,
}

/// How a task ended, as stored.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Final state.
    pub state: TaskState,
    /// The result.
    pub result: TaskResult,
    /// Of which assignment; 0 when there was none.
    pub epoch: u64,
    /// The agent reported it.
    pub reported: bool,
    /// Where in the log the output of that assignment begins.
    pub output_base: u64,
    /// When, in milliseconds of the calendar.
    pub at: i64,
}

/// What is to become of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is stored, and what it decided is sent.
    Done,
    /// The process dies before the transaction is committed.
    Unstored,
    /// The process dies behind the commit, before anything is sent.
    Unsent,
}

/// What a turn sends to a session. Nothing: the session ends.
pub type Sent = (u64, Option<ServerEvent>);

/// A control plane and its disk.
pub struct ControlPlane {
    waits: Waits,
    ledger: Ledger,
    disk: Disk,
    /// Submissions of the turn that is under way.
    submitted: Vec<LiveTask>,
    outgoing: Vec<Sent>,
    pending: Pending,
    errors: Vec<String>,
}

/// What is stored.
#[derive(Default, Clone)]
struct Disk {
    agents: BTreeMap<String, AgentEntry>,
    live: BTreeMap<String, LiveTask>,
    endings: BTreeMap<String, Vec<Ending>>,
    output: BTreeMap<String, Vec<Append>>,
    assignments: HashMap<(String, u64), (String, bool)>,
    late: BTreeMap<(String, u64), TaskResult>,
    next_seq: i64,
}

/// The turn's transaction.
type Pending = Option<Disk>;

impl ControlPlane {
    /// With an empty database, but for the enrolled `agents`.
    #[must_use]
    pub fn new(waits: Waits, agents: &[&str], now: (Instant, i64)) -> Self {
        let agents: BTreeMap<String, AgentEntry> =
            agents.iter().map(|name| ((*name).to_owned(), enrolled(name))).collect();
        let disk = Disk { agents, ..Disk::default() };
        let ledger = start(waits, &disk, reading(now));
        Self { waits, ledger, disk, submitted: Vec::new(), outgoing: Vec::new(), pending: None, errors: Vec::new() }
    }

    /// The process was killed and starts again with what is stored.
    pub fn restart(&mut self, now: (Instant, i64)) {
        (self.pending, self.submitted) = (None, Vec::new());
        self.outgoing.clear();
        self.ledger = start(self.waits, &self.disk, reading(now));
    }

    /// A user submits a task.
    pub fn submit(&mut self, submission: &Submission, now: (Instant, i64)) {
        let now = reading(now);
        let transaction = self.transaction();
        transaction.next_seq += 1;
        let task = LiveTask {
            seq: transaction.next_seq,
            task_id: submission.task_id.clone(),
            route: Route { capability: if submission.diagnosis { DIAGNOSIS } else { "command" }, ..Route::default() },
            credential: CREDENTIAL.into(),
            idempotent: submission.idempotent,
            queue_timeout: submission.queue_timeout,
            phase: Phase::Queued,
            epoch: 0,
            agent_id: None,
            accepted: false,
            started: false,
            may_have_run: false,
            credential_version: 0,
            queued_at: now.wall,
            assigned_at: None,
            started_at: None,
            cancel: None,
            output_bytes: 0,
            output_base: 0,
            received: 0,
            handed_back: BTreeMap::new(),
            hitch: None,
            passed: 0,
            unsent: false,
            deadline: None,
            claim: Claim {
                submitter: "someone".into(),
                host: "host".into(),
                batch: None,
                batch_ended: None,
                retries_left: 0,
                retry_at: None,
                last_result: None,
            },
        };
        transaction.live.insert(task.task_id.clone(), task.clone());
        self.ledger.submit(task, now);
    }

    /// A user cancels a task.
    pub fn cancel(&mut self, task_id: &str, now: (Instant, i64)) {
        self.ledger.cancel(task_id, "asked for", reading(now));
    }

    /// An operator asks an agent to drain.
    pub fn drain(&mut self, agent: &str) {
        self.ledger.drain(agent, "asked for");
    }

    /// An operator revokes an agent.
    pub fn revoke(&mut self, agent: &str, now: (Instant, i64)) {
        self.ledger.revoke(agent, "asked for", reading(now));
    }

    /// Events of a session, as the engine takes them.
    pub fn events(&mut self, agent: &str, session: SessionId, events: Vec<AgentEvent>, now: (Instant, i64)) {
        let moment = reading(now);
        for event in events {
            let taken = match &event.event {
                Some(agent_event::Event::Hello(hello)) => {
                    if self.ledger.agent(agent).is_none_or(|agent| agent.revoked.is_some()) {
                        self.outgoing.push((session, None));
                        return;
                    }
                    // What is decided about assignments of old is read from the database, so it must be up to date.
                    self.persist();
                    let facts = self.facts(agent, hello);
                    self.ledger.hello(agent, session, hello, &facts, moment)
                }
                _ => self.ledger.agent_event(agent, session, event, moment),
            };
            if let Err(error) = taken {
                self.ledger.disconnected(agent, session, moment);
                self.outgoing.push((session, None));
                self.errors.push(error.to_string());
                return;
            }
        }
    }

    /// The connection of a session is gone.
    pub fn closed(&mut self, agent: &str, session: SessionId, now: (Instant, i64)) {
        self.ledger.disconnected(agent, session, reading(now));
    }

    /// Ends a turn: what was decided is stored, and then sent.
    pub fn turn(&mut self, fate: Fate, now: (Instant, i64)) -> Vec<Sent> {
        self.ledger.tick(reading(now));
        self.ledger.schedule(reading(now));
        self.persist();
        let transaction = self.pending.take();
        if fate != Fate::Unstored
            && let Some(stored) = transaction
        {
            self.disk = stored;
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        if fate == Fate::Done { outgoing } else { Vec::new() }
    }

    /// When a turn is due by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.ledger.next_deadline()
    }

    /// Breaches of the contract by agents.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Every end of a task that was ever stored; there must be one at most.
    #[must_use]
    pub fn endings(&self, task_id: &str) -> &[Ending] {
        self.disk.endings.get(task_id).map_or(&[], Vec::as_slice)
    }

    /// Whether the task is stored as live.
    #[must_use]
    pub fn is_live(&self, task_id: &str) -> bool {
        self.disk.live.contains_key(task_id)
    }

    /// Whether this assignment stands: the task is given out, and under no newer epoch.
    #[must_use]
    pub fn stands(&self, task: &TaskRef) -> bool {
        let live = self.ledger.task(&task.task_id);
        live.is_some_and(|live| live.phase != Phase::Queued && live.epoch == task.epoch)
    }

    /// Whether a result of this assignment is stored, as the task's or as evidence.
    #[must_use]
    pub fn has_result(&self, task: &TaskRef) -> bool {
        let ended = |ending: &Ending| ending.reported && ending.epoch == task.epoch;
        self.endings(&task.task_id).iter().any(ended)
            || self.disk.late.contains_key(&(task.task_id.clone(), task.epoch))
    }

    /// Whether this agent was ever given this assignment.
    #[must_use]
    pub fn assigned(&self, agent: &str, task: &TaskRef) -> bool {
        let key = (task.task_id.clone(), task.epoch);
        self.disk.assignments.get(&key).is_some_and(|(holder, _)| holder == agent)
    }

    /// How often a task was given out.
    #[must_use]
    pub fn epochs(&self, task_id: &str) -> u64 {
        self.disk.assignments.keys().filter(|(id, _)| id == task_id).map(|(_, epoch)| *epoch).max().unwrap_or(0)
    }

    /// Pieces of stored output in the order they were stored: offset and bytes.
    #[must_use]
    pub fn output(&self, task_id: &str) -> Vec<(u64, bytes::Bytes)> {
        let pieces = self.disk.output.get(task_id).into_iter().flatten();
        pieces.map(|piece| (piece.start, piece.data.clone())).collect()
    }

    /// Slots that a connected agent has told it is free.
    #[must_use]
    pub fn free(&self, agent: &str) -> Option<u64> {
        Some(self.ledger.agent(agent)?.link.as_ref()?.free())
    }

    /// One line about a task, for people.
    #[must_use]
    pub fn describe(&self, task_id: &str) -> String {
        match self.disk.live.get(task_id) {
            Some(task) => format!(
                "{task_id}: {:?} epoch {} at {:?}, accepted {}, started {}",
                task.phase, task.epoch, task.agent_id, task.accepted, task.started
            ),
            None => format!("{task_id}: {:?}", self.endings(task_id)),
        }
    }

    fn facts(&self, agent: &str, hello: &Hello) -> HeldFacts {
        let disk = self.pending.as_ref().unwrap_or(&self.disk);
        let mut facts = HeldFacts::new();
        for reference in hello.held.iter().filter_map(|held| held.task.as_ref()) {
            let key = (reference.task_id.clone(), reference.epoch);
            if let Some((holder, stored)) = disk.assignments.get(&key)
                && holder == agent
            {
                facts.insert(key, if *stored { HeldFact::ResultStored } else { HeldFact::NoResult });
            }
        }
        facts
    }

    fn transaction(&mut self) -> &mut Disk {
        self.pending.get_or_insert_with(|| self.disk.clone())
    }

    fn persist(&mut self) {
        let outcome = self.ledger.take_outcome();
        if outcome.is_empty() {
            return;
        }
        let Outcome {
            changed_tasks,
            finished,
            // Of batches, which this scene has none of.
            tried: _,
            batches: _,
            changed_agents,
            appends,
            evidence,
            rejected_credentials: _,
            outgoing,
            resealed,
        } = outcome;
        let agents: Vec<AgentEntry> =
            changed_agents.iter().filter_map(|id| self.ledger.agent(id)).map(offline).collect();
        let tasks: Vec<LiveTask> = changed_tasks.iter().filter_map(|id| self.ledger.task(id)).cloned().collect();
        let disk = self.transaction();
        disk.agents.extend(agents.into_iter().map(|agent| (agent.agent_id.clone(), agent)));
        for append in appends {
            disk.output.entry(append.task_id.clone()).or_default().push(append);
        }
        disk.live.extend(tasks.into_iter().map(|task| (task.task_id.clone(), task)));
        for end in finished {
            let task_id = end.task.task_id.clone();
            disk.live.remove(&task_id);
            if end.reported
                && let Some((_, stored)) = disk.assignments.get_mut(&(task_id.clone(), end.task.epoch))
            {
                *stored = true;
            }
            let ending = Ending {
                state: end.result.outcome(),
                epoch: end.task.epoch,
                reported: end.reported,
                output_base: end.task.output_base,
                at: end.at.0,
                result: end.result,
            };
            disk.endings.entry(task_id).or_default().push(ending);
        }
        for late in evidence {
            let key = (late.task.task_id, late.task.epoch);
            if let Some((holder, stored)) = disk.assignments.get_mut(&key)
                && *holder == late.agent_id
                && !*stored
            {
                *stored = true;
                disk.late.insert(key, late.result);
            }
        }
        for (session, what) in outgoing {
            let event = match what {
                Outgoing::Event(mut event) => {
                    let again = resealed.iter().filter(|(other, _)| *other == session).map(|(_, assign)| assign);
                    give_again(&mut event, &again.collect::<Vec<_>>());
                    Some(*event)
                }
                Outgoing::Close(_) => None,
                Outgoing::Assign(assign) => {
                    let task = TaskRef { task_id: assign.task_id.clone(), epoch: assign.epoch };
                    let key = (assign.task_id, assign.epoch);
                    self.transaction().assignments.insert(key, (assign.agent_id, false));
                    let assignment = Assignment { task: Some(task), ..Assignment::default() };
                    Some(ServerEvent { event: Some(server_event::Event::Assignment(assignment)) })
                }
            };
            self.outgoing.push((session, event));
        }
    }
}

/// As the engine does, without specifications and secrets.
fn give_again(event: &mut ServerEvent, assigns: &[&Assign]) {
    let Some(server_event::Event::Welcome(welcome)) = &mut event.event else { return };
    for resume in &mut welcome.resume {
        let given = resume.task.as_ref().is_some_and(|task| {
            assigns.iter().any(|assign| assign.task_id == task.task_id && assign.epoch == task.epoch)
        });
        resume.assignment = given.then(|| Assignment { task: resume.task.clone(), ..Assignment::default() });
    }
}

fn start(waits: Waits, disk: &Disk, now: Now) -> Ledger {
    let settings = Settings {
        lease: waits.lease,
        heartbeat_interval: waits.heartbeat_interval,
        lost_wait: waits.lost_wait,
        restart_grace: waits.restart_grace,
        output_limit: waits.output_limit,
        limits: Limits::default(),
    };
    // What the store does not keep is not there after a start.
    let tasks = disk.live.values().map(|task| LiveTask { received: 0, deadline: None, ..task.clone() }).collect();
    let credentials = [(CREDENTIAL.to_owned(), CredentialState { version: 1, ..CredentialState::default() })].into();
    Ledger::new(settings, disk.agents.values().cloned().collect(), tasks, Vec::new(), credentials, now)
}

fn offline(agent: &AgentEntry) -> AgentEntry {
    AgentEntry { link: None, slots_used: 0, resident_bytes: 0, ..agent.clone() }
}

fn enrolled(name: &str) -> AgentEntry {
    AgentEntry {
        agent_id: name.into(),
        name: name.into(),
        own_tags: Vec::new(),
        token_tags: Vec::new(),
        scope: String::new(),
        version: String::new(),
        description: String::new(),
        sealing_key: Vec::new(),
        slots: 0,
        capabilities: Vec::new(),
        enrolled_at: UnixMillis(0),
        last_seen_at: None,
        certificate_not_after: UnixMillis(i64::MAX),
        drain_reason: None,
        revoked: None,
        journal_lost: false,
        instance_id: String::new(),
        degraded: Vec::new(),
        kerberos_principals: Vec::new(),
        slots_used: 0,
        resident_bytes: 0,
        link: None,
    }
}

fn reading((instant, wall): (Instant, i64)) -> Now {
    Now { instant, wall: UnixMillis(wall) }
}

const CREDENTIAL: &str = "web";
