//! Tasks that work on no host: testing a secret manager, and encrypting under its key what a user sealed to this agent.
//!
//! What they do can be done again without harm, so the start is told and not journalled: a process that begins anew gives the task
//! back as one that did not start. A value is opened here, encrypted, and forgotten; it must never be in a result but encrypted.
//! Called by the engine's jobs.

use std::time::Duration;

use lictor_kms::Step;
use lictor_proto::v1::{
    KmsRecord, Rung, RungOutcome, SealSecret, SealedSecret, SecretKind, TaskResult, TaskSpec, TaskState, Timings,
    task_spec,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::execute::{Orders, Outcome, SLACK, Worker, unstarted_stop, wire_duration};
use super::spans;
use super::task::{TaskError, parse_timeout};
use super::{Event, TaskKey};
use crate::failure::{self, StopCause, Verdict};
use crate::policy::Job;
use crate::secrets::{Assigned, Deliveries, Delivery, Purpose, Sealing, SecretError, Secrets, Stored, Way};

/// A task without a host.
#[derive(Debug)]
pub(super) struct Errand {
    /// Which.
    pub(super) key: TaskKey,
    /// What the policy wants to know of it.
    pub(super) job: Job,
    /// Identifier of the secret manager.
    manager: String,
    /// The way to it.
    way: Delivery,
    kind: Kind,
    timeout: Duration,
}

#[derive(Debug)]
enum Kind {
    /// Try what this agent may do.
    Test {
        /// A secret of the manager's, to be read by those who may not write.
        stored: Option<Delivery>,
    },
    /// Encrypt this value.
    Seal(Box<Writing>),
}

/// A value that a user sealed to this agent, and what it becomes.
#[derive(Debug)]
struct Writing {
    /// Names the writing; the value is bound to it.
    seal_id: String,
    identifier: String,
    version: u64,
    scope: String,
    text: bool,
    value: SealedSecret,
}

/// What came of it.
#[derive(Debug, Default)]
struct Found {
    rungs: Vec<Rung>,
    record: Option<KmsRecord>,
    run: Option<Duration>,
}

impl Errand {
    /// Parses one of its kinds.
    pub(super) fn parse(key: TaskKey, spec: TaskSpec, deliveries: &Deliveries) -> Result<Self, TaskError> {
        let job = Job::of(&spec).ok_or(TaskError::Kind)?;
        let timeout = parse_timeout(spec.timeout)?;
        let (manager, kind) = match spec.kind.ok_or(TaskError::Kind)? {
            task_spec::Kind::SecretManagerTest(test) => {
                let stored = deliveries.beside(&name_of(&test.manager)).cloned();
                (test.manager, Kind::Test { stored })
            }
            task_spec::Kind::SealSecret(seal) => {
                let SealSecret { manager, identifier, version, scope, kind, value, seal_id } = seal;
                let value = value.ok_or(TaskError::Missing("value"))?;
                if identifier.is_empty() || version == 0 || seal_id.is_empty() {
                    return Err(TaskError::NoSealing);
                }
                let text = match SecretKind::try_from(kind).map_err(|_| TaskError::SecretKind(kind))? {
                    SecretKind::Text | SecretKind::Unspecified => true,
                    SecretKind::File => false,
                };
                (manager, Kind::Seal(Box::new(Writing { seal_id, identifier, version, scope, text, value })))
            }
            _ => return Err(TaskError::Kind),
        };
        let way = deliveries.find(&name_of(&manager))?.clone();
        Ok(Self { key, job, manager, way, kind, timeout })
    }

    /// Identifier of the secret manager.
    pub(super) fn manager(&self) -> &str {
        &self.manager
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, worker: &Worker, mut orders: watch::Receiver<Orders>, accepted: Instant) -> Outcome {
        let mut found = Found::default();
        let deadline = accepted + self.timeout;
        let (state, failure) = match self.attempt(worker, &mut orders, deadline, &mut found).await {
            Ok(()) => (TaskState::Succeeded, None),
            Err(Verdict::End(state, failure)) => (state, Some(*failure)),
            Err(Verdict::HandBack(reason, failure)) => return Outcome::HandedBack(reason, failure),
        };
        Outcome::Ended(Box::new(TaskResult {
            outcome: state.into(),
            failure,
            rungs: found.rungs,
            sealed_record: found.record,
            timings: Some(Timings {
                lease: None,
                run: found.run.map(wire_duration),
                total: Some(wire_duration(accepted.elapsed())),
            }),
            ..TaskResult::default()
        }))
    }

    async fn attempt(
        &self,
        worker: &Worker,
        orders: &mut watch::Receiver<Orders>,
        deadline: Instant,
        found: &mut Found,
    ) -> Result<(), Verdict> {
        let secrets = worker.sessions.secrets();
        let assigned = Assigned { task_id: &self.key.task_id, epoch: self.key.epoch };
        let way = secrets.way(&self.way, assigned).map_err(|error| failure::secret(&error))?;
        // Before anybody is asked: what cannot be opened has not begun.
        let (value, stored) = match &self.kind {
            Kind::Test { stored } => (None, stored.as_ref().and_then(|stored| self.stored(secrets, stored, assigned))),
            Kind::Seal(writing) => {
                (Some((writing, writing.open(secrets).map_err(|error| failure::secret(&error))?)), None)
            }
        };
        worker.tell(Event::Started(self.key.clone())).await;
        let begun = Instant::now();
        let Found { rungs, record, .. } = found;
        let work = async {
            match value {
                None => {
                    test(secrets, &way, stored.as_ref(), deadline, rungs).await;
                    Ok(())
                }
                Some((writing, value)) => {
                    let sealed = writing.seal(secrets, &way, &value, deadline).await;
                    sealed.map(|sealed| *record = Some(sealed))
                }
            }
        };
        let done = tokio::select! {
            biased;
            cause = unstarted_stop(orders) => Err(cause),
            done = timeout_at(deadline + SLACK, work.instrument(spans::secret_manager())) => {
                done.map_err(|_| StopCause::Deadline)
            }
        };
        found.run = Some(begun.elapsed());
        match done {
            Err(cause) => Err(failure::stopped_before_start(&cause)),
            // It has begun: whoever waits for it is told now, and decides about another try.
            Ok(Err(error)) => Err(match failure::secret(&error) {
                Verdict::HandBack(_, failure) => Verdict::End(TaskState::Failed, failure),
                ended @ Verdict::End(..) => ended,
            }),
            Ok(Ok(())) => match found.rungs.iter().find(|rung| rung.outcome() == RungOutcome::Failed) {
                Some(rung) => Err(failure::examined(rung.clone(), Instant::now() >= deadline)),
                None => Ok(()),
            },
        }
    }

    /// What cannot be used is left out: the test tells of what it did not try.
    fn stored(&self, secrets: &Secrets, delivery: &Delivery, assigned: Assigned<'_>) -> Option<Stored> {
        let stored = secrets.stored(delivery, assigned).inspect_err(|error| {
            let (manager, error) = (&self.manager, failure::chain(error));
            tracing::warn!(manager, error, "A stored secret is of no use for testing its secret manager");
        });
        stored.ok()
    }
}

/// What the way to a secret manager is delivered as.
fn name_of(manager: &str) -> String {
    format!("manager:{manager}")
}

impl Writing {
    /// What the user sealed.
    fn open(&self, secrets: &Secrets) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let Self { seal_id, identifier, version, text, value, .. } = self;
        // No assignment has epoch 0, so that nothing else that is sealed opens here, nor this anywhere else.
        let purpose = Purpose { task_id: seal_id, epoch: 0, credential: identifier, version: *version };
        let value = secrets.open_bytes(value, purpose)?;
        let secret = || format!("secret {identifier}");
        let (most, kind) = if *text { (MAX_TEXT, "a text") } else { (MAX_FILE, "a file") };
        if value.is_empty() {
            return Err(SecretError::Empty { secret: secret() });
        }
        if value.len() > most {
            return Err(SecretError::TooLong { secret: secret(), purpose: kind, most });
        }
        if *text && (std::str::from_utf8(&value).is_err() || value.contains(&0)) {
            return Err(SecretError::NotText { secret: secret() });
        }
        Ok(value)
    }

    async fn seal(
        &self,
        secrets: &Secrets,
        way: &Way,
        value: &Zeroizing<Vec<u8>>,
        deadline: Instant,
    ) -> Result<KmsRecord, SecretError> {
        let sealing = Sealing { scope: &self.scope, identifier: &self.identifier, version: self.version };
        secrets.seal(way, sealing, value, deadline).await
    }
}

async fn test(secrets: &Secrets, way: &Way, stored: Option<&Stored>, deadline: Instant, rungs: &mut Vec<Rung>) {
    tracing::debug!(manager = way.manager(), stored = stored.is_some(), "Testing a secret manager");
    secrets.test(way, stored, deadline, |step| rungs.push(rung(step))).await;
}

fn rung(step: &Step) -> Rung {
    let stage = step.stage.as_str();
    tracing::debug!(stage, outcome = ?step.outcome, elapsed = ?step.elapsed, "Step taken");
    let outcome = match step.outcome {
        lictor_kms::Outcome::Passed => RungOutcome::Passed,
        lictor_kms::Outcome::Warning => RungOutcome::Warning,
        lictor_kms::Outcome::Failed => RungOutcome::Failed,
        lictor_kms::Outcome::Skipped => RungOutcome::Skipped,
    };
    Rung {
        stage: stage.into(),
        outcome: outcome.into(),
        elapsed: Some(wire_duration(step.elapsed)),
        detail: step.detail.clone(),
        failure: step.error.as_ref().map(failure::kms),
    }
}

/// The contract's bounds.
const MAX_TEXT: usize = 64 * 1024;
const MAX_FILE: usize = 256 * 1024;
