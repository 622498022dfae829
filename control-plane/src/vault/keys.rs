//! Master keys: a list of them, the first one current, the others for what was encrypted before.
//!
//! Reads the list where the settings say it is. Of a key nothing is ever shown but its id, which is the beginning of a digest. Called by
//! the vault, and by who watches the file.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::Prk;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{VaultError, data};
use crate::authority::hex;
use crate::config::MasterKeySource;
use crate::files;

/// One master key, ready for use.
pub(crate) struct MasterKey {
    cipher: LessSafeKey,
    /// What keys of tasks are derived from.
    tasks: Prk,
    id_bytes: [u8; KEY_ID_BYTES],
    id: String,
}

/// The master keys, the current one first. Never empty, and no key twice.
#[derive(Clone)]
pub(crate) struct Keyring {
    current: Arc<MasterKey>,
    others: Vec<Arc<MasterKey>>,
}

/// What is wrong with the text of a list of keys. Never holds any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyListError {
    #[error("it holds no key")]
    Empty,
    #[error("its key number {0} is not 32 bytes in base64")]
    NotAKey(usize),
    #[error("its keys number {0} and {1} are the same")]
    Twice(usize, usize),
    #[error("it holds more than {MAX_KEYS} keys")]
    TooMany,
}

impl MasterKey {
    fn new(key: &[u8; 32]) -> Result<Self, VaultError> {
        let digest = Sha256::new().chain_update(b"lictor master key id").chain_update(key).finalize();
        let cipher = UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| VaultError::Encrypt)?;
        let mut id_bytes = [0; KEY_ID_BYTES];
        id_bytes.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Ok(Self { cipher, tasks: data::root(key), id_bytes, id: hex(&id_bytes) })
    }

    /// Names the key; says nothing about it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn id_bytes(&self) -> &[u8; KEY_ID_BYTES] {
        &self.id_bytes
    }

    pub(super) fn cipher(&self) -> &LessSafeKey {
        &self.cipher
    }

    pub(super) fn tasks(&self) -> &Prk {
        &self.tasks
    }
}

impl Keyring {
    /// The first key is the current one.
    pub(crate) fn of(keys: impl IntoIterator<Item = [u8; 32]>) -> Result<Self, VaultError> {
        let keys = keys.into_iter().map(Zeroizing::new);
        let mut keys = keys.map(|key| MasterKey::new(&key).map(Arc::new)).collect::<Result<Vec<_>, _>>()?.into_iter();
        let current = keys.next().ok_or(VaultError::Encrypt)?;
        Ok(Self { current, others: keys.collect() })
    }

    fn parsed(keys: &[Zeroizing<[u8; 32]>]) -> Result<Self, VaultError> {
        Self::of(keys.iter().map(|key| **key))
    }

    /// What everything new is encrypted with.
    pub(crate) fn current(&self) -> &MasterKey {
        &self.current
    }

    /// Every key, the current one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.others).map(Arc::as_ref)
    }

    /// The ids of all keys, the current one first.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.iter().map(|key| key.id.clone()).collect()
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.iter().any(|key| key.id == id)
    }

    pub(super) fn named(&self, id: &str) -> Result<&MasterKey, VaultError> {
        self.iter().find(|key| key.id == id).ok_or_else(|| self.missing(id.to_owned()))
    }

    pub(super) fn numbered(&self, id: &[u8]) -> Result<&MasterKey, VaultError> {
        self.iter().find(|key| key.id_bytes == id).ok_or_else(|| self.missing(hex(id)))
    }

    fn missing(&self, wanted: String) -> VaultError {
        VaultError::OtherKey { wanted, here: self.ids().join(", ") }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids()).finish()
    }
}

/// Decodes a list of keys: one a line, or separated by commas. Empty lines and lines that begin with `#` count for nothing.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Zeroizing<[u8; 32]>>, KeyListError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty());
    let mut keys: Vec<Zeroizing<[u8; 32]>> = Vec::new();
    for (at, word) in words.enumerate() {
        if at >= MAX_KEYS {
            return Err(KeyListError::TooMany);
        }
        let bytes = Zeroizing::new(STANDARD.decode(word).map_err(|_| KeyListError::NotAKey(at + 1))?);
        let key = bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_| KeyListError::NotAKey(at + 1))?;
        if let Some(before) = keys.iter().position(|other| *other == key) {
            return Err(KeyListError::Twice(before + 1, at + 1));
        }
        keys.push(key);
    }
    if keys.is_empty() { Err(KeyListError::Empty) } else { Ok(keys) }
}

/// Reads the keys from where the settings say; makes one in the state directory when they say nothing and none is there. Blocks.
pub(crate) fn read(source: &MasterKeySource, state_dir: &Path) -> Result<Keyring, VaultError> {
    match source {
        MasterKeySource::Value(keys) => Keyring::parsed(keys),
        MasterKeySource::File(path) => read_file(path),
        MasterKeySource::StateDir => {
            let path = state_dir.join(IN_STATE_DIR);
            if !path.exists() {
                let text = fresh();
                files::write_private(&path, text.as_bytes())
                    .map_err(|source| VaultError::File { path: path.clone(), source })?;
            }
            read_file(&path)
        }
    }
}

/// Puts a new key in front of those in the file: from then on it is the current one. The file keeps its owner, and nobody else may read
/// it. The id of the new key. Blocks.
pub(crate) fn put_in_front(path: &Path) -> Result<String, VaultError> {
    let failed = |source| VaultError::File { path: path.to_owned(), source };
    // Whoever is second would put its key in front of what it read, and the first one's key would be gone.
    let held = fs::File::open(path).map_err(failed)?;
    held.try_lock().map_err(|_| failed(io::Error::other("somebody else is changing it")))?;
    let before = read_text(path).map_err(failed)?;
    let keys = parse_list(&before).map_err(|why| VaultError::Malformed { path: path.to_owned(), why })?;
    if keys.len() >= MAX_KEYS {
        let why = format!("it holds {MAX_KEYS} keys already: take off those that nothing needs any more");
        return Err(failed(io::Error::other(why)));
    }
    let key = fresh();
    let id = Keyring::parsed(&parse_list(&key).map_err(|why| VaultError::Malformed { path: path.to_owned(), why })?)?
        .current()
        .id()
        .to_owned();
    let mut text = Zeroizing::new(String::with_capacity(key.len() + 1 + before.len()));
    text.push_str(&key);
    text.push('\n');
    text.push_str(&before);
    files::replace_private(path, text.as_bytes(), &held).map_err(failed)?;
    Ok(id)
}

/// Reads a file of keys. Blocks.
pub(crate) fn read_file(path: &Path) -> Result<Keyring, VaultError> {
    let text = read_text(path).map_err(|source| VaultError::File { path: path.to_owned(), source })?;
    let keys = parse_list(&text).map_err(|why| VaultError::Malformed { path: path.to_owned(), why })?;
    Keyring::parsed(&keys)
}

/// The text of a file of keys, at most as long as one can be.
pub(super) fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES));
    let limit = MAX_FILE_BYTES as u64;
    if fs::File::open(path)?.take(limit).read_to_string(&mut text)? as u64 == limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has 16 KiB or more"));
    }
    Ok(text)
}

/// A new key, as text.
pub(super) fn fresh() -> Zeroizing<String> {
    let key = Zeroizing::new(rand::random::<[u8; 32]>());
    Zeroizing::new(STANDARD.encode(*key))
}

/// The file in the state directory that the key is in when the settings name none.
pub(crate) const IN_STATE_DIR: &str = "master-key";
/// As many bytes of the key's digest as an id has.
pub(crate) const KEY_ID_BYTES: usize = 8;
/// A key a year, and some to spare; each is tried by its id only.
pub(super) const MAX_KEYS: usize = 16;
const MAX_FILE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    #[test]
    fn a_list_is_read_from_lines_and_from_commas() {
        let [one, two, three] = [1, 2, 3].map(text);
        for list in [
            format!("{one}\n{two}\n{three}\n"),
            format!("{one},{two},{three}"),
            format!("# since March\n {one} \r\n\n# before\n{two}, {three},\n"),
        ] {
            let keys: Vec<u8> = parse_list(&list).unwrap().iter().map(|key| key[0]).collect();
            assert_eq!(keys, [1, 2, 3], "{list:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_keys_is_told_without_repeating_it() {
        let [one, two] = [1, 2].map(text);
        for (list, why) in [
            (String::new(), KeyListError::Empty),
            ("\n# nothing\n".to_owned(), KeyListError::Empty),
            ("c2hvcnQ=".to_owned(), KeyListError::NotAKey(1)),
            (format!("{one}\nnonsense"), KeyListError::NotAKey(2)),
            (format!("{one}\n{two}\n{one}"), KeyListError::Twice(1, 3)),
            ((0..17).map(text).collect::<Vec<_>>().join("\n"), KeyListError::TooMany),
        ] {
            let found = parse_list(&list).unwrap_err();
            assert_eq!(found, why, "{list:?}");
            assert!(!found.to_string().contains("c2hvcnQ") && !found.to_string().contains("nonsense"));
        }
    }

    #[test]
    fn the_first_key_is_current_and_no_key_is_shown() {
        let ring = Keyring::of([[1; 32], [2; 32]]).unwrap();
        let alone = Keyring::of([[2; 32]]).unwrap();
        assert_eq!(ring.ids()[1], alone.current().id());
        assert_ne!(ring.current().id(), alone.current().id());
        assert!(ring.has(alone.current().id()) && !alone.has(ring.current().id()));
        assert_eq!(format!("{alone:?}"), format!("Keyring([{:?}])", alone.current().id()));
    }

    #[test]
    fn a_key_is_put_in_front_of_those_that_are_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, format!("# the first\n{}\n", text(1))).unwrap();
        let before = read_file(&path).unwrap().ids();
        let id = put_in_front(&path).unwrap();
        assert_eq!(read_file(&path).unwrap().ids(), [id, before[0].clone()]);
        assert!(fs::read_to_string(&path).unwrap().ends_with(&format!("# the first\n{}\n", text(1))));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A link, as files in volumes of Kubernetes are, stays one.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        put_in_front(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read_file(&path).unwrap().ids().len(), 3);
        let held = fs::File::open(&path).unwrap();
        held.try_lock().unwrap();
        assert!(matches!(put_in_front(&path), Err(VaultError::File { .. })));
        drop(held);
        while read_file(&path).unwrap().ids().len() < MAX_KEYS {
            put_in_front(&path).unwrap();
        }
        assert!(put_in_front(&path).is_err());
        assert_eq!(read_file(&path).unwrap().ids().len(), MAX_KEYS);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "x".repeat(MAX_FILE_BYTES)).unwrap();
        assert!(matches!(read_file(&path), Err(VaultError::File { .. })));
    }
}
