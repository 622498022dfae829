//! What the engine does about credentials: storing them encrypted, and sealing them to the agent that gets a task.
//!
//! The plain secret lives only inside these functions, in memory that is zeroed.

use lictor_proto::sealing::{Binding, seal};
use lictor_proto::v1::{
    Assignment, AuthKind, ConnectionSettings, Credential, CredentialIdentity, CredentialSecretKind, Failure,
    KerberosSettings, KinitMode, SealedSecret, ServerEvent, TaskRef, TaskSpec, server_event, task_spec,
};
use prost::Message as _;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{Engine, Refusal};
use crate::access::{Caller, within};
use crate::audit::{Action, Actor, Event};
use crate::clock::Now;
use crate::connection;
use crate::dispatch::{Assign, is_on_agent};
use crate::failure;
use crate::store::secrets::{self, CredentialRecord};
use crate::store::tasks::Submitted;
use crate::store::{StoreError, tasks};
use crate::telemetry::Assigned;
use crate::validate::{self, quoted};
use crate::vault::{Encrypted, VaultError};

/// A credential to be stored, checked.
pub(crate) struct NewCredential {
    pub(crate) credential: Credential,
    /// A password or a keytab. Unset: keep the stored one, or it is on the agent.
    pub(crate) secret: Option<Zeroizing<Vec<u8>>>,
}

/// What a credential will have to prove who its user is.
struct Proof {
    kind: CredentialSecretKind,
    agent_path: String,
    secret: Encrypted,
}

impl Engine {
    pub(super) async fn put_credential(
        &mut self,
        new: NewCredential,
        by: &Caller,
        now: Now,
    ) -> Result<Result<Credential, Refusal>, StoreError> {
        let NewCredential { credential, secret } = new;
        let old = secrets::credential(self.database().await?, &credential.name).await?;
        if old.as_ref().is_some_and(|old| old.deleted_at.is_none() && !by.sees(&old.scope)) {
            return Ok(Err(Refusal::Taken(format!("the name {:?} is taken; choose another", credential.name))));
        }
        let (version, proof) = match self.next_secret(&credential, secret, old.as_ref()) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Agents serve every scope below their own, so that whoever may name their keys may act as all who have one there.
        if is_on_agent(proof.kind) && !by.scope.is_empty() {
            let problem =
                "only an administrator of the whole installation may store credentials whose secret is on agents";
            return Ok(Err(Refusal::Denied(problem.into())));
        }
        let kept = old.as_ref().filter(|old| old.deleted_at.is_none());
        // Who changes a password without a word about the scope does not mean to give the credential to others.
        let scope = match (kept, credential.scope.is_empty()) {
            (Some(kept), true) => kept.scope.clone(),
            (None, true) => by.scope.clone(),
            (_, false) => credential.scope,
        };
        let record = CredentialRecord {
            scope,
            rejected_at: kept.filter(|old| old.version == version).and_then(|old| old.rejected_at),
            created_at: kept.map_or(now.wall, |old| old.created_at),
            name: credential.name,
            username: credential.username,
            domain: credential.domain,
            connection: credential.connection.unwrap_or_default(),
            no_profile: credential.no_profile,
            description: credential.description,
            version,
            secret_kind: proof.kind,
            agent_path: proof.agent_path,
            secret: proof.secret,
            updated_at: now.wall,
            deleted_at: None,
        };
        secrets::save_credential(self.database().await?, &record).await?;
        self.parts.ledger.credential_stored(&record.name, record.state());
        info!(credential = record.name, version, "Credential stored");
        let details = json!({
            "version": version,
            "scope": record.scope,
            "username": record.qualified_username(),
            "secret_kind": record.secret_kind.as_str_name(),
        });
        self.audit_of(by, Action::CredentialStored, ("credential", &record.name), details, now).await?;
        Ok(Ok(record.view()))
    }

    /// Version and encrypted secret of what is to be stored.
    ///
    /// A changed user, domain or realm counts as a changed secret: hosts reject the pair, and agents key their memory of
    /// rejections by the version. A deleted credential's version is never used again for the same reason.
    fn next_secret(
        &self,
        credential: &Credential,
        given: Option<Zeroizing<Vec<u8>>>,
        old: Option<&CredentialRecord>,
    ) -> Result<(u64, Proof), Refusal> {
        let vault = &self.parts.vault;
        let name = credential.name.as_str();
        let internal = |error: VaultError| Refusal::Internal(error.to_string());
        let kept = old.filter(|old| old.deleted_at.is_none());
        let wanted = credential.secret_kind();
        let keeps = wanted == CredentialSecretKind::Unspecified;
        let connection = credential.connection.clone().unwrap_or_default();
        let mode = connection.kerberos.as_ref().map_or(KinitMode::Unspecified, KerberosSettings::kinit_mode);
        let kind = match kept {
            _ if !keeps => wanted,
            Some(kept) => kept.secret_kind,
            None if mode == KinitMode::Manual => CredentialSecretKind::CacheOnAgent,
            None => return Err(needs_secret()),
        };
        validate::secret_fits(kind, &connection).map_err(|violations| Refusal::Invalid(violations.to_string()))?;
        let on_agent = is_on_agent(kind);
        let from_cache = kind == CredentialSecretKind::CacheOnAgent;
        if keeps && !on_agent && !credential.agent_path.is_empty() {
            return Err(Refusal::Invalid("credential.agent_path: empty unless the secret is on the agent".into()));
        }
        // The kind that is kept was not known when the message was checked.
        if matches!((mode, from_cache), (KinitMode::Manual, false) | (KinitMode::Managed, true)) {
            let problem =
                "credential.connection.kerberos.kinit_mode: manual goes with a cache on the agent and nothing else";
            return Err(Refusal::Invalid(problem.into()));
        }
        let agent_path = match kept {
            Some(kept) if keeps && credential.agent_path.is_empty() => kept.agent_path.clone(),
            _ => credential.agent_path.clone(),
        };
        let same_kind = |kept: &&CredentialRecord| kept.secret_kind == kind;
        let stored = kept.filter(same_kind).map(|kept| vault.decrypt(name, kept.version, &kept.secret));
        let given = if on_agent { Some(Zeroizing::default()) } else { given };
        let (secret, same_secret) = match (given, stored) {
            (None, None) => return Err(needs_secret()),
            (None, Some(stored)) => (stored.map_err(internal)?, true),
            (Some(given), Some(Ok(stored))) => {
                let same = bool::from(given.as_slice().ct_eq(&stored));
                (given, same)
            }
            // The last: stored with a master key that is gone; a new secret makes it whole again.
            (Some(given), None | Some(Err(_))) => (given, false),
        };
        let proof = |secret| Proof { kind, agent_path: agent_path.clone(), secret };
        let Some(kept) = kept else {
            let version = old.map_or(1, |old| old.version + 1);
            return Ok((version, proof(vault.encrypt(name, version, &secret).map_err(internal)?)));
        };
        let same_user = kept.username == credential.username
            && kept.domain == credential.domain
            && realm_of(&kept.connection) == realm_of(&connection);
        if same_secret && same_user && kept.agent_path == agent_path {
            return Ok((kept.version, proof(kept.secret.clone())));
        }
        let version = kept.version + 1;
        Ok((version, proof(vault.encrypt(name, version, &secret).map_err(internal)?)))
    }

    pub(super) async fn delete_credential(
        &mut self,
        name: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let found = secrets::credential(self.database().await?, name).await?;
        let Some(mut record) = found.filter(|record| record.deleted_at.is_none() && by.sees(&record.scope)) else {
            return Ok(Err(Refusal::NotFound(format!("there is no credential named {}", quoted(name)))));
        };
        record.secret.ciphertext.clear();
        record.secret.nonce.clear();
        record.updated_at = now.wall;
        record.deleted_at = Some(now.wall);
        secrets::save_credential(self.database().await?, &record).await?;
        self.parts.ledger.credential_deleted(name, now);
        info!(credential = name, "Credential deleted");
        self.audit_of(by, Action::CredentialDeleted, ("credential", name), json!({}), now).await?;
        Ok(Ok(()))
    }

    /// Whether tasks of this scope may use this credential: one of their own scope or of one above it.
    pub(super) async fn may_use_credential(
        &mut self,
        name: &str,
        of_tasks: &str,
        by: &Caller,
    ) -> Result<Result<(), Refusal>, StoreError> {
        if self.parts.ledger.credential(name).is_none() {
            return Ok(Err(no_credential(name)));
        }
        let Some(scope) = secrets::scope(self.database().await?, name).await? else {
            return Ok(Err(no_credential(name)));
        };
        if within(&scope, of_tasks) {
            return Ok(Ok(()));
        }
        // Somebody else's credential and none look the same.
        Ok(Err(if by.sees(&scope) {
            Refusal::Invalid(format!(
                "credential: {name:?} is for tasks of the scope {scope:?}; give the task that scope or one below it"
            ))
        } else {
            no_credential(name)
        }))
    }

    /// Whether a task can use the credential's secret the way it wants to authenticate.
    pub(super) fn fits_credential(&self, spec: &TaskSpec) -> Result<(), Refusal> {
        let Some(state) = self.parts.ledger.credential(&spec.credential) else { return Ok(()) };
        let own = spec.target.as_ref().and_then(|target| target.connection.as_ref()).map_or(0, |own| own.auth);
        let auth = AuthKind::try_from(if own == 0 { state.needs.auth } else { own }).unwrap_or_default();
        if state.needs.only_kerberos && matches!(auth, AuthKind::Basic | AuthKind::Ntlm) {
            let name = &spec.credential;
            return Err(Refusal::Invalid(format!(
                "target.connection.auth: kerberos or negotiate, as the credential {name} holds no password"
            )));
        }
        Ok(())
    }

    /// Records an assignment and makes its message: the connection complete, the secret sealed to the agent.
    pub(super) async fn assignment(
        &mut self,
        assign: &Assign,
        now: Now,
    ) -> Result<Result<ServerEvent, Failure>, StoreError> {
        let Assign { agent_id, task_id, epoch, credential_version, lease } = assign;
        let database = self.database().await?;
        tasks::add_assignment(database, task_id, *epoch, agent_id, *credential_version, now.wall).await?;
        let Submitted { spec, traceparent } =
            tasks::submitted(database, task_id).await?.ok_or(StoreError::Malformed("a live task without a record"))?;
        let Some(record) = secrets::credential(database, &spec.credential).await? else {
            return Ok(Err(failure::credential_deleted(&spec.credential)));
        };
        // The credential may have been given another scope while the task waited.
        if !within(&record.scope, scope_of(&spec)) {
            let reason = "it belongs to another scope by now";
            return Ok(Err(failure::credential_unusable(&record.name, reason)));
        }
        let secret = match self.sealed(assign, &record) {
            Ok(secret) => secret,
            Err(error) => {
                warn!(credential = record.name, agent_id, error = %error, "Credential cannot be handed over");
                return Ok(Err(failure::credential_unusable(&record.name, &error.to_string())));
            }
        };
        self.audit_assigned(assign, &spec, &record, now).await?;
        let assignment = Assignment {
            task: Some(TaskRef { task_id: task_id.clone(), epoch: *epoch }),
            spec: Some(complete(spec, &record)),
            lease: prost_types::Duration::try_from(*lease).ok(),
            identity: Some(identity(&record)),
            secret,
            traceparent: self.traced(assign, true, now).trace(traceparent.as_deref()),
        };
        Ok(Ok(ServerEvent { event: Some(server_event::Event::Assignment(assignment)) }))
    }

    /// A credential goes to an agent: who gets what, for which host.
    async fn audit_assigned(
        &mut self,
        assign: &Assign,
        spec: &TaskSpec,
        record: &CredentialRecord,
        now: Now,
    ) -> Result<(), StoreError> {
        let batch = self.parts.ledger.task(&assign.task_id).and_then(|task| task.claim.batch.clone());
        let details = json!({
            "agent_id": assign.agent_id,
            "batch_id": batch.as_deref(),
            "epoch": assign.epoch,
            "host": spec.target.as_ref().map(|target| target.host.as_str()),
            "credential": record.name,
            "credential_version": record.version,
            "username": record.qualified_username(),
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
        let Some(record) = secrets::credential(database, &spec.credential).await? else { return Ok(None) };
        let elsewhere = !within(&record.scope, scope_of(&spec));
        if elsewhere || record.deleted_at.is_some() || record.rejected_at.is_some() {
            info!(
                credential = record.name,
                task_id = assign.task_id,
                "Credential is of no use any more, its running command cannot be followed"
            );
            return Ok(None);
        }
        let secret = match self.sealed(assign, &record) {
            Ok(secret) => secret,
            Err(error) => {
                warn!(credential = record.name, agent_id = assign.agent_id, error = %error, "Credential cannot be handed over");
                return Ok(None);
            }
        };
        self.audit_assigned(assign, &spec, &record, now).await?;
        strip(&mut spec);
        Ok(Some(Assignment {
            task: Some(TaskRef { task_id: assign.task_id.clone(), epoch: assign.epoch }),
            spec: Some(complete(spec, &record)),
            lease: prost_types::Duration::try_from(assign.lease).ok(),
            identity: Some(identity(&record)),
            secret,
            traceparent: self.traced(assign, false, now).trace(traceparent.as_deref()),
        }))
    }

    fn traced<'a>(&self, assign: &'a Assign, waited: bool, now: Now) -> Assigned<'a> {
        let task = self.parts.ledger.task(&assign.task_id).filter(|_| waited);
        let queued_at = task.map(|task| task.queued_at);
        let Assign { task_id, epoch, agent_id, .. } = assign;
        Assigned { task_id, epoch: *epoch, agent_id, queued_at, now: now.wall }
    }

    /// Nothing when the secret is on the agent.
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

fn no_credential(name: &str) -> Refusal {
    Refusal::NotFound(format!("there is no credential named {name:?}; store it with `lictor credential put`"))
}

fn needs_secret() -> Refusal {
    Refusal::Invalid("password: a new credential, or a new kind of secret, needs a password or a keytab".into())
}

fn realm_of(connection: &ConnectionSettings) -> &str {
    connection.kerberos.as_ref().map(|kerberos| kerberos.realm.as_str()).unwrap_or_default()
}

pub(super) fn scope_of(spec: &TaskSpec) -> &str {
    spec.selector.as_ref().map_or("", |selector| selector.scope.as_str())
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

fn identity(record: &CredentialRecord) -> CredentialIdentity {
    CredentialIdentity {
        name: record.name.clone(),
        version: record.version,
        username: record.qualified_username(),
        secret_kind: record.secret_kind.into(),
        agent_path: record.agent_path.clone(),
    }
}

/// Leaves out what following a command does not need: it may be large, and was handed over before.
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
        Some(task_spec::Kind::ConnectionTest(_) | task_spec::Kind::Diagnosis(_) | task_spec::Kind::Posture(_))
        | None => None,
    };
    if let Some(shell) = shell {
        shell.environment.clear();
    }
}

/// Assignments in one Welcome, which has room for twice as much.
const MAX_GIVEN_AGAIN: usize = 8 << 20;

/// The specification with the credential's defaults and the general ones filled in.
fn complete(mut spec: TaskSpec, record: &CredentialRecord) -> TaskSpec {
    if let Some(target) = &mut spec.target {
        target.connection = Some(connection::complete(target.connection.take(), &record.connection));
    }
    if let Some(shell) = connection::shell_settings(&mut spec) {
        shell.no_profile = Some(shell.no_profile.unwrap_or(record.no_profile));
    }
    spec
}
