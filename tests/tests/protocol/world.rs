//! One control plane, some agents, and a network between them that does what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use lictor_agent::simulation::Over;
use lictor_control_plane::simulation::{ControlPlane, Fate, Sent, Submission, Waits};
use lictor_proto::v1::{AgentEvent, ResumeDecision, ServerEvent, TaskRef, agent_event, server_event};

use crate::agent::{Agent, Hosts, Key, key};
use crate::previous;

pub(crate) const WAITS: Waits = Waits {
    lease: Duration::from_secs(30),
    heartbeat_interval: Duration::from_secs(10),
    lost_wait: Duration::from_secs(60),
    restart_grace: Duration::from_secs(20),
    output_limit: 300,
};

/// What may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A user submits a task.
    Submit { idempotent: bool },
    /// A user cancels a task.
    Cancel { task: usize },
    /// Everything arrives that is under way, and engines do as they are told.
    Flow,
    /// The link of an agent does what it has to do; its engine does not yet.
    Pump { agent: usize },
    /// The engine of an agent does as it was told.
    Obey { agent: usize },
    /// The next events of an agent arrive.
    Up { agent: usize, count: usize },
    /// The next events for an agent arrive.
    Down { agent: usize, count: usize },
    /// A task that an agent has accepted is started.
    Begin { agent: usize, task: usize },
    /// A running command makes output.
    Produce { agent: usize, task: usize, count: u64 },
    /// A running command ends.
    Finish { agent: usize, task: usize },
    /// An agent's connection breaks; the agent notices. What it had sent is still under way.
    Break { agent: usize },
    /// Of what a broken connection had under way, this much arrives, then the control plane notices too.
    Tail { agent: usize, count: usize },
    /// An agent's connection breaks; the control plane notices, the agent does not.
    Deafen { agent: usize },
    /// An agent connects anew if it has no connection.
    Connect { agent: usize },
    /// Nothing gets through to or from an agent any more, and nobody notices.
    Stall { agent: usize },
    /// It does again.
    Unstall { agent: usize },
    /// kill -9 of an agent.
    KillAgent { agent: usize },
    /// A dead agent starts.
    StartAgent { agent: usize },
    /// SIGTERM to an agent.
    Terminate { agent: usize },
    /// An operator drains an agent.
    Drain { agent: usize },
    /// An operator revokes an agent; never the first one.
    Revoke { agent: usize },
    /// The control plane takes events of an agent and dies before it has stored them, or before it answers.
    KillControlPlane { agent: usize, count: usize, stored: bool },
    /// Time passes, with all that follows.
    Pass { seconds: u64 },
    /// A user submits a diagnosis, which came with the present version. One of the previous version refuses it.
    SubmitDiagnosis,
    /// kill -9 of an agent, and another version starts on what it left.
    ReplaceAgent { agent: usize },
    /// kill -9 of the control plane, and the present version starts on what it left.
    UpgradeControlPlane,
}

/// Who is of the previous version at first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ages {
    /// The control plane.
    pub(crate) control_plane: bool,
    /// Each agent.
    pub(crate) agents: [bool; 3],
}

struct Connection {
    agent: usize,
    session: u64,
    up: VecDeque<AgentEvent>,
    /// Nothing: the control plane has closed it.
    down: VecDeque<Option<ServerEvent>>,
    agent_here: bool,
    control_plane_here: bool,
}

/// Everything.
pub(crate) struct World {
    pub(crate) control_plane: ControlPlane,
    pub(crate) agents: Vec<Agent>,
    pub(crate) revoked: BTreeSet<usize>,
    stalled: BTreeSet<usize>,
    connections: Vec<Connection>,
    pub(crate) hosts: Hosts,
    now: Instant,
    wall: i64,
    /// Submitted and answered, in order.
    pub(crate) tasks: Vec<(String, bool)>,
    pub(crate) cancelled: BTreeSet<String>,
    /// Assignments whose fate cannot be known: their agent died with what it had not journalled, or was revoked.
    pub(crate) lost: BTreeSet<Key>,
    /// Assignments whose agent died while their command ran.
    pub(crate) interrupted: BTreeSet<Key>,
    /// When the control plane last heard of an assignment that stood.
    pub(crate) heard: BTreeMap<Key, i64>,
    sessions: u64,
    window: u64,
    submissions: usize,
    ages: Ages,
    /// Tasks that only agents of the present version may get.
    pub(crate) diagnoses: BTreeSet<String>,
    pub(crate) breaches: Vec<String>,
}

impl World {
    /// Agents with so many slots each, and a window of output.
    pub(crate) fn new(ages: Ages, agents: usize, slots: u32, window: u64) -> Self {
        let (now, wall) = (Instant::now(), 1_000_000);
        let agents: Vec<Agent> = (0..agents).map(|index| Agent::new(&format!("a{index}"), slots)).collect();
        let names: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
        let control_plane = ControlPlane::new(WAITS, &names, (now, wall));
        Self {
            control_plane,
            agents,
            revoked: BTreeSet::new(),
            stalled: BTreeSet::new(),
            connections: Vec::new(),
            hosts: Hosts::default(),
            now,
            wall,
            tasks: Vec::new(),
            cancelled: BTreeSet::new(),
            lost: BTreeSet::new(),
            interrupted: BTreeSet::new(),
            heard: BTreeMap::new(),
            sessions: 0,
            window,
            submissions: 0,
            ages,
            diagnoses: BTreeSet::new(),
            breaches: Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, step: Step) {
        let count = self.agents.len();
        match step {
            Step::Submit { idempotent } => self.submit(idempotent, false),
            Step::SubmitDiagnosis if self.ages.control_plane => {}
            Step::SubmitDiagnosis => self.submit(true, true),
            Step::ReplaceAgent { agent } => {
                self.kill(agent % count);
                self.ages.agents[agent % count] ^= true;
                self.start(agent % count);
            }
            Step::UpgradeControlPlane => {
                self.ages.control_plane = false;
                self.crash();
            }
            Step::Cancel { task } => {
                if let Some((id, _)) = self.tasks.get(task % self.tasks.len().max(1)).cloned() {
                    self.control_plane.cancel(&id, (self.now, self.wall));
                    self.cancelled.insert(id);
                    self.turn(Fate::Done);
                }
            }
            Step::Flow => self.flow(),
            Step::Pump { agent } => self.pump(agent % count),
            Step::Obey { agent } => self.agents[agent % count].obey(),
            Step::Up { agent, count: events } => self.up_of(agent % count, events, Fate::Done),
            Step::Down { agent, count: events } => {
                if let Some(at) = self.connection_of(agent % count) {
                    self.down(at, events);
                }
            }
            Step::Begin { agent, task } => {
                if let Some(key) = self.pick(agent % count, task) {
                    self.begin(agent % count, &key);
                }
            }
            Step::Produce { agent, task, count: bytes } => {
                if let Some(key) = self.pick(agent % count, task) {
                    self.agents[agent % count].produce(&key, bytes);
                }
            }
            Step::Finish { agent, task } => {
                if let Some(key) = self.pick(agent % count, task) {
                    self.agents[agent % count].finish(&key, &mut self.hosts);
                }
            }
            Step::Break { agent } => self.break_off(agent % count),
            Step::Tail { agent, count: events } => {
                let broken = |c: &Connection| c.agent == agent % count && !c.agent_here && c.control_plane_here;
                if let Some(at) = self.connections.iter().position(broken) {
                    let session = self.connections[at].session;
                    self.up(at, events, Fate::Done);
                    // What arrived may have ended the session.
                    if let Some(at) = self.connections.iter().position(|c| c.session == session) {
                        self.close(at);
                    }
                }
            }
            Step::Deafen { agent } => {
                if let Some(at) = self.connection_of(agent % count) {
                    self.close(at);
                }
            }
            Step::Connect { agent } => self.connect(agent % count),
            Step::Stall { agent } => {
                self.stalled.insert(agent % count);
            }
            Step::Unstall { agent } => {
                self.stalled.remove(&(agent % count));
            }
            Step::KillAgent { agent } => self.kill(agent % count),
            Step::StartAgent { agent } => self.start(agent % count),
            Step::Terminate { agent } => {
                if let Some(link) = self.agents[agent % count].link() {
                    link.drain();
                }
            }
            Step::Drain { agent } => {
                let name = self.agents[agent % count].name.clone();
                self.control_plane.drain(&name);
                self.turn(Fate::Done);
            }
            Step::Revoke { agent } => self.revoke(agent % count),
            Step::KillControlPlane { agent, count: events, stored } => {
                let fate = if stored { Fate::Unsent } else { Fate::Unstored };
                self.up_of(agent % count, events, fate);
                self.crash();
            }
            Step::Pass { seconds } => self.pass(Duration::from_secs(seconds)),
        }
    }

    /// Faults end; everything comes to rest.
    ///
    /// # Errors
    /// What does not hold.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.stalled.clear();
        for _ in 0..60 {
            for agent in 0..self.agents.len() {
                // Whoever was asked to drain is replaced by a new process.
                if self.agents[agent].is_flushed() {
                    self.kill(agent);
                }
                self.start(agent);
                for key in self.agents[agent].active() {
                    self.begin(agent, &key);
                    self.agents[agent].produce(&key, 30);
                    self.agents[agent].finish(&key, &mut self.hosts);
                }
            }
            self.pass(Duration::from_secs(5));
        }
        // An operator's drain ends with the process.
        for agent in 0..self.agents.len() {
            self.kill(agent);
            self.start(agent);
        }
        for _ in 0..60 {
            self.pass(Duration::from_secs(5));
            for agent in 0..self.agents.len() {
                for key in self.agents[agent].active() {
                    self.begin(agent, &key);
                    self.agents[agent].finish(&key, &mut self.hosts);
                }
            }
        }
        let before: Vec<String> = self.tasks.iter().map(|(id, _)| self.control_plane.describe(id)).collect();
        self.pass(Duration::from_secs(600));
        let after: Vec<String> = self.tasks.iter().map(|(id, _)| self.control_plane.describe(id)).collect();
        if before != after {
            return Err(format!("what was final has changed: {before:#?} {after:#?}"));
        }
        self.judge()
    }

    fn submit(&mut self, idempotent: bool, diagnosis: bool) {
        let task_id = format!("t{}", self.submissions);
        self.submissions += 1;
        let queue_timeout = Duration::from_secs(86_400);
        if diagnosis {
            self.diagnoses.insert(task_id.clone());
        }
        let submission = Submission { task_id: task_id.clone(), idempotent, diagnosis, queue_timeout };
        self.control_plane.submit(&submission, (self.now, self.wall));
        self.turn(Fate::Done);
        self.tasks.push((task_id, idempotent));
    }

    fn pick(&self, agent: usize, task: usize) -> Option<Key> {
        let active = self.agents[agent].active();
        active.get(task % active.len().max(1)).cloned()
    }

    fn begin(&mut self, agent: usize, key: &Key) {
        if !self.agents[agent].begin(key, &mut self.hosts) {
            return;
        }
        // Never two at once, as far as anybody could know: whoever runs an older one was not heard of for long enough.
        for (index, other) in self.agents.iter().enumerate() {
            for older in (1..key.1).map(|epoch| (key.0.clone(), epoch)) {
                let silent = self.heard.get(&older).is_none_or(|at| self.wall - at >= lost_after());
                if other.is_running(&older) && !silent && !self.revoked.contains(&index) {
                    self.breaches.push(format!("{key:?} was started while {older:?} ran on {}", other.name));
                }
            }
        }
    }

    fn connection_of(&self, agent: usize) -> Option<usize> {
        self.connections.iter().position(|connection| connection.agent == agent && connection.agent_here)
    }

    fn connect(&mut self, agent: usize) {
        if self.connection_of(agent).is_some() || self.stalled.contains(&agent) {
            return;
        }
        let now = self.now;
        let Some(link) = self.agents[agent].link() else { return };
        link.connected(now);
        self.sessions += 1;
        self.connections.push(Connection {
            agent,
            session: self.sessions,
            up: VecDeque::new(),
            down: VecDeque::new(),
            agent_here: true,
            control_plane_here: true,
        });
    }

    /// The agent's end of its connection is gone.
    fn break_off(&mut self, agent: usize) {
        let Some(at) = self.connection_of(agent) else { return };
        let connection = &mut self.connections[at];
        connection.agent_here = false;
        connection.down.clear();
        if let Some(link) = self.agents[agent].link() {
            link.disconnected(self.now);
        }
        self.sweep();
    }

    /// The control plane's end of a connection is gone.
    fn close(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if std::mem::take(&mut connection.control_plane_here) {
            let (agent, session) = (connection.agent, connection.session);
            connection.up.clear();
            self.control_plane.closed(&self.agents[agent].name, session, (self.now, self.wall));
            self.turn(Fate::Done);
        }
        self.sweep();
    }

    fn sweep(&mut self) {
        self.connections.retain(|connection| connection.agent_here || connection.control_plane_here);
    }

    fn kill(&mut self, agent: usize) {
        self.break_off(agent);
        let (lost, running) = self.agents[agent].kill();
        self.lost.extend(lost);
        self.interrupted.extend(running);
    }

    fn start(&mut self, agent: usize) {
        if !self.agents[agent].is_alive() && !self.revoked.contains(&agent) {
            self.agents[agent].start();
        }
    }

    fn revoke(&mut self, agent: usize) {
        if agent == 0 {
            return;
        }
        let name = self.agents[agent].name.clone();
        for (id, _) in &self.tasks {
            let task = TaskRef { task_id: id.clone(), epoch: self.control_plane.epochs(id) };
            if self.control_plane.assigned(&name, &task) {
                self.lost.insert(key(&task));
            }
        }
        self.revoked.insert(agent);
        self.control_plane.revoke(&name, (self.now, self.wall));
        self.turn(Fate::Done);
    }

    /// The control plane died and starts again. What it had sent is still under way.
    fn crash(&mut self) {
        self.control_plane.restart((self.now, self.wall));
        for connection in &mut self.connections {
            connection.control_plane_here = false;
            connection.up.clear();
        }
        self.sweep();
    }

    fn pump(&mut self, agent: usize) {
        self.agents[agent].pump();
        let Some(at) = self.connection_of(agent) else { return };
        let mut sent = self.agents[agent].sends(self.now);
        if self.is_between_versions(agent) {
            sent = sent.iter().map(previous::of_agent).collect();
        }
        if self.connections[at].control_plane_here {
            self.connections[at].up.extend(sent);
        }
    }

    fn up_of(&mut self, agent: usize, count: usize, fate: Fate) {
        if let Some(at) = self.connection_of(agent) {
            self.up(at, count, fate);
        }
    }

    fn up(&mut self, at: usize, count: usize, fate: Fate) {
        let connection = &mut self.connections[at];
        let (agent, session) = (connection.agent, connection.session);
        let count = count.min(connection.up.len());
        let events: Vec<AgentEvent> = connection.up.drain(..count).collect();
        let newest = self.connections.iter().filter(|other| other.agent == agent).all(|other| other.session <= session);
        if newest {
            for event in &events {
                self.hear(event);
            }
        }
        let name = self.agents[agent].name.clone();
        self.control_plane.events(&name, session, events, (self.now, self.wall));
        self.turn(fate);
    }

    /// Notes which assignments the control plane hears of.
    fn hear(&mut self, event: &AgentEvent) {
        let named: Vec<TaskRef> = match &event.event {
            Some(agent_event::Event::Hello(hello)) => hello.held.iter().filter_map(|held| held.task.clone()).collect(),
            Some(agent_event::Event::Heartbeat(beat)) => beat.held.clone(),
            Some(agent_event::Event::Started(event)) => event.task.clone().into_iter().collect(),
            Some(agent_event::Event::Accepted(event)) => event.task.clone().into_iter().collect(),
            Some(agent_event::Event::Output(event)) => event.task.clone().into_iter().collect(),
            Some(agent_event::Event::HandBack(event)) => {
                // From here on nobody has it.
                self.heard.remove(&key(&event.task.clone().unwrap_or_default()));
                Vec::new()
            }
            _ => Vec::new(),
        };
        for task in named {
            if self.control_plane.stands(&task) {
                self.heard.insert(key(&task), self.wall);
            }
        }
    }

    /// Whether what this agent and the control plane say to each other is the previous contract.
    fn is_between_versions(&self, agent: usize) -> bool {
        self.ages.control_plane || self.ages.agents[agent]
    }

    /// Whether nobody is left who can do what came with the present version.
    pub(crate) fn nobody_can_diagnose(&self) -> bool {
        (0..self.agents.len()).all(|agent| self.revoked.contains(&agent) || self.ages.agents[agent])
    }

    fn turn(&mut self, fate: Fate) {
        let sent: Vec<Sent> = self.control_plane.turn(fate, (self.now, self.wall));
        for (session, event) in sent {
            let open = |c: &Connection| c.session == session && c.control_plane_here;
            let Some(at) = self.connections.iter().position(open) else { continue };
            let agent = self.connections[at].agent;
            if let Some(ServerEvent { event: Some(server_event::Event::Assignment(assignment)) }) = &event {
                self.heard.extend(assignment.task.as_ref().map(|task| (key(task), self.wall)));
                // Not what goes to a process that is dead, which may have been of another version.
                let old = self.ages.agents[agent] && self.connections[at].agent_here;
                let unable = |task: &TaskRef| old && self.diagnoses.contains(&task.task_id);
                if assignment.task.as_ref().is_some_and(unable) {
                    self.breaches.push(format!("a{agent} cannot do {:?}, and got it", assignment.task));
                }
            }
            let between = self.is_between_versions(agent);
            let connection = &mut self.connections[at];
            connection.control_plane_here = event.is_some();
            let event = event.map(|event| if between { previous::of_server(&event) } else { event });
            connection.down.push_back(event);
        }
        self.sweep();
    }

    fn down(&mut self, at: usize, count: usize) {
        let agent = self.connections[at].agent;
        for _ in 0..count {
            let Some(event) = self.connections[at].down.pop_front() else { break };
            let Some(mut event) = event else {
                self.break_off(agent);
                if self.revoked.contains(&agent) {
                    self.kill(agent);
                }
                return;
            };
            self.promised(&event);
            if let Some(server_event::Event::Welcome(welcome)) = &mut event.event {
                welcome.output_window = self.window;
            }
            let now = self.now;
            let Some(link) = self.agents[agent].link() else { return };
            if let Err(over) = link.server(event, now) {
                if let Over::Violation(what) = over {
                    self.breaches.push(format!(
                        "{} says that the control plane broke the contract: {what}",
                        self.agents[agent].name
                    ));
                }
                self.break_off(agent);
                return;
            }
        }
    }

    /// What an agent is told to be stored is stored.
    fn promised(&mut self, event: &ServerEvent) {
        let stored: Vec<&TaskRef> = match &event.event {
            Some(server_event::Event::EndAck(ack)) => ack.task.iter().collect(),
            Some(server_event::Event::Welcome(welcome)) => {
                let forget = |resume: &&lictor_proto::v1::Resume| resume.decision == i32::from(ResumeDecision::Forget);
                welcome.resume.iter().filter(forget).filter_map(|resume| resume.task.as_ref()).collect()
            }
            _ => Vec::new(),
        };
        for task in stored {
            if !self.control_plane.has_result(task) {
                self.breaches.push(format!("{task:?} was told to be stored, and is not"));
            }
        }
    }

    /// Everything under way arrives, until nothing is.
    fn flow(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for agent in 0..self.agents.len() {
                self.agents[agent].obey();
                self.pump(agent);
            }
            for at in (0..self.connections.len()).rev() {
                let Some(connection) = self.connections.get(at) else { continue };
                let agent = connection.agent;
                if self.stalled.contains(&agent) {
                    continue;
                }
                moved |= !connection.up.is_empty() || !connection.down.is_empty();
                if connection.control_plane_here && !connection.up.is_empty() {
                    self.up(at, usize::MAX, Fate::Done);
                } else if connection.agent_here && !connection.down.is_empty() {
                    self.down(at, usize::MAX);
                } else if !connection.agent_here {
                    self.close(at);
                } else if !connection.control_plane_here {
                    self.break_off(agent);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
        self.breaches.push("messages go on and on without time passing".into());
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for agent in 0..self.agents.len() {
                self.connect(agent);
            }
            self.flow();
            let agents = self.agents.iter_mut().filter_map(|agent| agent.link()?.deadline());
            let next = agents.chain(self.control_plane.next_deadline()).min().unwrap_or(end);
            // Not before the next second: who is out of reach must not make this loop spin.
            let next = next.max(self.now + Duration::from_secs(1)).min(end);
            self.wall += (next - self.now).as_millis() as i64;
            self.now = next;
            self.turn(Fate::Done);
            for agent in 0..self.agents.len() {
                let now = self.now;
                if self.agents[agent].link().is_some_and(|link| link.tick(now).is_err()) {
                    self.break_off(agent);
                }
            }
            if self.now >= end {
                return self.flow();
            }
        }
    }
}

pub(crate) fn lost_after() -> i64 {
    (WAITS.lease + WAITS.lost_wait).as_millis() as i64
}
