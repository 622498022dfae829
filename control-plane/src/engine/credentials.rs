//! What the engine does about credentials: storing them encrypted, and who may use which.
//!
//! The plain secret lives only inside these functions, in memory that is zeroed.

use lictor_proto::v1::{
    AuthKind, ConnectionSettings, Credential, CredentialSecretKind, KerberosSettings, KinitMode, TaskSpec,
};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tracing::info;
use zeroize::Zeroizing;

use super::{Engine, Refusal};
use crate::access::{Caller, within};
use crate::audit::Action;
use crate::clock::Now;
use crate::dispatch::is_on_agent;
use crate::store::StoreError;
use crate::store::credentials::{self, CredentialRecord};
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
        let old = credentials::credential(self.database().await?, &credential.name).await?;
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
        credentials::save_credential(self.database().await?, &record).await?;
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
        let found = credentials::credential(self.database().await?, name).await?;
        let Some(mut record) = found.filter(|record| record.deleted_at.is_none() && by.sees(&record.scope)) else {
            return Ok(Err(Refusal::NotFound(format!("there is no credential named {}", quoted(name)))));
        };
        record.secret.ciphertext.clear();
        record.secret.nonce.clear();
        record.updated_at = now.wall;
        record.deleted_at = Some(now.wall);
        credentials::save_credential(self.database().await?, &record).await?;
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
        let Some(scope) = credentials::scope(self.database().await?, name).await? else {
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
