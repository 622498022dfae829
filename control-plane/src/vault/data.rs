//! Encryption of what tasks hold: specifications, results and output, each under a key of its own task.
//!
//! Scripts, environments and output hold secrets of their authors, so they are on disk only like credentials are. A
//! task's key is derived from the master key and the task's id, so none is stored, and a blob opens only in its own
//! place. Never logs. Called by the store only.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use super::keys::{KEY_ID_BYTES, Keyring, MasterKey};
use super::{Shared, VaultError, now_in};

/// What every task's key is derived from: the master keys of the vault. Cloneable.
#[derive(Clone)]
pub(crate) struct TaskKeys {
    ring: Shared,
}

/// The key of one task, one from each master key: what the task holds stays under the one that it was written with.
pub(crate) struct TaskKey {
    ring: Arc<Keyring>,
    task_id: String,
    /// From the current master key.
    key: LessSafeKey,
}

/// Where a blob belongs; it opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// What was submitted.
    Spec,
    /// How the task ended.
    Result,
    /// How the last try ended of a task that is tried again.
    LastResult,
    /// How an assignment ended that nobody waited for any more.
    LateResult { epoch: u64 },
    /// Output from this offset on.
    Output { start: u64, stream: i32 },
    /// The signing keys of the issuer, which belong to no task.
    SigningKeys,
}

impl fmt::Debug for TaskKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl TaskKeys {
    pub(super) fn of(ring: Shared) -> Self {
        Self { ring }
    }

    /// The key of one task.
    pub(crate) fn task(&self, task_id: &str) -> Result<TaskKey, VaultError> {
        let ring = now_in(&self.ring);
        let key = derived(ring.current(), task_id)?;
        Ok(TaskKey { ring, task_id: task_id.to_owned(), key })
    }
}

/// What keys of tasks are derived from.
pub(super) fn root(master_key: &[u8; 32]) -> Prk {
    Salt::new(HKDF_SHA256, b"lictor task data").extract(master_key)
}

fn derived(master: &MasterKey, task_id: &str) -> Result<LessSafeKey, VaultError> {
    let info = [task_id.as_bytes()];
    let material = master.tasks().expand(&info, &AES_256_GCM).map_err(|_| VaultError::Encrypt)?;
    Ok(LessSafeKey::new(UnboundKey::from(material)))
}

impl TaskKey {
    /// Encrypts. In front of the ciphertext stand the id of the master key and the nonce.
    pub(crate) fn seal(&self, place: Place, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut blob = Vec::with_capacity(HEADER_BYTES + plain.len() + AES_256_GCM.tag_len());
        blob.extend_from_slice(self.ring.current().id_bytes());
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(plain);
        let body = blob.get_mut(HEADER_BYTES..).ok_or(VaultError::Encrypt)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place.bound(), body)
            .map_err(|_| VaultError::Encrypt)?;
        blob.extend_from_slice(tag.as_ref());
        Ok(blob)
    }

    /// Decrypts what [`TaskKey::seal`] made for the same place.
    pub(crate) fn open(&self, place: Place, blob: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (key_id, rest) = blob.split_at_checked(KEY_ID_BYTES).ok_or(VaultError::Corrupt)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LEN).ok_or(VaultError::Corrupt)?;
        let master = self.ring.numbered(key_id)?;
        let replaced =
            if master.id() == self.ring.current().id() { None } else { Some(derived(master, &self.task_id)?) };
        let key = replaced.as_ref().unwrap_or(&self.key);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Corrupt)?;
        let mut buffer = ciphertext.to_vec();
        let length = key.open_in_place(nonce, place.bound(), &mut buffer).map_err(|_| VaultError::Corrupt)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl Place {
    fn bound(self) -> Aad<[u8; 13]> {
        let (kind, number, detail) = match self {
            Self::Spec => (0, 0, 0),
            Self::Result => (1, 0, 0),
            Self::LateResult { epoch } => (2, epoch, 0),
            Self::Output { start, stream } => (3, start, stream),
            Self::LastResult => (4, 0, 0),
            Self::SigningKeys => (5, 0, 0),
        };
        let mut bytes = [kind; 13];
        bytes[1..9].copy_from_slice(&number.to_be_bytes());
        bytes[9..].copy_from_slice(&detail.to_be_bytes());
        Aad::from(bytes)
    }
}

const HEADER_BYTES: usize = KEY_ID_BYTES + NONCE_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> TaskKeys {
        super::super::Vault::of(Keyring::of([[byte; 32]]).unwrap()).task_keys().clone()
    }

    #[test]
    fn a_blob_opens_only_in_its_place_and_with_its_key() {
        let key = keys(1).task("a").unwrap();
        let place = Place::Output { start: 7, stream: 1 };
        let blob = key.seal(place, b"marker").unwrap();
        assert!(!blob.windows(6).any(|window| window == b"marker"));
        assert_eq!(key.open(place, &blob).unwrap(), b"marker");
        assert_ne!(key.seal(place, b"marker").unwrap(), blob);
        let others = [Place::Spec, Place::Output { start: 8, stream: 1 }, Place::Output { start: 7, stream: 2 }];
        for other in others {
            assert!(matches!(key.open(other, &blob), Err(VaultError::Corrupt)), "{other:?}");
        }
        assert!(matches!(keys(1).task("b").unwrap().open(place, &blob), Err(VaultError::Corrupt)));
        assert!(matches!(keys(2).task("a").unwrap().open(place, &blob), Err(VaultError::OtherKey { .. })));
    }

    #[test]
    fn cut_and_changed_blobs_are_corrupt() {
        let key = keys(1).task("a").unwrap();
        let blob = key.seal(Place::Spec, b"text").unwrap();
        for length in 0..blob.len() {
            assert!(matches!(key.open(Place::Spec, &blob[..length]), Err(VaultError::Corrupt)), "{length}");
        }
        for at in KEY_ID_BYTES..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            assert!(matches!(key.open(Place::Spec, &changed), Err(VaultError::Corrupt)), "{at}");
        }
    }
}
