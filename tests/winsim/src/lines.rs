//! The open TCP connections of a host, so that they can be closed from outside: idle ones as HTTP.sys does, all of them at a reboot.
//!
//! Knows nothing of HTTP. The acceptor enters each connection and races it against [`Line::ended`].

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
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
}

/// One connection.
pub(crate) struct Line {
    pub(crate) id: u64,
    clock: Clock,
    activity: Mutex<Activity>,
    cut: watch::Sender<Option<Cut>>,
    reset: Arc<AtomicBool>,
    expiry: Mutex<Option<Expiry>>,
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
        Self { clock, last_id: AtomicU64::new(0), open: watch::Sender::default() }
    }

    /// Enters a connection, until its guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let line = Arc::new(Line {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            activity: Mutex::new(Activity { exchanges: 0, since: self.clock.now() }),
            clock: self.clock.clone(),
            cut: watch::Sender::new(None),
            reset: Arc::default(),
            expiry: Mutex::default(),
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
            line.reset.store(cut == Cut::Reset, Ordering::Relaxed);
            line.cut.send_replace(Some(cut));
        }
        let mut open = self.open.subscribe();
        let gone = open.wait_for(|open| lines.iter().all(|line| !open.contains_key(&line.id)));
        if tokio::time::timeout(GONE, gone).await.is_err() {
            tracing::warn!("Connections that were cut are still open");
        }
        lines.len() as u64
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
    pub(crate) fn socket(&self, stream: TcpStream) -> Socket {
        Socket { stream, reset: Arc::clone(&self.reset) }
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

/// A socket that can end with RST.
pub(crate) struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
