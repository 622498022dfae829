//! Takes connections in: counts them, bounds them, and ends those that say or take nothing, before gRPC or HTTP reads
//! a byte.
//!
//! Memory and files are bounded whoever connects: so many connections in all, so many of one address, a deadline for
//! the TLS handshake, and an end to silence. Nothing here knows what is said. Called by the wiring.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use crate::metrics::{Metrics, Turned};

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) most: usize,
    pub(crate) per_source: usize,
    /// A peer that sends nothing for so long is gone.
    pub(crate) silence: Duration,
}

/// Counts the connections of one port.
#[derive(Debug)]
pub(crate) struct Door {
    bounds: Bounds,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A connection's place; given back on drop.
#[derive(Debug)]
struct Place {
    door: Arc<Door>,
    source: IpAddr,
}

impl Door {
    pub(crate) fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { bounds, open: Mutex::default(), metrics })
    }

    fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Place, Turned> {
        // A machine with both families counts once.
        let source = source.to_canonical();
        let mut open = self.lock();
        if open.all >= self.bounds.most {
            return Err(Turned::Total);
        }
        let of_source = open.by_source.entry(source).or_default();
        if *of_source >= self.bounds.per_source {
            return Err(Turned::Source);
        }
        *of_source += 1;
        open.all += 1;
        self.metrics.connections(1);
        Ok(Place { door: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing in here panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next connection that is let in.
    async fn next(self: &Arc<Self>, listener: &TcpListener) -> (Watched, SocketAddr) {
        loop {
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Of this one connection, or want of files or memory: the next may do better, after a while.
                    debug!(error = %error, "A connection could not be taken");
                    sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            match self.enter(address.ip()) {
                Ok(place) => {
                    let _ = socket.set_nodelay(true);
                    return (Watched::new(socket, place, self.bounds.silence), address);
                }
                Err(turned) => {
                    self.metrics.turned_away(turned);
                    debug!(%address, reason = turned.name(), "A connection was turned away");
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.door.lock();
        open.all = open.all.saturating_sub(1);
        if let Some(of_source) = open.by_source.get_mut(&self.source) {
            *of_source = of_source.saturating_sub(1);
            if *of_source == 0 {
                open.by_source.remove(&self.source);
            }
        }
        drop(open);
        self.door.metrics.connections(-1);
    }
}

/// A socket that ends when its peer sends nothing, or takes nothing, for too long.
#[derive(Debug)]
pub(crate) struct Watched {
    socket: TcpStream,
    place: Place,
    silence: Duration,
    heard: Instant,
    listening: Pin<Box<Sleep>>,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn new(socket: TcpStream, place: Place, silence: Duration) -> Self {
        let listening = Box::pin(sleep(silence));
        Self { socket, place, silence, heard: Instant::now(), listening, stuck: None }
    }

    /// What came of a write; an error when the peer has taken nothing for too long.
    fn written<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(STUCK_WAIT)));
        ready!(stuck.as_mut().poll(context));
        self.place.door.metrics.turned_away(Turned::Stuck);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = Pin::new(&mut this.socket).poll_read(context, buffer) {
            this.heard = Instant::now();
            return Poll::Ready(read);
        }
        // Moved only when it fires: setting a timer for every read would cost more than the read.
        while this.listening.as_mut().poll(context).is_ready() {
            let end = this.heard + this.silence;
            if Instant::now() >= end {
                this.place.door.metrics.turned_away(Turned::Silent);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.listening.as_mut().reset(end);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.written(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write_vectored(context, slices);
        this.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_flush(context);
        this.written(context, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

impl Connected for Watched {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

/// Accepts TLS connections until `stop` and hands over those whose handshake is done.
pub(crate) async fn accept_tls(
    listener: TcpListener,
    tls: TlsAcceptor,
    door: Arc<Door>,
    // Full: connections wait in the kernel's queue.
    ready: mpsc::Sender<io::Result<TlsStream<Watched>>>,
    stop: CancellationToken,
) {
    let mut handshakes = JoinSet::new();
    loop {
        let (socket, address) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = handshakes.join_next() => continue,
            next = door.next(&listener) => next,
        };
        let (tls, door, ready) = (tls.clone(), Arc::clone(&door), ready.clone());
        handshakes.spawn(async move {
            match timeout(HANDSHAKE_WAIT, tls.accept(socket)).await {
                Ok(Ok(stream)) => {
                    // Nobody takes connections any more once the server has ended.
                    let _ = ready.send(Ok(stream)).await;
                }
                Ok(Err(error)) => {
                    door.metrics.turned_away(Turned::Handshake);
                    debug!(%address, error = %error, "TLS handshake failed");
                }
                Err(_) => {
                    door.metrics.turned_away(Turned::Silent);
                    debug!(%address, "TLS handshake took too long");
                }
            }
        });
    }
    handshakes.shutdown().await;
}

/// Plain connections, for the HTTP endpoints.
pub(crate) struct Plain {
    pub(crate) listener: TcpListener,
    pub(crate) door: Arc<Door>,
}

impl axum::serve::Listener for Plain {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        self.door.next(&self.listener).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The bound asked for, or less where the process may not have so many files.
pub(crate) fn within_file_bound(most: usize, files: Option<u64>) -> usize {
    let room = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OWN_FILES));
    if room < most {
        warn!(connections = room, asked_for = most, "The bound of open files allows fewer connections");
    }
    most.min(room.max(1))
}

const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// A peer that is slow takes something now and then.
const STUCK_WAIT: Duration = Duration::from_secs(60);
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// Database, logs, listeners, and some to spare.
const OWN_FILES: usize = 128;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn door(most: usize, per_source: usize) -> Arc<Door> {
        Door::new(Bounds { most, per_source, silence: Duration::from_secs(30) }, Arc::new(Metrics::new()))
    }

    #[test]
    fn places_are_bounded_in_all_and_by_source_and_given_back() {
        let door = door(3, 2);
        let source = |last| IpAddr::from([127, 0, 0, last]);
        let first = door.enter(source(1)).unwrap();
        let _second = door.enter("::ffff:127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(door.enter(source(1)).unwrap_err(), Turned::Source);
        let _third = door.enter(source(2)).unwrap();
        assert_eq!(door.enter(source(3)).unwrap_err(), Turned::Total);
        drop(first);
        let _fourth = door.enter(source(3)).unwrap();
        assert_eq!(door.lock().by_source.len(), 3);
    }

    async fn pair(door: &Arc<Door>) -> (TcpStream, Watched) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, door.next(&listener).await.0)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_a_word_now_and_then_does_not() {
        let door = door(9, 9);
        let (mut client, mut server) = pair(&door).await;
        for _ in 0..5 {
            let mut byte = [0];
            let reading = server.read_exact(&mut byte);
            let writing = async {
                sleep(Duration::from_secs(20)).await;
                client.write_all(b"x").await.unwrap();
            };
            tokio::join!(reading, writing).0.unwrap();
        }
        let begin = Instant::now();
        let error = server.read_exact(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() <= Duration::from_secs(31), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_off() {
        let door = door(9, 9);
        let (_client, mut server) = pair(&door).await;
        let error = server.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(server);
        assert_eq!(door.lock().all, 0);
    }

    #[test]
    fn the_bound_of_files_bounds_connections() {
        assert_eq!(within_file_bound(4096, None), 4096);
        assert_eq!(within_file_bound(4096, Some(1024)), 896);
        assert_eq!(within_file_bound(4096, Some(10)), 1);
    }
}
