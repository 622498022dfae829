//! The file of master keys beside the running control plane: watched, added to, and counted by.
//!
//! Watching hands another list to the engine, which decides; a file that cannot be read or taken changes nothing. The two commands work
//! whether or not a control plane runs. Nothing here shows more of a key than its id.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, MasterKeySource};
use crate::engine::{Command, EngineHandle, Refusal};
use crate::metrics::Metrics;
use crate::store::{self, StoreError, keys};
use crate::vault::{IN_STATE_DIR, Keyring, Vault, VaultError, put_in_front, read_file};

/// Looks at a file of master keys again and again.
pub(crate) struct Watch {
    path: PathBuf,
    vault: Vault,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
}

impl Watch {
    /// Nothing when the keys came from the environment, which does not change.
    pub(crate) fn new(config: &Config, vault: Vault, engine: EngineHandle, metrics: Arc<Metrics>) -> Option<Self> {
        Some(Self { path: file_of(config)?, vault, engine, metrics })
    }

    /// Looks every ten seconds, and at once on SIGHUP, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut hangups = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(error = %error, "SIGHUP cannot be listened to; the file of master keys is looked at every 10s"))
            .ok();
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = Seen::Taken;
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => drop(hangups.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
                () = hangup => info!("Asked to look at the file of master keys"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                seen = self.look(&last) => last = seen,
            }
            self.metrics.keys_refused(!matches!(last, Seen::Taken));
        }
    }

    /// What came of the file as it is now. One look at a time: a mount that hangs holds one thread.
    async fn look(&self, last: &Seen) -> Seen {
        let path = self.path.clone();
        let ring = match tokio::task::spawn_blocking(move || read_file(&path)).await {
            Ok(Ok(ring)) => ring,
            Ok(Err(error)) => {
                let text = crate::app::chain(&error);
                if !matches!(last, Seen::Unreadable(before) if *before == text) {
                    warn!(error = text, "The file of master keys cannot be used; the keys from before stay in use");
                }
                return Seen::Unreadable(text);
            }
            // Only at the end of the process.
            Err(_) => return Seen::Taken,
        };
        let ids = ring.ids();
        if ids == self.vault.keyring().ids() {
            return Seen::Taken;
        }
        if let Seen::Refused(before, at) = last
            && *before == ids
            && at.elapsed() < ASK_AGAIN
        {
            return Seen::Refused(ids, *at);
        }
        match self.engine.ask(|reply| Command::ReplaceKeys { ring, reply }).await {
            Ok(()) => Seen::Taken,
            // The engine has said why.
            Err(Refusal::Impossible(_)) => Seen::Refused(ids, Instant::now()),
            // The disk is full, or this is the end: the next look asks again.
            Err(_) => Seen::Waiting,
        }
    }
}

/// What came of the last look.
enum Seen {
    Taken,
    Waiting,
    Unreadable(String),
    /// Which keys, and when.
    Refused(Vec<String>, Instant),
}

/// One master key, and what is under it.
#[derive(Debug, Serialize)]
pub(crate) struct KeyStatus {
    key_id: String,
    /// `current`, `replaced` or `missing`.
    state: &'static str,
    credentials: u64,
    secret_versions: u64,
    tasks: u64,
    /// Without it something could not be read.
    needed: bool,
}

/// Why a command about master keys failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(
        "the master keys come from LICTOR_MASTER_KEY: put a new one (openssl rand -base64 32) and a comma before what it holds, and \
         restart the control plane"
    )]
    FromEnvironment,
    #[error("failed to put a new key into the file")]
    Rotate(#[source] VaultError),
    #[error("failed to read the master keys")]
    Keys(#[source] VaultError),
    #[error("failed to count what is under them")]
    Count(#[source] StoreError),
}

/// Puts a new key in front of the others, in this file or the settings'. The file and the id of the new key.
pub(crate) fn rotate(config: &Config, file: Option<PathBuf>) -> Result<(PathBuf, String), KeysError> {
    let path = file.or_else(|| file_of(config)).ok_or(KeysError::FromEnvironment)?;
    let id = put_in_front(&path).map_err(KeysError::Rotate)?;
    Ok((path, id))
}

/// Every master key that is in the list, or that something is under.
pub(crate) async fn status(config: &Config) -> Result<Vec<KeyStatus>, KeysError> {
    let ring = match file_of(config) {
        Some(path) => read_file(&path),
        None => crate::vault::read(&config.master_key, &config.state_dir),
    };
    let ring = ring.map_err(KeysError::Keys)?;
    count(&ring, &config.state_dir).await.map_err(KeysError::Count)
}

async fn count(ring: &Keyring, state_dir: &Path) -> Result<Vec<KeyStatus>, StoreError> {
    let mut database = store::open_to_look(state_dir).await?;
    let (uses, tasks) = (keys::uses(&mut database).await?, keys::tasks(&mut database).await?);
    let listed = ring.ids();
    let mut seen = BTreeSet::new();
    let all = listed.iter().chain(uses.keys()).chain(tasks.keys());
    let status = |key_id: &String| {
        let uses = uses.get(key_id).copied().unwrap_or_default();
        let tasks = tasks.get(key_id).copied().unwrap_or_default();
        let state = match listed.iter().position(|listed| listed == key_id) {
            Some(0) => "current",
            Some(_) => "replaced",
            None => "missing",
        };
        let needed = state == "current" || uses.credentials + uses.secrets + tasks > 0;
        let (credentials, secret_versions) = (uses.credentials, uses.secrets);
        KeyStatus { key_id: key_id.clone(), state, credentials, secret_versions, tasks, needed }
    };
    // One that was taken off and that nothing is under any more is history.
    let shown = all.filter(|key_id| seen.insert((*key_id).clone())).map(status);
    Ok(shown.filter(|status| status.needed || status.state != "missing").collect())
}

/// For people.
pub(crate) fn table(keys: &[KeyStatus]) -> String {
    let mut text = String::from("KEY               STATE      CREDENTIALS  SECRET VERSIONS   TASKS\n");
    for key in keys {
        let advice = match (key.state, key.needed) {
            ("current", _) => "encrypts everything new",
            ("missing", _) => "not in the list: what is under it cannot be read",
            (_, true) => "still needed",
            (_, false) => "may be taken off the list",
        };
        let KeyStatus { key_id, state, credentials, secret_versions, tasks, .. } = key;
        text.push_str(&format!("{key_id:<18}{state:<10}{credentials:>12}{secret_versions:>17}{tasks:>8}  {advice}\n"));
    }
    text
}

fn file_of(config: &Config) -> Option<PathBuf> {
    match &config.master_key {
        MasterKeySource::File(path) => Some(path.clone()),
        MasterKeySource::StateDir => Some(config.state_dir.join(IN_STATE_DIR)),
        MasterKeySource::Value(_) => None,
    }
}

/// Well below what it takes to change a mounted Secret.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Of a list that was refused: what was missing in it may no longer be needed.
const ASK_AGAIN: Duration = Duration::from_secs(600);
