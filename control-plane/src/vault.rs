//! Encryption at rest, AES-256-GCM: credentials under the master key, secrets in envelopes, what tasks hold under keys derived from it.
//!
//! For credentials the associated data is the credential's name and version, so that a record cannot be moved to another credential or
//! rolled back unnoticed. The identifier of the key stands in each record; nothing here is ever logged. Several master keys may be
//! known: the first one encrypts, the others only decrypt, until the engine has brought what they hold under the first. Called by
//! the engine, and by who watches the file of keys.

mod data;
mod envelope;
mod keys;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ring::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use crate::config::MasterKeySource;

pub(crate) use data::{Place, TaskKeys};
pub(crate) use envelope::{Envelope, Label, SECRET};
pub(crate) use keys::{IN_STATE_DIR, KEY_ID_BYTES, KeyListError, Keyring, parse_list, put_in_front, read, read_file};

/// The master keys, ready for use. Cloneable; the keys are the same for all clones.
#[derive(Clone)]
pub(crate) struct Vault {
    ring: Shared,
    task_keys: TaskKeys,
}

/// Replaced as a whole, and never held for longer than it takes to copy the handle.
type Shared = Arc<RwLock<Arc<Keyring>>>;

fn now_in(shared: &Shared) -> Arc<Keyring> {
    Arc::clone(&shared.read().unwrap_or_else(PoisonError::into_inner))
}

/// An encrypted secret of a credential's own as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Encrypted {
    pub(crate) key_id: String,
    pub(crate) nonce: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

/// Why the vault could not do its work. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The key file could not be read or written.
    #[error("failed to use the master key file {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The key file holds something else.
    #[error("the master key file {path} cannot be used")]
    Malformed {
        path: PathBuf,
        #[source]
        why: KeyListError,
    },
    /// The record was encrypted with another master key.
    #[error("it was encrypted with master key {wanted}, but this is master key {here}")]
    OtherKey { wanted: String, here: String },
    /// The record was changed or moved.
    #[error("it does not decrypt: its record was changed or moved")]
    Corrupt,
    /// Encryption failed.
    #[error("the secret could not be encrypted")]
    Encrypt,
}

impl Vault {
    /// Takes the keys from where the settings say; makes one in the state directory when they say nothing.
    pub(crate) fn open(source: &MasterKeySource, state_dir: &Path) -> Result<Self, VaultError> {
        Ok(Self::of(keys::read(source, state_dir)?))
    }

    pub(crate) fn of(ring: Keyring) -> Self {
        let ring: Shared = Arc::new(RwLock::new(Arc::new(ring)));
        Self { task_keys: TaskKeys::of(Arc::clone(&ring)), ring }
    }

    /// What tasks' specifications, results and output are encrypted with.
    pub(crate) fn task_keys(&self) -> &TaskKeys {
        &self.task_keys
    }

    /// The keys as they are now.
    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        now_in(&self.ring)
    }

    /// From now on these, for all who share the vault.
    pub(crate) fn replace(&self, ring: Keyring) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Encrypts a value under a data key of its own.
    pub(crate) fn seal(&self, label: Label<'_>, plain: &[u8]) -> Result<Envelope, VaultError> {
        Envelope::seal(&self.keyring(), label, plain)
    }

    /// Decrypts what [`Vault::seal`] made for the same label.
    pub(crate) fn unseal(&self, label: Label<'_>, stored: &Envelope) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        stored.open(&self.keyring(), label)
    }

    /// The data key of an envelope under the current master key, and the id of that; nothing when it is already. Without the value.
    pub(crate) fn rewrap(
        &self,
        label: Label<'_>,
        key_id: &str,
        wrapped_key: &[u8],
    ) -> Result<Option<(String, Vec<u8>)>, VaultError> {
        envelope::rewrapped(&self.keyring(), label, key_id, wrapped_key)
    }

    /// Encrypts the secret of one version of one credential.
    pub(crate) fn encrypt(&self, name: &str, version: u64, secret: &[u8]) -> Result<Encrypted, VaultError> {
        let ring = self.keyring();
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut buffer = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        buffer.extend_from_slice(secret);
        let tag = ring
            .current()
            .cipher()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad(name, version), &mut buffer)
            .map_err(|_| VaultError::Encrypt)?;
        let mut ciphertext = buffer.to_vec();
        ciphertext.extend_from_slice(tag.as_ref());
        Ok(Encrypted { key_id: ring.current().id().to_owned(), nonce: nonce.to_vec(), ciphertext })
    }

    /// Decrypts the secret of one version of one credential.
    pub(crate) fn decrypt(
        &self,
        name: &str,
        version: u64,
        stored: &Encrypted,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let ring = self.keyring();
        let key = ring.named(&stored.key_id)?;
        let nonce = Nonce::try_assume_unique_for_key(&stored.nonce).map_err(|_| VaultError::Corrupt)?;
        let mut buffer = Zeroizing::new(stored.ciphertext.clone());
        let length =
            key.cipher().open_in_place(nonce, aad(name, version), &mut buffer).map_err(|_| VaultError::Corrupt)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// The same secret under the current key; nothing when it is already.
    pub(crate) fn encrypt_again(
        &self,
        name: &str,
        version: u64,
        stored: &Encrypted,
    ) -> Result<Option<Encrypted>, VaultError> {
        if stored.key_id == self.keyring().current().id() {
            return Ok(None);
        }
        let secret = self.decrypt(name, version, stored)?;
        self.encrypt(name, version, &secret).map(Some)
    }
}

/// The name behind its length, then the version: no two pairs give the same bytes.
fn aad(name: &str, version: u64) -> Aad<Vec<u8>> {
    let mut data = (name.len() as u64).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&version.to_be_bytes());
    Aad::from(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_keys(keys: &[u8]) -> Vault {
        Vault::of(Keyring::of(keys.iter().map(|byte| [*byte; 32])).unwrap())
    }

    #[test]
    fn a_record_opens_only_in_its_place_and_with_its_key() {
        let vault = with_keys(&[1]);
        let stored = vault.encrypt("web", 3, b"pa55word").unwrap();
        assert!(!stored.ciphertext.windows(8).any(|w| w == b"pa55word"));
        assert_eq!(vault.decrypt("web", 3, &stored).unwrap().as_slice(), b"pa55word");
        for (name, version) in [("web", 4), ("wec", 3)] {
            assert!(matches!(vault.decrypt(name, version, &stored), Err(VaultError::Corrupt)));
        }
        let other = with_keys(&[2]);
        assert!(matches!(other.decrypt("web", 3, &stored), Err(VaultError::OtherKey { .. })));
        assert_ne!(vault.encrypt("web", 3, b"pa55word").unwrap().nonce, stored.nonce);
    }

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let first = Vault::open(&MasterKeySource::StateDir, dir.path()).unwrap();
        let stored = first.encrypt("n", 1, b"s").unwrap();
        let second = Vault::open(&MasterKeySource::StateDir, dir.path()).unwrap();
        assert_eq!(second.decrypt("n", 1, &stored).unwrap().as_slice(), b"s");
        let mode = std::fs::metadata(dir.path().join("master-key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_malformed_key_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "c2hvcnQ=").unwrap();
        assert!(matches!(Vault::open(&MasterKeySource::File(path), dir.path()), Err(VaultError::Malformed { .. })));
    }

    #[test]
    fn another_list_of_keys_is_there_for_all_who_share_the_vault() {
        let vault = with_keys(&[1]);
        let (shared, tasks) = (vault.clone(), vault.task_keys().clone());
        let stored = vault.encrypt("web", 1, b"pa55word").unwrap();
        let blob = tasks.task("t").unwrap().seal(Place::Spec, b"text").unwrap();
        vault.replace(Keyring::of([[2; 32], [1; 32]]).unwrap());
        assert_eq!(shared.decrypt("web", 1, &stored).unwrap().as_slice(), b"pa55word");
        assert_eq!(tasks.task("t").unwrap().open(Place::Spec, &blob).unwrap(), b"text");
        let again = shared.encrypt_again("web", 1, &stored).unwrap().unwrap();
        assert_eq!(again.key_id, vault.keyring().current().id());
        assert_eq!(shared.encrypt_again("web", 1, &again).unwrap(), None);
        vault.replace(Keyring::of([[2; 32]]).unwrap());
        assert_eq!(shared.decrypt("web", 1, &again).unwrap().as_slice(), b"pa55word");
        assert!(matches!(shared.decrypt("web", 1, &stored), Err(VaultError::OtherKey { .. })));
        assert!(matches!(tasks.task("t").unwrap().open(Place::Spec, &blob), Err(VaultError::OtherKey { .. })));
    }
}
