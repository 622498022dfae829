//! What the engine does when a task is given to an agent: its specification made complete, and its secrets sealed to that agent.
//!
//! The plain secret lives only inside these functions, in memory that is zeroed.

use lictor_proto::sealing::{Binding, seal};
use lictor_proto::v1::{
    Assignment, CredentialIdentity, Failure, SealedSecret, ServerEvent, TaskRef, TaskSpec, server_event, task_spec,
};
use prost::Message as _;
use serde_json::json;
use tracing::{info, warn};

use super::Engine;
use super::credentials::scope_of;
use super::deliveries::{Carried, Gathered};
use super::fetching::Wish;
use crate::access::within;
use crate::audit::{Action, Actor, Event};
use crate::clock::Now;
use crate::connection;
use crate::dispatch::{Assign, Errand, is_on_agent};
use crate::failure;
use crate::store::credentials::{self, CredentialRecord};
use crate::store::tasks::Submitted;
use crate::store::{StoreError, tasks};
use crate::telemetry::Assigned;
use crate::vault::VaultError;

/// What came of making an assignment ready.
pub(super) enum Made {
    Ready(Box<ServerEvent>),
    /// The control plane has to ask for these values first.
    Waits(Vec<Wish>),
    Failed(Failure),
}

impl Engine {
    /// Records an assignment and makes its message: the connection complete, the secrets sealed to the agent.
    pub(super) async fn assignment(&mut self, assign: &Assign, now: Now) -> Result<Made, StoreError> {
        let Assign { agent_id, task_id, epoch, credential_version, lease } = assign;
        let database = self.database().await?;
        let Submitted { spec, traceparent } =
            tasks::submitted(database, task_id).await?.ok_or(StoreError::Malformed("a live task without a record"))?;
        let record = match self.credential_for(&spec).await? {
            Ok(record) => record,
            Err(failure) => return Ok(Made::Failed(*failure)),
        };
        let spec = complete(spec, record.as_ref());
        let carried = match self.gather(assign, &spec, record.as_ref(), now).await? {
            Gathered::Ready(carried) => carried,
            Gathered::Waits(wishes) => return Ok(Made::Waits(wishes)),
            Gathered::Failed(failure) => {
                warn!(task_id, agent_id, code = failure.code, reason = failure.message, "Secret cannot be handed over");
                return Ok(Made::Failed(failure));
            }
        };
        let secret = match self.proof(assign, record.as_ref(), &carried) {
            Ok(secret) => secret,
            Err((credential, error)) => {
                warn!(credential, agent_id, error = %error, "Credential cannot be handed over");
                return Ok(Made::Failed(failure::credential_unusable(&credential, &error.to_string())));
            }
        };
        let database = self.database().await?;
        let assigned = tasks::Assigned {
            task_id,
            epoch: *epoch,
            agent_id,
            credential_version: *credential_version,
            shell_secrets: carried.of_shell(),
        };
        tasks::add_assignment(database, &assigned, now.wall).await?;
        self.audit_assigned(assign, &spec, record.as_ref(), now).await?;
        self.audit_used(assign, &carried, now).await?;
        let assignment = Assignment {
            task: Some(TaskRef { task_id: task_id.clone(), epoch: *epoch }),
            spec: Some(spec),
            lease: prost_types::Duration::try_from(*lease).ok(),
            identity: record.as_ref().map(|record| identity(record, &carried)),
            secret,
            traceparent: self.traced(assign, true, now).trace(traceparent.as_deref()),
            deliveries: carried.deliveries,
        };
        Ok(Made::Ready(Box::new(ServerEvent { event: Some(server_event::Event::Assignment(assignment)) })))
    }

    /// The credential of a task; nothing for work that has none.
    async fn credential_for(
        &mut self,
        spec: &TaskSpec,
    ) -> Result<Result<Option<CredentialRecord>, Box<Failure>>, StoreError> {
        if Errand::of(spec).is_some() {
            return Ok(Ok(None));
        }
        let Some(record) = credentials::credential(self.database().await?, &spec.credential).await? else {
            return Ok(Err(Box::new(failure::credential_deleted(&spec.credential))));
        };
        // The credential may have been given another scope while the task waited.
        if !within(&record.scope, scope_of(spec)) {
            let reason = "it belongs to another scope by now";
            return Ok(Err(Box::new(failure::credential_unusable(&record.name, reason))));
        }
        Ok(Ok(Some(record)))
    }

    /// What proves the user, unless a delivery does or the agent has it: a secret in the built-in store, or the credential's own.
    fn proof(
        &self,
        assign: &Assign,
        record: Option<&CredentialRecord>,
        carried: &Carried,
    ) -> Result<Option<SealedSecret>, (String, Unsealable)> {
        match record {
            Some(record) if record.secret_identifier.is_empty() => {
                self.sealed(assign, record).map_err(|error| (record.name.clone(), error))
            }
            _ => Ok(carried.proof.clone()),
        }
    }

    /// A credential goes to an agent: who gets what, for which host.
    async fn audit_assigned(
        &mut self,
        assign: &Assign,
        spec: &TaskSpec,
        record: Option<&CredentialRecord>,
        now: Now,
    ) -> Result<(), StoreError> {
        let batch = self.parts.ledger.task(&assign.task_id).and_then(|task| task.claim.batch.clone());
        let details = json!({
            "agent_id": assign.agent_id,
            "batch_id": batch.as_deref(),
            "epoch": assign.epoch,
            "host": spec.target.as_ref().map(|target| target.host.as_str()),
            "credential": record.map(|record| record.name.as_str()),
            "credential_version": record.map(|record| record.version),
            "username": record.map(CredentialRecord::qualified_username),
        });
        let event = Event {
            action: Action::TaskAssigned,
            actor: Actor::ControlPlane,
            object: ("task", &assign.task_id),
            outcome: "ok",
            details,
        };
        self.audit(&event, now).await
    }

    /// Adds assignments to the Welcome of an agent that has lost their secrets, as far as they can be had and the message has
    /// room. What is missing the agent cannot follow, and says so.
    pub(super) async fn give_again(
        &mut self,
        event: &mut ServerEvent,
        assigns: &[&Assign],
        now: Now,
    ) -> Result<(), StoreError> {
        let Some(server_event::Event::Welcome(welcome)) = &mut event.event else { return Ok(()) };
        let mut room = MAX_GIVEN_AGAIN;
        for assign in assigns {
            let resume = welcome.resume.iter_mut().find(|resume| {
                let task = resume.task.as_ref();
                task.is_some_and(|task| task.task_id == assign.task_id && task.epoch == assign.epoch)
            });
            let (Some(resume), Some(assignment)) = (resume, self.once_more(assign, now).await?) else { continue };
            let Some(left) = room.checked_sub(assignment.encoded_len()) else {
                warn!(
                    task_id = assign.task_id,
                    agent_id = assign.agent_id,
                    "Too many assignments to be given again at once"
                );
                continue;
            };
            room = left;
            resume.assignment = Some(assignment);
        }
        Ok(())
    }

    /// An assignment that the agent was given before, without what only starting needs.
    async fn once_more(&mut self, assign: &Assign, now: Now) -> Result<Option<Assignment>, StoreError> {
        let database = self.database().await?;
        let Some(submitted) = tasks::submitted(database, &assign.task_id).await? else { return Ok(None) };
        let Submitted { mut spec, traceparent } = submitted;
        // What has neither a host nor a credential is begun anew.
        if Errand::of(&spec).is_some() {
            return Ok(None);
        }
        let Some(record) = credentials::credential(database, &spec.credential).await? else { return Ok(None) };
        let elsewhere = !within(&record.scope, scope_of(&spec));
        if elsewhere || record.deleted_at.is_some() || record.rejected_at.is_some() {
            info!(
                credential = record.name,
                task_id = assign.task_id,
                "Credential is of no use any more, its running command cannot be followed"
            );
            return Ok(None);
        }
        strip(&mut spec);
        let spec = complete(spec, Some(&record));
        let mut carried = match self.gather(assign, &spec, Some(&record), now).await? {
            Gathered::Ready(carried) => carried,
            // The Welcome waits for nobody.
            Gathered::Waits(_) => {
                info!(task_id = assign.task_id, "Secret is not at hand, the running command cannot be followed");
                return Ok(None);
            }
            Gathered::Failed(failure) => {
                let (task_id, agent_id) = (&assign.task_id, &assign.agent_id);
                warn!(task_id, agent_id, code = failure.code, reason = failure.message, "Secret cannot be handed over");
                return Ok(None);
            }
        };
        let given = tasks::shell_secrets(self.database().await?, &assign.task_id, assign.epoch).await?;
        self.gather_masks(assign, &spec, given, &mut carried, now).await?;
        let secret = match self.proof(assign, Some(&record), &carried) {
            Ok(secret) => secret,
            Err((credential, error)) => {
                warn!(credential, agent_id = assign.agent_id, error = %error, "Credential cannot be handed over");
                return Ok(None);
            }
        };
        self.audit_assigned(assign, &spec, Some(&record), now).await?;
        self.audit_used(assign, &carried, now).await?;
        Ok(Some(Assignment {
            task: Some(TaskRef { task_id: assign.task_id.clone(), epoch: assign.epoch }),
            spec: Some(spec),
            lease: prost_types::Duration::try_from(assign.lease).ok(),
            identity: Some(identity(&record, &carried)),
            secret,
            traceparent: self.traced(assign, false, now).trace(traceparent.as_deref()),
            deliveries: carried.deliveries,
        }))
    }

    fn traced<'a>(&self, assign: &'a Assign, waited: bool, now: Now) -> Assigned<'a> {
        let task = self.parts.ledger.task(&assign.task_id).filter(|_| waited);
        let queued_at = task.map(|task| task.queued_at);
        let Assign { task_id, epoch, agent_id, .. } = assign;
        Assigned { task_id, epoch: *epoch, agent_id, queued_at, now: now.wall }
    }

    /// The credential's own secret. Nothing when it is on the agent.
    fn sealed(&self, assign: &Assign, record: &CredentialRecord) -> Result<Option<SealedSecret>, Unsealable> {
        if is_on_agent(record.secret_kind) {
            return Ok(None);
        }
        let agent = self.parts.ledger.agent(&assign.agent_id).ok_or(Unsealable::NoAgent)?;
        let secret = self.parts.vault.decrypt(&record.name, record.version, &record.secret)?;
        let binding = Binding {
            agent_id: &assign.agent_id,
            task_id: &assign.task_id,
            epoch: assign.epoch,
            credential: &record.name,
            credential_version: record.version,
        };
        Ok(Some(seal(&agent.sealing_key, &binding, &secret)?))
    }
}

#[derive(Debug, thiserror::Error)]
enum Unsealable {
    #[error("the agent has vanished")]
    NoAgent,
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Seal(#[from] lictor_proto::sealing::SealError),
}

fn identity(record: &CredentialRecord, carried: &Carried) -> CredentialIdentity {
    CredentialIdentity {
        name: record.name.clone(),
        version: record.version,
        username: record.qualified_username(),
        secret_kind: record.secret_kind.into(),
        agent_path: record.agent_path.clone(),
        secret: carried.proof_delivered.clone(),
    }
}

/// Leaves out what following a command does not need: it may be large, and was handed over before. The secrets of its variables come
/// all the same, in the versions that it has.
fn strip(spec: &mut TaskSpec) {
    let shell = match &mut spec.kind {
        Some(task_spec::Kind::Command(command)) => {
            command.stdin.clear();
            command.arguments.clear();
            command.command_line.clear();
            command.shell.as_mut()
        }
        Some(task_spec::Kind::Script(script)) => {
            script.text.clear();
            script.arguments.clear();
            script.shell.as_mut()
        }
        Some(
            task_spec::Kind::ConnectionTest(_)
            | task_spec::Kind::Diagnosis(_)
            | task_spec::Kind::Posture(_)
            | task_spec::Kind::SecretManagerTest(_)
            | task_spec::Kind::SealSecret(_),
        )
        | None => None,
    };
    if let Some(shell) = shell {
        shell.environment.clear();
        shell.secret_environment.clear();
    }
}

/// Assignments in one Welcome, which has room for twice as much.
const MAX_GIVEN_AGAIN: usize = 8 << 20;

/// The specification with the credential's defaults and the general ones filled in.
fn complete(mut spec: TaskSpec, record: Option<&CredentialRecord>) -> TaskSpec {
    let Some(record) = record else { return spec };
    if let Some(target) = &mut spec.target {
        target.connection = Some(connection::complete(target.connection.take(), &record.connection));
    }
    if let Some(shell) = connection::shell_settings(&mut spec) {
        shell.no_profile = Some(shell.no_profile.unwrap_or(record.no_profile));
    }
    spec
}
