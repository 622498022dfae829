//! A relay in front of a host that cuts its first connection at a chosen byte.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Which way the bytes go that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Answer,
}

/// Where the first connection ends: after this many bytes in this direction. Later connections are left alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) direction: Direction,
    pub(crate) after: usize,
}

/// One exchange of the first connection: the offsets at which its request and its answer end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) request: usize,
    pub(crate) answer: usize,
}

/// A running relay; it ends when it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    exchanges: Arc<Mutex<Vec<Ends>>>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn start(host: SocketAddr, cut: Option<Cut>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let exchanges = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&exchanges);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let mut cut = cut;
            let mut recorded = Some(recorded);
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(relay(client, host, cut.take(), recorded.take()));
            }
        });
        Ok(Self { address, exchanges, _task: AbortOnDropHandle::new(task) })
    }

    /// The exchanges of the first connection so far.
    pub(crate) fn exchanges(&self) -> Vec<Ends> {
        self.exchanges.lock().map(|exchanges| exchanges.clone()).unwrap_or_default()
    }
}

/// Copies both ways until one side ends or the cut is reached; then both sockets close.
async fn relay(mut client: TcpStream, host: SocketAddr, cut: Option<Cut>, recorded: Option<Arc<Mutex<Vec<Ends>>>>) {
    let Ok(mut host) = TcpStream::connect(host).await else { return };
    let _ = (client.set_nodelay(true), host.set_nodelay(true));
    let (mut from_client, mut to_client) = client.split();
    let (mut from_host, mut to_host) = host.split();
    let limit = |direction| cut.filter(|cut| cut.direction == direction).map_or(usize::MAX, |cut| cut.after);
    let (mut requests, mut answers) = (0, 0);
    let (mut request, mut answer) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        if requests >= limit(Direction::Request) || answers >= limit(Direction::Answer) {
            return;
        }
        let most_requests = request.len().min(limit(Direction::Request) - requests);
        let most_answers = answer.len().min(limit(Direction::Answer) - answers);
        let asked;
        tokio::select! {
            read = from_client.read(&mut request[..most_requests]) => match read {
                Ok(length @ 1..) if to_host.write_all(&request[..length]).await.is_ok() => {
                    requests += length;
                    asked = true;
                }
                _ => return,
            },
            read = from_host.read(&mut answer[..most_answers]) => match read {
                Ok(length @ 1..) if to_client.write_all(&answer[..length]).await.is_ok() => {
                    answers += length;
                    asked = false;
                }
                _ => return,
            },
        }
        if let Some(Ok(mut exchanges)) = recorded.as_ref().map(|recorded| recorded.lock()) {
            match exchanges.last_mut() {
                // HTTP/1.1 without pipelining: a request after an answer begins the next exchange.
                Some(last) if !asked || last.answer == 0 => {
                    *last = if asked { Ends { request: requests, ..*last } } else { Ends { answer: answers, ..*last } };
                }
                _ => exchanges.push(Ends { request: requests, answer: 0 }),
            }
        }
    }
}
