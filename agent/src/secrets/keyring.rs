//! Opens the secrets that come with assignments, just in time.
//!
//! It must never store, journal or print what it opens; values zero themselves on drop. Called by `sessions`, filled by
//! `app` with the key that enrolment made.

use std::sync::{Arc, Mutex, PoisonError};

use lictor_proto::sealing::{Binding, SealError, SealingKey};
use lictor_proto::v1::SealedSecret;
use lictor_winrm::target::Secret;
use zeroize::{Zeroize as _, Zeroizing};

/// The agent's sealing keys: the newest, and the one before it for assignments that were sealed before a new enrolment.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    keys: Mutex<Vec<Key>>,
}

#[derive(Debug, Clone)]
struct Key {
    agent_id: Arc<str>,
    key: Arc<SealingKey>,
}

/// Why a secret is not available. Says nothing about the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// No assignment can arrive before enrolment; a bug if it does.
    #[error("failed to open the secret of credential {credential}: this agent has no sealing key yet")]
    NoKey {
        /// Name of the credential.
        credential: String,
    },
    /// It does not open.
    #[error("failed to open the secret of credential {credential}")]
    Sealed {
        /// Name of the credential.
        credential: String,
        /// Why.
        source: SealError,
    },
    /// It opened, but is no text.
    #[error("the secret of credential {credential} is not UTF-8 text")]
    NotText {
        /// Name of the credential.
        credential: String,
    },
}

/// What a sealed secret is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose<'a> {
    /// The task.
    pub(crate) task_id: &'a str,
    /// Its assignment.
    pub(crate) epoch: u64,
    /// Name of the credential.
    pub(crate) credential: &'a str,
    /// Version of its secret.
    pub(crate) version: u64,
}

impl Keyring {
    /// Makes `key` the newest. The one before it stays usable, older ones are dropped.
    pub(crate) fn put(&self, agent_id: &str, key: SealingKey) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys
            .first()
            .is_some_and(|newest| &*newest.agent_id == agent_id && newest.key.public_bytes() == key.public_bytes())
        {
            return;
        }
        keys.insert(0, Key { agent_id: agent_id.into(), key: Arc::new(key) });
        keys.truncate(KEPT_KEYS);
    }

    /// Opens `sealed`, which holds a text.
    pub(crate) fn open(&self, sealed: &SealedSecret, purpose: Purpose<'_>) -> Result<Secret, SecretError> {
        let credential = || purpose.credential.to_owned();
        text(self.open_bytes(sealed, purpose)?).ok_or_else(|| SecretError::NotText { credential: credential() })
    }

    /// Opens `sealed`, whatever it holds.
    pub(crate) fn open_bytes(
        &self,
        sealed: &SealedSecret,
        purpose: Purpose<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let credential = purpose.credential.to_owned();
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut last = None;
        for Key { agent_id, key } in &keys {
            let binding = Binding {
                agent_id,
                task_id: purpose.task_id,
                epoch: purpose.epoch,
                credential: purpose.credential,
                credential_version: purpose.version,
            };
            match key.open(sealed, &binding) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = last.or(Some(error)),
            }
        }
        Err(match last {
            Some(source) => SecretError::Sealed { credential, source },
            None => SecretError::NoKey { credential },
        })
    }
}

fn text(mut bytes: Zeroizing<Vec<u8>>) -> Option<Secret> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Some(Secret::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

const KEPT_KEYS: usize = 2;

#[cfg(test)]
mod tests {
    use lictor_proto::sealing::seal;

    use super::*;

    const PURPOSE: Purpose<'static> = Purpose { task_id: "t", epoch: 1, credential: "c", version: 2 };

    fn sealed(key: &SealingKey, agent_id: &str, secret: &[u8]) -> SealedSecret {
        let binding = Binding { agent_id, task_id: "t", epoch: 1, credential: "c", credential_version: 2 };
        seal(&key.public_bytes(), &binding, secret).unwrap()
    }

    #[test]
    fn bytes_need_not_be_text() {
        let (ring, key) = (Keyring::default(), SealingKey::generate());
        let keytab = sealed(&key, "a", &[5, 2, 0xff]);
        ring.put("a", key);
        assert!(matches!(ring.open(&keytab, PURPOSE), Err(SecretError::NotText { .. })));
        assert_eq!(ring.open_bytes(&keytab, PURPOSE).unwrap().as_slice(), [5, 2, 0xff]);
    }

    #[test]
    fn the_key_before_the_newest_still_opens() {
        let ring = Keyring::default();
        let keys: Vec<SealingKey> = (0..3).map(|_| SealingKey::generate()).collect();
        let secrets: Vec<SealedSecret> = keys.iter().map(|key| sealed(key, "a", "pässword".as_bytes())).collect();
        assert!(matches!(ring.open(&secrets[0], PURPOSE), Err(SecretError::NoKey { .. })));
        for key in keys {
            ring.put("a", key);
        }
        assert!(matches!(ring.open(&secrets[0], PURPOSE), Err(SecretError::Sealed { .. })));
        assert_eq!(ring.open(&secrets[1], PURPOSE).unwrap().expose(), "pässword");
        assert_eq!(ring.open(&secrets[2], PURPOSE).unwrap().expose(), "pässword");
        let other = Purpose { epoch: 2, ..PURPOSE };
        assert!(matches!(ring.open(&secrets[2], other), Err(SecretError::Sealed { .. })));
    }

    #[test]
    fn a_secret_that_is_no_text_is_refused_without_being_shown() {
        let ring = Keyring::default();
        let key = SealingKey::generate();
        let secret = sealed(&key, "a", &[0xff, 0xfe, b'S']);
        ring.put("a", key);
        let error = ring.open(&secret, PURPOSE).unwrap_err();
        assert_eq!(error.to_string(), "the secret of credential c is not UTF-8 text");
    }
}
