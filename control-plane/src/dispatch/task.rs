//! What the ledger knows of one task that is not final yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_proto::v1::{Candidate, OutputStream, Target, TaskRef, TaskResult, TaskState};

use super::pauses::Hitch;
use super::routing::Route;
use crate::clock::UnixMillis;

/// A task that is not final.
#[derive(Debug, Clone)]
pub(crate) struct LiveTask {
    /// Order of submission.
    pub(crate) seq: i64,
    pub(crate) task_id: String,
    pub(crate) route: Route,
    pub(crate) credential: String,
    pub(crate) idempotent: bool,
    pub(crate) queue_timeout: Duration,
    pub(crate) phase: Phase,
    /// Epoch of the newest assignment; 0 before the first.
    pub(crate) epoch: u64,
    /// The agent of the newest assignment.
    pub(crate) agent_id: Option<String>,
    /// The agent has journalled it.
    pub(crate) accepted: bool,
    /// The newest assignment is being made ready: its agent has never heard of it.
    pub(crate) unsent: bool,
    /// The agent has journalled the start.
    pub(crate) started: bool,
    /// An earlier assignment may have been carried out, though nobody could tell any more.
    pub(crate) may_have_run: bool,
    /// Version of the credential that the newest assignment carries.
    pub(crate) credential_version: u64,
    pub(crate) queued_at: UnixMillis,
    pub(crate) assigned_at: Option<UnixMillis>,
    pub(crate) started_at: Option<UnixMillis>,
    /// Present once cancellation was asked for: why.
    pub(crate) cancel: Option<String>,
    /// Bytes stored, over all assignments.
    pub(crate) output_bytes: u64,
    /// Where in the log the newest assignment's output begins.
    pub(crate) output_base: u64,
    /// Bytes of the newest assignment's output that were stored or, beyond the bound, counted.
    pub(crate) received: u64,
    /// Agents that could not do it, and why.
    pub(crate) handed_back: BTreeMap<String, String>,
    /// What kept it from starting and passes.
    pub(crate) hitch: Option<Hitch>,
    /// How many assignments came to nothing by that.
    pub(crate) passed: u64,
    /// When the present phase ends by itself.
    pub(crate) deadline: Option<Instant>,
    /// What it shares with other tasks.
    pub(crate) claim: Claim,
}

/// What a task shares with others, and so has to wait for.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Who submitted it.
    pub(crate) submitter: Arc<str>,
    /// The host that it is for: see [`host_key`].
    pub(crate) host: Arc<str>,
    /// The batch it belongs to.
    pub(crate) batch: Option<Arc<str>>,
    /// Which end of its batch this was, from 1, once it is final.
    pub(crate) batch_ended: Option<u32>,
    /// How often it may be tried again after the present try.
    pub(crate) retries_left: u32,
    /// Present while it waits to be tried again: until when.
    pub(crate) retry_at: Option<UnixMillis>,
    /// How the try before ended.
    pub(crate) last_result: Option<Box<TaskResult>>,
}

/// What counts as one host: its name in lower case without a final dot, and the port when the task names one.
pub(crate) fn host_key(target: Option<&Target>) -> String {
    let Some(target) = target else { return String::new() };
    let name = target.host.strip_suffix('.').unwrap_or(&target.host).to_ascii_lowercase();
    match target.connection.as_ref().map_or(0, |connection| connection.port) {
        0 => name,
        port if name.contains(':') => format!("[{name}]:{port}"),
        port => format!("{name}:{port}"),
    }
}

/// Where a live task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for an agent.
    Queued,
    /// Given to an agent under a lease.
    Held,
    /// The lease ran out.
    Lost,
}

impl LiveTask {
    pub(crate) fn state(&self) -> TaskState {
        match (self.phase, self.started) {
            (Phase::Queued, _) => TaskState::Queued,
            (Phase::Held, false) => TaskState::Assigned,
            (Phase::Held, true) => TaskState::Running,
            (Phase::Lost, _) => TaskState::Lost,
        }
    }

    /// How often it was given out, without those times that came to nothing by what passes.
    pub(crate) fn tries(&self) -> u64 {
        self.epoch.saturating_sub(self.passed)
    }

    pub(crate) fn reference(&self) -> TaskRef {
        TaskRef { task_id: self.task_id.clone(), epoch: self.epoch }
    }
}

/// A task that has just become final.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) task: LiveTask,
    pub(crate) result: TaskResult,
    /// Why no agent took it; for rejected tasks.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) at: UnixMillis,
    /// True when the agent that held it reported this result.
    pub(crate) reported: bool,
}

/// Output to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) seq: i64,
    pub(crate) task_id: String,
    /// Offset in the task's log.
    pub(crate) start: u64,
    pub(crate) stream: OutputStream,
    pub(crate) data: Bytes,
}

/// A result that came too late to count.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) task: TaskRef,
    pub(crate) agent_id: String,
    pub(crate) result: TaskResult,
    pub(crate) at: UnixMillis,
}
