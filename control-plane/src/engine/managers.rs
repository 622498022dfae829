//! What the engine does about secret managers: storing them, by the rules of what they may authenticate with.

use lictor_proto::v1::SecretManager;
use serde_json::json;
use tracing::info;

use super::deliveries::manager_state;
use super::secrets::{listed, no_manager, refuse};
use super::{Engine, Refusal};
use crate::access::{Caller, within};
use crate::audit::Action;
use crate::clock::Now;
use crate::managers::{Kept, references};
use crate::store::StoreError;
use crate::store::managers::{self, ManagerRecord};
use crate::store::secrets::{self, SecretRecord};

impl Engine {
    pub(super) async fn put_manager(
        &mut self,
        wanted: SecretManager,
        by: &Caller,
        now: Now,
    ) -> Result<Result<SecretManager, Refusal>, StoreError> {
        let identifier = wanted.identifier.clone();
        let database = self.database().await?;
        let old = managers::manager(database, &identifier).await?;
        if old.as_ref().is_some_and(|old| old.deleted_at.is_none() && !by.sees(&old.manager.scope)) {
            return Ok(Err(Refusal::Taken(format!("the identifier {identifier:?} is taken; choose another"))));
        }
        let kept = old.as_ref().filter(|old| old.deleted_at.is_none());
        if kept.is_none() && managers::count(database).await? >= MAX_MANAGERS {
            return Ok(Err(Refusal::Exhausted(format!("there are {MAX_MANAGERS} secret managers already"))));
        }
        let scope = match (kept, wanted.scope.is_empty()) {
            (Some(kept), true) => kept.manager.scope.clone(),
            (None, true) => by.scope.clone(),
            (_, false) => wanted.scope.clone(),
        };
        let name = if wanted.name.is_empty() { identifier.clone() } else { wanted.name.clone() };
        let same = SecretManager { scope, name, version: 0, created_at: None, updated_at: None, ..wanted };
        let unchanged = kept.is_some_and(|kept| {
            SecretManager { version: 0, created_at: None, updated_at: None, ..kept.manager.clone() } == same
        });
        // It goes on from that of one that was deleted, so that no two settings have had one version.
        let version = old.as_ref().map_or(0, |old| old.manager.version) + u64::from(!unchanged);
        let record = ManagerRecord {
            manager: SecretManager { version, ..same },
            created_at: kept.map_or(now.wall, |kept| kept.created_at),
            updated_at: now.wall,
            deleted_at: None,
        };
        if let Err(refusal) = self.obeys(&record.manager).await? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.holds_what_it_should(&record.manager).await? {
            return Ok(Err(refusal));
        }
        if let Some(kept) = kept
            && let Err(refusal) = self.still_reaches(&kept.manager, &record.manager).await?
        {
            return Ok(Err(refusal));
        }
        managers::save_manager(self.database().await?, &record).await?;
        self.parts.ledger.manager_stored(&identifier, manager_state(&record.manager));
        info!(secret_manager = identifier, version, "Secret manager stored");
        let details = json!({
            "version": version,
            "scope": record.manager.scope,
            "agent_tags": record.manager.agent_tags,
            "secrets": references(&record.manager).map(|(_, secret)| secret).collect::<Vec<_>>(),
        });
        self.audit_of(by, Action::SecretManagerStored, ("secret_manager", &identifier), details, now).await?;
        Ok(Ok(record.view()))
    }

    /// Whether it authenticates only with what it may: the whole chain is followed as it will be.
    async fn obeys(&mut self, manager: &SecretManager) -> Result<Result<(), Refusal>, StoreError> {
        let mut relations = self.relations_of_all().await?;
        let database = self.database().await?;
        for (_, secret) in references(manager) {
            if let Some(found) = secrets::secret(database, secret).await?.filter(|found| found.deleted_at.is_none()) {
                let SecretRecord { manager, scope, kind, .. } = found;
                relations.secrets.insert(secret.to_owned(), Kept { manager, scope, kind });
            }
        }
        relations.managers.insert(manager.identifier.clone(), manager.clone());
        Ok(relations.check(&manager.identifier).map_err(refuse))
    }

    /// Whether every secret that it keeps is still in a scope that may use it.
    async fn still_reaches(
        &mut self,
        kept: &SecretManager,
        manager: &SecretManager,
    ) -> Result<Result<(), Refusal>, StoreError> {
        if kept.scope == manager.scope {
            return Ok(Ok(()));
        }
        let mut outside = Vec::new();
        let database = self.database().await?;
        for secret in secrets::kept_by(database, &manager.identifier).await? {
            let scope = secrets::secret(database, &secret).await?.map(|found| found.scope).unwrap_or_default();
            if !within(&manager.scope, &scope) {
                outside.push(format!("secret {secret}"));
            }
        }
        Ok(if outside.is_empty() {
            Ok(())
        } else {
            let (scope, outside) = (&manager.scope, listed(&outside));
            let problem =
                format!("manager.scope: {scope:?} is not the scope of {outside}, which it keeps, nor one above");
            Err(Refusal::Impossible(problem))
        })
    }

    pub(super) async fn delete_manager(
        &mut self,
        identifier: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let database = self.database().await?;
        let found = managers::manager(database, identifier).await?;
        let Some(mut record) = found.filter(|found| found.deleted_at.is_none() && by.sees(&found.manager.scope)) else {
            return Ok(Err(no_manager(identifier)));
        };
        let kept = secrets::kept_by(database, identifier).await?;
        if !kept.is_empty() {
            let kept: Vec<String> = kept.into_iter().map(|secret| format!("secret {secret}")).collect();
            return Ok(Err(Refusal::Impossible(format!(
                "the secret manager {identifier:?} keeps {}; delete them or store them elsewhere first",
                listed(&kept)
            ))));
        }
        record.updated_at = now.wall;
        record.deleted_at = Some(now.wall);
        // What it was stays unknown to who makes another one of this name.
        record.manager = SecretManager {
            identifier: record.manager.identifier,
            scope: record.manager.scope,
            version: record.manager.version,
            ..SecretManager::default()
        };
        managers::save_manager(database, &record).await?;
        self.parts.ledger.manager_deleted(identifier);
        info!(secret_manager = identifier, "Secret manager deleted");
        self.audit_of(by, Action::SecretManagerDeleted, ("secret_manager", identifier), json!({}), now).await?;
        Ok(Ok(()))
    }
}

/// Rules are checked against all of them at once, in memory.
const MAX_MANAGERS: u64 = 1000;
