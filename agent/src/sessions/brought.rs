//! What an assignment brings along: the credential's secret, and others beside it, all still sealed.
//!
//! They are opened when a session is wanted, never sooner, and what is opened is handed on and not kept. Called by `sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use lictor_proto::v1::{CredentialIdentity, SealedSecret};
use lictor_winrm::target::Secret;
use tokio::time::Instant;

use super::{AccessError, Named};
use crate::secrets::{Assigned, Deliveries, Delivery, DeliveryError, Purpose, SecretError, Secrets};

/// Everything of an assignment that is sealed.
#[derive(Debug)]
pub(crate) struct Brought {
    task_id: Arc<str>,
    epoch: u64,
    /// Name of the credential.
    credential: String,
    version: u64,
    /// Nothing when what proves the user is on the agent, or beside it.
    sealed: Option<SealedSecret>,
    deliveries: Deliveries,
}

/// Secrets of a plan, opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) authority: Option<String>,
    pub(super) environment: BTreeMap<String, Secret>,
    pub(super) masks: Vec<Secret>,
}

impl Brought {
    pub(crate) fn new(
        (task_id, epoch): (Arc<str>, u64),
        identity: &CredentialIdentity,
        sealed: Option<SealedSecret>,
        deliveries: Deliveries,
    ) -> Self {
        Self { task_id, epoch, credential: identity.name.clone(), version: identity.version, sealed, deliveries }
    }

    /// The one with this identifier.
    pub(super) fn find(&self, identifier: &str) -> Result<&Delivery, DeliveryError> {
        self.deliveries.find(identifier)
    }

    /// The credential's own.
    pub(super) fn sealed(&self) -> Option<&SealedSecret> {
        self.sealed.as_ref()
    }

    /// What that is for.
    pub(super) fn purpose(&self) -> Purpose<'_> {
        Purpose { task_id: &self.task_id, epoch: self.epoch, credential: &self.credential, version: self.version }
    }

    pub(super) fn assigned(&self) -> Assigned<'_> {
        Assigned { task_id: &self.task_id, epoch: self.epoch }
    }

    /// Opens what a plan names beside what proves the user.
    pub(super) async fn open(
        &self,
        named: &Named,
        secrets: &Secrets,
        deadline: Instant,
    ) -> Result<Opened, AccessError> {
        let authority = match &named.authority {
            Some(identifier) => Some(self.text(identifier, secrets, deadline).await?.expose().to_owned()),
            None => None,
        };
        // Side by side, but not by the hundred: the deliveries are bounded.
        let environment = named.environment.iter().map(|(name, identifier)| async move {
            let value = self.text(identifier, secrets, deadline).await?;
            within("a variable", identifier, MAX_VARIABLE, value.expose().len())?;
            Ok::<_, AccessError>((name.clone(), value))
        });
        let environment: BTreeMap<String, Secret> = try_join_all(environment).await?.into_iter().collect();
        let masks = named.masks.iter().map(|(identifier, _)| self.text(identifier, secrets, deadline));
        let masks = try_join_all(masks).await?;
        let mut all = 0;
        for (identifier, value) in named.environment.values().zip(environment.values()) {
            all += value.expose().len();
            within("all variables of a task together", identifier, MAX_ENVIRONMENT, all)?;
        }
        Ok(Opened { authority, environment, masks })
    }

    async fn text(&self, identifier: &str, secrets: &Secrets, deadline: Instant) -> Result<Secret, AccessError> {
        let value = secrets.value(self.find(identifier)?, self.assigned(), deadline).await?;
        Ok(value.into_text()?)
    }

    /// Of an assignment that brings nothing.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self::new(("t".into(), 1), &CredentialIdentity::default(), None, Deliveries::default())
    }
}

fn within(purpose: &'static str, identifier: &str, most: usize, length: usize) -> Result<(), SecretError> {
    let secret = || format!("secret {identifier}");
    if length > most { Err(SecretError::TooLong { secret: secret(), purpose, most }) } else { Ok(()) }
}

/// Windows takes 32,767 characters, the ends of name and value included.
const MAX_VARIABLE: usize = 32_000;
/// All of them are looked for in what the task prints, at some two hundred bytes of memory for each of theirs.
const MAX_ENVIRONMENT: usize = 64 * 1024;
