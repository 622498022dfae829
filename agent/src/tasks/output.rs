//! The output of one task between its host and the control plane.
//!
//! One log of bytes over both streams. What is not acknowledged stays: first in a window in memory, then in a bounded
//! number of segment files, and when those are full too, [`Log::append`] waits, the caller stops receiving, and the host
//! holds the command's output back. It must never lose a byte silently nor grow without bound. Written by `execute`,
//! read by the link, acknowledged through the engine.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use lictor_proto::v1::OutputStream;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::TaskKey;
use crate::ownership;
use segment::Segment;

/// A task's output. Cloning gives another handle to the same log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

/// A piece of output from one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Offset of its first byte in the log.
    pub(crate) offset: u64,
    /// Which stream.
    pub(crate) stream: OutputStream,
    /// The bytes.
    pub(crate) data: Bytes,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// What all logs of an agent share.
#[derive(Debug)]
pub(crate) struct Shelf {
    directory: PathBuf,
    limits: Limits,
    spilled: AtomicU64,
    grown: Mutex<BTreeSet<TaskKey>>,
    wake: Notify,
}

/// Bounds of one log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most unacknowledged bytes in memory.
    pub(crate) memory: usize,
    /// Most unacknowledged bytes in files.
    pub(crate) disk: u64,
    /// Size at which a segment file is full.
    pub(crate) segment: u64,
}

impl Limits {
    /// Shares the memory among `slots`, so that many slots do not mean much memory.
    pub(crate) fn for_slots(slots: u32) -> Self {
        let share = MEMORY_OF_ALL / usize::try_from(slots.max(1)).unwrap_or(usize::MAX);
        Self { memory: share.clamp(LEAST_MEMORY, MOST_MEMORY), disk: DISK, segment: SEGMENT }
    }
}

impl Shelf {
    /// Uses `directory`, which exists.
    pub(crate) fn new(directory: PathBuf, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            directory,
            limits,
            spilled: AtomicU64::new(0),
            grown: Mutex::new(BTreeSet::new()),
            wake: Notify::new(),
        })
    }

    /// Bytes in files at the moment.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    /// Waits until logs have grown and returns which. For one caller at a time.
    pub(crate) async fn grown(&self) -> BTreeSet<TaskKey> {
        loop {
            let woken = self.wake.notified();
            let grown = std::mem::take(&mut *self.grown.lock().unwrap_or_else(PoisonError::into_inner));
            if !grown.is_empty() {
                return grown;
            }
            woken.await;
        }
    }

    /// An empty log.
    pub(crate) fn log(self: &Arc<Self>, key: &TaskKey) -> Log {
        self.log_from(key, State::default())
    }

    /// The log of a task that ended before this process started: its bytes from wherever they begin to `end`. A missing
    /// stretch is a gap, not an error.
    pub(crate) fn restore(
        self: &Arc<Self>,
        key: &TaskKey,
        end: u64,
        inline: Vec<Piece>,
        skipped: u64,
    ) -> io::Result<Log> {
        let end = end.saturating_add(skipped);
        let mut segments = self.reopen(key)?;
        segments.retain(|segment| segment.first() < end);
        self.spilled.fetch_add(segments.iter().map(Segment::len).sum(), Ordering::Relaxed);
        let memory_bytes = inline.iter().map(|piece| piece.data.len()).sum();
        let first = inline.first().map(|piece| piece.offset).or_else(|| segments.first().map(Segment::first));
        let state = State {
            acked: first.unwrap_or(end),
            end,
            memory: inline.into(),
            memory_bytes,
            segments: segments.into(),
            skipped,
            ..State::default()
        };
        Ok(self.log_from(key, state))
    }

    /// The log of a task that was running when the last process ended: what that had written to files. Nothing is read from
    /// it or added to it before [`Log::resume`].
    pub(crate) fn interrupted(self: &Arc<Self>, key: &TaskKey, skipped: u64) -> io::Result<Log> {
        let mut segments: VecDeque<Segment> = self.reopen(key)?.into();
        // Behind a hole nothing is of use.
        let mut end = segments.front().map_or(skipped, Segment::first);
        let whole = segments.iter().take_while(|segment| {
            let follows = segment.first() == end;
            end = segment.end();
            follows
        });
        let whole = whole.count();
        for segment in segments.split_off(whole) {
            segment.delete()?;
        }
        let (acked, end) =
            (segments.front().map_or(skipped, Segment::first), segments.back().map_or(skipped, Segment::end));
        self.spilled.fetch_add(segments.iter().map(Segment::len).sum(), Ordering::Relaxed);
        Ok(self.log_from(key, State { acked, end, segments, skipped, ..State::default() }))
    }

    /// An empty log of a task whose files cannot be read. They are deleted, as far as that is possible.
    pub(crate) fn log_without_files(self: &Arc<Self>, key: &TaskKey, skipped: u64) -> Log {
        let prefix = file_prefix(key);
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix))
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(error = %error, "A file of spilled output cannot be deleted");
            }
        }
        self.log_from(key, State { acked: skipped, end: skipped, skipped, ..State::default() })
    }

    /// The files of a task, in order.
    fn reopen(&self, key: &TaskKey) -> io::Result<Vec<Segment>> {
        let mut segments: Vec<Segment> = Vec::new();
        let prefix = file_prefix(key);
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                segments.extend(Segment::reopen(entry.path())?);
            }
        }
        segments.sort_by_key(Segment::first);
        Ok(segments)
    }

    /// Deletes the files of every task but those in `keep`.
    pub(crate) fn sweep<'a>(&self, keep: impl Iterator<Item = &'a TaskKey>) -> io::Result<()> {
        let keep: Vec<String> = keep.map(file_prefix).collect();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| keep.iter().any(|prefix| name.starts_with(prefix))) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn log_from(self: &Arc<Self>, key: &TaskKey, state: State) -> Log {
        Log {
            shared: Arc::new(Shared {
                key: key.clone(),
                shelf: Arc::clone(self),
                state: Mutex::new(state),
                room: Notify::new(),
            }),
        }
    }

    fn mark(&self, key: &TaskKey) {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        self.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    key: TaskKey,
    shelf: Arc<Shelf>,
    state: Mutex<State>,
    room: Notify,
}

/// INVARIANT: `memory` is older than `segments`; both are in order of their offsets; together they hold everything from
/// `acked` to `end`, unless `discarding`.
///
/// Offsets in here, and in files and journal, count the bytes that were made. Those that died with a process are counted in
/// `skipped`, and callers see offsets without them: what they get has no holes.
#[derive(Debug, Default)]
struct State {
    acked: u64,
    end: u64,
    memory: VecDeque<Piece>,
    memory_bytes: usize,
    segments: VecDeque<Segment>,
    discarding: bool,
    skipped: u64,
}

enum Place {
    Memory,
    Disk,
    Nowhere,
}

/// What must be written to the journal with the end of a task, so that its output survives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Little enough to be journalled itself.
    Inline(Vec<Piece>),
    /// Safe in files.
    Files,
}

impl Log {
    /// Bytes produced so far.
    pub(crate) fn end(&self) -> u64 {
        let state = self.lock();
        state.end.saturating_sub(state.skipped)
    }

    /// Bytes that died with an earlier process, as far as they were counted. To be journalled with what holds offsets.
    pub(crate) fn skipped(&self) -> u64 {
        self.lock().skipped
    }

    /// Goes on behind `acknowledged`, which is stored on the other side, or behind what files hold, if they begin later: what
    /// was made in between is lost, and no offset stands for it. Returns [`Log::skipped`], to be journalled before anything is
    /// sent.
    pub(crate) fn resume(&self, acknowledged: u64) -> u64 {
        let mut state = self.lock();
        let stored = acknowledged.saturating_add(state.skipped);
        let mut freed = Vec::new();
        while state.segments.front().is_some_and(|segment| segment.end() <= stored) {
            freed.extend(state.segments.pop_front());
        }
        let first = state.segments.front().map_or(stored, |segment| segment.first().max(stored));
        state.skipped += first - stored;
        state.acked = first;
        state.end = state.segments.back().map_or(first, Segment::end);
        let skipped = state.skipped;
        drop(state);
        self.release(freed);
        skipped
    }

    /// Tells readers of what is in it after [`Log::resume`].
    pub(crate) fn announce(&self) {
        self.shared.shelf.mark(&self.shared.key);
    }

    /// Whether the control plane's bound is reached: the rest is only counted.
    pub(crate) fn is_discarding(&self) -> bool {
        self.lock().discarding
    }

    /// Adds output, waiting while all bounds are reached. Dropping the future may lose the part not yet taken.
    pub(crate) async fn append(&self, stream: OutputStream, mut data: Bytes) {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(lictor_proto::MAX_OUTPUT_CHUNK_BYTES));
            self.append_part(stream, part).await;
        }
    }

    async fn append_part(&self, stream: OutputStream, data: Bytes) {
        loop {
            let room = self.shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let place = self.place(stream, &data);
            match place {
                Place::Memory => return,
                Place::Nowhere => room.await,
                Place::Disk => {
                    let log = self.clone();
                    let part = data.clone();
                    let spilled = tokio::task::spawn_blocking(move || log.spill(stream, part)).await;
                    match spilled {
                        Ok(Ok(())) => return,
                        // The disk is as good as full: wait for acknowledgements to make room in memory.
                        Ok(Err(error)) => {
                            tracing::warn!(task_id = %self.shared.key.task_id, error = %error, "Output cannot be spilled, the command is held back");
                            room.await;
                        }
                        // Only when the runtime shuts down.
                        Err(_) => room.await,
                    }
                }
            }
        }
    }

    /// Takes the data into memory when that is where it belongs.
    fn place(&self, stream: OutputStream, data: &Bytes) -> Place {
        let limits = self.shared.shelf.limits;
        let mut state = self.lock();
        if state.discarding {
            state.end += data.len() as u64;
        } else if state.segments.is_empty()
            && (state.memory.is_empty() || state.memory_bytes + data.len() <= limits.memory)
        {
            let offset = state.end;
            state.end += data.len() as u64;
            state.memory_bytes += data.len();
            // A copy: `data` may be a small part of a large receive buffer that it would keep alive.
            state.memory.push_back(Piece { offset, stream, data: Bytes::copy_from_slice(data) });
        } else if state.segments.iter().map(Segment::len).sum::<u64>() + data.len() as u64 <= limits.disk {
            return Place::Disk;
        } else {
            return Place::Nowhere;
        }
        drop(state);
        self.shared.shelf.mark(&self.shared.key);
        Place::Memory
    }

    fn spill(&self, stream: OutputStream, data: Bytes) -> io::Result<()> {
        let shelf = &self.shared.shelf;
        let mut state = self.lock();
        if !state.discarding {
            let full = state.segments.back().is_none_or(|segment| segment.len() >= shelf.limits.segment);
            if full {
                let segment = Segment::create(&shelf.directory, &file_prefix(&self.shared.key), state.end)?;
                state.segments.push_back(segment);
            }
            let offset = state.end;
            if let Some(segment) = state.segments.back_mut() {
                segment.append(&Piece { offset, stream, data: data.clone() })?;
            }
            shelf.spilled.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        state.end += data.len() as u64;
        drop(state);
        shelf.mark(&self.shared.key);
        Ok(())
    }

    /// At most `most` bytes of one stream from `offset` on, or from the first byte after it that is still there. Nothing
    /// when there are none.
    pub(crate) async fn read(&self, offset: u64, most: usize) -> io::Result<Option<Piece>> {
        let skipped = self.skipped();
        let piece = self.read_made(offset.saturating_add(skipped), most).await?;
        Ok(piece.map(|piece| Piece { offset: piece.offset.saturating_sub(skipped), ..piece }))
    }

    async fn read_made(&self, offset: u64, most: usize) -> io::Result<Option<Piece>> {
        {
            let state = self.lock();
            if offset >= state.end || state.discarding {
                return Ok(None);
            }
            if let Some(piece) = read_memory(&state.memory, offset, most) {
                return Ok(Some(piece));
            }
        }
        let log = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut state = log.lock();
            // Meanwhile acknowledgements cannot have moved what the caller has not sent yet; the end may have.
            let Some(segment) = state.segments.iter_mut().find(|segment| segment.end() > offset) else {
                return Ok(None);
            };
            segment.read(offset, most)
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Forgets everything before `offset`; with `full` everything, now and later.
    pub(crate) fn acknowledge(&self, offset: u64, full: bool) {
        let mut state = self.lock();
        let offset = offset.saturating_add(state.skipped);
        state.acked = state.acked.max(offset.min(state.end));
        state.discarding |= full;
        let acked = if state.discarding { state.end } else { state.acked };
        let mut freed = Vec::new();
        while state.memory.front().is_some_and(|piece| piece.end() <= acked) {
            if let Some(piece) = state.memory.pop_front() {
                state.memory_bytes -= piece.data.len();
            }
        }
        while state.segments.front().is_some_and(|segment| segment.end() <= acked) {
            freed.extend(state.segments.pop_front());
        }
        drop(state);
        self.shared.room.notify_one();
        self.release(freed);
    }

    /// Makes sure that what is not acknowledged survives a crash once the caller has journalled the end. Blocks.
    pub(crate) fn persist(&self) -> io::Result<Tail> {
        let mut state = self.lock();
        if state.segments.is_empty() && state.memory_bytes <= INLINE {
            return Ok(Tail::Inline(state.memory.iter().cloned().collect()));
        }
        if let Some(first) = state.memory.front() {
            let mut segment =
                Segment::create(&self.shared.shelf.directory, &file_prefix(&self.shared.key), first.offset)?;
            for piece in &state.memory {
                segment.append(piece)?;
            }
            self.shared.shelf.spilled.fetch_add(segment.len(), Ordering::Relaxed);
            state.segments.push_front(segment);
            state.memory.clear();
            state.memory_bytes = 0;
        }
        for segment in &state.segments {
            segment.sync()?;
        }
        drop(state);
        std::fs::File::open(&self.shared.shelf.directory)?.sync_all()?;
        Ok(Tail::Files)
    }

    /// Drops everything, files included; what comes is only counted.
    pub(crate) fn discard(&self) {
        self.acknowledge(u64::MAX, true);
    }

    fn release(&self, segments: Vec<Segment>) {
        if segments.is_empty() {
            return;
        }
        let bytes = segments.iter().map(Segment::len).sum();
        self.shared.shelf.spilled.fetch_sub(bytes, Ordering::Relaxed);
        let delete = move || {
            for segment in segments {
                if let Err(error) = segment.delete() {
                    tracing::warn!(error = %error, "A file of spilled output cannot be deleted");
                }
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(delete)),
            Err(_) => delete(),
        }
    }

    /// Held for memory operations and, on blocking threads, for one file operation at a time.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_memory(memory: &VecDeque<Piece>, offset: u64, most: usize) -> Option<Piece> {
    let start = memory.partition_point(|piece| piece.end() <= offset);
    let first = memory.get(start)?;
    let skip = usize::try_from(offset.saturating_sub(first.offset)).unwrap_or(0);
    let head = first.data.slice(skip..first.data.len().min(skip.saturating_add(most)));
    let mut piece = Piece { offset: first.offset + skip as u64, stream: first.stream, data: head };
    let mut rest = memory.iter().skip(start + 1).peekable();
    let fits = |piece: &Piece, next: &Piece| {
        next.stream == piece.stream && next.offset == piece.end() && piece.data.len() + next.data.len() <= most
    };
    if rest.peek().is_some_and(|next| fits(&piece, next)) {
        let mut joined = BytesMut::with_capacity(most.min(64 * 1024));
        joined.extend_from_slice(&piece.data);
        while let Some(next) = rest.peek() {
            if next.stream != piece.stream
                || next.offset != piece.offset + joined.len() as u64
                || joined.len() + next.data.len() > most
            {
                break;
            }
            joined.extend_from_slice(&next.data);
            rest.next();
        }
        piece.data = joined.freeze();
    }
    Some(piece)
}

/// Task ids come from outside; a digest makes them harmless as file names.
fn file_prefix(key: &TaskKey) -> String {
    let digest = Sha256::digest(key.task_id.as_bytes());
    let mut name = String::with_capacity(48);
    for byte in digest.iter().take(16) {
        name.push_str(&format!("{byte:02x}"));
    }
    format!("{name}-{}-", key.epoch)
}

/// Makes the directory for output under the state directory, or takes the one that is there, unless a stranger may have put
/// something into it.
pub(crate) fn prepare_directory(state_dir: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = state_dir.join("output");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let found = std::fs::metadata(&directory)?;
    ownership::check(&found, ownership::is_open(&found))?;
    ownership::narrow(&directory, &found, 0o700)?;
    Ok(directory)
}

/// For all tasks together: a quarter of the agent's memory budget.
const MEMORY_OF_ALL: usize = 16 * 1024 * 1024;
/// Beyond this a file costs no more than memory.
const MOST_MEMORY: usize = 1024 * 1024;
/// Room for one short answer, however many slots there are.
const LEAST_MEMORY: usize = 16 * 1024;
/// Some minutes of a chatty command while the control plane is away.
const DISK: u64 = 64 * 1024 * 1024;
/// A segment is deleted as a whole; small enough to give space back soon.
const SEGMENT: u64 = 8 * 1024 * 1024;
/// Output that goes into the journal with the result: saves a file and two syncs for every short command.
const INLINE: usize = 16 * 1024;
