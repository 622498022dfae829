//! What the engine does about master keys: it takes another list of them, and brings what is under an old one under the current one.
//!
//! INVARIANT: no key is given up that something is still under. Records move in small transactions between the turns' work; what tasks
//! hold stays under the key that it was written with, until retention removes the tasks. After a crash the rest moves: what moved and
//! what did not both open, as long as both keys are in the list.

use std::time::{Duration, Instant};

use serde_json::json;
use tracing::{debug, error, info, warn};

use super::{Engine, Refusal};
use crate::audit::{Action, Actor, Event};
use crate::clock::Now;
use crate::metrics::KeyState;
use crate::store::{StoreError, keys};
use crate::vault::{Keyring, Label, SECRET};

/// Where the work on keys stands.
#[derive(Debug)]
pub(super) struct Keeping {
    /// When the next step is due.
    pub(super) next: Instant,
    /// The way through the records. None: they are where they belong, or cannot be moved.
    pass: Option<Pass>,
}

/// One way through all records that are under another key.
#[derive(Debug, Default)]
struct Pass {
    place: Place,
    moved: u64,
    /// Under a key that is not in the list, or damaged.
    left: u64,
    /// How many had been moved when that was last said.
    told: u64,
}

/// The last record that was looked at.
#[derive(Debug)]
enum Place {
    Credential(String),
    Secret(String, u64),
    End,
}

impl Default for Place {
    fn default() -> Self {
        Self::Credential(String::new())
    }
}

impl Keeping {
    /// Due at once.
    pub(super) fn new(now: Now) -> Self {
        Self { next: now.instant, pass: Some(Pass::default()) }
    }
}

impl Engine {
    /// Takes another list of keys, unless one is missing that something is still under.
    pub(super) async fn replace_keys(&mut self, ring: Keyring, now: Now) -> Result<Result<(), Refusal>, StoreError> {
        let before = self.parts.vault.keyring();
        let gone: Vec<String> = before.ids().into_iter().filter(|id| !ring.has(id)).collect();
        let uses = keys::uses(self.database().await?).await?;
        let mut needed = Vec::new();
        for id in gone {
            let uses = uses.get(&id).copied().unwrap_or_default();
            let tasks = keys::holds_tasks(self.database().await?, &id).await?;
            let kinds = [
                (uses.credentials > 0).then(|| format!("{} credentials", uses.credentials)),
                (uses.secrets > 0).then(|| format!("{} versions of secrets", uses.secrets)),
                tasks.then(|| "what tasks hold".to_owned()),
            ];
            let kinds: Vec<String> = kinds.into_iter().flatten().collect();
            if !kinds.is_empty() {
                needed.push(format!("{id} ({})", kinds.join(", ")));
            }
        }
        if !needed.is_empty() {
            let text = format!(
                "keys are missing in it that are still needed: {}; put them back below the current one, and look with \
                 `lictor-control-plane master-key-status` when they may go",
                needed.join("; ")
            );
            error!(reason = text, "The new list of master keys is not taken; the one before stays in use");
            return Ok(Err(Refusal::Impossible(text)));
        }
        info!(current = ring.current().id(), keys = ring.ids().len(), "Master keys taken");
        self.parts.vault.replace(ring);
        self.keys = Keeping::new(now);
        Ok(Ok(()))
    }

    /// One step, if one is due.
    pub(super) async fn tend_keys(&mut self, now: Now) -> Result<(), StoreError> {
        if now.instant < self.keys.next {
            return Ok(());
        }
        self.note_current_key(now).await?;
        if self.move_some().await? {
            self.keys.next = now.instant + STEP_PAUSE;
            return Ok(());
        }
        let ring = self.parts.vault.keyring();
        let (mut current, mut replaced, mut missing) = (0, 0, 0);
        for (key_id, uses) in keys::uses(self.database().await?).await? {
            let count = if key_id == ring.current().id() {
                &mut current
            } else if ring.has(&key_id) {
                &mut replaced
            } else {
                &mut missing
            };
            *count += uses.credentials + uses.secrets;
        }
        for (state, count) in
            [(KeyState::Current, current), (KeyState::Replaced, replaced), (KeyState::Missing, missing)]
        {
            self.parts.metrics.under_keys(state, count);
        }
        self.keys.next = now.instant + LOOK_INTERVAL;
        Ok(())
    }

    /// Notes which key is current, so that it is known what the one before is needed for.
    async fn note_current_key(&mut self, now: Now) -> Result<(), StoreError> {
        let ring = self.parts.vault.keyring();
        let current = ring.current().id();
        let noted = keys::current(self.database().await?).await?;
        if noted.as_deref() == Some(current) {
            return Ok(());
        }
        let database = self.database().await?;
        if noted.is_none() && ring.ids().len() > 1 {
            keys::learn_from_tasks(database, now.wall).await?;
        }
        keys::make_current(database, current, now.wall).await?;
        let Some(previous) = noted else { return Ok(()) };
        let event = Event {
            action: Action::MasterKeyReplaced,
            actor: Actor::Machine,
            object: ("master_key", current),
            outcome: "ok",
            details: json!({ "previous": previous }),
        };
        self.audit(&event, now).await
    }

    /// Moves some records. True when there may be more.
    async fn move_some(&mut self) -> Result<bool, StoreError> {
        let Some(mut pass) = self.keys.pass.take() else { return Ok(false) };
        pass.place = match std::mem::replace(&mut pass.place, Place::End) {
            Place::Credential(after) => self.move_credentials(&mut pass, &after).await?,
            Place::Secret(after, version) => self.move_secrets(&mut pass, (&after, version)).await?,
            Place::End => Place::End,
        };
        let Pass { place, moved, left, told } = &mut pass;
        if !matches!(place, Place::End) {
            if *moved >= *told + TOLD_EVERY {
                *told = *moved;
                info!(moved, "Records are brought under the current master key");
            }
            self.keys.pass = Some(pass);
            return Ok(true);
        }
        let key_id = self.parts.vault.keyring().current().id().to_owned();
        match (*moved, *left) {
            (0, 0) => {}
            (moved, 0) => info!(moved, key_id, "Every record is under the current master key"),
            (moved, left) => warn!(
                moved,
                left,
                key_id,
                "Some records could not be brought under the current master key: theirs is not in the list"
            ),
        }
        Ok(false)
    }

    async fn move_credentials(&mut self, pass: &mut Pass, after: &str) -> Result<Place, StoreError> {
        let key_id = self.parts.vault.keyring().current().id().to_owned();
        let some = keys::credentials_elsewhere(self.database().await?, &key_id, after).await?;
        let Some(last) = some.last() else { return Ok(Place::Secret(String::new(), 0)) };
        let place = Place::Credential(last.name.clone());
        for record in &some {
            match self.parts.vault.encrypt_again(&record.name, record.version, &record.secret) {
                Ok(Some(secret)) => {
                    keys::move_credential(self.database().await?, &record.name, record.version, &secret).await?;
                    pass.moved += 1;
                }
                Ok(None) => {}
                Err(error) => {
                    debug!(credential = record.name, error = %error, "Credential stays under its master key");
                    pass.left += 1;
                }
            }
        }
        Ok(place)
    }

    async fn move_secrets(&mut self, pass: &mut Pass, after: (&str, u64)) -> Result<Place, StoreError> {
        let key_id = self.parts.vault.keyring().current().id().to_owned();
        let some = keys::secrets_elsewhere(self.database().await?, &key_id, after).await?;
        let Some(last) = some.last() else { return Ok(Place::End) };
        let place = Place::Secret(last.identifier.clone(), last.version);
        for wrapped in some {
            let label = Label { thing: SECRET, identifier: &wrapped.identifier, version: wrapped.version };
            match self.parts.vault.rewrap(label, &wrapped.key_id, &wrapped.wrapped_key) {
                Ok(Some((key_id, wrapped_key))) => {
                    let moved = keys::WrappedKey { key_id, wrapped_key, ..wrapped };
                    keys::move_secret(self.database().await?, &moved).await?;
                    pass.moved += 1;
                }
                Ok(None) => {}
                Err(error) => {
                    debug!(secret = wrapped.identifier, error = %error, "Secret stays under its master key");
                    pass.left += 1;
                }
            }
        }
        Ok(place)
    }
}

/// Between two steps while there is more to move: work goes first.
const STEP_PAUSE: Duration = Duration::from_millis(20);
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
const TOLD_EVERY: u64 = 1000;
