//! Wakes those who follow a task when something of it was stored.
//!
//! A watcher reads the database at its own pace; this only says that there is more. So a slow watcher slows nobody.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Who follows what.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    tasks: Mutex<HashMap<String, watch::Sender<()>>>,
}

impl Watchers {
    /// Follows a task. Subscribe before reading, and nothing is missed.
    pub(crate) fn subscribe(&self, task_id: &str) -> watch::Receiver<()> {
        let mut tasks = self.lock();
        // Nobody else drops what the last watcher of a quiet task left behind.
        tasks.retain(|_, sender| !sender.is_closed());
        tasks.entry(task_id.to_owned()).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Something of the task was stored.
    pub(crate) fn wake(&self, task_id: &str) {
        if let Some(sender) = self.lock().get(task_id) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
