//! The policy in force, followed while its file changes.
//!
//! A new version is taken on SIGHUP at once, and by itself when the file reads the same twice in a row, so that one that
//! is being written is not taken by halves. A broken version, or none, leaves the old one in force. Run by `app`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::file::{parse, read};
use super::turns::Turns;
use super::{Policy, PolicyError, Turn};
use crate::telemetry::Metrics;

/// The policy in force.
#[derive(Debug)]
pub(crate) struct Policies {
    file: Option<PathBuf>,
    current: watch::Sender<Arc<Policy>>,
    turns: Arc<Turns>,
    /// What the file held when it was first read.
    first: Sight,
}

/// What the file held.
type Sight = Option<[u8; 32]>;

impl Policies {
    /// Reads the policy in `file`; without one everything is allowed.
    ///
    /// # Errors
    /// [`PolicyError`]: an agent that cannot read its policy must not run.
    pub(crate) fn open(file: Option<PathBuf>) -> Result<Arc<Self>, PolicyError> {
        let (policy, first) = match &file {
            None => (Policy::default(), None),
            Some(path) => {
                let bytes = read(path)?;
                (parse(path, &bytes)?, Some(Sha256::digest(&bytes).into()))
            }
        };
        let (current, receiver) = watch::channel(Arc::new(policy));
        Ok(Arc::new(Self { file, current, turns: Arc::new(Turns::new(receiver)), first }))
    }

    /// The policy in force now.
    pub(crate) fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.current.borrow())
    }

    /// Waits until the policy lets one more task work on `host`.
    pub(crate) async fn turn(&self, host: &str) -> Turn {
        self.turns.next(host).await
    }

    /// Follows the file until `stop`.
    ///
    /// # Errors
    /// When SIGHUP cannot be listened to.
    pub(crate) async fn follow(self: Arc<Self>, metrics: Arc<Metrics>, stop: CancellationToken) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut sights = Sights { taken: self.first, last: self.first };
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                received = hangup.recv() => received.is_some(),
                () = sleep(INTERVAL), if self.file.is_some() => false,
            };
            let Some(path) = self.file.clone() else {
                tracing::info!("SIGHUP changes nothing: there is no policy file");
                continue;
            };
            let reading = tokio::task::spawn_blocking({
                let path = path.clone();
                move || read(&path)
            });
            let Ok(bytes) = reading.await else { continue };
            let sight = bytes.as_ref().ok().map(|bytes| Sha256::digest(bytes).into());
            if !sights.is_due(sight, asked) {
                continue;
            }
            match bytes.and_then(|bytes| parse(&path, &bytes)) {
                Ok(policy) => {
                    self.current.send_replace(Arc::new(policy));
                    metrics.policy_outdated(false);
                    tracing::info!(file = %path.display(), "The policy was read anew");
                }
                Err(error) => {
                    metrics.policy_outdated(true);
                    tracing::error!(error = %crate::failure::chain(&error), "The new policy cannot be used, the old one stays in force");
                }
            }
        }
    }
}

/// Decides when the file is to be taken.
#[derive(Debug)]
struct Sights {
    /// What was taken or found wanting last.
    taken: Sight,
    /// What was seen last.
    last: Sight,
}

impl Sights {
    fn is_due(&mut self, sight: Sight, asked: bool) -> bool {
        let settled = std::mem::replace(&mut self.last, sight) == sight;
        let due = asked || (settled && sight != self.taken);
        if due {
            self.taken = sight;
        }
        due
    }
}

/// Between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_once_it_stays_as_it_is() {
        let (old, half, new) = (Some([1; 32]), Some([2; 32]), Some([3; 32]));
        let mut sights = Sights { taken: old, last: old };
        let looks = [(old, false), (half, false), (new, false), (new, true), (new, false), (None, false), (None, true)];
        for (number, (sight, expected)) in looks.into_iter().enumerate() {
            assert_eq!(sights.is_due(sight, false), expected, "look {number}");
        }
        assert!(sights.is_due(new, true), "asked for");
        assert!(!sights.is_due(new, false));
    }

    #[tokio::test]
    async fn a_broken_or_missing_file_keeps_the_old_policy_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        std::fs::write(&file, "hosts.allow = [\"a\"]\n").unwrap();
        let policies = Policies::open(Some(file.clone())).unwrap();
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::default());
        let following = tokio::spawn(Arc::clone(&policies).follow(Arc::clone(&metrics), stop.clone()));
        let before = policies.current();
        tokio::time::pause();
        for broken in [Some("hosts.allow = 7\ncolour = 1\n"), Some(""), None] {
            match broken {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            while !metrics.is_policy_outdated() {
                tokio::time::sleep(INTERVAL).await;
            }
            assert_eq!(policies.current(), before);
            // Repaired, the file is taken again.
            std::fs::write(&file, "hosts.allow = [\"a\"]\n").unwrap();
            while metrics.is_policy_outdated() {
                tokio::time::sleep(INTERVAL).await;
            }
        }
        std::fs::write(&file, "hosts.allow = [\"b\"]\n").unwrap();
        while policies.current() == before {
            tokio::time::sleep(INTERVAL).await;
        }
        stop.cancel();
        following.await.unwrap().unwrap();
    }
}
