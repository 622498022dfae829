//! The host's Kerberos keys: a keytab that is read again whenever the file has changed, as a rotation does it.
//!
//! A file that cannot be read leaves the keys as they were: whoever writes it is not done yet.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use krb5::{KerberosError, Keytab};

pub(crate) struct Keys {
    file: PathBuf,
    current: Mutex<Option<(Stamp, Arc<Keytab>)>>,
}

/// What changes whenever a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Keys {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), current: Mutex::new(None) }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The keys that hold now.
    pub(crate) async fn current(&self) -> Option<Arc<Keytab>> {
        if let Err(error) = self.load().await {
            tracing::warn!(%error, keytab = %self.file.display(), "The keytab cannot be read, its old keys stay");
        }
        self.lock().as_ref().map(|(_, keytab)| Arc::clone(keytab))
    }

    /// Reads the file if it has changed.
    pub(crate) async fn load(&self) -> Result<(), KerberosError> {
        let known = self.lock().as_ref().map(|(stamp, _)| *stamp);
        let file = self.file.clone();
        let read = move || {
            let metadata = fs::metadata(&file)?;
            let stamp = Stamp {
                inode: metadata.ino(),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            };
            if known == Some(stamp) {
                return Ok(None);
            }
            Keytab::load(&file).map(|keytab| Some((stamp, Arc::new(keytab))))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::from)??;
        if let Some(read) = read {
            *self.lock() = Some(read);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Stamp, Arc<Keytab>)>> {
        // It is replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
