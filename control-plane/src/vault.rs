//! Encryption at rest, AES-256-GCM: credentials under the master key, what tasks hold under keys derived from it.
//!
//! For credentials the associated data is the credential's name and version, so that a record cannot be moved to another credential or
//! rolled back unnoticed. The identifier of the key stands in the record; nothing here is ever logged. Called by the
//! engine only.

mod data;

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::authority::hex;
use crate::config::{MasterKeySource, parse_master_key};
use crate::files;

pub(crate) use data::{Place, TaskKeys};

/// The master key, ready for use.
pub(crate) struct Vault {
    key: LessSafeKey,
    key_id: String,
    task_keys: TaskKeys,
}

/// An encrypted secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    #[error("the master key file {0} does not hold 32 bytes in base64")]
    Malformed(PathBuf),
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
    /// Takes the key from where the settings say; makes one in the state directory when they say nothing.
    pub(crate) fn open(source: &MasterKeySource, state_dir: &Path) -> Result<Self, VaultError> {
        let key = match source {
            MasterKeySource::Value(key) => key.clone(),
            MasterKeySource::File(path) => read_key(path)?,
            MasterKeySource::StateDir => {
                let path = state_dir.join("master-key");
                if !path.exists() {
                    let key = Zeroizing::new(rand::random::<[u8; 32]>());
                    let text = Zeroizing::new(STANDARD.encode(*key));
                    files::write_private(&path, text.as_bytes())
                        .map_err(|source| VaultError::File { path: path.clone(), source })?;
                }
                read_key(&path)?
            }
        };
        Self::new(&key)
    }

    fn new(key: &[u8; 32]) -> Result<Self, VaultError> {
        let digest = Sha256::new().chain_update(b"lictor master key id").chain_update(key).finalize();
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| VaultError::Encrypt)?;
        let mut key_id = [0; data::KEY_ID_BYTES];
        key_id.copy_from_slice(&digest[..data::KEY_ID_BYTES]);
        let task_keys = TaskKeys::new(key, key_id);
        Ok(Self { key: LessSafeKey::new(unbound), key_id: hex(&key_id), task_keys })
    }

    /// What tasks' specifications, results and output are encrypted with.
    pub(crate) fn task_keys(&self) -> &TaskKeys {
        &self.task_keys
    }

    /// Names the key; says nothing about it.
    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Encrypts the secret of one version of one credential.
    pub(crate) fn encrypt(&self, name: &str, version: u64, secret: &[u8]) -> Result<Encrypted, VaultError> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut buffer = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        buffer.extend_from_slice(secret);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad(name, version), &mut buffer)
            .map_err(|_| VaultError::Encrypt)?;
        let mut ciphertext = buffer.to_vec();
        ciphertext.extend_from_slice(tag.as_ref());
        Ok(Encrypted { key_id: self.key_id.clone(), nonce: nonce.to_vec(), ciphertext })
    }

    /// Decrypts the secret of one version of one credential.
    pub(crate) fn decrypt(
        &self,
        name: &str,
        version: u64,
        stored: &Encrypted,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if stored.key_id != self.key_id {
            return Err(VaultError::OtherKey { wanted: stored.key_id.clone(), here: self.key_id.clone() });
        }
        let nonce = Nonce::try_assume_unique_for_key(&stored.nonce).map_err(|_| VaultError::Corrupt)?;
        let mut buffer = Zeroizing::new(stored.ciphertext.clone());
        let length =
            self.key.open_in_place(nonce, aad(name, version), &mut buffer).map_err(|_| VaultError::Corrupt)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let text = Zeroizing::new(
        std::fs::read_to_string(path).map_err(|source| VaultError::File { path: path.to_owned(), source })?,
    );
    parse_master_key(&text).ok_or_else(|| VaultError::Malformed(path.to_owned()))
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

    #[test]
    fn a_record_opens_only_in_its_place_and_with_its_key() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let stored = vault.encrypt("web", 3, b"pa55word").unwrap();
        assert!(!stored.ciphertext.windows(8).any(|w| w == b"pa55word"));
        assert_eq!(vault.decrypt("web", 3, &stored).unwrap().as_slice(), b"pa55word");
        for (name, version) in [("web", 4), ("wec", 3)] {
            assert!(matches!(vault.decrypt(name, version, &stored), Err(VaultError::Corrupt)));
        }
        let other = Vault::new(&[2; 32]).unwrap();
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
        assert!(matches!(Vault::open(&MasterKeySource::File(path), dir.path()), Err(VaultError::Malformed(_))));
    }
}
