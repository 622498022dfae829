//! A fault proxy: stands between a client and a server on loopback and does to their connections what a test orders.
//!
//! TCP only, whatever it carries. An order holds for connections that are open and, where that makes sense, for later ones;
//! it chooses nothing by itself, so that a test that draws its orders from a seed can be run again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running proxy. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// With FIN.
    Close,
    /// With RST.
    Reset,
}

/// What holds at the moment.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// Counts the cuts: connections of an earlier one end.
    cut: u64,
    how: Option<Cut>,
    /// Counts the half-closes, by direction.
    half_closed: [u64; 2],
    stalled: [bool; 2],
    delay: Duration,
    refuse: bool,
    black_hole: bool,
    stop: bool,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    accepted: AtomicU64,
    /// The next connection to carry so many more bytes this way is cut.
    fuse: Mutex<Option<(Direction, u64, Cut)>>,
}

impl Proxy {
    /// Starts in front of `server`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("failed to listen for the fault proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (orders, held) = watch::channel(Orders::default());
        let counts = Arc::new(Counts::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || runtime.block_on(accept(listener, server, held, shared)))?;
        Ok(Self { address, orders, counts, thread: Some(thread) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.counts.open.load(Ordering::Acquire)
    }

    /// Connections accepted so far, refused ones aside.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Acquire)
    }

    /// Ends every open connection.
    pub fn cut(&self, how: Cut) {
        self.orders.send_modify(|orders| {
            orders.cut += 1;
            orders.how = Some(how);
        });
    }

    /// The connection that carries the `bytes`th byte from now on in this direction ends right behind it.
    pub fn cut_after(&self, direction: Direction, bytes: u64, how: Cut) {
        *self.fuse() = Some((direction, bytes, how));
    }

    /// Passes nothing on in this direction, and reads nothing once buffers are full; or passes on again.
    pub fn stall(&self, direction: Direction, stalled: bool) {
        self.orders.send_modify(|orders| orders.stalled[direction as usize] = stalled);
    }

    /// Every piece waits for so long.
    pub fn delay(&self, delay: Duration) {
        self.orders.send_modify(|orders| orders.delay = delay);
    }

    /// New connections are reset at once, open ones go on; or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.orders.send_modify(|orders| orders.refuse = refuse);
    }

    /// What comes in vanishes, in both directions, and connections seem to be open; when that ends, they are reset.
    pub fn black_hole(&self, black_hole: bool) {
        self.orders.send_modify(|orders| {
            if orders.black_hole && !black_hole {
                orders.cut += 1;
                orders.how = Some(Cut::Reset);
            }
            orders.black_hole = black_hole;
        });
    }

    /// Open connections get the end of one direction; the other goes on.
    pub fn half_close(&self, direction: Direction) {
        self.orders.send_modify(|orders| orders.half_closed[direction as usize] += 1);
    }

    /// Everything passes again. What was cut stays cut.
    pub fn heal(&self) {
        *self.fuse() = None;
        self.black_hole(false);
        self.orders.send_modify(|orders| {
            (orders.stalled, orders.delay, orders.refuse) = ([false; 2], Duration::ZERO, false);
        });
    }

    fn fuse(&self) -> std::sync::MutexGuard<'_, Option<(Direction, u64, Cut)>> {
        self.counts.fuse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic in it has been printed.
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    server: SocketAddr,
    mut orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            changed = orders.changed() => {
                if changed.is_err() || orders.borrow_and_update().stop {
                    return;
                }
            }
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if orders.borrow().refuse {
                    let _ = client.set_zero_linger();
                    continue;
                }
                connections.spawn(connection(client, server, orders.clone(), Arc::clone(&counts)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut client: TcpStream, server: SocketAddr, orders: watch::Receiver<Orders>, counts: Arc<Counts>) {
    // A black hole answers no connection attempt either, but somebody has to take the bytes.
    let Ok(mut server) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    counts.accepted.fetch_add(1, Ordering::AcqRel);
    counts.open.fetch_add(1, Ordering::AcqRel);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cut = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let mut up = std::pin::pin!(pass(from_client, to_server, Direction::Up, orders.clone(), &counts));
        let mut down = std::pin::pin!(pass(from_server, to_client, Direction::Down, orders, &counts));
        // One direction may end and the other go on: that is what half a connection is.
        tokio::select! {
            cut = &mut up => match cut { None => down.await, cut => cut },
            cut = &mut down => match cut { None => up.await, cut => cut },
        }
    };
    if cut == Some(Cut::Reset) {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
    counts.open.fetch_sub(1, Ordering::AcqRel);
}

/// Passes one direction on until it ends, or is cut, which ends the whole connection.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut orders: watch::Receiver<Orders>,
    counts: &Counts,
) -> Option<Cut> {
    let (cuts, half_closed) = {
        let orders = orders.borrow();
        (orders.cut, orders.half_closed[direction as usize])
    };
    let mut buffer = vec![0; 16 * 1024];
    // Read, and not yet passed on.
    let mut waiting = 0..0;
    loop {
        let now = orders.borrow_and_update().clone();
        if now.cut != cuts {
            return now.how;
        }
        let closing = now.half_closed[direction as usize] != half_closed;
        let stalled = now.stalled[direction as usize] && !now.black_hole;
        if closing {
            let _ = to.shutdown().await;
            return None;
        }
        if stalled {
            let _ = orders.changed().await;
            continue;
        }
        if now.black_hole {
            waiting = 0..0;
        }
        if waiting.is_empty() {
            let read = tokio::select! {
                _ = orders.changed() => continue,
                read = from.read(&mut buffer) => read,
            };
            match read {
                Ok(0) | Err(_) if orders.borrow().black_hole => {
                    // Its end vanishes, too.
                    let _ = orders.changed().await;
                }
                Ok(0) => {
                    let _ = to.shutdown().await;
                    return None;
                }
                Ok(read) => waiting = 0..read,
                Err(_) => return Some(Cut::Reset),
            }
            if !now.delay.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(now.delay) => {}
                    () = cut_since(orders.clone(), cuts) => {}
                }
            }
            continue;
        }
        let (most, cut) = {
            let mut fuse = counts.fuse.lock().unwrap_or_else(PoisonError::into_inner);
            match fuse.as_mut() {
                Some((way, left, how)) if *way == direction => {
                    let how = *how;
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(waiting.len());
                    *left -= most as u64;
                    let burnt = *left == 0;
                    if burnt {
                        *fuse = None;
                    }
                    (most, burnt.then_some(how))
                }
                _ => (waiting.len(), None),
            }
        };
        let written = tokio::select! {
            written = to.write_all(&buffer[waiting.start..waiting.start + most]) => Some(written),
            // A cut must not wait for a peer that does not read.
            () = cut_since(orders.clone(), cuts) => None,
        };
        match (written, cut) {
            (Some(Ok(())), None) => waiting.start += most,
            (Some(Ok(())), Some(how)) => return Some(how),
            (Some(Err(_)), _) => return Some(Cut::Reset),
            (None, _) => {}
        }
    }
}

async fn cut_since(mut orders: watch::Receiver<Orders>, cuts: u64) {
    // An error means that the proxy ends, and everything with it.
    let _ = orders.wait_for(|orders| orders.cut != cuts || orders.stop).await;
}
