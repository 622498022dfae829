//! The current configuration of a program that runs for months while its `krb5.conf` changes.
//!
//! No thread and no notification: a look at the files' times on use, at most once a second, is cheap, works on every file system
//! and sees what a ConfigMap does, which replaces a link far above the file. What is wrong never takes the place of what was
//! right.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
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
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<Configuration>,
    looked: Instant,
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
        let has_read = disk.has_read();
        let state = State { current: Arc::new(current), looked: Instant::now(), disk, has_read, rejected: None };
        Ok(Self { source, state: Mutex::new(state) })
    }

    /// The current configuration. When the last look is more than a second ago this looks at the files, and reads them if they
    /// changed: for a moment it waits for the disk. In asynchronous code use [`Watch::fresh`].
    pub fn current(&self) -> Arc<Configuration> {
        self.current_at(Instant::now())
    }

    /// [`Watch::current`] without blocking the thread.
    pub async fn fresh(self: &Arc<Self>) -> Arc<Configuration> {
        if let Ok(state) = self.state.try_lock()
            && (Instant::now().saturating_duration_since(state.looked) < LOOK
                || matches!(self.source, Source::Declared(_)))
        {
            return Arc::clone(&state.current);
        }
        let watch = Arc::clone(self);
        match tokio::task::spawn_blocking(move || watch.current()).await {
            Ok(current) => current,
            // The runtime ends, or reading panicked: what was good stays good.
            Err(_) => Arc::clone(&self.lock().current),
        }
    }

    pub(super) fn current_at(&self, now: Instant) -> Arc<Configuration> {
        let mut state = self.lock();
        if matches!(self.source, Source::Declared(_)) || now.saturating_duration_since(state.looked) < LOOK {
            return Arc::clone(&state.current);
        }
        state.looked = now;
        if state.disk.has_changed() {
            self.read_again(&mut state);
        }
        Arc::clone(&state.current)
    }

    fn read_again(&self, state: &mut State) {
        let mut disk = Disk::default();
        let read = Configuration::load_from(&self.source, variable().as_deref(), &mut disk);
        let read = read.map_err(|error| error.to_string()).and_then(|new| {
            // Files may be gone for the moment in which they are replaced. With none at all nothing would work.
            if disk.has_read() || !state.has_read {
                Ok(new)
            } else {
                Err("none of the files is there any more".to_owned())
            }
        });
        state.disk = disk;
        match read {
            Ok(new) => {
                let recovered = state.rejected.take().is_some();
                state.has_read = state.disk.has_read();
                if new.text() != state.current.text() {
                    tracing::info!("The Kerberos settings have changed and were read again");
                    log_warnings(&new);
                    state.current = Arc::new(new);
                } else if recovered {
                    tracing::info!("The Kerberos settings are right again");
                }
            }
            Err(text) => {
                if state.rejected.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        "The Kerberos settings have changed and are wrong now; the earlier ones stay in force"
                    );
                    state.rejected = Some(text);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in between can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
