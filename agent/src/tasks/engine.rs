//! Owns the slots and every assignment the agent holds, from acceptance to the acknowledgement of its end.
//!
//! One actor: commands of the link come in, jobs run beside it, events go out. It must never start an assignment twice,
//! nor free a slot before what filled it is safe. Called by `app`; driven by the link.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_proto::v1::{Assignment, Failure, HandBackReason, TaskResult, TaskState};
use lictor_winrm::pool::Lease;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::clock::Stamp;
use super::execute::{Orders, Outcome, Run, Worker};
use super::journal::{Journal, JournalError, Record, Start};
use super::output::{Limits, Log, Shelf, prepare_directory};
use super::task::{Kind, Task};
use super::{Command, Event, Resumption, TaskKey};
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
    /// What its end takes up in memory and journal, its output apart.
    fn result_bytes(&self) -> usize {
        if let Phase::Ended(result) = &self.phase { result.encoded_len() } else { 0 }
    }
}

/// How a job left.
#[derive(Debug)]
struct Left {
    /// Nothing: nobody waits for it.
    phase: Option<Phase>,
    /// Its end is in the journal.
    journalled: bool,
}

/// How something ended that was done to the journal.
#[derive(Debug)]
enum Chore {
    Done,
    NotRemoved(TaskKey),
    NotJournalled(TaskKey),
}

/// What the journal could not take.
#[derive(Debug, Default)]
struct Owed {
    /// Ends. They are told from memory.
    ends: HashSet<TaskKey>,
    /// Removals. What is left in the journal is told again after a restart, and forgotten again.
    removals: Vec<TaskKey>,
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
        self.held
            .insert(key, Held { log, orders, started: Arc::new(AtomicBool::new(true)), phase, acknowledged: false });
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

    /// The journal cannot be written any more, or can again.
    async fn journal_news(&mut self) {
        let why = self.trouble.borrow_and_update().clone();
        self.worker.metrics.journal_broken(why.is_some());
        match &why {
            Some(why) => {
                tracing::error!(error = %why, "The journal cannot be written: no new tasks are taken until it can");
                self.probe = Some(Instant::now() + PROBE_INTERVAL);
            }
            None => {
                tracing::info!("The journal can be written again");
                self.probe = None;
                self.make_good();
            }
        }
        let words = why.map(|why| format!("the journal cannot be written, no new tasks are taken: {why}").into());
        self.worker.tell(Event::Impaired(words)).await;
        self.settle(0).await;
    }

    fn probe_journal(&mut self) {
        self.probe = Some(Instant::now() + PROBE_INTERVAL);
        let worker = Arc::clone(&self.worker);
        self.chores.spawn(async move {
            if let Err(error) = worker.journal.probe().await {
                tracing::debug!(error = %failure::chain(&error), "The journal still cannot be written");
            }
            Chore::Done
        });
    }

    /// Does what the journal could not take when it was due.
    fn make_good(&mut self) {
        let Owed { ends, removals } = std::mem::take(&mut self.owed);
        for key in ends {
            let Some(Held { phase: Phase::Ended(result), log, .. }) = self.held.get(&key) else { continue };
            let (worker, log, result) = (Arc::clone(&self.worker), log.clone(), result.clone());
            self.chores.spawn(async move {
                if worker.journal_end(&key, &log, result).await { Chore::Done } else { Chore::NotJournalled(key) }
            });
        }
        for key in removals {
            // A later assignment of the same identity cannot be: epochs only grow.
            self.chores.spawn(removal(Arc::clone(&self.worker), key));
        }
    }

    fn chore_done(&mut self, chore: Result<Chore, tokio::task::JoinError>) {
        match chore {
            Ok(Chore::Done) => {}
            Ok(Chore::NotRemoved(key)) => {
                if self.owed.removals.len() < REMEMBERED {
                    self.owed.removals.push(key);
                }
            }
            Ok(Chore::NotJournalled(key)) => {
                if self.held.contains_key(&key) {
                    self.owed.ends.insert(key);
                }
            }
            Err(error) => tracing::error!(error = %error, "Work on the journal broke off"),
        }
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
            let hand_back = failure::unable("agent.stale_assignment", "a newer assignment of the task is held".into());
            return self.refuse(&key, hand_back).await;
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
        let permitted = Task::parse(key.clone(), assignment).and_then(|mut task| {
            let permit = self.worker.sessions.permit(&mut task.plan, task.job);
            permit.map(|()| task).map_err(|refusal| failure::policy(&refusal))
        });
        match permitted {
            Ok(task) => self.begin(task),
            Err(hand_back) => self.refuse(&key, hand_back).await,
        }
    }

    fn begin(&mut self, task: Task) {
        let key = task.key.clone();
        let log = self.shelf.log(&key);
        let (orders, receiver) = watch::channel(Orders::default());
        let started = Arc::new(AtomicBool::new(false));
        let span = tracing::info_span!("task", task_id = %key.task_id, attempt = key.epoch, target = task.plan.host());
        let job = job(Arc::clone(&self.worker), task, log.clone(), receiver, Arc::clone(&started));
        let handle = self.jobs.spawn(job.instrument(span));
        self.job_keys.insert(handle.id(), key.clone());
        self.held.insert(key, Held { log, orders, started, phase: Phase::Active, acknowledged: false });
    }

    /// The control plane has said how to go on with a task that an earlier process started.
    async fn resume(&mut self, resumption: Resumption) {
        let Resumption { key, assignment, output_acked, stale } = resumption;
        let Some(held) = self.held.get_mut(&key) else { return };
        let Phase::Interrupted(start) = &held.phase else { return };
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
        let span = tracing::info_span!("task", task_id = %key.task_id, attempt = key.epoch, target = task.plan.host());
        let job = follow(worker, task, log, orders, Arc::clone(&held.started));
        let handle = self.jobs.spawn(job.instrument(span));
        self.job_keys.insert(handle.id(), key);
    }

    /// Ends a task that waited for its assignment, without having followed it.
    async fn give_up(&mut self, key: &TaskKey, end: failure::End) {
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
    fn let_go(&mut self, phase: &Phase) {
        if let Phase::Interrupted(start) = phase {
            self.worker.sessions.spare_no_more(&start.shell_id);
            self.withheld += 1;
        }
    }

    fn is_waiting(&self) -> bool {
        self.held.values().any(|held| matches!(held.phase, Phase::Interrupted(_)))
    }

    /// The agent stops. What still waits for its assignment stays in the journal: nobody here can end it on its host.
    async fn leave_interrupted(&mut self) {
        let waiting = self.held.iter().filter(|(_, held)| matches!(held.phase, Phase::Interrupted(_)));
        let waiting: Vec<TaskKey> = waiting.map(|(key, _)| key.clone()).collect();
        for key in waiting {
            tracing::warn!(task = %key, "A task that was to be followed again is left to the next start");
            self.held.remove(&key);
            self.worker.tell(Event::Left(key)).await;
        }
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
        let Some(held) = self.held.get(key) else { return Left { phase: None, journalled: true } };
        let message = "the agent has a bug: the task's job broke off".to_owned();
        let log = held.log.clone();
        let mut journalled = true;
        let phase = if held.started.load(Ordering::Acquire) {
            let (state, failure) = failure::broke_off("agent.internal", message);
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
            let (reason, failure) = failure::unable("agent.internal", message);
            self.worker.metrics.task_handed_back(reason);
            self.worker.tell(Event::HandedBack { key: key.clone(), reason, failure: failure.clone() }).await;
            Phase::HandedBack(reason, failure)
        };
        Left { phase: Some(phase), journalled }
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

/// Follows a task that an earlier process started.
async fn follow(
    worker: Arc<Worker>,
    task: Task,
    log: Log,
    orders: watch::Receiver<Orders>,
    started: Arc<AtomicBool>,
) -> Left {
    let accepted = Instant::now();
    let _under_way = worker.metrics.task_under_way();
    let key = task.key.clone();
    let (start, shell_id) = match &task.kind {
        Kind::Follow(followed) => (Some(followed.start.clone()), followed.start.shell_id.clone()),
        Kind::ConnectionTest | Kind::Run(_) => (None, String::new()),
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

async fn job(
    worker: Arc<Worker>,
    task: Task,
    log: Log,
    orders: watch::Receiver<Orders>,
    started: Arc<AtomicBool>,
) -> Left {
    let (accepted, accepted_at) = (Instant::now(), Stamp::now());
    let key = task.key.clone();
    let (outcome, session) = match worker.journal.put(&key, &Record::Accepted).await {
        Ok(()) => {
            worker.tell(Event::Accepted { key: key.clone(), log: log.clone() }).await;
            let run = Run {
                worker: &worker,
                task: &task,
                log: &log,
                orders: orders.clone(),
                started: &started,
                accepted,
                accepted_at,
                start: None,
            };
            run.execute().await
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
async fn conclude(
    worker: &Worker,
    key: &TaskKey,
    log: &Log,
    orders: &watch::Receiver<Orders>,
    accepted: Instant,
    outcome: Outcome,
    session: Option<Lease>,
) -> Left {
    if orders.borrow().forget {
        return Left { phase: None, journalled: true };
    }
    let mut journalled = true;
    let phase = match outcome {
        Outcome::Ended(result) => {
            let state = TaskState::try_from(result.outcome).unwrap_or(TaskState::Unknown);
            worker.metrics.task_finished(state, accepted.elapsed());
            tracing::debug!(outcome = ?state, exit_code = result.exit_code, "Task ended");
            journalled = worker.finish(key, log, result.clone(), session).await;
            Phase::Ended(result)
        }
        Outcome::HandedBack(reason, failure) => {
            worker.metrics.task_handed_back(reason);
            tracing::debug!(reason = ?reason, error = failure.message, "Task handed back");
            let event = Event::HandedBack { key: key.clone(), reason, failure: failure.clone() };
            worker.tell(event).await;
            Phase::HandedBack(reason, failure)
        }
    };
    Left { phase: Some(phase), journalled }
}

/// Takes an acknowledged task out of the journal.
async fn removal(worker: Arc<Worker>, key: TaskKey) -> Chore {
    match worker.journal.remove(&key).await {
        Ok(()) => Chore::Done,
        Err(error) => {
            // Left in the journal it is sent again after a restart, and acknowledged again.
            tracing::warn!(error = %failure::chain(&error), "An acknowledged task stays in the journal");
            Chore::NotRemoved(key)
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
