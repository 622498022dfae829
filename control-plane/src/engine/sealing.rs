//! Values that only an agent, or AWS KMS where the control plane itself reaches it, may turn into what is stored; and tests of
//! secret managers.
//!
//! A value for a secret manager that agents reach comes here sealed to one of them. It goes there in a task, and what the agent makes
//! of it is stored in the transaction of the task's end. Which agent, which version and for whom is remembered for five minutes; a
//! value that comes later, or twice, is refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lictor_proto::v1::{
    AgentSelector, Candidate, Failure, KmsRecord, PrepareSecretRequest, PrepareSecretResponse, SealSecret, SealedValue,
    Secret, SecretKind, SecretManagerTest, TaskSpec, TaskState, task_spec,
};
use tracing::{info, warn};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::access::audited_spec;
use super::fetching::{Asked, in_words, refused};
use super::kms_access::{check_record, live_manager};
use super::secrets::{Planned, no_manager};
use super::{Engine, Refusal, Reply};
use crate::access::{Caller, Role, within};
use crate::audit::Action;
use crate::clock::Now;
use crate::dispatch::{BUILT_IN, Errand, Finished, ON_AGENTS, Route, seal_id};
use crate::failure;
use crate::managers::is_platform;
use crate::platform::{Place, Work};
use crate::store::secrets::{self, Body};
use crate::store::tasks::{self, NewTask};
use crate::store::{StoreError, managers};

/// Writings that are under way.
#[derive(Default)]
pub(super) struct Sealing {
    /// By seal id.
    prepared: HashMap<String, Prepared>,
    /// By task.
    waiting: HashMap<String, Waiting>,
}

/// A value is to come.
struct Prepared {
    identifier: String,
    manager: String,
    scope: String,
    version: u64,
    user: String,
    until: Instant,
}

/// A task is to end.
struct Waiting {
    secret: Secret,
    by: Caller,
    reply: Reply<Secret>,
}

/// A new version that the control plane has encrypted.
pub(super) struct Written {
    /// What is to be stored beside the value; its version is the new one.
    pub(super) secret: Secret,
    pub(super) by: Caller,
    pub(super) reply: Reply<Secret>,
}

impl Engine {
    /// Chooses the agent that a value is to be sealed to.
    pub(super) async fn prepare_secret(
        &mut self,
        request: PrepareSecretRequest,
        by: &Caller,
        now: Now,
    ) -> Result<Result<PrepareSecretResponse, Refusal>, StoreError> {
        let PrepareSecretRequest { identifier, manager, scope } = request;
        let wanted = Secret { identifier, manager, scope, ..Secret::default() };
        let (record, manager) = match self.plan_secret(&wanted, by, now).await? {
            Ok(Planned { record, manager: Some(manager), .. }) if !is_platform(&manager) => (record, manager),
            Ok(_) => return Ok(Ok(PrepareSecretResponse::default())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.sealing.prepared.retain(|_, prepared| prepared.until > now.instant);
        if self.sealing.prepared.len() >= MAX_PREPARED {
            let text = "too many secrets are being written at once; try again in some minutes";
            return Ok(Err(Refusal::Exhausted(text.into())));
        }
        let route = Route {
            scope: record.scope.clone(),
            capability: AWS_KMS,
            errand: Some(Errand::Test { manager: manager.identifier.clone() }),
            ..Route::default()
        };
        let agent = match self.parts.ledger.choose(&route) {
            Ok(agent) => agent,
            Err(candidates) => return Ok(Err(nobody(&manager.identifier, &candidates, by))),
        };
        let seal_id = seal_id(&Uuid::now_v7().to_string(), &agent.agent_id);
        let version = record.version + 1;
        let answer = PrepareSecretResponse {
            must_seal: true,
            seal_id: seal_id.clone(),
            agent_id: agent.agent_id.clone(),
            agent_name: agent.name.clone(),
            sealing_key: agent.sealing_key.clone(),
            version,
        };
        let prepared = Prepared {
            identifier: record.identifier,
            manager: manager.identifier,
            scope: record.scope,
            version,
            user: by.user.clone(),
            until: now.instant + GOOD_FOR,
        };
        self.sealing.prepared.insert(seal_id, prepared);
        Ok(Ok(answer))
    }

    /// Takes a sealed value and hands it to its agent; the answer comes with the end of that task.
    pub(super) async fn put_sealed(
        &mut self,
        secret: Secret,
        sealed: SealedValue,
        by: Caller,
        reply: Reply<Secret>,
        now: Now,
    ) -> Result<(), StoreError> {
        match self.sealing_task(&secret, sealed, &by, now).await? {
            Ok((task_id, secret)) => {
                self.sealing.waiting.insert(task_id, Waiting { secret, by, reply });
            }
            Err(refusal) => self.reply(reply, Err(refusal)),
        }
        Ok(())
    }

    async fn sealing_task(
        &mut self,
        secret: &Secret,
        sealed: SealedValue,
        by: &Caller,
        now: Now,
    ) -> Result<Result<(String, Secret), Refusal>, StoreError> {
        let SealedValue { seal_id, value } = sealed;
        // Whatever becomes of it, it is used up, unless it is somebody else's.
        let prepared = match self.sealing.prepared.get(&seal_id) {
            Some(prepared) if prepared.user == by.user => self.sealing.prepared.remove(&seal_id),
            _ => None,
        };
        let Some(prepared) = prepared.filter(|prepared| prepared.until > now.instant) else {
            let text =
                "sealed.seal_id: none that PrepareSecret gave in the last 5 minutes, or used already; prepare again";
            return Ok(Err(Refusal::Impossible(text.into())));
        };
        let same = |given: &str, prepared: &str| given.is_empty() || given == prepared;
        if secret.identifier != prepared.identifier
            || !same(&secret.manager, &prepared.manager)
            || !same(&secret.scope, &prepared.scope)
        {
            let text = "sealed.seal_id: prepared for another identifier, manager or scope";
            return Ok(Err(Refusal::Invalid(text.into())));
        }
        let Prepared { identifier, manager, scope, version, .. } = prepared;
        let secret = Secret { manager: manager.clone(), scope: scope.clone(), version, ..secret.clone() };
        let kind = match self.plan_secret(&secret, by, now).await? {
            Ok(planned) if planned.record.version + 1 == version => planned.record.kind,
            Ok(_) => return Ok(Err(refused(&failure::secret_superseded(&identifier, version)))),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let most = if kind == SecretKind::Text { 64 << 10 } else { 256 << 10 };
        let good = value.as_ref().is_some_and(|value| {
            value.encapsulated_key.len() == 32 && (17..=most + 16).contains(&value.ciphertext.len())
        });
        if !good {
            let text = "sealed.value: 1 byte to 64 KiB of text, or to 256 KiB of a file, sealed as PrepareSecret says";
            return Ok(Err(Refusal::Invalid(text.into())));
        }
        let secret = Secret { kind: kind.into(), ..secret };
        let seal = SealSecret { manager, identifier, version, scope: scope.clone(), kind: kind.into(), value, seal_id };
        let task = errand(task_spec::Kind::SealSecret(seal), scope, Vec::new(), "sealing a secret", SEALING, by);
        let submitted = self.submit_errand(task, by, now).await?;
        Ok(submitted.map(|task_id| (task_id, secret)))
    }

    /// A task for the sake of secrets, for which there is neither a host nor a credential.
    async fn submit_errand(
        &mut self,
        task: NewTask,
        by: &Caller,
        now: Now,
    ) -> Result<Result<String, Refusal>, StoreError> {
        if let Err(refusal) = self.has_room(1) {
            return Ok(Err(refusal));
        }
        let (task_id, details) = (task.task_id.clone(), audited_spec(&task.spec));
        for live in tasks::add(self.database().await?, vec![task], now.wall).await? {
            self.parts.ledger.submit(live, now);
        }
        self.parts.metrics.submitted(1);
        info!(task_id, "Task submitted");
        self.audit_of(by, Action::TaskSubmitted, ("task", &task_id), details, now).await?;
        Ok(Ok(task_id))
    }

    /// A sealing task ends: what came of it is stored with its end, or its end says why not.
    pub(super) async fn sealing_ends(&mut self, finished: &mut Finished, now: Now) -> Result<(), StoreError> {
        let record = finished.result.sealed_record.take();
        if !matches!(finished.task.route.errand, Some(Errand::Seal { .. })) {
            return Ok(());
        }
        let waiting = self.sealing.waiting.remove(&finished.task.task_id);
        let outcome = if finished.result.outcome() == TaskState::Succeeded {
            self.take_sealed(finished, waiting.as_ref(), record, now).await?
        } else {
            let unsaid = || failure::bad_record("", "the task ended without a word");
            Err(finished.result.failure.clone().unwrap_or_else(unsaid))
        };
        if let Err(failure) = &outcome
            && finished.result.outcome() == TaskState::Succeeded
        {
            warn!(task_id = finished.task.task_id, code = failure.code, "Sealed secret was not stored");
            finished.result.set_outcome(TaskState::Failed);
            finished.result.failure = Some(failure.clone());
        }
        if let Some(Waiting { reply, .. }) = waiting {
            let answer = outcome.map_err(|failure| match failure.code.as_str() {
                "no_agent" => Refusal::Unavailable(in_words(&failure)),
                _ => refused(&failure),
            });
            self.reply(reply, answer);
        }
        Ok(())
    }

    async fn take_sealed(
        &mut self,
        finished: &Finished,
        waiting: Option<&Waiting>,
        record: Option<KmsRecord>,
        now: Now,
    ) -> Result<Result<Secret, Failure>, StoreError> {
        let submitted = tasks::submitted(self.database().await?, &finished.task.task_id).await?;
        let Some(task_spec::Kind::SealSecret(seal)) = submitted.and_then(|submitted| submitted.spec.kind) else {
            return Err(StoreError::Malformed("a sealing task that is none"));
        };
        let SealSecret { identifier, manager, version, scope, kind, .. } = seal;
        let Some(record) = record else {
            return Ok(Err(failure::bad_record(&identifier, "there is nothing, or more than there may be")));
        };
        if let Err(reason) = check_record(&record, &scope, &identifier, version) {
            return Ok(Err(failure::bad_record(&identifier, &reason)));
        }
        let secret = match waiting {
            Some(waiting) => waiting.secret.clone(),
            // After a restart of the control plane nobody waits, and what the call said beside the value is gone: what is stored of
            // that stays.
            None => {
                let kept = secrets::secret(self.database().await?, &identifier).await?;
                let kept = kept.filter(|kept| kept.deleted_at.is_none()).map(|kept| kept.view(None));
                Secret { identifier, manager, version, scope, kind, ..kept.unwrap_or_default() }
            }
        };
        let by = match waiting {
            Some(waiting) => waiting.by.clone(),
            None => absent(&finished.task.claim.submitter),
        };
        self.store_record(&secret, record, &by, now).await
    }

    /// Stores what a value became as the version that was promised, unless there is another one by now.
    async fn store_record(
        &mut self,
        secret: &Secret,
        record: KmsRecord,
        by: &Caller,
        now: Now,
    ) -> Result<Result<Secret, Failure>, StoreError> {
        let (identifier, version) = (&secret.identifier, secret.version);
        match self.plan_secret(secret, by, now).await? {
            // What was encrypted for one scope is not to be found under another.
            Ok(planned) if planned.record.version + 1 == version && planned.record.scope == secret.scope => {
                Ok(Ok(self.store_secret(planned, Some(Body::Kms(record)), by, now).await?))
            }
            Ok(_) => Ok(Err(failure::secret_superseded(identifier, version))),
            Err(refusal) => Ok(Err(failure::secret_refused(identifier, &refusal.to_string()))),
        }
    }

    /// Writes a value through AWS KMS, which the control plane itself reaches for this secret manager.
    pub(super) async fn put_through_platform(
        &mut self,
        planned: Planned,
        value: Zeroizing<Vec<u8>>,
        by: Caller,
        reply: Reply<Secret>,
        now: Now,
    ) -> Result<(), StoreError> {
        if let Err(refusal) = self.is_fit(&planned, &value).await? {
            self.reply(reply, Err(refusal));
            return Ok(());
        }
        let secret = planned.record.view(None);
        let secret = Secret { version: secret.version + 1, ..secret };
        let Some(manager) = live_manager(self.database().await?, &secret.manager).await? else {
            self.reply(reply, Err(no_manager(&secret.manager)));
            return Ok(());
        };
        let place =
            Place { scope: secret.scope.clone(), identifier: secret.identifier.clone(), version: secret.version };
        let written = Asked::Write(Box::new(Written { secret, by, reply }));
        let asked = self.ask_platform(&manager, place, Work::Seal(value), written, now).await?;
        if let Err((unfetched, Asked::Write(written))) = asked {
            self.reply(written.reply, Err(refused(&unfetched.failure)));
        }
        Ok(())
    }

    /// AWS KMS has encrypted a value for the control plane.
    pub(super) async fn write_record(
        &mut self,
        written: Written,
        record: KmsRecord,
        now: Now,
    ) -> Result<(), StoreError> {
        let Written { secret, by, reply } = written;
        let answer = self.store_record(&secret, record, &by, now).await?;
        self.reply(reply, answer.map_err(|failure| refused(&failure)));
        Ok(())
    }

    /// Submits a test of a secret manager; the answer is the task's id.
    pub(super) async fn test_manager(
        &mut self,
        identifier: &str,
        selector: AgentSelector,
        by: &Caller,
        now: Now,
    ) -> Result<Result<String, Refusal>, StoreError> {
        if identifier == BUILT_IN || identifier == ON_AGENTS {
            let text = format!("the secret manager {identifier} is part of Lictor itself; there is nothing to test");
            return Ok(Err(Refusal::Impossible(text)));
        }
        let found = live_manager(self.database().await?, identifier).await?;
        let Some(record) = found.filter(|record| by.sees(&record.manager.scope)) else {
            return Ok(Err(no_manager(identifier)));
        };
        let AgentSelector { tags, scope } = selector;
        let scope = if scope.is_empty() { record.manager.scope.clone() } else { scope };
        if !within(&record.manager.scope, &scope) {
            let text = format!("selector.scope: {:?} or one below it, as the manager's", record.manager.scope);
            return Ok(Err(Refusal::Invalid(text)));
        }
        let test = task_spec::Kind::SecretManagerTest(SecretManagerTest { manager: identifier.to_owned() });
        let task = errand(test, scope, tags, "secret manager test", TESTING, by);
        let task_id = match self.submit_errand(task, by, now).await? {
            Ok(task_id) => task_id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.test_here(&task_id, identifier, now).await?;
        Ok(Ok(task_id))
    }

    /// Tests a secret manager that the control plane itself reaches; nothing for others, which agents test.
    async fn test_here(&mut self, task_id: &str, identifier: &str, now: Now) -> Result<(), StoreError> {
        let Some(record) = managers::manager(self.database().await?, identifier).await? else { return Ok(()) };
        if !is_platform(&record.manager) {
            return Ok(());
        }
        let (place, stored) = match self.example(identifier, "").await? {
            Some((place, stored)) => (place, Some(stored)),
            None => (Place { scope: String::new(), identifier: String::new(), version: 0 }, None),
        };
        let asked = Asked::Test(task_id.to_owned());
        if let Err((unfetched, _)) = self.ask_platform(&record, place, Work::Test(stored), asked, now).await? {
            let result = failure::result(TaskState::Failed, Some(unfetched.failure));
            self.parts.ledger.done_here(task_id, result, now);
        }
        Ok(())
    }

    /// Tests that the control plane itself had under way when it stopped are begun again.
    pub(super) async fn resume_tests(&mut self, now: Now) -> Result<(), StoreError> {
        for (task_id, manager) in self.parts.ledger.waiting_tests() {
            self.test_here(&task_id, &manager, now).await?;
        }
        Ok(())
    }

    /// Everything was taken up anew from the database: whoever waits for a task that was not stored is told nothing good.
    pub(super) fn forget_unstored_sealings(&mut self) {
        let ledger = &self.parts.ledger;
        self.sealing.waiting.retain(|task_id, _| ledger.task(task_id).is_some());
    }
}

/// Whoever asked before the control plane was started anew: they were permitted what they asked for.
fn absent(user: &str) -> Caller {
    let text = String::new;
    Caller { user: user.to_owned(), token_id: text(), role: Role::Admin, scope: text(), source: text() }
}

fn errand(
    kind: task_spec::Kind,
    scope: String,
    tags: Vec<String>,
    label: &str,
    waits: (Duration, Duration),
    by: &Caller,
) -> NewTask {
    let (queue_timeout, timeout) = waits;
    NewTask {
        task_id: Uuid::now_v7().to_string(),
        spec: TaskSpec {
            selector: Some(AgentSelector { tags, scope }),
            kind: Some(kind),
            timeout: prost_types::Duration::try_from(timeout).ok(),
            queue_timeout: prost_types::Duration::try_from(queue_timeout).ok(),
            idempotent: true,
            label: label.to_owned(),
            ..TaskSpec::default()
        },
        queue_timeout,
        submitted_by: by.user.clone(),
        idempotency_key: None,
        batch: None,
        retries: 0,
        traceparent: None,
    }
}

/// No agent can seal: every candidate and its reason, but for those that belong to others.
fn nobody(manager: &str, candidates: &[Candidate], by: &Caller) -> Refusal {
    let visible = candidates.iter().filter(|candidate| by.scope.is_empty() || candidate.code != "scope");
    let mut reasons: Vec<String> =
        visible.map(|candidate| format!("{}: {}", candidate.agent_name, candidate.reason)).collect();
    let more = reasons.len().saturating_sub(MAX_NAMED);
    reasons.truncate(MAX_NAMED);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    if reasons.is_empty() {
        reasons.push("there is no agent".into());
    }
    Refusal::Unavailable(format!("no agent can use the secret manager {manager} now: {}", reasons.join("; ")))
}

/// How long a prepared writing is good for.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// Writings that wait for their value.
const MAX_PREPARED: usize = 1000;
/// How long a value waits for its agent, and how long that may take.
const SEALING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(30));
const TESTING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(120));
/// Most agents named in one message.
const MAX_NAMED: usize = 10;
const AWS_KMS: &str = "aws_kms";
