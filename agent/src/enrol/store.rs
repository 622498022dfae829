//! The identity on disk: one JSON file, mode 0600, replaced atomically, in a directory of mode 0700; and beside it the name
//! under which this installation opens shells.
//!
//! It holds the agent's private keys in the clear, the stated exception to the rule that no secret touches unencrypted
//! disk. Called by `app` and `link`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_proto::sealing::SealingKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{EnrolError, Identity, PrivateKeyPem};
use crate::ownership;

/// The identity's file.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    /// Makes the state directory when it is missing, and takes other people's rights on it away where it is our own. A volume
    /// may belong to somebody else and let us in by our group, as Kubernetes arranges it (`fsGroup`): its rights are for who
    /// mounts it to decide, and what is written into it is nobody else's to read all the same. What strangers may have put
    /// there is refused.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, EnrolError> {
        let storage = |action, source| EnrolError::Storage { action, path: state_dir.to_owned(), source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| storage("make the state directory", source))?;
        let found = std::fs::metadata(state_dir).map_err(|source| storage("look at the state directory", source))?;
        let open = ownership::is_open(&found);
        ownership::check(&found, open).map_err(|source| storage("trust the state directory", source))?;
        // Before the directory is narrowed: afterwards nobody could tell.
        for name in OURS {
            let path = state_dir.join(name);
            let storage = |action, source| EnrolError::Storage { action, path: path.clone(), source };
            match std::fs::symlink_metadata(&path) {
                Ok(found) => ownership::check(&found, open).map_err(|source| storage("trust", source))?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(storage("look at", source)),
            }
        }
        if !ownership::narrow(state_dir, &found, 0o700)
            .map_err(|source| storage("restrict the state directory", source))?
        {
            let (path, owner) = (state_dir.display(), found.uid());
            tracing::warn!(%path, owner, "The state directory belongs to another user, whose rights on it stay");
        }
        let store = Self { path: state_dir.join(IDENTITY) };
        store.narrow()?;
        Ok(store)
    }

    /// Where a volume is given to a group (`fsGroup`), the group may read the file anew at each mount.
    fn narrow(&self) -> Result<(), EnrolError> {
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.storage("look at", source)),
        };
        if !ownership::narrow(&self.path, &found, 0o600).map_err(|source| self.storage("restrict", source))? {
            let (path, owner) = (self.path.display(), found.uid());
            tracing::warn!(%path, owner, "The identity belongs to another user, whose group may read its keys until it is renewed");
        }
        Ok(())
    }

    /// The same for somebody who only looks: nothing is made, and no right is taken away.
    pub(crate) fn look(state_dir: &Path) -> Self {
        Self { path: state_dir.join(IDENTITY) }
    }

    /// The identity's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The stored identity, if there is one.
    pub(crate) fn load(&self) -> Result<Option<Identity>, EnrolError> {
        let mut text = Zeroizing::new(String::new());
        let read = File::open(&self.path).and_then(|mut file| {
            let directory = self.path.parent().map(std::fs::metadata).transpose()?;
            ownership::check(&file.metadata()?, directory.as_ref().is_some_and(ownership::is_open))?;
            file.read_to_string(&mut text)
        });
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.storage("read", source)),
        }
        let malformed = |problem: String| EnrolError::Malformed { path: self.path.clone(), problem };
        // The parser's own message may quote the text, and with it a key.
        let mut document: Document = serde_json::from_str(&text)
            .map_err(|error| malformed(format!("line {} is not as expected", error.line())))?;
        let sealing_key = Zeroizing::new(
            STANDARD.decode(&document.sealing_key).map_err(|_| malformed("its sealing key is not base64".into()))?,
        );
        let sealing_key = SealingKey::from_private_bytes(&sealing_key).map_err(|error| malformed(error.to_string()))?;
        Ok(Some(Identity {
            agent_id: std::mem::take(&mut document.agent_id),
            certificate_pem: std::mem::take(&mut document.certificate_pem),
            private_key_pem: PrivateKeyPem::new(std::mem::take(&mut document.private_key_pem)),
            sealing_key,
            ca_pem: std::mem::take(&mut document.ca_pem),
            issued: UNIX_EPOCH + Duration::from_secs(document.issued_unix),
            not_after: UNIX_EPOCH + Duration::from_secs(document.not_after_unix),
        }))
    }

    /// Replaces the stored identity, surviving a crash at any point with the old or the new one.
    pub(crate) fn save(&self, identity: &Identity) -> Result<(), EnrolError> {
        let document = Document {
            agent_id: identity.agent_id.clone(),
            certificate_pem: identity.certificate_pem.clone(),
            private_key_pem: identity.private_key_pem.expose().to_owned(),
            sealing_key: STANDARD.encode(identity.sealing_key.private_bytes()),
            ca_pem: identity.ca_pem.clone(),
            issued_unix: seconds(identity.issued),
            not_after_unix: seconds(identity.not_after),
        };
        let text = serde_json::to_vec_pretty(&document)
            .map(Zeroizing::new)
            .map_err(|error| self.storage("encode", std::io::Error::other(error)))?;
        replace(&self.path, &text).map_err(|source| self.storage("write", source))
    }

    /// What this installation calls itself on hosts, so that after a crash it finds the shells that it left behind. It is
    /// made once and outlives enrolments; another state directory is another installation.
    pub(crate) fn installation(&self) -> Result<String, EnrolError> {
        let path = self.path.with_file_name("installation");
        let storage = |action, source| EnrolError::Storage { action, path: path.clone(), source };
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(64).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(storage("read", source)),
        }
        let stored = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<Uuid>().ok());
        if let Some(id) = stored {
            return Ok(id.simple().to_string());
        }
        if !text.is_empty() {
            tracing::warn!(path = %path.display(), "File does not hold an installation's name, and is replaced");
        }
        let id = Uuid::new_v4().simple().to_string();
        replace(&path, id.as_bytes()).map_err(|source| storage("write", source))?;
        Ok(id)
    }

    /// Saving did not come to its end.
    pub(crate) fn interrupted(&self, error: tokio::task::JoinError) -> EnrolError {
        self.storage("write", std::io::Error::other(error))
    }

    fn storage(&self, action: &'static str, source: std::io::Error) -> EnrolError {
        EnrolError::Storage { action, path: self.path.clone(), source }
    }
}

/// Writes a private file so that a crash leaves the old content or the new one.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    // Left over from a crash, perhaps with another mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Document {
    agent_id: String,
    certificate_pem: String,
    private_key_pem: String,
    /// The private half, base64.
    sealing_key: String,
    ca_pem: String,
    issued_unix: u64,
    not_after_unix: u64,
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

const IDENTITY: &str = "identity.json";
/// What is read again after a restart.
const OURS: [&str; 4] = [IDENTITY, "installation", "journal.redb", "output"];

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::ownership::tests::{as_another_user, give_away};

    fn identity() -> Identity {
        Identity {
            agent_id: "a".into(),
            certificate_pem: "cert".into(),
            private_key_pem: PrivateKeyPem::new("marker-secret".into()),
            sealing_key: SealingKey::generate(),
            ca_pem: "ca".into(),
            issued: UNIX_EPOCH + Duration::from_secs(10),
            not_after: UNIX_EPOCH + Duration::from_secs(310),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let store = Store::open(&state).unwrap();
        assert!(store.load().unwrap().is_none());
        let identity = identity();
        store.save(&identity).unwrap();
        store.save(&identity).unwrap();
        let loaded = Store::open(&state).unwrap().load().unwrap().unwrap();
        assert_eq!(loaded.agent_id, "a");
        assert_eq!(loaded.private_key_pem.expose(), "marker-secret");
        assert_eq!(loaded.sealing_key.public_bytes(), identity.sealing_key.public_bytes());
        assert_eq!(loaded.renewal_due(), UNIX_EPOCH + Duration::from_secs(210));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("identity.json")), 0o600);
        assert!(!format!("{loaded:?}").contains("marker-secret"));
    }

    #[test]
    fn an_installation_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let name = store.installation().unwrap();
        assert_eq!(Store::open(directory.path()).unwrap().installation().unwrap(), name);
        // What is not a name is replaced: an agent must start even so.
        std::fs::write(directory.path().join("installation"), "../\u{fffd}").unwrap();
        let other = store.installation().unwrap();
        assert!(other != name && other.len() == 32, "{other}");
        assert_eq!(store.installation().unwrap(), other);
    }

    #[test]
    fn what_strangers_may_have_put_there_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        give_away(state, 0o777);
        let error = crate::failure::chain(&Store::open(state).unwrap_err());
        assert!(error.contains("trust the state directory") && error.contains("user 54321"), "{error}");
        // As volumes of the kubelet are: root's, and everybody may write.
        std::os::unix::fs::chown(state, Some(0), None).unwrap();
        let (path, mode) = (state.join(IDENTITY), || std::fs::metadata(state).unwrap().permissions().mode() & 0o777);
        for name in OURS {
            std::fs::write(state.join(name), "{}").unwrap();
            give_away(&state.join(name), 0o600);
            let error = crate::failure::chain(&Store::open(state).unwrap_err());
            assert!(error.contains(name) && error.contains("user 54321"), "{error}");
            // Else the next start would find nothing wrong.
            assert_eq!(mode(), 0o777);
            let error = crate::failure::chain(&Store::look(state).load().unwrap_err());
            assert_eq!(error.contains("user 54321"), name == IDENTITY, "{error}");
            std::fs::remove_file(state.join(name)).unwrap();
            std::fs::write(&path, "{}").unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        Store::open(state).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn the_identity_of_the_user_before_stays_good_on_a_volume_of_the_group() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        Store::open(state).unwrap().save(&identity()).unwrap();
        let path = state.join(IDENTITY);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        // As the kubelet leaves it at each mount.
        std::fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        Store::look(state).load().unwrap().unwrap();
        assert_eq!(mode(), 0o660);
        Store::open(state).unwrap().load().unwrap().unwrap();
        assert_eq!(mode(), 0o600);
        give_away(&path, 0o660);
        give_away(state, 0o2770);
        let renewed = as_another_user(|| {
            let store = Store::open(state)?;
            let loaded = store.load()?.unwrap();
            store.save(&loaded).map(|()| loaded.agent_id)
        });
        assert_eq!(renewed.unwrap(), "a");
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn a_damaged_file_is_a_clear_error_that_shows_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("identity.json"), "{\"private_key_pem\": \"marker-secret\", \"x\": 1")
            .unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("does not hold an identity") && !error.contains("marker-secret"), "{error}");
    }
}
