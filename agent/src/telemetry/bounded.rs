//! Connections of the HTTP endpoints: bounded in number and in time, so that silent or slow peers cannot take up the
//! agent's files and memory. It knows nothing of what is asked. Called by the endpoints.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Takes so many connections at once and ends each after a while, whatever it does: nobody can hold all of them.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        // The semaphore is never closed. Full: connections wait in the kernel's queue.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (socket, address) = axum::serve::Listener::accept(&mut self.listener).await;
        (Brief { socket, end: Box::pin(tokio::time::sleep(CONNECTION_TIME)), _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A socket that ends after [`CONNECTION_TIME`].
pub(super) struct Brief {
    socket: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Brief {
    /// Nothing while there is time.
    fn over<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.end.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Brief {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.socket).poll_read(context, into) {
            Poll::Pending => self.over(context),
            done => done,
        }
    }
}

impl AsyncWrite for Brief {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.socket).poll_write(context, bytes) {
            Poll::Pending => self.over(context),
            done => done,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// Kubelets and collectors are few, and quick; the others are in nobody's way for long.
const MAX_CONNECTIONS: usize = 512;
/// Longer than any answer takes; a collector that keeps its connection opens another now and then.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_or_takes_nothing_is_ended() {
        let mut bounded = Bounded::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = bounded.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = bounded.accept().await;
        assert_eq!(socket.read_exact(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let _other = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = bounded.accept().await;
        assert_eq!(socket.write_all(&vec![0; 64 << 20]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(socket);
        assert_eq!(bounded.places.available_permits(), MAX_CONNECTIONS - 1);
    }
}
