//! The open TCP connections of a host, so that they can be closed from outside: idle ones as HTTP.sys does, all of them at a reboot.
//!
//! Knows nothing of HTTP. The acceptor enters each connection and races it against [`Line::ended`].

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;

/// How a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// With FIN, as a service that closes its sockets.
    #[default]
    Close,
    /// With RST, as a machine that has forgotten them.
    Reset,
}

/// Where a connection ends in the middle of an exchange, once. Bytes are those on the wire, with HTTP's head and TLS around them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DropAt {
    /// After this many bytes that come from a client; the connection that sends the next one is meant. A request that has come
    /// in full is done, but not answered.
    Request {
        /// How many; 0 counts as 1.
        after: usize,
        /// How the connection ends. Default with FIN.
        #[serde(default)]
        cut: Cut,
    },
    /// After this many bytes of an answer.
    Answer {
        /// The operation that is answered, as in the statistics; the next one, whatever it is, when nothing is said.
        #[serde(default)]
        operation: Option<String>,
        /// How many.
        after: usize,
        /// How the connection ends. Default with FIN.
        #[serde(default)]
        cut: Cut,
    },
}

/// What the next request on a connection gets that is not authenticated any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expiry {
    /// 401 with the list of schemes, as after a ticket has expired.
    #[default]
    Unauthorized,
    /// 400 without a body, as when a sealed request comes on a socket that its security context does not belong to.
    BadRequest,
}

/// All open connections.
pub(crate) struct Lines {
    clock: Clock,
    last_id: AtomicU64,
    open: watch::Sender<HashMap<u64, Arc<Line>>>,
    drop: Arc<Mutex<Option<DropAt>>>,
}

/// One connection.
pub(crate) struct Line {
    pub(crate) id: u64,
    clock: Clock,
    activity: Mutex<Activity>,
    cut: watch::Sender<Option<Cut>>,
    reset: AtomicBool,
    expiry: Mutex<Option<Expiry>>,
    drop: Arc<Mutex<Option<DropAt>>>,
    limits: Mutex<Limits>,
}

/// How many bytes a connection still takes or gives before it ends, and how it does.
#[derive(Clone, Copy, Default)]
struct Limits {
    read: Option<(usize, Cut)>,
    write: Option<(usize, Cut)>,
}

#[derive(Clone, Copy)]
struct Activity {
    exchanges: usize,
    since: Instant,
}

/// How long cut connections may take to be gone: their tasks only have to be polled once.
const GONE: Duration = Duration::from_secs(10);

impl Lines {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, last_id: AtomicU64::new(0), open: watch::Sender::default(), drop: Arc::default() }
    }

    /// Enters a connection, until its guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let line = Arc::new(Line {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            activity: Mutex::new(Activity { exchanges: 0, since: self.clock.now() }),
            clock: self.clock.clone(),
            cut: watch::Sender::new(None),
            reset: AtomicBool::new(false),
            expiry: Mutex::default(),
            drop: Arc::clone(&self.drop),
            limits: Mutex::default(),
        });
        self.open.send_modify(|open| {
            open.insert(line.id, Arc::clone(&line));
        });
        Entry { lines: Arc::clone(self), line }
    }

    /// Cuts every connection and waits until they are gone. Returns how many there were.
    pub(crate) async fn cut_all(&self, cut: Cut) -> u64 {
        let lines: Vec<_> = self.open.borrow().values().cloned().collect();
        self.end(&lines, cut).await
    }

    /// Closes the connections that have been idle for `limit` and waits until they are gone. Returns how many there were.
    pub(crate) async fn close_idle(&self, limit: Duration) -> u64 {
        let lines: Vec<_> = self.open.borrow().values().filter(|line| line.idle() >= limit).cloned().collect();
        self.end(&lines, Cut::Close).await
    }

    async fn end(&self, lines: &[Arc<Line>], cut: Cut) -> u64 {
        for line in lines {
            line.end(cut);
        }
        let mut open = self.open.subscribe();
        let gone = open.wait_for(|open| lines.iter().all(|line| !open.contains_key(&line.id)));
        if tokio::time::timeout(GONE, gone).await.is_err() {
            tracing::warn!("Connections that were cut are still open");
        }
        lines.len() as u64
    }

    /// Orders an end in the middle of an exchange; it takes the place of an earlier one that has not happened.
    pub(crate) fn drop_at(&self, drop: DropAt) {
        *self.drop.lock().unwrap_or_else(PoisonError::into_inner) = Some(drop);
    }

    /// Takes the authentication of every open connection away.
    pub(crate) fn expire(&self, expiry: Expiry) {
        for line in self.open.borrow().values() {
            *line.expiry.lock().unwrap_or_else(PoisonError::into_inner) = Some(expiry);
        }
    }

    /// Waits while there are `limit` connections or more, or until `changes` tells of something.
    pub(crate) async fn room(&self, limit: usize, changes: &mut watch::Receiver<()>) -> bool {
        let mut open = self.open.subscribe();
        tokio::select! {
            room = open.wait_for(|open| open.len() < limit) => room.is_ok(),
            _ = changes.changed() => false,
        }
    }
}

impl Line {
    /// Waits until the connection is to end.
    pub(crate) async fn ended(&self) {
        let mut cut = self.cut.subscribe();
        // The sender lives as long as `self` does.
        let _ = cut.wait_for(Option::is_some).await;
    }

    fn end(&self, cut: Cut) {
        self.reset.store(cut == Cut::Reset, Ordering::Relaxed);
        self.cut.send_replace(Some(cut));
    }

    /// The answer to `operation` is about to be written: it is the one that was ordered to end half-way, or it is not.
    pub(crate) fn answers(&self, operation: &str) {
        let mut drop = self.drop.lock().unwrap_or_else(PoisonError::into_inner);
        let write = match &*drop {
            Some(DropAt::Answer { operation: wanted, after, cut })
                if wanted.as_deref().is_none_or(|wanted| wanted == operation) =>
            {
                Some((*after, *cut))
            }
            _ => None,
        };
        if write.is_some() {
            *drop = None;
        }
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).write = write;
    }

    /// How many bytes may be read now.
    fn may_read(&self) -> usize {
        if let Some((left, _)) = self.limits.lock().unwrap_or_else(PoisonError::into_inner).read {
            return left;
        }
        match &*self.drop.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(DropAt::Request { after, .. }) => (*after).max(1),
            _ => usize::MAX,
        }
    }

    /// Bytes were read; ends the connection when these were the last ones.
    fn have_read(&self, count: usize) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if limits.read.is_none() {
            let mut drop = self.drop.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(DropAt::Request { after, cut }) = *drop {
                limits.read = Some((after.max(1), cut));
                *drop = None;
            }
        }
        if let Some((left, cut)) = &mut limits.read {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.end(*cut);
            }
        }
    }

    /// How many bytes may be written now.
    fn may_write(&self) -> usize {
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        match (limits.write, self.cut.borrow().is_some()) {
            (_, true) => 0,
            (Some((left, _)), _) => left,
            (None, false) => usize::MAX,
        }
    }

    /// Bytes were written, or there was no room for any; ends the connection when these were the last ones.
    fn have_written(&self, count: usize) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((left, cut)) = &mut limits.write {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.end(*cut);
            }
        }
    }

    /// A request is there; the exchange ends when the guard is dropped.
    pub(crate) fn exchange(self: &Arc<Self>) -> Busy {
        self.lock().exchanges += 1;
        Busy(Arc::clone(self))
    }

    /// Whether its authentication was taken away since the last time.
    pub(crate) fn take_expiry(&self) -> Option<Expiry> {
        self.expiry.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How long nobody has asked anything.
    fn idle(&self) -> Duration {
        let activity = *self.lock();
        if activity.exchanges > 0 { Duration::ZERO } else { self.clock.since(activity.since) }
    }

    /// Its socket: closes as the cut says.
    pub(crate) fn socket(self: &Arc<Self>, stream: TcpStream) -> Socket {
        Socket { stream, line: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        // Two fields, each set in one step.
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the list.
pub(crate) struct Entry {
    lines: Arc<Lines>,
    pub(crate) line: Arc<Line>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.lines.open.send_modify(|open| {
            open.remove(&self.line.id);
        });
    }
}

/// An exchange under way.
pub(crate) struct Busy(Arc<Line>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        let mut activity = self.0.lock();
        activity.exchanges = activity.exchanges.saturating_sub(1);
        activity.since = now;
    }
}

/// A socket that can end with RST, and after a chosen byte.
pub(crate) struct Socket {
    stream: TcpStream,
    line: Arc<Line>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.line.reset.load(Ordering::Relaxed) {
            // Without lingering the system answers everything later with RST.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.line.may_read();
        if room == 0 {
            // The connection has ended already; its task is about to see that.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if room >= buffer.remaining() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else {
            let mut bytes = vec![0; room];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            buffer.put_slice(part.filled());
        }
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.line.have_read(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.line.may_write().min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            self.line.have_written(0);
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[..room]))?;
        self.line.have_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.line.may_write() == usize::MAX {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &**slice);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
