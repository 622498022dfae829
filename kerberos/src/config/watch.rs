//! The current configuration of a program that runs for months while its `krb5.conf` changes.
//!
//! No thread and no notification: a look at the files' times on use, at most once a second, is cheap, works on every file system
//! and sees what a ConfigMap does, which replaces a link far above the file. What is wrong never takes the place of what was
//! right.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::{ConfigError, Configuration, Source, declared};

/// How long a look at the files is good for.
const LOOK: Duration = Duration::from_secs(1);

/// Warnings that are logged of one configuration.
const MAX_LOGGED: usize = 20;

/// Holds the current [`Configuration`].
#[derive(Debug)]
pub struct Watch {
    source: Source,
    current: Mutex<Arc<Configuration>>,
    /// Locked while somebody looks at the files. Nobody waits for that: a disk that hangs must not hold more than one thread.
    look: Mutex<Look>,
}

#[derive(Debug)]
struct Look {
    last: Instant,
    /// The files of the last reading, good or bad.
    disk: Disk,
    /// Whether any file was there when the current one was read.
    has_read: bool,
    /// What was wrong at the last reading, so that it is said once.
    rejected: Option<String>,
}

impl Watch {
    /// Reads the configuration for the first time. Declared settings are also written to `rendered`, if given, for MIT's tools. This
    /// waits for the disk: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// What [`Configuration::load`] reports, or that the file could not be written.
    pub fn start(source: Source, rendered: Option<PathBuf>) -> Result<Self, ConfigError> {
        let mut disk = Disk::default();
        let current = Configuration::load_from(&source, variable().as_deref(), &mut disk)?;
        if let (Source::Declared(_), Some(path)) = (&source, rendered) {
            declared::write(&path, current.text()).map_err(|source| ConfigError::Write { path, source })?;
        }
        log_warnings(&current);
        let look = Look { last: Instant::now(), has_read: disk.has_read(), disk, rejected: None };
        Ok(Self { source, current: Mutex::new(Arc::new(current)), look: Mutex::new(look) })
    }

    /// The current configuration. When the last look is more than a second ago this looks at the files, and reads them if they
    /// changed: for a moment it waits for the disk. In asynchronous code use [`Watch::fresh`].
    pub fn current(&self) -> Arc<Configuration> {
        self.current_at(Instant::now())
    }

    /// [`Watch::current`] without blocking the thread.
    pub async fn fresh(self: &Arc<Self>) -> Arc<Configuration> {
        if self.due(Instant::now()).is_some() {
            let watch = Arc::clone(self);
            // It fails only when the runtime ends or reading panicked: what was good stays good.
            let _ended = tokio::task::spawn_blocking(move || watch.current()).await;
        }
        self.present()
    }

    pub(super) fn current_at(&self, now: Instant) -> Arc<Configuration> {
        if let Some(mut look) = self.due(now) {
            look.last = now;
            if look.disk.has_changed() {
                self.read_again(&mut look);
            }
        }
        self.present()
    }

    /// When it is time to look, and nobody else does.
    fn due(&self, now: Instant) -> Option<MutexGuard<'_, Look>> {
        if matches!(self.source, Source::Declared(_)) {
            return None;
        }
        let look = match self.look.try_lock() {
            Ok(look) => look,
            // Reading again mends whatever a panic left.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        (now.saturating_duration_since(look.last) >= LOOK).then_some(look)
    }

    fn present(&self) -> Arc<Configuration> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read_again(&self, look: &mut Look) {
        let mut disk = Disk::default();
        let read = Configuration::load_from(&self.source, variable().as_deref(), &mut disk);
        let read = read.map_err(|error| error.to_string()).and_then(|new| {
            // Files may be gone for the moment in which they are replaced. With none at all nothing would work.
            if disk.has_read() || !look.has_read {
                Ok(new)
            } else {
                Err("none of the files is there any more".to_owned())
            }
        });
        look.disk = disk;
        match read {
            Ok(new) => {
                let recovered = look.rejected.take().is_some();
                look.has_read = look.disk.has_read();
                if new.text() != self.present().text() {
                    tracing::info!("The Kerberos settings have changed and were read again");
                    log_warnings(&new);
                    *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                } else if recovered {
                    tracing::info!("The Kerberos settings are right again");
                }
            }
            Err(text) => {
                if look.rejected.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        "The Kerberos settings have changed and are wrong now; the earlier ones stay in force"
                    );
                    look.rejected = Some(text);
                }
            }
        }
    }
}

fn variable() -> Option<std::ffi::OsString> {
    std::env::var_os("KRB5_CONFIG")
}

fn log_warnings(configuration: &Configuration) {
    for warning in configuration.warnings().iter().take(MAX_LOGGED) {
        tracing::warn!(%warning, "The Kerberos settings look wrong");
    }
}
