//! Owns the slots and every assignment the agent holds, from acceptance to the acknowledgement of its end.
//!
//! One actor: commands of the link come in, jobs run beside it, events go out. It must never start an assignment twice,
//! nor free a slot before what filled it is safe. Called by `app`; driven by the link.

mod interrupted;
mod jobs;
mod trouble;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_proto::v1::{Assignment, Failure, HandBackReason, TaskResult};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use self::jobs::{Left, job, removal};
use self::trouble::{Chore, Owed};
use super::clock::Stamp;
use super::execute::{Orders, Worker};
use super::journal::{Journal, JournalError, Record, Start};
use super::output::{Limits, Log, Shelf, prepare_directory};
use super::spans;
use super::task::Task;
use super::{Command, Event, TaskKey};
use crate::failure::{self, HandBack, StopCause};
use crate::sessions::Sessions;
use crate::telemetry::Metrics;

/// How the engine works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Most tasks at once.
    pub(crate) slots: u32,
    /// How long running tasks may go on once draining.
    pub(crate) drain_grace: Duration,
}

/// The link's end of the engine.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Commands to the engine. Full means that the link waits, still reading events.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Events of the engine, to be read always: a full channel stops tasks.
    pub(crate) events: mpsc::Receiver<Event>,
    /// What the journal held, as events: first of all.
    pub(crate) restored: Vec<Event>,
    /// The output of all tasks.
    pub(crate) shelf: Arc<Shelf>,
    /// Facts for people that say the agent is impaired.
    pub(crate) degraded: Vec<String>,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The directory for output.
    #[error("failed to prepare the directory for output")]
    Output(#[source] std::io::Error),
    /// The thread that opens them.
    #[error("failed to open the state directory")]
    Thread(#[source] tokio::task::JoinError),
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    worker: Arc<Worker>,
    shelf: Arc<Shelf>,
    commands: mpsc::Receiver<Command>,
    settings: Settings,
    held: HashMap<TaskKey, Held>,
    /// Ended and acknowledged lately: a late duplicate of their assignment must not start them again.
    acknowledged: VecDeque<TaskKey>,
    jobs: JoinSet<Left>,
    job_keys: HashMap<Id, TaskKey>,
    /// What is done to the journal beside everything else.
    chores: JoinSet<Chore>,
    /// Why the journal cannot be written.
    trouble: watch::Receiver<Option<Arc<str>>>,
    /// While it cannot: when it is tried again.
    probe: Option<Instant>,
    /// What it could not take: made good for once it can be written again.
    owed: Owed,
    /// When the engine was made, by two clocks: what is left of tasks of old was measured then.
    born: (Instant, Stamp),
    settled: u64,
    /// Freed slots that are not announced yet, because too much waits for acknowledgement.
    withheld: u64,
    draining: bool,
    drain_deadline: Option<Instant>,
    idle_told: bool,
}

#[derive(Debug)]
struct Held {
    log: Log,
    orders: watch::Sender<Orders>,
    started: Arc<AtomicBool>,
    phase: Phase,
    /// The acknowledgement overtook the news that the job has left.
    acknowledged: bool,
    /// Ends with the acknowledgement.
    delivery: Span,
}

#[derive(Debug, Clone)]
enum Phase {
    /// An earlier process started it. It waits for its assignment, and holds a slot.
    Interrupted(Box<Start>),
    Active,
    Ended(Box<TaskResult>),
    HandedBack(HandBackReason, Box<Failure>),
}

impl Held {
    fn new(log: Log, orders: watch::Sender<Orders>, started: Arc<AtomicBool>, phase: Phase) -> Self {
        Self { log, orders, started, phase, acknowledged: false, delivery: Span::none() }
    }

    /// What its end takes up in memory and journal, its output apart.
    fn result_bytes(&self) -> usize {
        if let Phase::Ended(result) = &self.phase { result.encoded_len() } else { 0 }
    }
}

impl Engine {
    /// Opens the journal and the output under `state_dir`, and settles what the last process left unfinished.
    ///
    /// # Errors
    /// [`StartError`] when the state directory cannot be used.
    pub(crate) async fn start(
        state_dir: &Path,
        settings: Settings,
        sessions: Sessions,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Handle), StartError> {
        let limits = Limits::for_slots(settings.slots);
        let (opened, shelf) = tokio::task::spawn_blocking({
            let state_dir = state_dir.to_owned();
            let metrics = Arc::clone(&metrics);
            move || -> Result<_, StartError> {
                let opened = Journal::open(&state_dir, metrics)?;
                let directory = prepare_directory(&state_dir).map_err(StartError::Output)?;
                let shelf = Shelf::new(directory, limits);
                let with_output = opened.records.iter().filter(|(_, record)| !matches!(record, Record::Accepted));
                shelf.sweep(with_output.map(|(key, _)| key)).map_err(StartError::Output)?;
                Ok((opened, shelf))
            }
        })
        .await
        .map_err(StartError::Thread)??;
        metrics.slots(settings.slots);
        let (commands_in, commands) = mpsc::channel(CHANNEL);
        let (events, events_out) = mpsc::channel(CHANNEL);
        let trouble = opened.journal.trouble();
        let worker = Arc::new(Worker { sessions, journal: opened.journal, events, metrics });
        let mut engine = Self {
            worker,
            shelf: Arc::clone(&shelf),
            commands,
            settings,
            held: HashMap::new(),
            acknowledged: VecDeque::new(),
            jobs: JoinSet::new(),
            job_keys: HashMap::new(),
            chores: JoinSet::new(),
            trouble,
            probe: None,
            owed: Owed::default(),
            born: (Instant::now(), Stamp::now()),
            settled: 0,
            withheld: 0,
            draining: false,
            drain_deadline: None,
            idle_told: false,
        };
        let set_aside = opened.set_aside.iter();
        let degraded = set_aside
            .map(|aside| {
                format!(
                    "the journal was damaged and set aside as {}; results that waited in it are lost",
                    aside.display()
                )
            })
            .collect();
        let mut restored = Vec::new();
        for (key, record) in opened.records {
            restored.push(engine.restore(key, record).await);
        }
        Ok((engine, Handle { commands: commands_in, events: events_out, restored, shelf, degraded }))
    }

    async fn restore(&mut self, key: TaskKey, record: Record) -> Event {
        let (phase, log) = match record {
            Record::Accepted => {
                let (reason, failure) = failure::restarted_before_start();
                (Phase::HandedBack(reason, failure), self.shelf.log(&key))
            }
            Record::Started(start) => {
                let log = self.shelf.interrupted(&key, start.skipped).unwrap_or_else(|error| {
                    tracing::error!(task_id = %key.task_id, error = %error, "Spilled output cannot be read and is lost");
                    self.shelf.log_without_files(&key, start.skipped)
                });
                if let Some((shell_id, _)) = start.place() {
                    // Nobody else may take it for one that was left behind.
                    self.worker.sessions.spare(shell_id);
                    (Phase::Interrupted(start), log)
                } else {
                    tracing::warn!(task_id = %key.task_id, attempt = key.epoch, target = start.host, command_id = start.command_id, "A task ran when the agent ended, its end is unknown");
                    let end = failure::restarted_after_start(&start.host, &start.command_id);
                    (Phase::Ended(self.end_unseen(&key, &log, end).await), log)
                }
            }
            Record::Ended { mut result, tail, skipped } => {
                let log = self.shelf.restore(&key, result.output_bytes, tail, skipped).unwrap_or_else(|error| {
                    tracing::error!(task_id = %key.task_id, error = %error, "Spilled output cannot be read and is lost");
                    result.output_gap = true;
                    self.shelf.log(&key)
                });
                (Phase::Ended(result), log)
            }
        };
        let event = event_of(&key, &phase, &log);
        let (orders, _) = watch::channel(Orders::default());
        self.held.insert(key, Held::new(log, orders, Arc::new(AtomicBool::new(true)), phase));
        event
    }

    /// Journals the end of a task that nobody could follow.
    async fn end_unseen(&mut self, key: &TaskKey, log: &Log, (state, failure): failure::End) -> Box<TaskResult> {
        let result = Box::new(TaskResult {
            outcome: state.into(),
            failure: Some(*failure),
            output_bytes: log.end(),
            output_gap: true,
            ..TaskResult::default()
        });
        // What is not acknowledged is in files already.
        let record = Record::Ended { result: result.clone(), tail: Vec::new(), skipped: log.skipped() };
        if let Err(error) = self.worker.journal.put(key, &record).await {
            tracing::error!(error = %failure::chain(&error), "The end of an interrupted task is not journalled");
            self.owed.ends.insert(key.clone());
        }
        self.worker.metrics.task_finished(state, Duration::ZERO);
        result
    }

    /// Works until the link drops its handle, then stops what still runs. `drain` and `stop` come from the outside.
    /// Returns the sessions, for closing them.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Sessions {
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.stop_all();
                    self.leave_interrupted().await;
                }
                Some(left) = self.jobs.join_next_with_id() => self.left(left).await,
                Some(chore) = self.chores.join_next() => self.chore_done(chore),
                Ok(()) = self.trouble.changed() => self.journal_news().await,
                () = sleep_until(self.probe.unwrap_or_else(Instant::now)), if self.probe.is_some() => self.probe_journal(),
                () = sleep_until(self.drain_deadline.unwrap_or_else(Instant::now)), if self.drain_deadline.is_some() => {
                    tracing::warn!(running = self.jobs.len(), "The drain grace is over, running tasks are stopped");
                    self.drain_deadline = None;
                    self.stop_all();
                    self.leave_interrupted().await;
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => break,
                },
            }
            if self.draining && self.jobs.is_empty() && !self.is_waiting() && !self.idle_told {
                self.idle_told = true;
                self.worker.tell(Event::Idle).await;
            }
            self.worker.metrics.slots_used(self.jobs.len());
            self.worker.metrics.spilled(self.shelf.spilled_bytes());
        }
        self.stop_all();
        let ended = timeout(LAST_WAIT, async {
            while self.jobs.join_next().await.is_some() {}
            while self.chores.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!(
                running = self.jobs.len(),
                "Tasks did not stop in time; they end as Unknown after the next start"
            );
        }
        self.jobs.shutdown().await;
        self.chores.shutdown().await;
        let sessions = self.worker.sessions.clone();
        // The journal's writer is joined, which blocks.
        let worker = self.worker;
        if tokio::task::spawn_blocking(move || drop(worker)).await.is_err() {
            tracing::error!("The journal was not closed in order");
        }
        sessions
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Assign(assignment) => self.assign(*assignment).await,
            Command::Cancel { key, reason } => {
                self.order(&key, |orders| {
                    orders.stop.get_or_insert(StopCause::Cancelled(reason));
                });
            }
            Command::Resume(resumption) => self.resume(*resumption).await,
            Command::Stale(key) => {
                self.order(&key, |orders| {
                    orders.forget = true;
                    orders.stop.get_or_insert(StopCause::Cancelled("the assignment is stale".into()));
                });
                self.drop_output(&key);
                self.settle(0).await;
            }
            Command::Forget(key) => {
                self.order(&key, |orders| orders.forget = true);
                self.drop_output(&key);
                self.settle(0).await;
            }
            Command::OutputAcked { key, offset, full } => {
                if let Some(held) = self.held.get(&key) {
                    held.log.acknowledge(offset, full);
                    self.settle(0).await;
                }
            }
            Command::EndAcked(key) | Command::HandBackDelivered(key) => {
                match self.held.get_mut(&key) {
                    Some(held) if matches!(held.phase, Phase::Active) => held.acknowledged = true,
                    // Its end cannot have been told, so nothing was acknowledged.
                    Some(held) if matches!(held.phase, Phase::Interrupted(_)) => {}
                    _ => self.remove(&key),
                }
                self.settle(0).await;
            }
            Command::Drain(reason) => self.drain(reason).await,
        }
    }

    async fn assign(&mut self, mut assignment: Assignment) {
        let Some(key) = TaskKey::parse(assignment.task.take()) else {
            tracing::warn!("An assignment without a usable task id was ignored");
            return self.settle(1).await;
        };
        if self.acknowledged.contains(&key) {
            tracing::debug!(task = %key, "A duplicate of an acknowledged assignment was ignored");
            return self.settle(1).await;
        }
        if let Some(held) = self.held.get(&key) {
            tracing::debug!(task = %key, "A duplicate assignment is answered with what is known");
            let (event, started) = (event_of(&key, &held.phase, &held.log), held.started.load(Ordering::Acquire));
            let active = matches!(held.phase, Phase::Active);
            self.worker.tell(event).await;
            if active && started {
                self.worker.tell(Event::Started(key)).await;
            }
            return self.settle(1).await;
        }
        let others: Vec<TaskKey> = self.held.keys().filter(|other| other.task_id == key.task_id).cloned().collect();
        if others.iter().any(|other| other.epoch > key.epoch) {
            return self.refuse(&key, failure::stale_assignment()).await;
        }
        if self.draining {
            return self.refuse(&key, failure::draining()).await;
        }
        let trouble = self.trouble.borrow().clone();
        if let Some(why) = trouble {
            return self.refuse(&key, failure::not_written_down(why.to_string())).await;
        }
        for older in others {
            // The newer epoch says that the older one is stale.
            self.order(&older, |orders| {
                orders.forget = true;
                orders.stop.get_or_insert(StopCause::Cancelled("a newer assignment of the task arrived".into()));
            });
            self.drop_output(&older);
        }
        let traceparent = std::mem::take(&mut assignment.traceparent);
        let permitted = Task::parse(key.clone(), assignment).and_then(|mut task| {
            let sessions = &self.worker.sessions;
            let permit = match &mut task {
                Task::Host(task) => sessions.permit(&mut task.plan, task.job),
                Task::Errand(errand) => sessions.permit_errand(errand.job),
            };
            permit.map(|()| task).map_err(|refusal| failure::policy(&refusal))
        });
        match permitted {
            Ok(task) => self.begin(task, &traceparent),
            Err(hand_back) => self.refuse(&key, hand_back).await,
        }
    }

    fn begin(&mut self, task: Task, traceparent: &str) {
        let key = task.key().clone();
        let log = self.shelf.log(&key);
        let (orders, receiver) = watch::channel(Orders::default());
        let started = Arc::new(AtomicBool::new(false));
        let span = spans::task(&key, task.subject(), traceparent);
        let job = job(Arc::clone(&self.worker), task, log.clone(), receiver, Arc::clone(&started));
        let handle = self.jobs.spawn(job.instrument(span));
        self.job_keys.insert(handle.id(), key.clone());
        self.held.insert(key, Held::new(log, orders, started, Phase::Active));
    }

    /// Hands back what was never accepted.
    async fn refuse(&mut self, key: &TaskKey, (reason, failure): HandBack) {
        self.worker.metrics.task_handed_back(reason);
        tracing::debug!(task = %key, reason = ?reason, error = failure.message, "Assignment refused");
        self.worker.tell(Event::HandedBack { key: key.clone(), reason, failure }).await;
        self.settle(1).await;
    }

    async fn left(&mut self, left: Result<(Id, Left), tokio::task::JoinError>) {
        let (id, left) = match left {
            Ok((id, left)) => (id, Some(left)),
            Err(error) => {
                tracing::error!(error = %error, "A task's job broke off");
                (error.id(), None)
            }
        };
        let Some(key) = self.job_keys.remove(&id) else { return };
        let left = match left {
            Some(left) => left,
            None => self.broke_off(&key).await,
        };
        let handed_back = matches!(left.phase, Some(Phase::HandedBack(..)));
        match (left.phase, self.held.get_mut(&key)) {
            (Some(phase), Some(held)) => {
                held.phase = phase;
                held.delivery = left.delivery;
                if !left.journalled {
                    self.owed.ends.insert(key.clone());
                }
                if held.acknowledged || held.orders.borrow().forget {
                    self.remove(&key);
                }
            }
            _ => self.remove(&key),
        }
        if handed_back && self.trouble.borrow().is_none() {
            // The job may have told of trouble that has passed meanwhile.
            self.worker.tell(Event::Impaired(None)).await;
        }
        self.settle(1).await;
    }

    /// A bug ended the job: say so as precisely as what is journalled allows.
    async fn broke_off(&mut self, key: &TaskKey) -> Left {
        let Some(held) = self.held.get(key) else { return Left::unwanted() };
        let message = "the agent has a bug: the task's job broke off".to_owned();
        let log = held.log.clone();
        let mut journalled = true;
        let phase = if held.started.load(Ordering::Acquire) {
            let (state, failure) = failure::broke_off(message);
            let result = Box::new(TaskResult {
                outcome: state.into(),
                failure: Some(*failure),
                output_bytes: log.end(),
                output_gap: true,
                ..TaskResult::default()
            });
            self.worker.metrics.task_finished(state, Duration::ZERO);
            journalled = self.worker.finish(key, &log, result.clone(), None).await;
            Phase::Ended(result)
        } else {
            let (reason, failure) = failure::broke_off_before_start(message);
            self.worker.metrics.task_handed_back(reason);
            self.worker.tell(Event::HandedBack { key: key.clone(), reason, failure: failure.clone() }).await;
            Phase::HandedBack(reason, failure)
        };
        Left { phase: Some(phase), journalled, delivery: Span::none() }
    }

    fn order(&mut self, key: &TaskKey, change: impl FnOnce(&mut Orders)) {
        if let Some(held) = self.held.get(key) {
            held.orders.send_modify(change);
        }
    }

    /// Nobody wants its output any more; what is not active is forgotten altogether.
    fn drop_output(&mut self, key: &TaskKey) {
        if let Some(held) = self.held.get(key) {
            held.log.discard();
            if !matches!(held.phase, Phase::Active) {
                self.remove(key);
            }
        }
    }

    fn remove(&mut self, key: &TaskKey) {
        let Some(held) = self.held.remove(key) else { return };
        held.log.discard();
        self.let_go(&held.phase);
        if self.acknowledged.len() == REMEMBERED {
            self.acknowledged.pop_front();
        }
        if !matches!(held.phase, Phase::HandedBack(..)) {
            self.acknowledged.push_back(key.clone());
        }
        self.owed.ends.remove(key);
        self.chores.spawn(removal(Arc::clone(&self.worker), key.clone()));
    }

    /// Frees `more` slots, once what waits for acknowledgement is within its bounds.
    async fn settle(&mut self, more: u64) {
        self.withheld += more;
        if self.withheld == 0 {
            return;
        }
        let waiting = self.held.values();
        let waiting = waiting.filter(|held| !matches!(held.phase, Phase::Active | Phase::Interrupted(_))).count();
        let bytes: usize = self.held.values().map(Held::result_bytes).sum();
        if self.trouble.borrow().is_some() {
            tracing::debug!("Slots stay closed until the journal can be written");
            return;
        }
        if waiting > MAX_UNACKNOWLEDGED || bytes > MAX_UNACKNOWLEDGED_BYTES || self.shelf.spilled_bytes() > MAX_SPILLED
        {
            tracing::debug!(waiting, "Slots stay closed until results are acknowledged");
            return;
        }
        self.settled += self.withheld;
        self.withheld = 0;
        self.worker.tell(Event::Settled(self.settled)).await;
    }

    async fn drain(&mut self, reason: String) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.worker.metrics.draining();
        self.drain_deadline = Some(Instant::now() + self.settings.drain_grace);
        tracing::info!(reason, running = self.jobs.len(), "Draining");
        for held in self.held.values() {
            held.orders.send_modify(|orders| orders.drain = true);
        }
        self.worker.tell(Event::Draining(reason)).await;
    }

    fn stop_all(&self) {
        for held in self.held.values() {
            held.orders.send_modify(|orders| {
                orders.drain = true;
                orders.stop.get_or_insert(StopCause::Drained);
            });
        }
    }
}

fn event_of(key: &TaskKey, phase: &Phase, log: &Log) -> Event {
    let key = key.clone();
    match phase {
        Phase::Interrupted(_) => Event::Interrupted { key, log: log.clone() },
        Phase::Active => Event::Accepted { key, log: log.clone() },
        Phase::Ended(result) => Event::Ended { key, result: result.clone(), log: log.clone() },
        Phase::HandedBack(reason, failure) => Event::HandedBack { key, reason: *reason, failure: failure.clone() },
    }
}

/// Commands and events that wait. Both ends always read on, so a full channel only paces the other side.
const CHANNEL: usize = 64;
/// Ended tasks that may wait for their acknowledgement before slots stay closed.
const MAX_UNACKNOWLEDGED: usize = 1000;
/// What their results may take up, in memory and in the journal, before slots stay closed.
const MAX_UNACKNOWLEDGED_BYTES: usize = 64 * 1024 * 1024;
/// Output in files before slots stay closed. What runs may still add its own bound each.
const MAX_SPILLED: u64 = 1024 * 1024 * 1024;
/// Acknowledged assignments whose duplicates are recognised.
const REMEMBERED: usize = 1024;
/// Between attempts to write a journal that could not be written.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// For jobs to stop their commands when the link is gone.
const LAST_WAIT: Duration = Duration::from_secs(20);
