//! The keys that secrets are sealed to, and what comes sealed opened, just in time.
//!
//! It must never store, journal or print what it opens; values zero themselves on drop. Filled by the link with the key
//! that enrolment made.

use std::sync::{Arc, Mutex, PoisonError};

use lictor_proto::sealing::{Binding, SealingKey};
use lictor_proto::v1::SealedSecret;
use lictor_winrm::target::Secret;
use zeroize::Zeroizing;

use super::{SecretError, text};

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

impl Purpose<'_> {
    /// What it is, for people.
    fn words(&self) -> String {
        match self.credential.strip_prefix(super::DELIVERED) {
            Some(identifier) => format!("secret {identifier}"),
            None => format!("the secret of credential {}", self.credential),
        }
    }
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
        text(self.open_bytes(sealed, purpose)?).ok_or_else(|| SecretError::NotText { secret: purpose.words() })
    }

    /// Opens `sealed`, whatever it holds.
    pub(crate) fn open_bytes(
        &self,
        sealed: &SealedSecret,
        purpose: Purpose<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
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
            Some(source) => SecretError::Sealed { secret: purpose.words(), source },
            None => SecretError::NoKey { secret: purpose.words() },
        })
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
