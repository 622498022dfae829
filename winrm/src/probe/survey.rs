//! Looks at a host that need no credential: which ports listen, what answers a bare request, which versions of TLS are taken,
//! what the certificate says.
//!
//! Nothing here sends a credential or changes anything on the host, and nothing that is learned here is trusted: the
//! certificate of a host that is merely looked at is not checked, it is described. Every look is one connection of its own,
//! bounded in bytes and by a deadline. Called by the doctor.

mod certificate;
mod greeting;
mod versions;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_openssl::SslStream;

pub use certificate::{Certificate, Problem, ProblemKind, authorities, certificate};
pub use greeting::{Greeting, HttpAnswer};
pub use versions::{TlsVersion, Versions, versions};

use crate::target::Endpoint;

/// What came of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// It was accepted.
    Yes,
    /// It was refused: nothing listens there, or a firewall says so.
    Refused,
    /// Nobody answered in time.
    Silent,
    /// There is no way there.
    Unreachable,
}

/// Whether anything listens there.
pub async fn listens(address: SocketAddr, deadline: Instant) -> Listening {
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Listening::Yes,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Listening::Refused,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Listening::Silent,
        Ok(Err(_)) => Listening::Unreachable,
        Err(_) => Listening::Silent,
    }
}

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As it is.
    Plain,
    /// Over TLS of any version, with whatever certificate: no secret is sent.
    Tls,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `GET /`, as `curl -I` does with another method. HTTP.sys answers 404.
    Root,
    /// An empty POST to the endpoint's path, without a credential. WinRM answers 401 and what it offers.
    Service,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection could not be opened.
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    /// TLS was asked for, and there is none.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The deadline passed before there was a connection.
    #[error("the connection took too long")]
    TooLong,
}

/// Asks once, on a connection of its own, and returns what the first bytes of the answer are.
///
/// # Errors
/// [`AskError`] when nothing could be asked.
pub async fn ask(
    endpoint: &Endpoint,
    address: SocketAddr,
    wire: Wire,
    question: Question,
    deadline: Instant,
) -> Result<Greeting, AskError> {
    let tcp = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| AskError::TooLong)?
        .map_err(AskError::Connect)?;
    let request = request(endpoint, question);
    match wire {
        Wire::Plain => Ok(converse(tcp, request.as_bytes(), deadline).await),
        Wire::Tls => {
            let ssl = anything(endpoint).map_err(|error| AskError::Tls(error.to_string()))?;
            let mut stream = SslStream::new(ssl, tcp).map_err(|error| AskError::Tls(error.to_string()))?;
            match timeout_at(deadline, Pin::new(&mut stream).connect()).await {
                Err(_) => Err(AskError::TooLong),
                Ok(Err(error)) => Err(AskError::Tls(error.to_string())),
                Ok(Ok(())) => Ok(converse(stream, request.as_bytes(), deadline).await),
            }
        }
    }
}

fn request(endpoint: &Endpoint, question: Question) -> String {
    let (line, rest) = match question {
        Question::Root => ("GET / HTTP/1.1".to_owned(), ""),
        Question::Service => (
            format!("POST {} HTTP/1.1", endpoint.path()),
            "Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: 0\r\n",
        ),
    };
    let agent = concat!("lictor-winrm/", env!("CARGO_PKG_VERSION"));
    format!("{line}\r\nHost: {}\r\nUser-Agent: {agent}\r\n{rest}Connection: close\r\n\r\n", endpoint.authority())
}

/// Sends the request and reads until the head of the answer is there.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8], deadline: Instant) -> Greeting {
    let mut head = Vec::with_capacity(2048);
    let talk = async {
        // A peer that closes at once may still have said something.
        let written = stream.write_all(request).await.and(stream.flush().await);
        while head.len() < MAX_HEAD && !greeting::is_complete(&head) {
            let mut piece = [0; 2048];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return true,
                Ok(count) => head.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
            if written.is_err() {
                continue;
            }
        }
        false
    };
    let closed = timeout_at(deadline, talk).await.unwrap_or(false);
    Greeting::read(&head, closed)
}

/// A client that takes every version and suite that the library knows, and every certificate.
fn anything(endpoint: &Endpoint) -> Result<Ssl, openssl::error::ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1))?;
    context.set_cipher_list(OLD_SUITES)?;
    context.set_verify(SslVerifyMode::NONE);
    let mut ssl = Ssl::new(&context.build())?;
    name(&mut ssl, endpoint)?;
    Ok(ssl)
}

/// Tells the host which name is wanted, as the real connection does.
fn name(ssl: &mut Ssl, endpoint: &Endpoint) -> Result<(), openssl::error::ErrorStack> {
    let host = endpoint.host().strip_suffix('.').unwrap_or(endpoint.host());
    if host.parse::<std::net::IpAddr>().is_err() {
        ssl.set_hostname(host)?;
    }
    Ok(())
}

/// Versions below 1.2 need security level 0: their handshakes are signed with SHA-1.
const OLD_SUITES: &str = "ALL:!aNULL:!eNULL:@SECLEVEL=0";
/// Bytes of an answer's head that are looked at.
const MAX_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests;
