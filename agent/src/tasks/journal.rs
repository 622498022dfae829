//! The journal: every assignment the agent holds, on disk before anything depends on it.
//!
//! One small ACID store (redb) written by one thread that commits whatever has gathered together, so that a hundred
//! tasks share one sync. It must never hold a secret, and a damaged file must never keep the agent from starting: it is
//! set aside. Called by the engine.

mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lictor_proto::v1::{OutputStream, TaskResult};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::TaskKey;
use super::clock::Stamp;
use super::output::Piece;
use crate::telemetry::Metrics;
use store::{Attempt, Change, Opener, Store, attempt, create, write};

/// What is known of one assignment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// Accepted; surely not started.
    Accepted,
    /// May have started.
    Started(Box<Start>),
    /// Ended.
    Ended {
        /// How.
        result: Box<TaskResult>,
        /// Output that was short enough to be kept here.
        tail: Vec<Piece>,
        /// Of the log, when this was written.
        skipped: u64,
    },
}

/// How a task was started, and all that a later process needs to find its command again; the credential is none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// The host.
    pub(crate) host: String,
    /// The remote shell; empty for a connection test.
    pub(crate) shell_id: String,
    /// The command in it; empty for a connection test.
    pub(crate) command_id: String,
    /// When the task was accepted. Not known in records of versions that did not follow commands again.
    pub(crate) accepted: Stamp,
    /// The host has all of the command's input, or there is none.
    pub(crate) input_sent: bool,
    /// Secrets of the command's environment, by identifier and version: what it prints is masked by them.
    pub(crate) secrets: Vec<(String, u64)>,
    /// Of the log, when this was written.
    pub(crate) skipped: u64,
}

impl Start {
    /// Shell and command, when there is a command that can be found again.
    pub(crate) fn place(&self) -> Option<(&str, Uuid)> {
        let command_id = self.command_id.parse().ok()?;
        (!self.shell_id.is_empty() && self.accepted.is_known()).then_some((self.shell_id.as_str(), command_id))
    }
}

/// The journal. Dropping it finishes what was asked for.
#[derive(Debug)]
pub(crate) struct Journal {
    requests: mpsc::Sender<Request>,
    trouble: watch::Receiver<Option<Arc<str>>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// Why the journal fails.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum JournalError {
    /// Another process has it open.
    #[error("failed to open the journal {}: another agent uses this state directory", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("failed to open the journal {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: Arc<redb::Error>,
    },
    /// A file operation around it failed.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: Arc<std::io::Error>,
    },
    /// It cannot be written.
    #[error("failed to write the journal")]
    Write(#[source] Arc<redb::Error>),
    /// The store panicked over it.
    #[error("failed to write the journal: the store broke off")]
    BrokeOff,
    /// Its thread is gone.
    #[error("failed to write the journal: it is closed")]
    Closed,
}

/// A journal that was opened, and what it held.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The journal.
    pub(crate) journal: Journal,
    /// Everything in it. A record that cannot be read counts as [`Record::Started`]: that promises least.
    pub(crate) records: Vec<(TaskKey, Record)>,
    /// Where a damaged journal was put.
    pub(crate) set_aside: Option<PathBuf>,
}

impl Journal {
    /// Opens or makes the journal under `state_dir`. Blocks.
    pub(crate) fn open(state_dir: &Path, metrics: Arc<Metrics>) -> Result<Opened, JournalError> {
        Self::open_by(state_dir, metrics, Arc::new(create))
    }

    /// The same with a way of opening the file that a test chooses.
    fn open_by(state_dir: &Path, metrics: Arc<Metrics>, opener: Opener) -> Result<Opened, JournalError> {
        let path = state_dir.join("journal.redb");
        let mut set_aside = None;
        let (database, records) = match attempt(&path, &opener)? {
            Attempt::Sound(database, records) => (database, records),
            Attempt::Damaged(why) => {
                let aside = aside(&path);
                std::fs::rename(&path, &aside).map_err(|source| JournalError::File {
                    action: "set aside the damaged journal",
                    path: path.clone(),
                    source: Arc::new(source),
                })?;
                tracing::error!(
                    journal = %path.display(), set_aside = %aside.display(), error = why,
                    "The journal is damaged and was set aside; results that waited in it are lost, their tasks end as Unknown when their leases run out"
                );
                set_aside = Some(aside);
                match attempt(&path, &opener)? {
                    Attempt::Sound(database, records) => (database, records),
                    Attempt::Damaged(_) => return Err(JournalError::Closed),
                }
            }
        };
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (trouble_in, trouble) = watch::channel(None);
        let store = Store { path: path.clone(), opener, database: Some(database) };
        let writer = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(store, receiver, &trouble_in, &metrics))
            .map_err(|source| JournalError::File { action: "start the writer of", path, source: Arc::new(source) })?;
        Ok(Opened { journal: Self { requests, trouble, writer: Some(writer) }, records, set_aside })
    }

    /// Why it cannot be written at the moment, in words; nothing when the last commit went well.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.trouble.clone()
    }

    /// Writes and syncs something that does not matter: finds out whether it works again.
    pub(crate) async fn probe(&self) -> Result<(), JournalError> {
        self.request(Change::Probe).await
    }

    /// Returns once the record is safe.
    pub(crate) async fn put(&self, key: &TaskKey, record: &Record) -> Result<(), JournalError> {
        self.request(Change::Put(key.clone(), encode(record))).await
    }

    /// Returns once the record is gone.
    pub(crate) async fn remove(&self, key: &TaskKey) -> Result<(), JournalError> {
        self.request(Change::Remove(key.clone())).await
    }

    async fn request(&self, change: Change) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        let request = Request { change, done };
        // Full means that the disk is slower than the tasks, which then wait here.
        self.requests.send(request).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.requests = closed;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("The writer of the journal panicked");
        }
    }
}

#[derive(Debug)]
struct Request {
    change: Change,
    done: oneshot::Sender<Result<(), JournalError>>,
}

fn aside(path: &Path) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    path.with_extension(format!("redb.damaged-{seconds}"))
}

/// A record in bytes. Fields may be added, never changed.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(message, optional, tag = "1")]
    started: Option<StoredStart>,
    #[prost(message, optional, tag = "2")]
    result: Option<TaskResult>,
    #[prost(message, repeated, tag = "3")]
    tail: Vec<StoredPiece>,
    #[prost(uint64, tag = "4")]
    skipped: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredStart {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(string, tag = "2")]
    shell_id: String,
    #[prost(string, tag = "3")]
    command_id: String,
    #[prost(uint64, tag = "4")]
    accepted_wall_millis: u64,
    #[prost(string, tag = "5")]
    accepted_boot_id: String,
    #[prost(uint64, tag = "6")]
    accepted_uptime_millis: u64,
    #[prost(bool, tag = "7")]
    input_sent: bool,
    #[prost(message, repeated, tag = "8")]
    secrets: Vec<StoredSecret>,
}

/// Which secret, never its value.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredSecret {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(uint64, tag = "2")]
    version: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredPiece {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(int32, tag = "2")]
    stream: i32,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

impl From<(String, u64)> for StoredSecret {
    fn from((identifier, version): (String, u64)) -> Self {
        Self { identifier, version }
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let stored = match record {
        Record::Accepted => Stored::default(),
        Record::Started(start) => Stored {
            started: Some(StoredStart {
                host: start.host.clone(),
                shell_id: start.shell_id.clone(),
                command_id: start.command_id.clone(),
                accepted_wall_millis: start.accepted.wall_millis,
                accepted_boot_id: start.accepted.boot_id.clone(),
                accepted_uptime_millis: start.accepted.uptime_millis,
                input_sent: start.input_sent,
                secrets: start.secrets.iter().cloned().map(StoredSecret::from).collect(),
            }),
            skipped: start.skipped,
            ..Stored::default()
        },
        Record::Ended { result, tail, skipped } => Stored {
            result: Some((**result).clone()),
            skipped: *skipped,
            tail: tail
                .iter()
                .map(|piece| StoredPiece {
                    offset: piece.offset,
                    stream: piece.stream.into(),
                    data: piece.data.clone(),
                })
                .collect(),
            ..Stored::default()
        },
    };
    stored.encode_to_vec()
}

fn decode(bytes: &[u8]) -> Record {
    let Ok(stored) = Stored::decode(bytes) else {
        return Record::Started(Box::default());
    };
    match (stored.result, stored.started) {
        (Some(result), _) => {
            let tail = stored.tail.into_iter();
            let tail = tail.map(|StoredPiece { offset, stream, data }| Piece {
                offset,
                stream: OutputStream::try_from(stream).unwrap_or(OutputStream::Stdout),
                data,
            });
            Record::Ended { result: Box::new(result), tail: tail.collect(), skipped: stored.skipped }
        }
        (None, Some(start)) => Record::Started(Box::new(Start {
            host: start.host,
            shell_id: start.shell_id,
            command_id: start.command_id,
            accepted: Stamp {
                wall_millis: start.accepted_wall_millis,
                boot_id: start.accepted_boot_id,
                uptime_millis: start.accepted_uptime_millis,
            },
            input_sent: start.input_sent,
            secrets: start.secrets.into_iter().map(|secret| (secret.identifier, secret.version)).collect(),
            skipped: stored.skipped,
        })),
        (None, None) => Record::Accepted,
    }
}

/// Requests that wait for the writer.
const QUEUE: usize = 256;
