//! Stands between a client and a host, and falsifies what the host answers: how checks are proven able to fail.
//!
//! For plain HTTP only. One request, one answer, both with Content-Length.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// What is done to answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Falsification {
    /// The first text becomes the second, which is as long.
    Replace(&'static str, &'static str),
    /// The answer that holds this text is lost, and its connection with it.
    Lose(&'static str),
    /// No request is passed on while another connection waits for its answer.
    OneAtATime,
}

/// A running relay. Dropping it ends it.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    _acceptor: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start(host: SocketAddr, falsification: Falsification) -> Result<Self> {
        if let Falsification::Replace(from, to) = falsification {
            ensure!(from.len() == to.len(), "the lengths of the answers would be wrong");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut acceptor = JoinSet::new();
        acceptor.spawn(async move {
            let turn = Arc::new(Mutex::new(()));
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let turn = Arc::clone(&turn);
                // A connection that breaks is no business of the relay.
                connections.spawn(async move { drop(serve(client, host, falsification, &turn).await) });
            }
        });
        Ok(Self { address, _acceptor: acceptor })
    }
}

async fn serve(mut client: TcpStream, host: SocketAddr, falsification: Falsification, turn: &Mutex<()>) -> Result<()> {
    let mut upstream = TcpStream::connect(host).await?;
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    loop {
        let request = message(&mut client, &mut asked).await?;
        let held = matches!(falsification, Falsification::OneAtATime).then(|| turn.lock());
        let _held = match held {
            Some(lock) => Some(lock.await),
            None => None,
        };
        upstream.write_all(&request).await?;
        let mut answer = message(&mut upstream, &mut answered).await?;
        if let Falsification::Replace(from, to) = falsification {
            let mut at = 0;
            while let Some(found) = answer[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
                at += found;
                answer[at..at + to.len()].copy_from_slice(to.as_bytes());
                at += to.len();
            }
        }
        if let Falsification::Lose(text) = falsification {
            ensure!(!answer.windows(text.len()).any(|window| window == text.as_bytes()), "lost on purpose");
        }
        client.write_all(&answer).await?;
    }
}

/// One message of HTTP/1.1, head and body. What follows it stays in `buffer`.
async fn message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(Ok(0), |text| text.trim().parse()).context("Content-Length")?;
            if buffer.len() >= end + length {
                let rest = buffer.split_off(end + length);
                return Ok(std::mem::replace(buffer, rest));
            }
        }
        ensure!(stream.read_buf(buffer).await? > 0, "closed");
    }
}
