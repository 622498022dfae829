//! Tasks from assignment to acknowledged end.
//!
//! [`Engine`] owns the slots and every assignment the agent holds; [`journal`] makes them survive a crash, [`output`]
//! keeps what the control plane has not stored yet, `execute` runs one of them on its host, `errand` one that has none. A command that may have started is
//! never started again. Knows nothing of the link, which drives the engine by [`Command`] and follows it by [`Event`].

mod clock;
pub(crate) mod engine;
mod errand;
mod examine;
mod execute;
mod follow;
pub(crate) mod journal;
pub(crate) mod output;
mod spans;
mod task;

use std::fmt;
use std::sync::Arc;

use lictor_proto::v1::{Assignment, Failure, HandBackReason, TaskRef, TaskResult};

use output::Log;

pub(crate) use engine::{Engine, Handle, Settings};

/// Identity of one assignment of one task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskKey {
    /// The task.
    pub(crate) task_id: Arc<str>,
    /// Which assignment of it.
    pub(crate) epoch: u64,
}

impl TaskKey {
    /// From the wire. Nothing when it names no task.
    pub(crate) fn parse(task: Option<TaskRef>) -> Option<Self> {
        let task = task?;
        let sound = !task.task_id.is_empty() && task.task_id.len() <= MAX_TASK_ID_BYTES && task.epoch > 0;
        sound.then(|| Self { task_id: task.task_id.into(), epoch: task.epoch })
    }

    /// The task, and which assignment of it.
    fn parts(&self) -> (Arc<str>, u64) {
        (Arc::clone(&self.task_id), self.epoch)
    }

    /// For the wire.
    pub(crate) fn to_wire(&self) -> TaskRef {
        TaskRef { task_id: self.task_id.to_string(), epoch: self.epoch }
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task_id, self.epoch)
    }
}

/// What the link tells the engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Take this assignment. Answered by exactly one slot in [`Event::Settled`], sooner or later.
    Assign(Box<Assignment>),
    /// Stop it; the user asked for it.
    Cancel {
        /// Which.
        key: TaskKey,
        /// Why, in words.
        reason: String,
    },
    /// What the control plane decided about an assignment of [`Event::Interrupted`].
    Resume(Box<Resumption>),
    /// Its epoch is stale: stop it on the host and forget it.
    Stale(TaskKey),
    /// Nobody waits for it any more: let it end and forget it.
    Forget(TaskKey),
    /// Output before `offset` is stored.
    OutputAcked {
        /// Which.
        key: TaskKey,
        /// All bytes before this offset are stored.
        offset: u64,
        /// What follows need not be sent.
        full: bool,
    },
    /// The end is stored.
    EndAcked(TaskKey),
    /// The hand-back has arrived.
    HandBackDelivered(TaskKey),
    /// Take nothing new and come to an end.
    Drain(String),
}

/// How to go on with a task that ran when the agent's last process ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resumption {
    /// Which.
    pub(crate) key: TaskKey,
    /// The assignment, its secret sealed anew. Nothing: the command cannot be followed.
    pub(crate) assignment: Option<Box<Assignment>>,
    /// Output before this offset is stored.
    pub(crate) output_acked: u64,
    /// Its epoch is stale: end it on the host and forget it.
    pub(crate) stale: bool,
}

/// What the engine tells the link, in order.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The assignment is journalled.
    Accepted {
        /// Which.
        key: TaskKey,
        /// Its output to be.
        log: Log,
    },
    /// It ran when the agent's last process ended. It goes on with [`Command::Resume`].
    Interrupted {
        /// Which.
        key: TaskKey,
        /// Its output, once it goes on.
        log: Log,
    },
    /// The agent stops, and leaves it as it is to its next process.
    Left(TaskKey),
    /// Its start is journalled.
    Started(TaskKey),
    /// It ended; the end is journalled.
    Ended {
        /// Which.
        key: TaskKey,
        /// How.
        result: Box<TaskResult>,
        /// Its output.
        log: Log,
    },
    /// It is given back, not started.
    HandedBack {
        /// Which.
        key: TaskKey,
        /// Why.
        reason: HandBackReason,
        /// In words.
        failure: Box<Failure>,
    },
    /// This many assignments have freed their slots since the engine started.
    Settled(u64),
    /// Why the journal cannot be written, in words; nothing when it can again.
    Impaired(Option<Arc<str>>),
    /// The engine takes nothing new from now on.
    Draining(String),
    /// Draining, and nothing runs any more.
    Idle,
}

/// Longer ids than the control plane makes; bounds file names, journal keys and log lines.
const MAX_TASK_ID_BYTES: usize = 128;
