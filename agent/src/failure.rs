//! The one map from what went wrong to what follows from it: a task's outcome, or what the agent does next.
//!
//! Modules say what happened; only here is decided what that means, each row with its reason. Nothing here does
//! anything by itself. Called by `tasks`, `link` and `app`.

mod examples;

use std::error::Error as StdError;

use lictor_proto::v1::{Failure, HandBackReason, Rung, Suspect, TaskState};
use lictor_winrm::Error as WinrmError;
use lictor_winrm::error::{ErrorKind, Report};

use crate::enrol::EnrolError;
use crate::enrol::proxy::Advice;
use crate::enrol::tls::ConnectError;
use crate::kerberos::Unusable;
use crate::policy::Refusal;
use crate::secrets::{SecretError, SourceError};
use crate::sessions::AccessError;
pub use examples::catalogue;

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It ends in this state.
    End(TaskState, Box<Failure>),
    /// It goes back, not started.
    HandBack(HandBackReason, Box<Failure>),
}

impl Verdict {
    fn end(state: TaskState, failure: Failure) -> Self {
        Self::End(state, Box::new(failure))
    }
}

/// A task that goes back: why, and in words.
pub(crate) type HandBack = (HandBackReason, Box<Failure>);

/// A task that ends: how, and in words.
pub(crate) type End = (TaskState, Box<Failure>);

impl From<HandBack> for Verdict {
    fn from((reason, failure): HandBack) -> Self {
        Self::HandBack(reason, failure)
    }
}

/// The whole chain of causes on one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    Report::of(error).to_string()
}

/// A failure on the way to a Windows host, for the wire.
pub(crate) fn winrm(error: &WinrmError) -> Failure {
    Failure {
        stage: error.stage().as_str().into(),
        code: error.code().into(),
        message: error.report().to_string(),
        cause: error.cause(),
        remedy: error.remedy(),
        legacy_text: error.legacy_text().unwrap_or_default().into(),
        may_have_started: error.may_have_started(),
        suspects: Vec::new(),
    }
}

/// No session could be leased.
pub(crate) fn leasing(error: &WinrmError) -> Verdict {
    let state = match error.kind() {
        // The wait ended because the task's own deadline came, perhaps while other tasks held every place.
        ErrorKind::PoolTimeout { .. } | ErrorKind::DeadlinePassed => TaskState::TimedOut,
        // Nobody but the agent's policy limits addresses. Another agent may resolve the name, or be allowed, differently.
        ErrorKind::AddressForbidden { .. } => {
            let rule = "hosts.allow and hosts.deny of the agent's policy do not allow it";
            return refused("policy.address", format!("{}: {rule}", error.report())).into();
        }
        // Not handed back, though another agent might reach the host: a user who mistyped a name wants to hear so now, and
        // not after the queue's timeout. Routing by reachability is decided before assignment.
        _ => TaskState::Failed,
    };
    Verdict::end(state, Failure { may_have_started: false, ..winrm(error) })
}

/// Command could not be sent, or its answer did not arrive.
pub(crate) fn starting(error: &WinrmError) -> Verdict {
    // A request whose answer was lost may have been carried out: only the host knows, and asking again could run it twice.
    let state = if error.may_have_started() { TaskState::Unknown } else { TaskState::Failed };
    Verdict::end(state, winrm(error))
}

/// The command was to go to another shell, because the first one is gone, and that could not be journalled.
pub(crate) fn not_journalled(message: &str) -> Verdict {
    // Not handed back: the start is journalled, and told. The command itself surely was not sent.
    let failure = Failure { may_have_started: false, ..internal("agent.journal", message.to_owned()) };
    Verdict::end(TaskState::Failed, failure)
}

/// Receiving broke for good.
pub(crate) fn receiving(error: &WinrmError) -> Verdict {
    // It did start, whatever the error knows about that: Unknown, never Failed.
    Verdict::end(TaskState::Unknown, Failure { may_have_started: true, ..winrm(error) })
}

/// Why a command was to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// The user asked, with this reason.
    Cancelled(String),
    /// The task's own timeout.
    Deadline,
    /// The agent stops, and the grace is over.
    Drained,
}

/// A task was stopped before its command was sent.
pub(crate) fn stopped_before_start(cause: &StopCause) -> Verdict {
    match cause {
        StopCause::Cancelled(_) => Verdict::end(TaskState::Cancelled, cancelled(cause)),
        StopCause::Deadline => Verdict::end(TaskState::TimedOut, cancelled(cause)),
        // Nothing has happened yet, so another agent can take it.
        StopCause::Drained => draining().into(),
    }
}

/// A command was stopped, and the host confirmed.
pub(crate) fn stopped(cause: &StopCause) -> Verdict {
    let state = match cause {
        StopCause::Cancelled(_) => TaskState::Cancelled,
        StopCause::Deadline => TaskState::TimedOut,
        // Somebody asked the agent to stop, and with it the task; that the command is gone is known, so it is no Unknown,
        // and it did not end by itself, so it is no Failed. The failure's code tells it from a user's cancellation.
        StopCause::Drained => TaskState::Cancelled,
    };
    Verdict::end(state, Failure { may_have_started: true, ..cancelled(cause) })
}

/// A command was to be stopped that the host had not taken yet: it put it off, or could not be reached.
pub(crate) fn stopped_while_starting(cause: &StopCause, error: &WinrmError) -> Verdict {
    let state = match cause {
        StopCause::Deadline => TaskState::TimedOut,
        // Not handed back when drained: the start is journalled, and told.
        StopCause::Cancelled(_) | StopCause::Drained => TaskState::Cancelled,
    };
    let mut failure = Failure { may_have_started: false, ..winrm(error) };
    failure.message = format!("{} before the host took the command: {}", cancelled(cause).message, failure.message);
    Verdict::end(state, failure)
}

/// A command was to be stopped, and the host did not confirm.
pub(crate) fn not_stopped(cause: &StopCause, error: &WinrmError) -> Verdict {
    let why = cancelled(cause);
    // The command may go on running: neither Cancelled nor TimedOut would be true.
    let mut failure = Failure { may_have_started: true, ..winrm(error) };
    failure.message =
        format!("{}, but the host did not confirm that the command ended: {}", why.message, failure.message);
    failure.remedy = format!("Look on the host whether the command still runs. {}", failure.remedy);
    Verdict::end(TaskState::Unknown, failure)
}

fn cancelled(cause: &StopCause) -> Failure {
    let (code, message, cause, remedy) = match cause {
        StopCause::Cancelled(reason) => {
            let message = if reason.is_empty() { "cancelled".into() } else { format!("cancelled: {reason}") };
            ("agent.cancelled", message, "Somebody asked for the task's cancellation", "")
        }
        StopCause::Deadline => (
            "agent.timeout",
            "the task's timeout ran out".to_owned(),
            "The command, or the wait for a session, took longer than the task's timeout",
            "Give the task a longer timeout, or find out what the command waits for",
        ),
        StopCause::Drained => (
            "agent.drained",
            "the agent stopped, and the command did not end within its drain grace".to_owned(),
            "The agent was asked to stop while the command ran, and drain_grace was over first",
            "Submit the task again; give the agent a longer drain_grace for commands like this one",
        ),
    };
    Failure {
        stage: "agent".into(),
        code: code.into(),
        message,
        cause: cause.into(),
        remedy: remedy.into(),
        ..Failure::default()
    }
}

/// The agent takes nothing new.
pub(crate) fn draining() -> HandBack {
    let failure = Failure {
        stage: "agent".into(),
        code: "agent.draining".into(),
        message: "the agent is draining and had not started the task".into(),
        cause: "The agent was asked to stop".into(),
        remedy: "Nothing; another agent can take the task".into(),
        ..Failure::default()
    };
    (HandBackReason::Draining, Box::new(failure))
}

/// The agent restarted before the task was started.
pub(crate) fn restarted_before_start() -> HandBack {
    let failure = Failure {
        message: "the agent restarted before it started the task".into(),
        remedy: "Nothing; the task can be assigned again".into(),
        ..restart()
    };
    (HandBackReason::Restarted, Box::new(failure))
}

/// The agent restarted after the start was journalled.
pub(crate) fn restarted_after_start(host: &str, command_id: &str) -> End {
    let place = if host.is_empty() { "the host".to_owned() } else { host.to_owned() };
    let command = if command_id.is_empty() { String::new() } else { format!(" (command {command_id})") };
    let failure = Failure {
        message: format!("the agent restarted while the task ran on {place}{command}"),
        remedy: format!("Look on {place} what the command did before running it again"),
        may_have_started: true,
        ..restart()
    };
    // Its end was not journalled, so it is not known; running it again could do its work twice.
    (TaskState::Unknown, Box::new(failure))
}

/// The agent restarted after the start was journalled, and the command could not be followed any further.
pub(crate) fn not_followed(host: &str, command_id: &str, why: &str) -> End {
    let (state, mut failure) = restarted_after_start(host, command_id);
    failure.message = format!("{}, and could not follow it again: {why}", failure.message);
    (state, failure)
}

/// The same, with what a host or the way to it had to say.
pub(crate) fn not_followed_on_host(host: &str, error: &WinrmError) -> Verdict {
    let (state, restarted) = restarted_after_start(host, "");
    let mut failure = Failure { may_have_started: true, ..winrm(error) };
    failure.message = format!("{}, and could not follow it again: {}", restarted.message, failure.message);
    failure.remedy = format!("{}. {}", restarted.remedy, failure.remedy);
    Verdict::End(state, Box::new(failure))
}

/// The agent was killed while it sent the command's input. What the command made of a part of it is not known.
pub(crate) fn input_cut(host: &str, stopped: Result<(), &WinrmError>) -> Verdict {
    let (state, mut failure) = restarted_after_start(host, "");
    let end = match stopped {
        Ok(()) => "the command was ended on its host".to_owned(),
        Err(error) => format!("the host did not confirm that the command ended: {}", error.report()),
    };
    failure.code = "agent.input_cut".into();
    failure.message = format!("the agent restarted while it sent the command's input; {end}");
    Verdict::End(state, failure)
}

fn restart() -> Failure {
    Failure {
        stage: "agent".into(),
        code: "agent.restarted".into(),
        cause: "The agent's process was killed or crashed".into(),
        ..Failure::default()
    }
}

/// What proves the user, or what else the task needs to know, is not available.
pub(crate) fn access(error: &AccessError) -> Verdict {
    match error {
        AccessError::Secret(error) => secret(error),
        AccessError::Kerberos(unusable) => kerberos(unusable).into(),
        AccessError::Delivery(_) | AccessError::NoSecret => invalid(error).into(),
    }
}

/// This agent lacks what Kerberos needs. Another one may have it: each row goes back as what this agent cannot do.
fn kerberos(error: &Unusable) -> HandBack {
    let (code, cause, remedy) = match error {
        Unusable::Off => (
            "kerberos.not_configured",
            "The agent found no krb5.conf, and its settings declare no realm",
            "Mount a krb5.conf, or set kerberos.realms in the agent's settings, and start the agent again",
        ),
        Unusable::Keytab { .. } => (
            "kerberos.keytab_not_permitted",
            "A task may use no other files of the agent as keytabs than those that its settings list",
            "Correct the path in the credential, or add it to kerberos.keytabs in the agent's settings",
        ),
        Unusable::NoKey { .. } => (
            "kerberos.no_key",
            "The keytabs have changed since the agent announced what they hold",
            "Put a key of the user into a keytab of the agent; look at it with `lictor keytab list`",
        ),
        Unusable::Cache { .. } => (
            "kerberos.cache_not_permitted",
            "A task may use no other credential caches of the agent than the default one and those that its settings list",
            "Correct the name in the credential, or add it to kerberos.caches in the agent's settings",
        ),
        Unusable::Realm { .. } => (
            "kerberos.no_realm",
            "Kerberos needs the realm of the user; a NetBIOS domain does not say it, and a realm that a task or credential names must be \
             the default one of the agent or have KDCs in its krb5.conf",
            "Write the user as alice@CORP.EXAMPLE, or set the realm in the credential (--realm) to one that the agent's krb5.conf lists",
        ),
    };
    let failure = Failure {
        stage: "authenticate".into(),
        code: code.into(),
        message: chain(error),
        cause: cause.into(),
        remedy: remedy.into(),
        ..Failure::default()
    };
    (HandBackReason::Unable, Box::new(failure))
}

/// A secret is not available. Nothing has started.
pub(crate) fn secret(error: &SecretError) -> Verdict {
    use HandBackReason::{Invalid, Unable};
    let (reason, code, cause, remedy) = match error {
        SecretError::Kms { source, .. } => return wrapped(error, source),
        SecretError::Refused(refusal) => return policy(refusal).into(),
        SecretError::Unknown { .. } => return unsupported(error).into(),
        SecretError::Source { source, .. } => return on_agent(error, source).into(),
        // It was sealed for a key that this agent does not have any more; sealed anew, for this agent or another, it opens.
        SecretError::Sealed { .. } | SecretError::NoKey { .. } => (
            Unable,
            "secret.unsealable",
            "The secret was sealed for another key, agent or task",
            "Submit the task again; when that does not help, let the agent enrol anew",
        ),
        // It opens the same everywhere; so do the next three.
        SecretError::NotText { .. } => (
            Invalid,
            "secret.not_text",
            "The secret holds something other than text, which passwords, variables and authorities are",
            "Put the secret again as UTF-8 without NUL, or as a file where bytes may be",
        ),
        SecretError::Empty { .. } => {
            (Invalid, "secret.empty", "The secret holds nothing", "Put the secret again, with its value")
        }
        SecretError::TooLong { .. } => (
            Invalid,
            "secret.too_long",
            "The secret is longer than what it is used for can be",
            "Put a shorter value; hand long ones to a script as a file on its host",
        ),
        SecretError::Malformed { .. } => (
            Invalid,
            "secret.malformed",
            "What the control plane sent with the task contradicts itself",
            "Put the secret again; when that does not help, compare the versions of control plane and agent",
        ),
    };
    (reason, Box::new(of_secret(error, code, cause, remedy))).into()
}

/// A secret is under AWS KMS.
fn wrapped(error: &SecretError, source: &lictor_kms::Error) -> Verdict {
    let failure = Failure { stage: "secret".into(), message: chain(error), ..kms(source) };
    // Throttled, out of service or out of reach, after retries: another agent may have another way, or other quotas, and it passes.
    if source.is_passing() {
        return (HandBackReason::Passing, Box::new(failure)).into();
    }
    // Where this machine has no identity at all, another may have one.
    if is_of_machine(source.code()) {
        return (HandBackReason::Unable, Box::new(failure)).into();
    }
    // AWS has judged: the identity is the same wherever the manager may be used, but for the machine's own. A refusal that went from
    // agent to agent would hide what AWS said, and ask it once more each time. Whoever has agents that may and agents that may not
    // says so by the manager's tags.
    Verdict::end(TaskState::Failed, failure)
}

/// What the library says.
pub(crate) fn kms(error: &lictor_kms::Error) -> Failure {
    let suspects = error.suspects().into_iter();
    let suspects =
        suspects.map(|suspect| Suspect { code: suspect.code.into(), cause: suspect.cause, remedy: suspect.remedy });
    Failure {
        stage: error.stage().as_str().into(),
        code: error.code().into(),
        message: chain(error),
        cause: error.cause().to_owned(),
        remedy: error.remedy().to_owned(),
        legacy_text: error.legacy_text().unwrap_or_default().to_owned(),
        may_have_started: false,
        suspects: suspects.collect(),
    }
}

/// Whether it says that the machine has no identity for AWS, which is for another machine to have.
fn is_of_machine(code: &str) -> bool {
    matches!(code, "kms.no_credentials" | "kms.imds" | "kms.machine_credentials")
}

/// A secret that is to be on the agent. Another agent may have it: each row goes back as what this agent cannot do, but for a source
/// that is none.
fn on_agent(error: &SecretError, source: &SourceError) -> HandBack {
    let (reason, code, cause, remedy) = match source {
        SourceError::Form(_) => (
            HandBackReason::Invalid,
            "secret.malformed",
            "The secret's source is neither a file nor a variable of the agent",
            "Put the secret again with `file:` and an absolute path, or `env:` and the name of a variable",
        ),
        SourceError::NotPermitted { .. } => (
            HandBackReason::Unable,
            "secret.source_not_permitted",
            "A task may use no other files of the agent as secrets than those in the directories that its settings list",
            "Correct the secret's source, or add the directory to secrets.directories in the agent's settings",
        ),
        SourceError::Missing { .. } => (
            HandBackReason::Unable,
            "secret.source_missing",
            "This agent was not given the file or variable",
            "Mount the file, or start the agent with the variable; select agents that have it by their tags",
        ),
        SourceError::Unfit { .. } | SourceError::Read { .. } => (
            HandBackReason::Unable,
            "secret.source_unreadable",
            "The file is none, leads elsewhere, is empty or too long, or the agent's user may not read it",
            "Look at the file on the agent: a regular file within secrets.directories, of 1 byte to 256 KiB, readable by the agent",
        ),
    };
    (reason, Box::new(of_secret(error, code, cause, remedy)))
}

fn of_secret(error: &SecretError, code: &str, cause: &str, remedy: &str) -> Failure {
    Failure {
        stage: "secret".into(),
        code: code.into(),
        message: chain(error),
        cause: cause.into(),
        remedy: remedy.into(),
        ..Failure::default()
    }
}

/// The assignment makes no sense.
pub(crate) fn invalid(error: &(dyn StdError + 'static)) -> HandBack {
    let failure = Failure {
        stage: "agent".into(),
        code: "agent.invalid_task".into(),
        message: chain(error),
        cause: "The task asks for something that cannot be".into(),
        remedy: "Correct the task and submit it again".into(),
        ..Failure::default()
    };
    (HandBackReason::Invalid, Box::new(failure))
}

/// The assignment asks for something that this version does not have.
pub(crate) fn unsupported(error: &(dyn StdError + 'static)) -> HandBack {
    let failure = Failure {
        stage: "agent".into(),
        code: "agent.unsupported".into(),
        message: chain(error),
        cause: "The agent's version is older than the task's features".into(),
        remedy: "Update the agent, or send the task to a newer one".into(),
        ..Failure::default()
    };
    (HandBackReason::Unable, Box::new(failure))
}

/// The agent's own policy does not allow the task.
pub(crate) fn policy(refusal: &Refusal) -> HandBack {
    refused(refusal.code, refusal.to_string())
}

fn refused(code: &str, message: String) -> HandBack {
    let failure = Failure {
        stage: "policy".into(),
        code: code.into(),
        message,
        cause: "Whoever runs the agent limits what it does, whatever the control plane asks for".into(),
        remedy: "Send the task to another agent, or ask whoever runs this one to change its policy file".into(),
        ..Failure::default()
    };
    (HandBackReason::Policy, Box::new(failure))
}

/// The task was assigned anew, and this is the older assignment.
pub(crate) fn stale_assignment() -> HandBack {
    let failure = Failure {
        stage: "agent".into(),
        code: "agent.stale_assignment".into(),
        message: "a newer assignment of the task is held".into(),
        cause: "The control plane gave the task out again, and the older assignment came later".into(),
        remedy: "Nothing; the newer assignment counts".into(),
        ..Failure::default()
    };
    (HandBackReason::Unable, Box::new(failure))
}

/// The agent has a bug, and the task has surely not started.
pub(crate) fn broke_off_before_start(message: String) -> HandBack {
    let failure = Failure { may_have_started: false, ..internal("agent.internal", message) };
    (HandBackReason::Unable, Box::new(failure))
}

/// The task could not be written down, and was not started.
pub(crate) fn not_written_down(message: String) -> HandBack {
    let failure = Failure { may_have_started: false, ..internal("agent.journal", message) };
    // Nothing is wrong with it: whoever has room takes it, perhaps this agent once its disk works again.
    (HandBackReason::Restarted, Box::new(failure))
}

/// The agent has a bug, and the task may have started.
pub(crate) fn broke_off(message: String) -> End {
    (TaskState::Unknown, Box::new(Failure { may_have_started: true, ..internal("agent.internal", message) }))
}

fn internal(code: &str, message: String) -> Failure {
    Failure {
        stage: "agent".into(),
        code: code.into(),
        message,
        cause: "Something is wrong with the agent or its state directory".into(),
        remedy: "Look at the agent's log and at the free space of its state directory".into(),
        ..Failure::default()
    }
}

/// A failed connection test.
pub(crate) fn ladder(error: &WinrmError, deadline_passed: bool) -> Verdict {
    // What a test runs on the host does no harm, so it is never Unknown.
    let state = if deadline_passed { TaskState::TimedOut } else { TaskState::Failed };
    Verdict::end(state, Failure { may_have_started: false, ..winrm(error) })
}

/// Whether the code says that a host, the domain or a KDC did not take a credential: only another secret helps. The control plane
/// stops handing out its version over the same codes.
pub(crate) fn rejects_credential(code: &str) -> bool {
    matches!(
        code,
        "auth.rejected"
            | "kerberos.keytab_rejected"
            | "kerberos.password_expired"
            | "kerberos.password_must_change"
            | "kerberos.password_rejected"
    )
}

/// A failed step of an examination. What it does harms nothing, so it is never Unknown.
pub(crate) fn examined(rung: Rung, deadline_passed: bool) -> Verdict {
    let state = if deadline_passed { TaskState::TimedOut } else { TaskState::Failed };
    Verdict::end(
        state,
        rung.failure.unwrap_or_else(|| Failure { stage: rung.stage, message: rung.detail, ..Failure::default() }),
    )
}

/// What the agent does about a failed enrolment, renewal or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Try again after a while.
    Retry,
    /// Throw the certificate away and enrol by token.
    EnrolAgain,
    /// End the process with this code; trying again cannot help.
    Stop(ExitCode),
}

/// Exit codes of `lictor-agent`. Listed in `--help` and in `docs/agent-settings.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Drained and stopped as asked.
    Success = 0,
    /// A failure that none of the others describes.
    Other = 1,
    /// The configuration has mistakes.
    Configuration = 64,
    /// The control plane refused the join token, or there is none.
    Enrolment = 65,
    /// The control plane is not the one that the join token names.
    Pin = 66,
    /// The agent was revoked.
    Revoked = 67,
    /// The state directory cannot be used.
    State = 68,
    /// Stopped at once by a second signal.
    Interrupted = 69,
    /// The bootstrap script failed, and the settings say that the agent is not to run then.
    Bootstrap = 70,
    /// `doctor` found something that does not work.
    Ailing = 72,
}

/// What to tell people about a connection that did not come about.
pub(crate) fn connecting(error: &EnrolError) -> Option<Advice> {
    match error {
        EnrolError::Connect(ConnectError::Proxy { source, .. }) => Some(source.advice()),
        _ => None,
    }
}

/// What follows from an enrolment, renewal or connection that failed.
pub(crate) fn recovery(error: &EnrolError) -> Recovery {
    match error {
        // An expired, used-up or revoked token does not come back; a supervisor's restart is the right pace for a new one.
        EnrolError::TokenRefused(_) | EnrolError::NoToken | EnrolError::Token { .. } => {
            Recovery::Stop(ExitCode::Enrolment)
        }
        // The name, the tags or the request as a whole: asking again gives the same answer.
        EnrolError::Invalid(_) => Recovery::Stop(ExitCode::Enrolment),
        // Somebody else answers. Going on trying would hand him more chances; a person must look.
        EnrolError::Connect(ConnectError::Pin { .. }) => Recovery::Stop(ExitCode::Pin),
        EnrolError::Forbidden(_) => Recovery::Stop(ExitCode::Revoked),
        // The certificate ended beyond its grace, or the control plane lost its state: the token is the way back.
        EnrolError::CertificateRefused(_) => Recovery::EnrolAgain,
        EnrolError::Storage { .. } | EnrolError::Malformed { .. } => Recovery::Stop(ExitCode::State),
        EnrolError::Keys(_) | EnrolError::SealingKey(_) => Recovery::Stop(ExitCode::Other),
        // The control plane is starting, restarting or out of reach. TLS too: its certificate may be about to be renewed.
        EnrolError::Connect(_) | EnrolError::Call { .. } | EnrolError::Answer { .. } => Recovery::Retry,
    }
}

#[cfg(test)]
mod tests {
    use lictor_winrm::Stage;

    use super::*;

    fn error(stage: Stage) -> WinrmError {
        WinrmError::new(stage, ErrorKind::ConnectionClosed).with_source(std::io::Error::other("reset by peer"))
    }

    fn state(verdict: &Verdict) -> (TaskState, bool) {
        match verdict {
            Verdict::End(state, failure) => (*state, failure.may_have_started),
            Verdict::HandBack(..) => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn what_may_have_started_is_unknown_and_never_failed() {
        assert_eq!(state(&starting(&error(Stage::Run))), (TaskState::Failed, false));
        assert_eq!(state(&starting(&error(Stage::Run).after_start())), (TaskState::Unknown, true));
        assert_eq!(state(&receiving(&error(Stage::Receive))), (TaskState::Unknown, true));
        assert_eq!(state(&leasing(&error(Stage::Connect))), (TaskState::Failed, false));
        for (state, failure) in [restarted_after_start("h", "c"), broke_off("x".into())] {
            assert_eq!((state, failure.may_have_started), (TaskState::Unknown, true));
        }
    }

    #[test]
    fn an_unconfirmed_stop_is_unknown_whatever_its_cause() {
        for (cause, confirmed) in [
            (StopCause::Cancelled("why".into()), TaskState::Cancelled),
            (StopCause::Deadline, TaskState::TimedOut),
            (StopCause::Drained, TaskState::Cancelled),
        ] {
            assert_eq!(state(&stopped(&cause)), (confirmed, true));
            assert_eq!(state(&not_stopped(&cause, &error(Stage::Close))), (TaskState::Unknown, true));
        }
        assert!(matches!(stopped_before_start(&StopCause::Drained), Verdict::HandBack(HandBackReason::Draining, _)));
        assert_eq!(state(&stopped_before_start(&StopCause::Cancelled(String::new()))), (TaskState::Cancelled, false));
    }

    #[test]
    fn a_failure_carries_the_chain_and_what_to_do() {
        let failure = winrm(&error(Stage::Receive));
        assert_eq!((failure.stage.as_str(), failure.code.is_empty()), ("receive", false));
        assert_eq!(failure.message, "the connection was closed by the host: reset by peer");
        assert!(!failure.cause.is_empty() && !failure.remedy.is_empty());
    }
}
