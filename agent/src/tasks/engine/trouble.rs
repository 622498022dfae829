//! A journal that cannot be written: noticed, told, tried again, and made good for.
//!
//! What it owes is bounded by what the engine holds. It must never forget an end that is not in the journal.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::jobs::removal;
use super::{Engine, Held, PROBE_INTERVAL, Phase, REMEMBERED};
use crate::failure;
use crate::tasks::{Event, TaskKey};

/// How something ended that was done to the journal.
#[derive(Debug)]
pub(super) enum Chore {
    Done,
    NotRemoved(TaskKey),
    NotJournalled(TaskKey),
}

/// What the journal could not take.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Ends. They are told from memory.
    pub(super) ends: HashSet<TaskKey>,
    /// Removals. What is left in the journal is told again after a restart, and forgotten again.
    pub(super) removals: Vec<TaskKey>,
}

impl Engine {
    /// The journal cannot be written any more, or can again.
    pub(super) async fn journal_news(&mut self) {
        let why = self.trouble.borrow_and_update().clone();
        self.worker.metrics.journal_broken(why.is_some());
        match &why {
            Some(why) => {
                tracing::error!(error = %why, "The journal cannot be written: no new tasks are taken until it can");
                self.probe = Some(Instant::now() + PROBE_INTERVAL);
            }
            None => {
                tracing::info!("The journal can be written again");
                self.probe = None;
                self.make_good();
            }
        }
        let words = why.map(|why| format!("the journal cannot be written, no new tasks are taken: {why}").into());
        self.worker.tell(Event::Impaired(words)).await;
        self.settle(0).await;
    }

    pub(super) fn probe_journal(&mut self) {
        self.probe = Some(Instant::now() + PROBE_INTERVAL);
        let worker = Arc::clone(&self.worker);
        self.chores.spawn(async move {
            if let Err(error) = worker.journal.probe().await {
                tracing::debug!(error = %failure::chain(&error), "The journal still cannot be written");
            }
            Chore::Done
        });
    }

    /// Does what the journal could not take when it was due.
    pub(super) fn make_good(&mut self) {
        let Owed { ends, removals } = std::mem::take(&mut self.owed);
        for key in ends {
            let Some(Held { phase: Phase::Ended(result), log, .. }) = self.held.get(&key) else { continue };
            let (worker, log, result) = (Arc::clone(&self.worker), log.clone(), result.clone());
            self.chores.spawn(async move {
                if worker.journal_end(&key, &log, result).await { Chore::Done } else { Chore::NotJournalled(key) }
            });
        }
        for key in removals {
            // A later assignment of the same identity cannot be: epochs only grow.
            self.chores.spawn(removal(Arc::clone(&self.worker), key));
        }
    }

    pub(super) fn chore_done(&mut self, chore: Result<Chore, tokio::task::JoinError>) {
        match chore {
            Ok(Chore::Done) => {}
            Ok(Chore::NotRemoved(key)) => {
                if self.owed.removals.len() < REMEMBERED {
                    self.owed.removals.push(key);
                }
            }
            Ok(Chore::NotJournalled(key)) => {
                if self.held.contains_key(&key) {
                    self.owed.ends.insert(key);
                }
            }
            Err(error) => tracing::error!(error = %error, "Work on the journal broke off"),
        }
    }
}
