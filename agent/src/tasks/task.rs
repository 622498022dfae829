//! An assignment, parsed: a [`Task`] cannot be wrong. What does not parse is handed back with its reason.

use std::time::Duration;

use bytes::Bytes;
use lictor_proto::v1::{
    Assignment, CredentialIdentity, ScriptLanguage, SealedSecret, ShellSettings, StderrFormat, TaskSpec, task_spec,
};
use lictor_winrm::powershell::{NameError, Options, Outputs, ScriptError, cmd_script, powershell_script};
use lictor_winrm::shell::{Invocation, InvocationError};
use tokio::time::Instant;
use uuid::Uuid;

use super::TaskKey;
use super::clock::Stamp;
use super::errand::Errand;
use super::journal::Start;
use crate::failure::{self, HandBack};
use crate::policy::Job;
use crate::secrets::{Deliveries, DeliveryError};
use crate::sessions::{Brought, Plan, PlanError};

/// What to do.
#[derive(Debug)]
pub(super) enum Task {
    /// On a host.
    Host(Box<HostTask>),
    /// For the secrets of others, without a host.
    Errand(Box<Errand>),
}

/// What to do, where and as whom.
#[derive(Debug)]
pub(super) struct HostTask {
    /// Which.
    pub(super) key: TaskKey,
    /// What.
    pub(super) kind: Kind,
    /// What the policy wants to know of it.
    pub(super) job: Job,
    /// Where.
    pub(super) plan: Plan,
    /// How long it may run.
    pub(super) timeout: Duration,
    /// Secrets that came along.
    pub(super) brought: Brought,
}

/// Kinds of tasks.
#[derive(Debug)]
pub(super) enum Kind {
    /// Climb the ladder.
    ConnectionTest,
    /// Examine the host and the way to it.
    Diagnosis,
    /// Look how well the host is hardened.
    Posture {
        /// Run a script for what WS-Management does not tell.
        script: bool,
    },
    /// Run this in a shell.
    Run(Box<Work>),
    /// Follow what an earlier process started.
    Follow(Box<Followed>),
}

/// What an earlier process started.
#[derive(Debug)]
pub(super) struct Followed {
    /// Where it runs.
    pub(super) start: Start,
    /// Leave CLIXML on standard error as it is.
    pub(super) raw_stderr: bool,
    /// Variables that it hands back.
    pub(super) outputs: Option<Outputs>,
    /// When the task's timeout is over, counted from when it was accepted.
    pub(super) deadline: Instant,
}

/// What to run, and what to make of its output.
#[derive(Debug)]
pub(super) struct Work {
    /// What to run.
    pub(super) invocation: Invocation,
    /// The command's identifier on its host. Chosen here, because the mark of output variables follows from it: a later
    /// process finds both.
    pub(super) command_id: Uuid,
    /// Leave CLIXML on standard error as it is.
    pub(super) raw_stderr: bool,
    /// Variables that it hands back.
    pub(super) outputs: Option<Outputs>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TaskError {
    #[error("the assignment has no {0}")]
    Missing(&'static str),
    #[error("this version does not know the task's kind")]
    Kind,
    #[error("the journal does not say where its command runs")]
    NoPlace,
    #[error("the task was started on {started}, and the assignment names {named}")]
    OtherHost { started: String, named: String },
    #[error("the task's kind works on no host")]
    NoHost,
    #[error("a value to encrypt needs an identifier, a version and the name of its writing")]
    NoSealing,
    #[error("this version does not know kind {0} of secrets")]
    SecretKind(i32),
    #[error("this version does not know script language {0}")]
    Language(i32),
    #[error("this version does not know format {0} of standard error")]
    StderrFormat(i32),
    #[error("the timeout is not between 1 s and 24 h")]
    Timeout,
    #[error("the {what} has {length} bytes; at most {} are allowed", lictor_proto::MAX_INPUT_BYTES)]
    TooLarge { what: &'static str, length: usize },
    #[error(transparent)]
    Deliveries(#[from] DeliveryError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Invocation(#[from] InvocationError),
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error(transparent)]
    Output(#[from] NameError),
}

impl Task {
    /// Parses the assignment of `key`.
    pub(super) fn parse(key: TaskKey, assignment: Assignment) -> Result<Self, HandBack> {
        Self::try_parse(key, assignment).map_err(|error| match &error {
            // A newer agent may know it.
            TaskError::Kind
            | TaskError::SecretKind(_)
            | TaskError::Language(_)
            | TaskError::StderrFormat(_)
            | TaskError::Plan(PlanError::Unsupported { .. }) => failure::unsupported(&error),
            _ => failure::invalid(&error),
        })
    }

    /// Parses the assignment of a task that an earlier process started as `start`. `now` is the same moment on both clocks.
    /// The error is in words.
    pub(super) fn resumed(
        key: TaskKey,
        assignment: Assignment,
        start: Start,
        now: (Instant, &Stamp),
    ) -> Result<HostTask, String> {
        HostTask::resumed(key, assignment, start, now).map_err(|error| failure::chain(&error))
    }

    fn try_parse(key: TaskKey, assignment: Assignment) -> Result<Self, TaskError> {
        let Assignment { spec, identity, secret, deliveries, .. } = assignment;
        let spec = spec.ok_or(TaskError::Missing("task"))?;
        let deliveries = Deliveries::parse(deliveries)?;
        match spec.kind {
            Some(task_spec::Kind::SecretManagerTest(_) | task_spec::Kind::SealSecret(_)) => {
                Ok(Self::Errand(Box::new(Errand::parse(key, spec, &deliveries)?)))
            }
            _ => Ok(Self::Host(Box::new(HostTask::parse(key, spec, identity, secret, deliveries)?))),
        }
    }

    /// Which.
    pub(super) fn key(&self) -> &TaskKey {
        match self {
            Self::Host(task) => &task.key,
            Self::Errand(errand) => &errand.key,
        }
    }

    /// What it works on: the host or the secret manager.
    pub(super) fn subject(&self) -> &str {
        match self {
            Self::Host(task) => task.plan.host(),
            Self::Errand(errand) => errand.manager(),
        }
    }
}

impl HostTask {
    fn resumed(
        key: TaskKey,
        assignment: Assignment,
        start: Start,
        (instant, stamp): (Instant, &Stamp),
    ) -> Result<Self, TaskError> {
        let Assignment { spec, identity, secret, deliveries, .. } = assignment;
        let spec = spec.ok_or(TaskError::Missing("task"))?;
        let job = Job::of(&spec).ok_or(TaskError::Kind)?;
        let TaskSpec { target, kind, timeout, .. } = spec;
        let identity = identity.ok_or(TaskError::Missing("credential"))?;
        let timeout = parse_timeout(timeout)?;
        let (_, command_id) = start.place().ok_or(TaskError::NoPlace)?;
        let (raw, names, shell) = match kind.ok_or(TaskError::Kind)? {
            task_spec::Kind::Command(command) => (command.stderr_format, Vec::new(), command.shell),
            task_spec::Kind::Script(script) => (script.stderr_format, script.output_variables, script.shell),
            task_spec::Kind::ConnectionTest(_)
            | task_spec::Kind::Diagnosis(_)
            | task_spec::Kind::Posture(_)
            | task_spec::Kind::SecretManagerTest(_)
            | task_spec::Kind::SealSecret(_) => {
                return Err(TaskError::NoPlace);
            }
        };
        let plan = Plan::parse(target, &identity, shell.unwrap_or_default())?.resumed(&start.secrets);
        let brought = Brought::new(key.parts(), &identity, secret, Deliveries::parse(deliveries)?);
        plan.check(&brought)?;
        if plan.host() != start.host {
            // What may be reached was decided when it was accepted.
            return Err(TaskError::OtherHost { started: start.host, named: plan.host().to_owned() });
        }
        let followed = Followed {
            raw_stderr: raw_stderr(raw)?,
            outputs: Outputs::new(command_id.as_u128(), names.iter().map(String::as_str))?,
            deadline: instant + start.accepted.remaining(stamp, timeout),
            start,
        };
        Ok(Self { key, kind: Kind::Follow(Box::new(followed)), job, plan, timeout, brought })
    }

    /// Of a kind that works on a host.
    fn parse(
        key: TaskKey,
        spec: TaskSpec,
        identity: Option<CredentialIdentity>,
        sealed: Option<SealedSecret>,
        deliveries: Deliveries,
    ) -> Result<Self, TaskError> {
        let job = Job::of(&spec);
        let TaskSpec { target, kind, timeout, .. } = spec;
        let identity = identity.ok_or(TaskError::Missing("credential"))?;
        let timeout = parse_timeout(timeout)?;
        let command_id = Uuid::new_v4();
        let (kind, shell) = match kind.ok_or(TaskError::Kind)? {
            task_spec::Kind::ConnectionTest(_) => (Kind::ConnectionTest, ShellSettings::default()),
            task_spec::Kind::Diagnosis(_) => (Kind::Diagnosis, ShellSettings::default()),
            task_spec::Kind::SecretManagerTest(_) | task_spec::Kind::SealSecret(_) => return Err(TaskError::NoHost),
            task_spec::Kind::Posture(posture) => {
                (Kind::Posture { script: !posture.without_script }, ShellSettings::default())
            }
            task_spec::Kind::Command(command) => {
                bounded("standard input", command.stdin.len())?;
                let stdin = (!command.stdin.is_empty()).then(|| Bytes::clone(&command.stdin));
                let invocation = Invocation::command(&command.command_line, &command.arguments, stdin)?;
                let raw_stderr = raw_stderr(command.stderr_format)?;
                let work = Work { invocation, command_id, raw_stderr, outputs: None };
                (Kind::Run(Box::new(work)), command.shell.unwrap_or_default())
            }
            task_spec::Kind::Script(script) => {
                bounded("script", script.text.len())?;
                let shell = script.shell.unwrap_or_default();
                let language =
                    ScriptLanguage::try_from(script.language).map_err(|_| TaskError::Language(script.language))?;
                let names = script.output_variables.iter().map(String::as_str);
                let outputs = Outputs::new(command_id.as_u128(), names)?;
                let invocation = match language {
                    ScriptLanguage::Powershell | ScriptLanguage::Unspecified => {
                        let no_profile = script.no_powershell_profile.or(shell.no_profile).unwrap_or(false);
                        let options = Options { no_profile, outputs: outputs.clone() };
                        powershell_script(&script.text, &script.arguments, &options)?
                    }
                    ScriptLanguage::Cmd => cmd_script(&script.text, &script.arguments, outputs.as_ref())?,
                };
                let raw_stderr = raw_stderr(script.stderr_format)?;
                let work = Work { invocation, command_id, raw_stderr, outputs };
                (Kind::Run(Box::new(work)), shell)
            }
        };
        let plan = Plan::parse(target, &identity, shell)?;
        let brought = Brought::new(key.parts(), &identity, sealed, deliveries);
        plan.check(&brought)?;
        let job = job.ok_or(TaskError::Kind)?;
        Ok(Self { key, kind, job, plan, timeout, brought })
    }
}

pub(super) fn parse_timeout(timeout: Option<prost_types::Duration>) -> Result<Duration, TaskError> {
    let Some(timeout) = timeout else { return Ok(DEFAULT_TIMEOUT) };
    Duration::try_from(timeout)
        .ok()
        .filter(|timeout| (LEAST_TIMEOUT..=MOST_TIMEOUT).contains(timeout))
        .ok_or(TaskError::Timeout)
}

fn raw_stderr(format: i32) -> Result<bool, TaskError> {
    match StderrFormat::try_from(format) {
        Ok(StderrFormat::Raw) => Ok(true),
        Ok(StderrFormat::Decoded | StderrFormat::Unspecified) => Ok(false),
        Err(_) => Err(TaskError::StderrFormat(format)),
    }
}

fn bounded(what: &'static str, length: usize) -> Result<(), TaskError> {
    if length > lictor_proto::MAX_INPUT_BYTES { Err(TaskError::TooLarge { what, length }) } else { Ok(()) }
}

/// The contract's.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
const MOST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{Command, ConnectionTest, HandBackReason, Script, Target};

    use super::*;

    fn assignment(kind: Option<task_spec::Kind>) -> Assignment {
        Assignment {
            spec: Some(TaskSpec {
                target: Some(Target { host: "h".into(), connection: None }),
                kind,
                ..TaskSpec::default()
            }),
            identity: Some(CredentialIdentity {
                name: "c".into(),
                version: 1,
                username: "u".into(),
                ..CredentialIdentity::default()
            }),
            secret: Some(SealedSecret::default()),
            ..Assignment::default()
        }
    }

    fn refused(assignment: Assignment) -> (HandBackReason, String) {
        let key = TaskKey { task_id: "t".into(), epoch: 1 };
        let (reason, failure) = Task::parse(key, assignment).unwrap_err();
        (reason, failure.message)
    }

    #[test]
    fn what_makes_no_sense_goes_back_as_invalid_and_what_is_unknown_as_unable() {
        assert_eq!(refused(assignment(None)).0, HandBackReason::Unable);
        assert_eq!(refused(Assignment::default()).0, HandBackReason::Invalid);
        let script = Script { language: 77, text: "x".into(), ..Script::default() };
        assert_eq!(refused(assignment(Some(task_spec::Kind::Script(script)))).0, HandBackReason::Unable);
        let script = Script { stderr_format: 77, text: "x".into(), ..Script::default() };
        assert_eq!(refused(assignment(Some(task_spec::Kind::Script(script)))).0, HandBackReason::Unable);
        let script = Script { output_variables: vec!["a b".into()], text: "x".into(), ..Script::default() };
        let (reason, message) = refused(assignment(Some(task_spec::Kind::Script(script))));
        assert_eq!(reason, HandBackReason::Invalid);
        assert!(message.contains("\"a b\" is no name of an output variable"), "{message}");
        let command =
            Command { command_line: "x".into(), stdin: vec![0; 5 * 1024 * 1024 + 1].into(), ..Command::default() };
        let (reason, message) = refused(assignment(Some(task_spec::Kind::Command(command))));
        assert_eq!(reason, HandBackReason::Invalid);
        assert!(message.contains("at most 5242880"), "{message}");
        let mut late = assignment(Some(task_spec::Kind::ConnectionTest(ConnectionTest {})));
        late.spec.as_mut().unwrap().timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        assert_eq!(refused(late).0, HandBackReason::Invalid);
        let mut nowhere = assignment(Some(task_spec::Kind::ConnectionTest(ConnectionTest {})));
        nowhere.spec.as_mut().unwrap().target = None;
        assert_eq!(refused(nowhere).1, "the task names no target");
    }
}
