//! The agent's side of the contract, without I/O: events of the control plane and of the engine go in, events for the
//! control plane and commands for the engine come out, with the next deadline.
//!
//! One [`Protocol`] lives as long as the process and sees many sessions. It reads no clock and no socket. INVARIANT:
//! whatever order sessions break in, every assignment is announced, its output sent in order from the acknowledged
//! offset, and its end sent after the output and again until acknowledged. Driven by the link's transports: a stream is
//! one long session, each poll a short one that says everything at once.

mod outbound;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_proto::v1::{
    Draining, Failure, Goodbye, GoodbyeReason, HandBackReason, HeldState, HeldTask, Hello, Resume, ResumeDecision,
    ServerEvent, TaskResult, Welcome, agent_event, server_event,
};
use lictor_proto::version::{Contract, Mismatch};

use crate::admission::Room;
use crate::tasks::{Command, Event, Resumption, TaskKey};

/// What the agent says about itself in every Hello.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// Chosen at each start of the process.
    pub(crate) instance_id: String,
    /// Tags.
    pub(crate) tags: Vec<String>,
    /// Most tasks at once.
    pub(crate) slots: u32,
    /// Facts that say the agent is impaired.
    pub(crate) degraded: Vec<String>,
    /// Whether tasks can use Kerberos.
    pub(crate) kerberos: bool,
    /// What else it can do that depends on its settings and its policy, as the contract names capabilities.
    pub(crate) further: Vec<&'static str>,
    /// Principals whose keys the agent's keytabs hold.
    pub(crate) principals: Vec<String>,
}

/// The protocol's state.
#[derive(Debug)]
pub(crate) struct Protocol {
    about: About,
    tasks: BTreeMap<TaskKey, Entry>,
    session: Option<Session>,
    commands: VecDeque<Command>,
    /// Assignments that went to the engine, and those of them that gave their slots back.
    assigned: u64,
    settled: u64,
    /// Whether and for how much new credit may be granted.
    room: Room,
    /// Of the newest Welcome.
    window: u64,
    draining: Option<String>,
    /// What else the next Hello says about itself: why the journal cannot be written.
    impaired: Option<Arc<str>>,
    /// The control plane that spoke last is too far from this agent's version: it gets what is held, and is asked for nothing.
    mismatch: Option<Mismatch>,
    /// The contract that the control plane last said it speaks, and that of those who do not say before that.
    theirs: Contract,
    /// A control plane has said which version it is. Nothing is asked for before: a poll says all it has to say ahead of the
    /// Welcome.
    judged: bool,
    /// The session is to begin anew: what Hello said is not true any more.
    afresh: bool,
    idle: bool,
    /// Whose turn it is to send output.
    turn: Option<TaskKey>,
}

/// One assignment.
#[derive(Debug)]
struct Entry {
    stage: Stage,
    /// Its start was journalled.
    started: bool,
    /// Bytes of output made so far.
    produced: u64,
    /// The control plane wants no more output.
    full: bool,
    /// Output that the control plane has.
    acked: u64,
    /// Output that cannot be sent any more.
    gap: bool,
    /// An earlier process started it; the engine waits for the control plane's word on how to go on.
    interrupted: bool,
    /// What this session knows. Nothing: not yet resumed.
    told: Option<Told>,
}

#[derive(Debug)]
enum Stage {
    /// Given to the engine, which has not answered yet.
    Assigned,
    Accepted,
    Started,
    Ended(Box<TaskResult>),
    HandedBack(HandBackReason, Box<Failure>),
}

/// What the control plane was told about an assignment in this session.
#[derive(Debug)]
struct Told {
    accepted: bool,
    started: bool,
    /// Output sent.
    sent: u64,
    /// When the end was last sent.
    end: Option<Instant>,
    /// Number of the heartbeat after which the hand-back was sent; one after that proves its arrival.
    handed_back: Option<u64>,
}

#[derive(Debug)]
struct Session {
    phase: Phase,
    /// A poll: what there is to say goes before the Welcome, in one message with Hello.
    eager: bool,
    opened: Instant,
    queue: VecDeque<agent_event::Event>,
    received: u64,
    credit: u64,
    heartbeat: Beat,
    window: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitingWelcome,
    Open { since: Instant },
    Over,
}

#[derive(Debug)]
struct Beat {
    interval: Duration,
    next: Instant,
    sequence: u64,
    acknowledged: u64,
    heard: Instant,
}

/// Output that may be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputWanted {
    /// Of which assignment.
    pub(crate) key: TaskKey,
    /// From where.
    pub(crate) offset: u64,
    /// At most so many bytes.
    pub(crate) most: usize,
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionEnd {
    /// The control plane said so.
    #[error("the control plane ended the session ({reason:?}): {detail}")]
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// In words.
        detail: String,
    },
    /// The control plane broke the contract.
    #[error("the control plane broke the contract: {0}")]
    Violation(&'static str),
    /// Nothing came in time.
    #[error("the control plane did not answer {0} in time")]
    Silence(&'static str),
    /// What the agent said about itself is not true any more; it says so in the next session.
    #[error("the agent has something new to say about itself")]
    Afresh,
}

impl Protocol {
    /// No session, and the assignments of `restored`.
    pub(crate) fn new(about: About, restored: &[Event]) -> Self {
        let mut protocol = Self {
            about,
            tasks: BTreeMap::new(),
            session: None,
            commands: VecDeque::new(),
            assigned: 0,
            settled: 0,
            room: Room::default(),
            window: DEFAULT_WINDOW,
            draining: None,
            impaired: None,
            mismatch: None,
            theirs: Contract::UNTOLD,
            judged: false,
            afresh: false,
            idle: false,
            turn: None,
        };
        for event in restored {
            protocol.engine(event);
        }
        protocol
    }

    /// A connection is there: says Hello.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.afresh = false;
        let impaired = self.impaired.as_deref().map(|why| why.chars().take(MAX_FACT).collect());
        let held = self.tasks.iter().map(|(key, entry)| {
            let state = match entry.stage {
                // Not yet journalled, but on its way to be started: unnamed, it would be given to another agent, too.
                // Given back, but that may not have arrived: until it has, it is as good as accepted.
                Stage::Assigned | Stage::Accepted | Stage::HandedBack(..) => HeldState::Accepted,
                Stage::Started => HeldState::Running,
                Stage::Ended(_) => HeldState::Ended,
            };
            HeldTask {
                task: Some(key.to_wire()),
                state: state.into(),
                output_bytes: entry.produced,
                wants_assignment: entry.interrupted,
            }
        });
        let hello = Hello {
            protocol: lictor_proto::PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            instance_id: self.about.instance_id.clone(),
            tags: self.about.tags.clone(),
            slots: self.about.slots,
            capabilities: CAPABILITIES
                .iter()
                .chain(self.about.kerberos.then_some(&"kerberos"))
                .chain(&self.about.further)
                .map(|name| (*name).to_owned())
                .collect(),
            held: held.collect(),
            draining: self.draining.is_some(),
            degraded: self.about.degraded.iter().cloned().chain(impaired).collect(),
            kerberos_principals: self.about.principals.clone(),
            contract: Contract::OURS.to_string(),
        };
        for entry in self.tasks.values_mut() {
            let (accepted, started) = match entry.stage {
                Stage::Assigned | Stage::Accepted | Stage::HandedBack(..) => (true, false),
                Stage::Started | Stage::Ended(_) => (true, true),
            };
            entry.told = Some(Told { accepted, started, sent: entry.acked, end: None, handed_back: None });
        }
        self.session = Some(Session {
            phase: Phase::AwaitingWelcome,
            eager: false,
            opened: now,
            queue: VecDeque::from([agent_event::Event::Hello(hello)]),
            received: 0,
            credit: 0,
            heartbeat: Beat { interval: DEFAULT_HEARTBEAT, next: now, sequence: 0, acknowledged: 0, heard: now },
            window: self.window,
        });
    }

    /// A poll begins: a session of one message from here and one answer. Says Hello and whatever else there is to say.
    pub(crate) fn polling(&mut self, now: Instant) {
        self.connected(now);
        if let Some(session) = self.session.as_mut() {
            session.eager = true;
        }
    }

    /// What depends on settings and policy, from the next session on.
    pub(crate) fn can(&mut self, further: Vec<&'static str>) {
        self.about.further = further;
    }

    /// What the keytabs hold by now. The control plane hears it with the next Hello.
    pub(crate) fn holds_keys_of(&mut self, principals: Vec<String>) {
        self.about.principals = principals;
    }

    /// Changes how much new credit is granted. What was granted stays.
    pub(crate) fn admit(&mut self, room: Room) {
        self.room = room;
    }

    /// Whether it asks for nothing new, for now.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed_by_itself() || self.mismatch.is_some()
    }

    /// The same for the agent's own reasons, which may end at any moment. That the versions are too far apart ends with a new
    /// session.
    pub(crate) fn is_closed_by_itself(&self) -> bool {
        !self.room.open || self.impaired.is_some()
    }

    /// Why the control plane that spoke last is asked for nothing.
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        self.mismatch
    }

    /// Whether the engine still owes the news of an assignment that it got.
    pub(crate) fn awaits_engine(&self) -> bool {
        self.tasks.values().any(|entry| matches!(entry.stage, Stage::Assigned))
    }

    /// Whether any assignment is on the way from acceptance to its acknowledged end.
    pub(crate) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// The connection is gone. Returns how long the session was of use.
    pub(crate) fn disconnected(&mut self, now: Instant) -> Duration {
        for entry in self.tasks.values_mut() {
            entry.told = None;
        }
        let useful = self.useful(now);
        self.session = None;
        useful
    }

    /// How long this session has been of use.
    pub(crate) fn useful(&self, now: Instant) -> Duration {
        match self.session.as_ref().map(|session| session.phase) {
            Some(Phase::Open { since }) => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
    }

    /// Whether the control plane has welcomed this session.
    pub(crate) fn is_open(&self) -> bool {
        self.session.as_ref().is_some_and(|session| matches!(session.phase, Phase::Open { .. }))
    }

    /// Whether the engine has come to rest after a drain and everything has been acknowledged.
    pub(crate) fn is_flushed(&self) -> bool {
        // The engine does not answer for a duplicate of what was acknowledged.
        let settled = self.tasks.values().all(|entry| matches!(entry.stage, Stage::Assigned));
        self.idle && self.commands.is_empty() && settled
    }

    /// Whether it takes nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Takes nothing new from now on.
    pub(crate) fn drain(&mut self, reason: &str) {
        if self.draining.is_none() {
            self.draining = Some(reason.to_owned());
            self.commands.push_back(Command::Drain(reason.to_owned()));
            if self.is_open() {
                self.push(agent_event::Event::Draining(Draining { reason: reason.to_owned() }));
            }
        }
    }

    /// An event of the engine.
    pub(crate) fn engine(&mut self, event: &Event) {
        match event {
            Event::Accepted { key, .. } => match self.tasks.get_mut(key) {
                Some(entry) if matches!(entry.stage, Stage::Assigned) => entry.stage = Stage::Accepted,
                // The answer to a duplicate.
                Some(_) => self.repeat(key),
                None => self.enter(key, Stage::Accepted, 0),
            },
            Event::Interrupted { key, .. } => {
                if !self.tasks.contains_key(key) {
                    self.enter(key, Stage::Started, 0);
                    // It holds a slot like one that was assigned to this process.
                    self.assigned += 1;
                }
                if let Some(entry) = self.tasks.get_mut(key) {
                    (entry.started, entry.interrupted) = (true, true);
                }
                self.repeat(key);
            }
            Event::Left(key) => drop(self.tasks.remove(key)),
            Event::Started(key) => {
                if let Some(entry) = self.tasks.get_mut(key)
                    && matches!(entry.stage, Stage::Accepted)
                {
                    entry.stage = Stage::Started;
                    entry.started = true;
                }
            }
            Event::Ended { key, result, .. } => match self.tasks.get_mut(key) {
                Some(entry) if matches!(entry.stage, Stage::Ended(_)) => self.repeat(key),
                Some(entry) => {
                    entry.produced = entry.produced.max(result.output_bytes);
                    entry.stage = Stage::Ended(result.clone());
                    entry.interrupted = false;
                }
                // Restored, or told to forget it meanwhile; a session that knows nothing of it says so.
                None => self.enter(key, Stage::Ended(result.clone()), result.output_bytes),
            },
            Event::HandedBack { key, reason, failure } => {
                let stage = Stage::HandedBack(*reason, failure.clone());
                match self.tasks.get_mut(key) {
                    Some(entry) => {
                        entry.stage = stage;
                        self.repeat(key);
                    }
                    None => self.enter(key, stage, 0),
                }
            }
            Event::Settled(settled) => self.settled = *settled,
            Event::Impaired(why) => {
                // Credit that was granted can only be taken back by a new Hello, which also says why.
                self.afresh |= self.session.is_some() && self.impaired.is_some() != why.is_some();
                self.impaired.clone_from(why);
            }
            Event::Draining(reason) => self.draining = Some(reason.clone()),
            Event::Idle => self.idle = true,
        }
    }

    fn enter(&mut self, key: &TaskKey, stage: Stage, produced: u64) {
        // During a session the control plane needs no Resume for what it has just assigned.
        let told = self.session.is_some().then_some(Told {
            accepted: false,
            started: false,
            sent: 0,
            end: None,
            handed_back: None,
        });
        let entry =
            Entry { stage, started: false, produced, full: false, acked: 0, gap: false, interrupted: false, told };
        self.tasks.insert(key.clone(), entry);
    }

    /// Says again what is known of an assignment, output aside.
    fn repeat(&mut self, key: &TaskKey) {
        if let Some(told) = self.tasks.get_mut(key).and_then(|entry| entry.told.as_mut()) {
            *told = Told { accepted: false, started: false, end: None, handed_back: None, ..*told };
        }
    }

    /// A task has made output up to `end`.
    pub(crate) fn produced(&mut self, key: &TaskKey, end: u64) {
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.produced = entry.produced.max(end);
        }
    }

    /// An event of the control plane.
    ///
    /// # Errors
    /// [`SessionEnd`] when the session is over; the caller then closes the connection.
    pub(crate) fn server(&mut self, event: ServerEvent, now: Instant) -> Result<(), SessionEnd> {
        let Some(session) = self.session.as_mut() else {
            return Err(SessionEnd::Violation("an event outside a session"));
        };
        session.heartbeat.heard = now;
        // Something of a newer version, which it must not say in a way that anything depends on.
        let Some(event) = event.event else { return Ok(()) };
        match (session.phase, event) {
            (_, server_event::Event::Goodbye(Goodbye { reason, detail })) => {
                session.phase = Phase::Over;
                let reason = GoodbyeReason::try_from(reason).unwrap_or(GoodbyeReason::Unspecified);
                Err(SessionEnd::Goodbye { reason, detail })
            }
            (Phase::AwaitingWelcome, server_event::Event::Welcome(welcome)) => {
                self.welcome(welcome, now);
                Ok(())
            }
            (Phase::AwaitingWelcome, _) => Err(SessionEnd::Violation("an event before Welcome")),
            (_, server_event::Event::Welcome(_)) => Err(SessionEnd::Violation("a second Welcome")),
            (_, event) => self.open_event(event),
        }
    }

    fn open_event(&mut self, event: server_event::Event) -> Result<(), SessionEnd> {
        const NO_TASK: SessionEnd = SessionEnd::Violation("an event that names no task");
        match event {
            server_event::Event::Assignment(assignment) => {
                let session = self.session.as_mut().ok_or(NO_TASK)?;
                session.received += 1;
                if session.received > session.credit {
                    return Err(SessionEnd::Violation("an assignment beyond the credit"));
                }
                self.assigned += 1;
                if let Some(key) = TaskKey::parse(assignment.task.clone())
                    && !self.tasks.contains_key(&key)
                {
                    self.enter(&key, Stage::Assigned, 0);
                }
                self.commands.push_back(Command::Assign(Box::new(assignment)));
            }
            server_event::Event::Cancel(cancel) => {
                let key = TaskKey::parse(cancel.task).ok_or(NO_TASK)?;
                self.commands.push_back(Command::Cancel { key, reason: cancel.reason });
            }
            server_event::Event::OutputAck(ack) => {
                let key = TaskKey::parse(ack.task).ok_or(NO_TASK)?;
                self.output_acked(key, ack.offset, ack.full);
            }
            server_event::Event::EndAck(ack) => {
                let key = TaskKey::parse(ack.task).ok_or(NO_TASK)?;
                if self.tasks.get(&key).is_some_and(|entry| matches!(entry.stage, Stage::Ended(_))) {
                    self.tasks.remove(&key);
                    self.commands.push_back(Command::EndAcked(key));
                }
            }
            server_event::Event::HeartbeatAck(ack) => {
                let session = self.session.as_mut().ok_or(NO_TASK)?;
                session.heartbeat.acknowledged = session.heartbeat.acknowledged.max(ack.sequence);
                let acknowledged = session.heartbeat.acknowledged;
                for stale in ack.stale {
                    let key = TaskKey::parse(Some(stale)).ok_or(NO_TASK)?;
                    self.tasks.remove(&key);
                    self.commands.push_back(Command::Stale(key));
                }
                self.hand_backs_arrived(acknowledged);
            }
            server_event::Event::Drain(drain) => self.drain(&drain.reason),
            server_event::Event::Welcome(_) | server_event::Event::Goodbye(_) => {}
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: Welcome, now: Instant) {
        let contract = Contract::check(&welcome.contract);
        self.theirs = contract.unwrap_or(Contract::UNTOLD);
        self.mismatch = contract.err();
        self.judged = true;
        let interval = welcome.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
        if let Some(session) = self.session.as_mut() {
            session.phase = Phase::Open { since: now };
            self.window = if welcome.output_window == 0 { DEFAULT_WINDOW } else { welcome.output_window };
            session.window = self.window;
            let interval = interval.filter(|interval| !interval.is_zero()).unwrap_or(DEFAULT_HEARTBEAT);
            session.heartbeat.interval = interval.clamp(LEAST_HEARTBEAT, MOST_HEARTBEAT);
            session.heartbeat.next = now + session.heartbeat.interval;
        }
        for resume in welcome.resume {
            let Resume { task, decision, output_acked, cancel_requested, assignment } = resume;
            let Some(key) = TaskKey::parse(task) else { continue };
            let entry = self.tasks.get_mut(&key);
            let interrupted = entry.is_some_and(|entry| std::mem::take(&mut entry.interrupted));
            let resumption = |key: TaskKey, stale: bool| {
                // Of another task it would be of no use: its secret is sealed for the other one.
                let assignment = assignment.filter(|assignment| assignment.task.as_ref() == Some(&key.to_wire()));
                let assignment = assignment.map(Box::new);
                Command::Resume(Box::new(Resumption { key, assignment, output_acked, stale }))
            };
            match ResumeDecision::try_from(decision) {
                Ok(ResumeDecision::Stale) => {
                    self.tasks.remove(&key);
                    if interrupted {
                        self.commands.push_back(resumption(key.clone(), true));
                    }
                    self.commands.push_back(Command::Stale(key));
                }
                Ok(ResumeDecision::Forget) => {
                    self.tasks.remove(&key);
                    self.commands.push_back(Command::Forget(key));
                }
                // What this version does not know cannot be worse than going on.
                Ok(ResumeDecision::Continue | ResumeDecision::Unspecified) | Err(_) => {
                    if interrupted {
                        self.interrupted_at(&key, output_acked);
                        self.commands.push_back(resumption(key.clone(), false));
                    }
                    if cancel_requested {
                        let reason = "asked for while the agent was not connected".to_owned();
                        self.commands.push_back(Command::Cancel { key: key.clone(), reason });
                    }
                    self.output_acked(key, output_acked, false);
                }
            }
        }
    }

    /// What an earlier process made of the output is known by what is stored.
    fn interrupted_at(&mut self, key: &TaskKey, offset: u64) {
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.produced = entry.produced.max(offset);
            entry.acked = entry.acked.max(offset);
            if let Some(told) = entry.told.as_mut() {
                told.sent = told.sent.max(offset);
            }
        }
    }

    fn output_acked(&mut self, key: TaskKey, offset: u64, full: bool) {
        let Some(entry) = self.tasks.get_mut(&key) else { return };
        // After a crash the control plane may have more than this process knows to have been made.
        if matches!(entry.stage, Stage::Ended(_)) {
            entry.produced = entry.produced.max(offset);
        }
        let offset = offset.min(entry.produced);
        entry.full |= full;
        if offset > entry.acked || full {
            entry.acked = entry.acked.max(offset);
            self.commands.push_back(Command::OutputAcked { key, offset, full });
        }
        if let Some(told) = entry.told.as_mut() {
            told.sent = told.sent.max(entry.acked);
        }
    }

    /// Events arrive in order, so an answered heartbeat that was sent after a hand-back proves that it arrived.
    fn hand_backs_arrived(&mut self, acknowledged: u64) {
        let arrived: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, entry)| {
                entry.told.as_ref().is_some_and(|told| told.handed_back.is_some_and(|at| at < acknowledged))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in arrived {
            self.tasks.remove(&key);
            self.commands.push_back(Command::HandBackDelivered(key));
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`SessionEnd`] when the control plane has been silent for too long.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), SessionEnd> {
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        if std::mem::take(&mut self.afresh) {
            return Err(SessionEnd::Afresh);
        }
        match session.phase {
            Phase::AwaitingWelcome if now >= session.opened + WELCOME_TIMEOUT => {
                return Err(SessionEnd::Silence("Hello"));
            }
            Phase::Open { .. } if now >= session.heartbeat.silence_ends() => {
                return Err(SessionEnd::Silence("heartbeats"));
            }
            _ => {}
        }
        for told in self.tasks.values_mut().filter_map(|entry| entry.told.as_mut()) {
            if told.end.is_some_and(|at| now >= at + END_REPEAT) {
                told.end = None;
            }
        }
        Ok(())
    }

    /// When to call [`Self::tick`] or [`Self::next_event`] again at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        match session.phase {
            Phase::AwaitingWelcome => Some(session.opened + WELCOME_TIMEOUT),
            Phase::Open { .. } => {
                let ends = self.tasks.values().filter_map(|entry| Some(entry.told.as_ref()?.end? + END_REPEAT));
                ends.chain([session.heartbeat.next, session.heartbeat.silence_ends()]).min()
            }
            Phase::Over => None,
        }
    }

    /// The next command for the engine.
    pub(crate) fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Whether there is one.
    pub(crate) fn has_command(&self) -> bool {
        !self.commands.is_empty()
    }

    fn push(&mut self, event: agent_event::Event) {
        if let Some(session) = self.session.as_mut() {
            session.queue.push_back(event);
        }
    }
}

impl Beat {
    fn silence_ends(&self) -> Instant {
        self.heard + self.interval * SILENT_BEATS + GRACE
    }
}

/// Characters of a fact about the agent; the control plane takes 1000 bytes.
const MAX_FACT: usize = 250;
/// What this version can do.
const CAPABILITIES: &[&str] = &["connection_test", "command", "script", "diagnosis", "posture", "task_secrets"];
/// Until Welcome says otherwise.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(10);
const LEAST_HEARTBEAT: Duration = Duration::from_millis(100);
const MOST_HEARTBEAT: Duration = Duration::from_secs(300);
/// Heartbeats in a row without a sign of the control plane, after which the connection counts as dead.
const SILENT_BEATS: u32 = 3;
/// For one slow transaction on the other side.
const GRACE: Duration = Duration::from_secs(5);
/// For the control plane to look up everything in Hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);
/// An end that is not acknowledged within this is sent again in the same session.
const END_REPEAT: Duration = Duration::from_secs(30);
/// When Welcome gives no window.
const DEFAULT_WINDOW: u64 = 256 * 1024;
/// Output in one event: a control message waits for at most so much.
const PIECE: u64 = 64 * 1024;
/// Unacknowledged output of all tasks together: bounds what waits in sockets before a control message.
const MOST_UNDER_WAY: u64 = 2 * 1024 * 1024;
