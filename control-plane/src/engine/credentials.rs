//! What the engine does about credentials: storing them encrypted, and who may use which.
//!
//! The plain secret lives only inside these functions, in memory that is zeroed.

use lictor_proto::v1::{
    AuthKind, ConnectionSettings, Credential, CredentialSecretKind, KerberosSettings, KinitMode, SecretKind, TaskSpec,
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
use crate::store::secrets::{self, SecretRecord};
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
    /// Identifier of the secret that it is; empty: one of the credential's own.
    secret_identifier: String,
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
        let kept = old.as_ref().filter(|old| old.deleted_at.is_none());
        // Who changes a password without a word about the scope does not mean to give the credential to others.
        let scope = match (kept, credential.scope.is_empty()) {
            (Some(kept), true) => kept.scope.clone(),
            (None, true) => by.scope.clone(),
            (_, false) => credential.scope.clone(),
        };
        let referred = match self.referred(&credential, secret.is_some(), kept, &scope, by).await? {
            Ok(referred) => referred,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let authority = credential.connection.as_ref().map(|connection| connection.ca_secret.as_str());
        if let Some(identifier) = authority.filter(|identifier| !identifier.is_empty())
            && let Err(refusal) = self.usable("credential.connection.ca_secret", identifier, &scope, by).await?
        {
            return Ok(Err(refusal));
        }
        let (version, proof) = match self.next_secret(&credential, secret, referred.as_ref(), old.as_ref()) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Agents serve every scope below their own, so that whoever may name their keys may act as all who have one there.
        if is_on_agent(proof.kind) && !by.scope.is_empty() {
            let problem =
                "only an administrator of the whole installation may store credentials whose secret is on agents";
            return Ok(Err(Refusal::Denied(problem.into())));
        }
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
            secret_identifier: proof.secret_identifier,
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
            "secret": record.secret_identifier,
        });
        self.audit_of(by, Action::CredentialStored, ("credential", &record.name), details, now).await?;
        Ok(Ok(record.view()))
    }

    /// The secret that the credential refers to, by what is given or by what is stored and kept.
    async fn referred(
        &mut self,
        credential: &Credential,
        brings_its_own: bool,
        kept: Option<&CredentialRecord>,
        scope: &str,
        by: &Caller,
    ) -> Result<Result<Option<SecretRecord>, Refusal>, StoreError> {
        let wanted = credential.secret_kind();
        let keeps = |kept: &&CredentialRecord| {
            let same_kind = wanted == CredentialSecretKind::Unspecified || wanted == kept.secret_kind;
            !brings_its_own && same_kind && credential.agent_path.is_empty()
        };
        let identifier = match kept.filter(keeps) {
            _ if !credential.secret.is_empty() => credential.secret.as_str(),
            Some(kept) => kept.secret_identifier.as_str(),
            None => "",
        };
        if identifier.is_empty() {
            return Ok(Ok(None));
        }
        let secret = match self.usable("credential.secret", identifier, scope, by).await? {
            Ok(secret) => secret,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // What another manager keeps cannot be looked at here, and what does not decrypt says so when it is handed out.
        if let Ok(value) = self.value(identifier, secret.version).await?
            && let Err(refusal) = proves(secret.kind, &value)
        {
            return Ok(Err(refusal));
        }
        Ok(Ok(Some(secret)))
    }

    /// A secret that a credential of this scope may use.
    async fn usable(
        &mut self,
        field: &str,
        identifier: &str,
        scope: &str,
        by: &Caller,
    ) -> Result<Result<SecretRecord, Refusal>, StoreError> {
        let database = self.database().await?;
        let found = secrets::secret(database, identifier).await?.filter(|secret| secret.deleted_at.is_none());
        Ok(match found {
            Some(secret) if within(&secret.scope, scope) => Ok(secret),
            Some(secret) if by.sees(&secret.scope) => Err(Refusal::Invalid(format!(
                "{field}: {identifier:?} is for the scope {:?}; give the credential that scope or one below it",
                secret.scope
            ))),
            // Somebody else's secret and none look the same.
            _ => Err(no_secret(identifier)),
        })
    }

    /// Version and encrypted secret of what is to be stored.
    ///
    /// A changed user, domain or realm counts as a changed secret: hosts reject the pair, and agents key their memory of
    /// rejections by the version. A deleted credential's version is never used again for the same reason.
    fn next_secret(
        &self,
        credential: &Credential,
        given: Option<Zeroizing<Vec<u8>>>,
        referred: Option<&SecretRecord>,
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
        let kind = match (kept, referred) {
            (_, Some(referred)) => kind_for(referred.kind),
            _ if !keeps => wanted,
            (Some(kept), None) => kept.secret_kind,
            (None, None) if mode == KinitMode::Manual => CredentialSecretKind::CacheOnAgent,
            (None, None) => return Err(needs_secret()),
        };
        if !keeps && kind != wanted {
            let problem = "credential.secret_kind: a text is a password and a file a keytab; leave it out";
            return Err(Refusal::Invalid(problem.into()));
        }
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
            Some(kept) if keeps && credential.agent_path.is_empty() && referred.is_none() => kept.agent_path.clone(),
            _ => credential.agent_path.clone(),
        };
        let same_user = kept.is_some_and(|kept| {
            kept.username == credential.username
                && kept.domain == credential.domain
                && realm_of(&kept.connection) == realm_of(&connection)
        });
        let next_version = old.map_or(1, |old| old.version + 1);
        if let Some(SecretRecord { identifier, .. }) = referred {
            let same = kept.filter(|kept| same_user && kept.secret_identifier == *identifier);
            let version = same.map_or(next_version, |kept| kept.version);
            let secret_identifier = identifier.clone();
            return Ok((version, Proof { kind, agent_path, secret: Encrypted::default(), secret_identifier }));
        }
        let same_kind = |kept: &&CredentialRecord| kept.secret_kind == kind && kept.secret_identifier.is_empty();
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
        let proof = |secret| Proof { kind, agent_path: agent_path.clone(), secret, secret_identifier: String::new() };
        if let Some(kept) = kept.filter(|kept| same_secret && same_user && kept.agent_path == agent_path) {
            return Ok((kept.version, proof(kept.secret.clone())));
        }
        Ok((next_version, proof(vault.encrypt(name, next_version, &secret).map_err(internal)?)))
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
        record.secret_identifier.clear();
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
    let problem = "password: a new credential, or a new kind of secret, needs a password, a keytab, or the identifier of a secret";
    Refusal::Invalid(problem.into())
}

fn no_secret(identifier: &str) -> Refusal {
    Refusal::NotFound(format!("there is no secret named {identifier:?}; store it with `lictor secret put`"))
}

fn kind_for(kind: SecretKind) -> CredentialSecretKind {
    match kind {
        SecretKind::File => CredentialSecretKind::Keytab,
        SecretKind::Text | SecretKind::Unspecified => CredentialSecretKind::Password,
    }
}

/// Whether a credential can use such a value, as far as it can be looked at here.
pub(super) fn proves(kind: SecretKind, value: &[u8]) -> Result<(), Refusal> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let (password, keytab) = match kind {
        SecretKind::File => (None, value),
        SecretKind::Text | SecretKind::Unspecified => (Some(text), &[][..]),
    };
    validate::own_secret(password, keytab).map_err(|violations| {
        Refusal::Invalid(format!("a credential uses the secret, and cannot use this value: {violations}"))
    })
}

fn realm_of(connection: &ConnectionSettings) -> &str {
    connection.kerberos.as_ref().map(|kerberos| kerberos.realm.as_str()).unwrap_or_default()
}

pub(super) fn scope_of(spec: &TaskSpec) -> &str {
    spec.selector.as_ref().map_or("", |selector| selector.scope.as_str())
}
