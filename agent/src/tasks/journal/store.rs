//! The journal's file: opened, written, and opened anew after a failure.
//!
//! It must never take the agent down: what the store underneath panics over is an error. Called by the journal's thread.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, watch};

use super::{JournalError, Record, Request, decode};
use crate::tasks::TaskKey;
use crate::telemetry::Metrics;
use crate::{failure, ownership};

/// How opening went.
pub(super) enum Attempt {
    Sound(Database, Vec<(TaskKey, Record)>),
    Damaged(String),
}

/// Opens or makes the file, and reads all of it.
pub(super) fn attempt(path: &Path, opener: &Opener) -> Result<Attempt, JournalError> {
    // The store checks itself, but a file damaged in the right places makes it panic instead of returning an error.
    let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<_, redb::Error> {
        let mut database = opener(path)?;
        // What reads well may still not bear to be written: it would fail at each start anew, and never be set aside.
        if !database.check_integrity()? {
            return Ok(None);
        }
        let records = read(&database)?;
        Ok(Some((database, records)))
    }));
    match outcome {
        Ok(Ok(None)) => Ok(Attempt::Damaged("the store's check of its pages failed".into())),
        Ok(Ok(Some((database, records)))) => {
            // It may be of a user that ran the agent before.
            let restricted = std::fs::metadata(path).and_then(|found| ownership::narrow(path, &found, 0o600));
            restricted.map_err(|source| JournalError::File {
                action: "restrict",
                path: path.to_owned(),
                source: Arc::new(source),
            })?;
            Ok(Attempt::Sound(database, records))
        }
        Err(_) => Ok(Attempt::Damaged("the store panicked while reading it".into())),
        Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(JournalError::InUse { path: path.to_owned() }),
        Ok(Err(error)) => {
            let damaged = match &error {
                redb::Error::Corrupted(_) | redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => true,
                redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => true,
                redb::Error::Io(error) => matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof),
                _ => false,
            };
            if damaged {
                Ok(Attempt::Damaged(error.to_string()))
            } else {
                Err(JournalError::Open { path: path.to_owned(), source: Arc::new(error) })
            }
        }
    }
}

fn read(database: &Database) -> Result<Vec<(TaskKey, Record)>, redb::Error> {
    let table = match database.begin_read()?.open_table(ASSIGNMENTS) {
        // A new file. One that is there is only read: its disk may be full.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut records = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let (task_id, epoch) = key.value();
        records.push((TaskKey { task_id: task_id.into(), epoch }, decode(value.value())));
    }
    Ok(records)
}

/// The file, as long as it can be used.
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) opener: Opener,
    /// Nothing after a failure: the store does not say what a failed write left, so it is read anew before the next.
    pub(super) database: Option<Database>,
}

impl Store {
    fn commit(&mut self, batch: &[Request]) -> Result<(), JournalError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => match attempt(&self.path, &self.opener)? {
                Attempt::Sound(database, _) => database,
                // Whatever is in it is in memory as well; the next start sets it aside.
                Attempt::Damaged(_) => return Err(JournalError::BrokeOff),
            },
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| commit(&database, batch)));
        match outcome {
            Ok(Ok(())) => {
                self.database = Some(database);
                Ok(())
            }
            failed => {
                // Closing may write, and fail, as well.
                if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
                    tracing::error!("The journal's file could not be closed in order");
                }
                Err(match failed {
                    Ok(Err(error)) => JournalError::Write(Arc::new(error)),
                    _ => JournalError::BrokeOff,
                })
            }
        }
    }
}

/// Carries out requests until nobody can make any. `trouble` says why the last commit failed.
pub(super) fn write(
    mut store: Store,
    mut requests: mpsc::Receiver<Request>,
    trouble: &watch::Sender<Option<Arc<str>>>,
    metrics: &Metrics,
) {
    let mut batch = Vec::new();
    while let Some(request) = requests.blocking_recv() {
        let mut bytes = request.change.len();
        batch.push(request);
        while batch.len() < BATCH
            && bytes < BATCH_BYTES
            && let Ok(request) = requests.try_recv()
        {
            bytes += request.change.len();
            batch.push(request);
        }
        let started = std::time::Instant::now();
        let outcome = store.commit(&batch);
        metrics.journal_committed(started.elapsed());
        if outcome.is_err() {
            metrics.journal_failed();
        }
        let why = outcome.as_ref().err().map(|error| Arc::from(failure::chain(error)));
        trouble.send_if_modified(|trouble| {
            // Told once, not for each request.
            let news = trouble.is_some() != why.is_some();
            if news {
                trouble.clone_from(&why);
            }
            news
        });
        for request in batch.drain(..) {
            // Nobody waits any more: the task was given up meanwhile.
            let _ = request.done.send(outcome.clone());
        }
    }
}

fn commit(database: &Database, batch: &[Request]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ASSIGNMENTS)?;
        for Request { change, .. } in batch {
            match change {
                Change::Put(key, value) => drop(table.insert((&*key.task_id, key.epoch), value.as_slice())?),
                Change::Remove(key) => drop(table.remove((&*key.task_id, key.epoch))?),
                Change::Probe => drop(transaction.open_table(PROBES)?.insert((), PROBE.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Change {
    /// Keep this record.
    Put(TaskKey, Vec<u8>),
    /// Forget the record.
    Remove(TaskKey),
    /// Find out whether it works.
    Probe,
}

impl Change {
    fn len(&self) -> usize {
        if let Self::Put(_, value) = self { value.len() } else { 0 }
    }
}

/// Opens the file, or makes it.
pub(super) type Opener = Arc<dyn Fn(&Path) -> Result<Database, redb::Error> + Send + Sync>;

/// The way it is done outside of tests.
pub(super) fn create(path: &Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
}

const ASSIGNMENTS: TableDefinition<'static, (&str, u64), &[u8]> = TableDefinition::new("assignments");
const PROBES: TableDefinition<'static, (), &[u8]> = TableDefinition::new("probes");
/// What a probe writes: about as much as a record.
const PROBE: [u8; 512] = [0x50; 512];
/// The store's own default is 1 GiB; the journal is small and the agent's memory is not.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Requests that share one commit, and about how many bytes of records.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
