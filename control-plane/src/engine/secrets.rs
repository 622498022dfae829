//! What the engine does about secrets: storing them and their versions, and who else hears of a new one.
//!
//! A plain value lives only inside these functions, in memory that is zeroed. A new version, the versions of the credentials that it is for
//! and the line in the audit log are one transaction.

use std::collections::BTreeSet;

use lictor_proto::v1::{Secret, SecretKind, SecretManager};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tracing::info;
use zeroize::Zeroizing;

use super::credentials::proves;
use super::{Engine, Refusal, Reply};
use crate::access::{Caller, within};
use crate::audit::Action;
use crate::clock::Now;
use crate::dispatch::SecretState;
use crate::managers::{Broken, Relations, is_platform, is_reserved, references};
use crate::store::credentials;
use crate::store::secrets::{self, BUILT_IN, Body, ON_AGENT, SecretRecord, VersionRecord};
use crate::store::{StoreError, managers};
use crate::validate::{self, quoted};
use crate::vault::{Envelope, Label, SECRET, VaultError};

/// A secret to be stored, checked.
pub(crate) struct NewSecret {
    pub(crate) secret: Secret,
    /// Unset: keep the stored one, or it is on the agent.
    pub(crate) value: Option<Zeroizing<Vec<u8>>>,
}

/// A secret as it will be but for its value, every rule about it kept.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// With the version of what is stored; 0 for a new one.
    pub(crate) record: SecretRecord,
    /// The manager that keeps it; nothing for those that are there without being made.
    pub(crate) manager: Option<SecretManager>,
    /// What is stored, unless it is new.
    pub(crate) kept: Option<SecretRecord>,
}

impl Engine {
    pub(super) async fn put_secret(
        &mut self,
        new: NewSecret,
        by: Caller,
        reply: Reply<Secret>,
        now: Now,
    ) -> Result<(), StoreError> {
        let NewSecret { secret, value } = new;
        let planned = match self.plan_secret(&secret, &by, now).await? {
            Ok(planned) => planned,
            Err(refusal) => {
                self.reply(reply, Err(refusal));
                return Ok(());
            }
        };
        match value {
            Some(value) if planned.manager.as_ref().is_some_and(is_platform) && secret.source.is_empty() => {
                self.put_through_platform(planned, value, by, reply, now).await
            }
            value => {
                let answer = match self.next_body(&planned, &secret.source, value).await? {
                    Ok(body) => Ok(self.store_secret(planned, body, &by, now).await?),
                    Err(refusal) => Err(refusal),
                };
                self.reply(reply, answer);
                Ok(())
            }
        }
    }

    /// What the secret will be, or why it cannot be: everything but its value.
    pub(super) async fn plan_secret(
        &mut self,
        wanted: &Secret,
        by: &Caller,
        now: Now,
    ) -> Result<Result<Planned, Refusal>, StoreError> {
        let identifier = wanted.identifier.as_str();
        let database = self.database().await?;
        let old = secrets::secret(database, identifier).await?;
        if old.as_ref().is_some_and(|old| old.deleted_at.is_none() && !by.sees(&old.scope)) {
            return Ok(Err(Refusal::Taken(format!("the identifier {identifier:?} is taken; choose another"))));
        }
        let kept = old.clone().filter(|old| old.deleted_at.is_none());
        if kept.is_none() && secrets::count(database).await? >= MAX_SECRETS {
            return Ok(Err(Refusal::Exhausted(format!("there are {MAX_SECRETS} secrets already"))));
        }
        let record = match merged(wanted, old.as_ref(), kept.as_ref(), by, now) {
            Ok(record) => record,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Agents serve every scope below their own, so that whoever may name their files may have all that is in them.
        if record.manager == ON_AGENT && !by.scope.is_empty() {
            let problem = "only an administrator of the whole installation may store secrets that are on agents";
            return Ok(Err(Refusal::Denied(problem.into())));
        }
        let manager = match self.manager_for(&record, by).await? {
            Ok(manager) => manager,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(kept) = &kept
            && let Err(refusal) = self.may_change(kept, &record).await?
        {
            return Ok(Err(refusal));
        }
        Ok(Ok(Planned { record, manager, kept }))
    }

    /// The manager that is to keep the secret.
    async fn manager_for(
        &mut self,
        record: &SecretRecord,
        by: &Caller,
    ) -> Result<Result<Option<SecretManager>, Refusal>, StoreError> {
        if crate::managers::is_reserved(&record.manager) {
            return Ok(Ok(None));
        }
        let found = managers::manager(self.database().await?, &record.manager).await?;
        let Some(found) = found.filter(|found| found.deleted_at.is_none()) else {
            return Ok(Err(no_manager(&record.manager)));
        };
        if within(&found.manager.scope, &record.scope) {
            return Ok(Ok(Some(found.manager)));
        }
        // Somebody else's and none look the same.
        Ok(Err(if by.sees(&found.manager.scope) {
            Refusal::Invalid(format!(
                "secret.manager: {:?} is for the scope {:?}; give the secret that scope or one below it",
                record.manager, found.manager.scope
            ))
        } else {
            no_manager(&record.manager)
        }))
    }

    /// Whether what uses the secret can go on using it.
    async fn may_change(
        &mut self,
        kept: &SecretRecord,
        record: &SecretRecord,
    ) -> Result<Result<(), Refusal>, StoreError> {
        if kept.scope != record.scope {
            let mut users = credentials::with_secret(self.database().await?, &record.identifier).await?;
            users.extend(credentials::with_authority(self.database().await?, &record.identifier).await?);
            let outside: BTreeSet<String> = users
                .iter()
                .filter(|user| !within(&record.scope, &user.scope))
                .map(|user| format!("credential {}", user.name))
                .collect();
            if !outside.is_empty() {
                let outside = Vec::from_iter(outside);
                return Ok(Err(Refusal::Impossible(format!(
                    "secret.scope: {:?} is not the scope of {}, which use it, nor one above",
                    record.scope,
                    listed(&outside)
                ))));
            }
        }
        if kept.scope == record.scope && kept.manager == record.manager {
            return Ok(Ok(()));
        }
        let mut relations = self.relations_of_all().await?;
        relations.secrets.insert(
            record.identifier.clone(),
            crate::managers::Kept { manager: record.manager.clone(), scope: record.scope.clone(), kind: record.kind },
        );
        let users = relations.managers.values();
        let users = users.filter(|manager| references(manager).any(|(_, secret)| secret == record.identifier));
        let broken = users.filter_map(|manager| relations.check(&manager.identifier).err()).next();
        Ok(broken.map_or(Ok(()), |broken| Err(refuse(broken))))
    }

    /// What is to be stored of the value; nothing when it stays as it is.
    async fn next_body(
        &mut self,
        planned: &Planned,
        source: &str,
        value: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Result<Option<Body>, Refusal>, StoreError> {
        let Planned { record, manager, kept } = planned;
        let kept = kept.as_ref().filter(|kept| kept.manager == record.manager);
        let invalid = |problem: &str| Ok(Err(Refusal::Invalid(problem.to_owned())));
        let newest = match kept {
            Some(kept) => secrets::version(self.database().await?, &kept.identifier, kept.version).await?,
            None => None,
        };
        if record.manager != ON_AGENT && !source.is_empty() {
            return invalid("secret.source: empty unless the secret manager is `agent`");
        }
        // Whether the value there is another one by now is not seen from here. Who names its place again after a rejection says so.
        let anew = !source.is_empty() && self.is_rejected(&record.identifier).await?;
        match (manager, record.manager.as_str(), value) {
            (None, ON_AGENT, Some(_)) => invalid("value: the secret is on the agent; give its source alone"),
            (None, ON_AGENT, None) => Ok(match newest.map(|newest| newest.body) {
                Some(Body::Agent(stored)) if source.is_empty() || (stored == source && !anew) => Ok(None),
                _ if source.is_empty() => {
                    Err(Refusal::Invalid("secret.source: required for the manager `agent`".into()))
                }
                _ => Ok(Some(Body::Agent(source.to_owned()))),
            }),
            (None, _, None) if newest.is_some() => Ok(Ok(None)),
            (None, _, Some(value)) => self.next_envelope(record, &value, newest.as_ref()).await,
            (Some(manager), _, Some(_)) => Ok(Err(Refusal::Impossible(format!(
                "the control plane must not see values of the secret manager {:?}: seal the value to an agent (PrepareSecret), \
                 as `lictor secret put` does by itself",
                manager.identifier
            )))),
            (Some(_), _, None) if newest.is_some() => {
                let moved = planned.kept.as_ref().is_some_and(|kept| kept.scope != record.scope);
                // It is part of the encryption context, which nobody can change but by encrypting anew.
                if moved {
                    return invalid(
                        "value: needed, since the value is encrypted for the scope that the secret has so far",
                    );
                }
                Ok(Ok(None))
            }
            (_, _, None) => {
                invalid("value: needed for a new secret, and for one that another secret manager is to keep")
            }
        }
    }

    /// Whether a host rejected a credential that the secret is for.
    async fn is_rejected(&mut self, identifier: &str) -> Result<bool, StoreError> {
        let users = credentials::with_secret(self.database().await?, identifier).await?;
        Ok(users.iter().any(|user| user.rejected_at.is_some()))
    }

    /// Whether a value is one of its kind, and of use to the credentials that refer to it.
    pub(super) async fn is_fit(&mut self, planned: &Planned, value: &[u8]) -> Result<Result<(), Refusal>, StoreError> {
        let record = &planned.record;
        if let Err(violations) = validate::secret_value(record.kind, value) {
            return Ok(Err(Refusal::Invalid(violations.to_string())));
        }
        if credentials::with_secret(self.database().await?, &record.identifier).await?.is_empty() {
            return Ok(Ok(()));
        }
        Ok(proves(record.kind, value))
    }

    /// The envelope of a value for the built-in store; nothing when the same value is there already.
    async fn next_envelope(
        &mut self,
        record: &SecretRecord,
        value: &Zeroizing<Vec<u8>>,
        newest: Option<&VersionRecord>,
    ) -> Result<Result<Option<Body>, Refusal>, StoreError> {
        if let Err(violations) = validate::secret_value(record.kind, value) {
            return Ok(Err(Refusal::Invalid(violations.to_string())));
        }
        if let Some(VersionRecord { body: Body::BuiltIn(stored), version, .. }) = newest
            // One that was stored with a master key that is gone counts as changed; storing it again makes it whole.
            && let Ok(stored) = self.opened(&record.identifier, *version, stored)
            && bool::from(value.as_slice().ct_eq(&stored))
        {
            return Ok(Ok(None));
        }
        if !credentials::with_secret(self.database().await?, &record.identifier).await?.is_empty()
            && let Err(refusal) = proves(record.kind, value)
        {
            return Ok(Err(refusal));
        }
        let label = Label { thing: SECRET, identifier: &record.identifier, version: record.version + 1 };
        Ok(match self.parts.vault.seal(label, value) {
            Ok(envelope) => Ok(Some(Body::BuiltIn(envelope))),
            Err(error) => Err(Refusal::Internal(error.to_string())),
        })
    }

    /// Stores what was planned; with a body it is a new version.
    pub(super) async fn store_secret(
        &mut self,
        planned: Planned,
        body: Option<Body>,
        by: &Caller,
        now: Now,
    ) -> Result<Secret, StoreError> {
        let Planned { mut record, kept, .. } = planned;
        let new_value = body.is_some();
        record.version += u64::from(new_value);
        secrets::save_secret(self.database().await?, &record).await?;
        let mut changed = Vec::new();
        if let Some(body) = body {
            let version = VersionRecord {
                identifier: record.identifier.clone(),
                version: record.version,
                manager: record.manager.clone(),
                created_at: now.wall,
                created_by: by.user.clone(),
                body,
            };
            secrets::add_version(self.database().await?, &version).await?;
            changed = self.renew_credentials(&record.identifier, now).await?;
        }
        self.parts.ledger.secret_stored(&record.identifier, SecretState { manager: record.manager.clone() });
        info!(secret = record.identifier, version = record.version, manager = record.manager, "Secret stored");
        let details = json!({
            "version": record.version,
            "scope": record.scope,
            "kind": if record.kind == SecretKind::File { "file" } else { "text" },
            "manager": record.manager,
            "new": kept.is_none().then_some(true),
            "new_value": new_value,
            "credentials": changed,
        });
        self.audit_of(by, Action::SecretStored, ("secret", &record.identifier), details, now).await?;
        let newest = secrets::version(self.database().await?, &record.identifier, record.version).await?;
        Ok(record.view(newest.as_ref()))
    }

    /// A new version of a secret that is stored already and stays as it is otherwise.
    #[cfg_attr(not(test), expect(dead_code, reason = "for values that agents seal"))]
    pub(super) async fn new_version(
        &mut self,
        identifier: &str,
        body: Body,
        by: &Caller,
        now: Now,
    ) -> Result<Result<Secret, Refusal>, StoreError> {
        let found = secrets::secret(self.database().await?, identifier).await?;
        let Some(kept) = found.filter(|found| found.deleted_at.is_none()) else {
            return Ok(Err(no_secret(identifier)));
        };
        let record = SecretRecord { updated_at: now.wall, ..kept.clone() };
        let planned = Planned { record, manager: None, kept: Some(kept) };
        self.store_secret(planned, Some(body), by, now).await.map(Ok)
    }

    /// A changed secret is a changed credential: hosts that rejected the one have not seen the other. Their names.
    async fn renew_credentials(&mut self, identifier: &str, now: Now) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for mut credential in credentials::with_secret(self.database().await?, identifier).await? {
            credential.version += 1;
            credential.rejected_at = None;
            credential.updated_at = now.wall;
            credentials::save_credential(self.database().await?, &credential).await?;
            self.parts.ledger.credential_stored(&credential.name, credential.state());
            info!(credential = credential.name, version = credential.version, "Credential has a new secret");
            names.push(credential.name);
        }
        if names.len() > MAX_NAMED {
            let more = names.len() - MAX_NAMED;
            names.truncate(MAX_NAMED);
            names.push(format!("and {more} more"));
        }
        Ok(names)
    }

    pub(super) async fn delete_secret(
        &mut self,
        identifier: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let found = secrets::secret(self.database().await?, identifier).await?;
        let Some(mut record) = found.filter(|found| found.deleted_at.is_none() && by.sees(&found.scope)) else {
            return Ok(Err(no_secret(identifier)));
        };
        let users = used_by(self.database().await?, identifier).await?;
        if !users.is_empty() {
            return Ok(Err(Refusal::Impossible(format!(
                "the secret {identifier:?} is used by {}; give them another one first",
                listed(&users)
            ))));
        }
        record.updated_at = now.wall;
        record.deleted_at = Some(now.wall);
        // Its version stays, so that one that is made later by this identifier goes on from there. What it was for does not.
        (record.name, record.description) = (String::new(), String::new());
        record.tags.clear();
        secrets::save_secret(self.database().await?, &record).await?;
        secrets::remove_versions(self.database().await?, identifier).await?;
        self.parts.ledger.secret_deleted(identifier);
        info!(secret = identifier, "Secret deleted");
        self.audit_of(by, Action::SecretDeleted, ("secret", identifier), json!({ "version": record.version }), now)
            .await?;
        Ok(Ok(()))
    }

    /// The value of one version that the built-in store keeps.
    pub(super) async fn value(
        &mut self,
        identifier: &str,
        version: u64,
    ) -> Result<Result<Zeroizing<Vec<u8>>, NoValue>, StoreError> {
        let Some(found) = secrets::version(self.database().await?, identifier, version).await? else {
            return Ok(Err(NoValue::NotKept));
        };
        let Body::BuiltIn(envelope) = &found.body else { return Ok(Err(NoValue::Elsewhere(found.manager))) };
        Ok(self.opened(identifier, version, envelope).map_err(NoValue::Vault))
    }

    pub(super) fn opened(
        &self,
        identifier: &str,
        version: u64,
        stored: &Envelope,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.parts.vault.unseal(Label { thing: SECRET, identifier, version }, stored)
    }

    /// Every secret manager, and every secret that chains from them lead over.
    pub(super) async fn relations_of_all(&mut self) -> Result<Relations, StoreError> {
        let database = self.database().await?;
        let mut relations = Relations::default();
        for found in managers::all(database).await? {
            for (_, secret) in references(&found.manager) {
                if !relations.secrets.contains_key(secret)
                    && let Some(kept) = secrets::secret(database, secret).await?.filter(|s| s.deleted_at.is_none())
                {
                    let SecretRecord { manager, scope, kind, .. } = kept;
                    relations.secrets.insert(secret.to_owned(), crate::managers::Kept { manager, scope, kind });
                }
            }
            relations.managers.insert(found.manager.identifier.clone(), found.manager);
        }
        Ok(relations)
    }
}

/// Why a value cannot be had here. The text says so of "the secret".
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoValue {
    #[error("this version of it is no longer kept")]
    NotKept,
    #[error("the secret manager {0} keeps it, not the control plane")]
    Elsewhere(String),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// What uses the secret, in words such as `credential web`.
pub(crate) async fn used_by(
    database: &mut sqlx::SqliteConnection,
    identifier: &str,
) -> Result<Vec<String>, StoreError> {
    let mut users = credentials::with_secret(database, identifier).await?;
    users.extend(credentials::with_authority(database, identifier).await?);
    let users: BTreeSet<String> = users.into_iter().map(|user| user.name).collect();
    let mut names: Vec<String> = users.into_iter().map(|user| format!("credential {user}")).collect();
    for found in managers::all(database).await? {
        if references(&found.manager).any(|(_, secret)| secret == identifier) {
            names.push(format!("secret-manager {}", found.manager.identifier));
        }
    }
    Ok(names)
}

/// The record as it will be, but for a new value. What is not given stays, or has its default.
fn merged(
    wanted: &Secret,
    old: Option<&SecretRecord>,
    kept: Option<&SecretRecord>,
    by: &Caller,
    now: Now,
) -> Result<SecretRecord, Refusal> {
    let or = |given: &str, stored: Option<&str>, default: &str| match (given.is_empty(), stored) {
        (false, _) => given.to_owned(),
        (true, Some(stored)) => stored.to_owned(),
        (true, None) => default.to_owned(),
    };
    let kind = match (wanted.kind(), kept) {
        (SecretKind::Unspecified, Some(kept)) => kept.kind,
        (SecretKind::Unspecified, None) => SecretKind::Text,
        (given, Some(kept)) if given != kept.kind => {
            let problem = "secret.kind: stays what it is, since others rely on it; make another secret";
            return Err(Refusal::Invalid(problem.into()));
        }
        (given, _) => given,
    };
    Ok(SecretRecord {
        identifier: wanted.identifier.clone(),
        name: or(&wanted.name, None, &wanted.identifier),
        description: wanted.description.clone(),
        tags: wanted.tags.clone().into_iter().collect(),
        scope: or(&wanted.scope, kept.map(|kept| kept.scope.as_str()), &by.scope),
        kind,
        manager: or(&wanted.manager, kept.map(|kept| kept.manager.as_str()), BUILT_IN),
        // A deleted secret's version is never used again: what was encrypted for it must not open for another value.
        version: old.map_or(0, |old| old.version),
        created_at: kept.map_or(now.wall, |kept| kept.created_at),
        updated_at: now.wall,
        deleted_at: None,
    })
}

pub(super) fn refuse(broken: Broken) -> Refusal {
    let text = broken.to_string();
    match broken {
        Broken::Chain { .. } => Refusal::Impossible(text),
        Broken::Unknown { .. } | Broken::Elsewhere { .. } | Broken::File { .. } => Refusal::Invalid(text),
    }
}

/// Some names, and how many more there are.
pub(super) fn listed(names: &[String]) -> String {
    match names.split_at_checked(MAX_NAMED) {
        Some((some, [_, ..])) => format!("{} and {} more", some.join(", "), names.len() - some.len()),
        _ => names.join(", "),
    }
}

fn no_secret(identifier: &str) -> Refusal {
    Refusal::NotFound(format!("there is no secret named {}", quoted(identifier)))
}

pub(super) fn no_manager(identifier: &str) -> Refusal {
    if is_reserved(identifier) {
        return Refusal::Impossible(format!("{identifier} is always there: it has no settings, and cannot be deleted"));
    }
    Refusal::NotFound(format!("there is no secret manager named {}", quoted(identifier)))
}

/// Rules are checked against all of them at once, in memory.
const MAX_SECRETS: u64 = 10_000;
/// In one message, or one line of the audit log.
const MAX_NAMED: usize = 20;
