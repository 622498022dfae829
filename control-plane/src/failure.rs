//! Every failure that the control plane itself makes: stage, stable code, cause and what to do about it, in one place.
//!
//! Failures that agents report pass through untouched.

mod examples;
mod secrets;

use std::time::Duration;

pub use examples::catalogue;
use lictor_proto::v1::{Candidate, Failure, RungOutcome, TaskResult, TaskState};
pub(crate) use secrets::*;

/// The sentence that users of the older tool search for.
const NO_ELIGIBLE_DELEGATES: &str = "There are no eligible delegates available in the account to execute the task.";
const DELEGATE_DISCONNECTED: &str = "The delegate disconnected while executing the task.";

/// Why an assignment's fate is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vanished {
    /// The lease and the wait behind it ran out.
    LeaseExpired,
    /// The agent came back without it.
    Forgotten,
    /// The agent enrolled anew, without its journal.
    JournalLost,
    /// The agent was revoked while it held it.
    Revoked,
    /// The agent handed it back although it had started it.
    HandedBackAfterStart,
    /// The agent ended it without a final state.
    NoOutcome,
}

/// A result that no agent made.
pub(crate) fn result(outcome: TaskState, failure: Option<Failure>) -> TaskResult {
    TaskResult { outcome: outcome.into(), failure, ..TaskResult::default() }
}

/// What is stored of the task cannot be decrypted.
pub(crate) fn unreadable(why: &str) -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "task.unreadable".into(),
        message: format!("what is stored of the task cannot be read: {why}"),
        cause: "the control plane was started with another master key".into(),
        remedy: "start it with the master key that it had when the task was submitted".into(),
        ..Failure::default()
    }
}

/// The task had not ended in the backup that the database was restored from.
pub(crate) fn restored() -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "control_plane.restored".into(),
        message: "the task had not ended when the backup was made from which the control plane was restored".into(),
        cause: "What happened to it since then is not in the backup.".into(),
        remedy: "Look on the host what the command did, and submit the task again if need be.".into(),
        legacy_text: String::new(),
        may_have_started: true,
        ..Failure::default()
    }
}

/// The task waited in vain.
pub(crate) fn no_agent(waited: Duration, candidates: &[Candidate]) -> Failure {
    let mut reasons: Vec<String> =
        candidates.iter().take(MAX_NAMED).map(|c| format!("{}: {}", c.agent_name, c.reason)).collect();
    if candidates.len() > MAX_NAMED {
        reasons.push(format!("and {} more", candidates.len() - MAX_NAMED));
    }
    let (detail, cause) = if reasons.is_empty() {
        ("no agent has ever enrolled".to_owned(), "There is no agent.")
    } else {
        (reasons.join("; "), "No agent fits the task's selector and kind and had a free slot in time.")
    };
    Failure {
        stage: "control_plane".into(),
        code: "no_agent".into(),
        message: format!("no agent took the task within {}: {detail}", humantime::format_duration(waited)),
        cause: cause.into(),
        remedy: "Look at the candidates and their reasons; start an agent with the tags and scope that the task asks \
                 for, change the selector, or raise queue_timeout."
            .into(),
        legacy_text: NO_ELIGIBLE_DELEGATES.into(),
        ..Failure::default()
    }
}

/// Agent after agent gave the task back, or never took it in.
pub(crate) fn too_many_assignments(times: u64) -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "too_many_assignments".into(),
        message: format!("the task was given to agents {times} times, and none of them carried it out"),
        cause: "Agents restart, drain or lose the connection before they start it, or it makes them restart.".into(),
        remedy: "Look at the agents' logs around the task's id, then submit the task again.".into(),
        ..Failure::default()
    }
}

/// So many tasks of a batch failed that the rest of it was not started.
pub(crate) fn batch_threshold(message: &str) -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "batch.threshold".into(),
        message: format!("the batch was stopped before this task started: {message}"),
        cause: "More tasks of the batch failed than it allows.".into(),
        remedy: "Look at those that failed, then submit a batch with the hosts that are left.".into(),
        ..Failure::default()
    }
}

/// The credential's version was rejected by a host.
pub(crate) fn credential_rejected(name: &str, version: u64) -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "credential.rejected".into(),
        message: format!(
            "version {version} of the credential {name} was rejected by a host and is not handed out again"
        ),
        cause: "The user name or password is wrong, or the account is locked or disabled.".into(),
        remedy: format!("Store the right password with `lictor credential put {name}`, then submit the task again."),
        ..Failure::default()
    }
}

/// The credential was deleted while the task waited.
pub(crate) fn credential_deleted(name: &str) -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "credential.deleted".into(),
        message: format!("the credential {name} was deleted while the task waited for an agent"),
        cause: "Somebody deleted the credential.".into(),
        remedy: "Store the credential again, or name another one, then submit the task again.".into(),
        ..Failure::default()
    }
}

/// The credential cannot be handed over.
pub(crate) fn credential_unusable(name: &str, reason: &str) -> Failure {
    Failure {
        stage: "control_plane".into(),
        code: "credential.unusable".into(),
        message: format!("the credential {name} could not be handed to the agent: {reason}"),
        cause: "The stored secret does not decrypt with the control plane's master key, or the agent's sealing key is \
                malformed."
            .into(),
        remedy: format!(
            "Start the control plane with the master key the credential was stored with, or store it again with \
             `lictor credential put {name}`."
        ),
        ..Failure::default()
    }
}

/// A task that is given up, though an earlier assignment of it may have been carried out: to call it rejected or cancelled
/// would say that nothing happened.
pub(crate) fn perhaps_done_before(mut result: TaskResult) -> TaskResult {
    result.outcome = TaskState::Unknown.into();
    say_done_before(result.failure.get_or_insert_with(cancelled));
    result
}

fn cancelled() -> Failure {
    Failure {
        stage: "queue".into(),
        code: "task.cancelled".into(),
        message: "the task was cancelled".into(),
        cause: "Somebody asked for the task's cancellation.".into(),
        ..Failure::default()
    }
}

/// The same for a task whose newest assignment was reported on: its end stands, but its failure tells of that assignment
/// alone, and whoever reads that nothing started would be misled.
pub(crate) fn perhaps_done_before_reported(mut result: TaskResult) -> TaskResult {
    if let Some(failure) = result.failure.as_mut().filter(|failure| !failure.may_have_started) {
        say_done_before(failure);
    }
    result
}

fn say_done_before(failure: &mut Failure) {
    failure.may_have_started = true;
    failure.message = format!("an earlier attempt may have been carried out; then: {}", failure.message);
    failure.remedy = format!("Look on the host what the command did. {}", failure.remedy).trim_end().to_owned();
}

/// An assignment whose fate is not known.
pub(crate) fn vanished(why: Vanished, agent_name: &str) -> Failure {
    let (stage, code, message, cause) = match why {
        Vanished::LeaseExpired => (
            "lease",
            "lease.expired",
            format!("the lease of agent {agent_name} ran out and the agent did not come back in time"),
            "The agent died, or the network between it and the control plane is down.",
        ),
        Vanished::Forgotten => (
            "agent",
            "agent.lost_task",
            format!("agent {agent_name} came back without the task it had been given"),
            "The agent's process was killed and its journal does not hold the task.",
        ),
        Vanished::JournalLost => (
            "agent",
            "agent.lost_journal",
            format!("agent {agent_name} enrolled anew and its journal is gone"),
            "The agent's state directory did not survive its restart.",
        ),
        Vanished::Revoked => (
            "agent",
            "agent.revoked",
            format!("agent {agent_name} was revoked while it held the task"),
            "Somebody revoked the agent.",
        ),
        Vanished::HandedBackAfterStart => (
            "agent",
            "agent.contradiction",
            format!("agent {agent_name} handed the task back although it had reported its start"),
            "The agent has a defect.",
        ),
        Vanished::NoOutcome => (
            "agent",
            "agent.contradiction",
            format!("agent {agent_name} ended the task without a final state"),
            "The agent has a defect or is newer than this control plane.",
        ),
    };
    Failure {
        stage: stage.into(),
        code: code.into(),
        message,
        cause: cause.into(),
        remedy: "The command may have run: check the host before you submit it again. Declare the task idempotent if \
                 running it twice does no harm."
            .into(),
        legacy_text: DELEGATE_DISCONNECTED.into(),
        may_have_started: true,
        ..Failure::default()
    }
}

/// True when the result says that the host or the domain rejected the credential.
pub(crate) fn rejects_credential(result: &TaskResult) -> bool {
    let failed = result.rungs.iter().filter(|rung| rung.outcome() == RungOutcome::Failed);
    let rungs = failed.filter_map(|rung| rung.failure.as_ref());
    result.failure.iter().chain(rungs).any(|failure| REJECTIONS.contains(&failure.code.as_str()))
}

/// Codes by which agents say that a host, the domain or a KDC did not take a credential: only another secret helps. Left out are
/// the KDC's refusals of the account (locked, disabled, not at this hour): they pass, or an administrator ends them, and the
/// credential stays as it is. No proof is judged by them, so that asking again locks nobody out.
const REJECTIONS: &[&str] = &[
    "auth.rejected",
    "kerberos.keytab_rejected",
    "kerberos.password_expired",
    "kerberos.password_must_change",
    "kerberos.password_rejected",
];

/// Most agents named in one message; the rest stands in the candidates.
const MAX_NAMED: usize = 10;
