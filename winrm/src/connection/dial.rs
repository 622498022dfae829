//! From a name to a transport: name resolution, TCP, TLS. Each step has a deadline and names its own failures.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_openssl::SslStream;

use super::link::Link;
use super::tls::{self, TlsInfo};
use super::{Candidate, binding};
use crate::error::{Error, ErrorKind, Stage};
use crate::target::{Endpoint, Scheme, Target};

/// Looks the host up: its addresses, in the order in which [`dial`] should try them.
///
/// # Errors
/// [`Error`] of stage `resolve`.
pub async fn resolve(endpoint: &Endpoint, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
    let (host, port) = (endpoint.host(), endpoint.port());
    let fail = |kind| Error::new(Stage::Resolve, kind).unsent();
    let networks = endpoint.networks();
    if let Ok(address) = host.parse::<IpAddr>() {
        if !networks.permit(address) {
            return Err(fail(ErrorKind::AddressForbidden { host: host.to_owned(), addresses: address.to_string() }));
        }
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = timeout_at(deadline, lookup_host((host, port)))
        .await
        .map_err(|_| fail(ErrorKind::ResolveTimeout { host: host.to_owned() }))?
        .map_err(|error| fail(ErrorKind::ResolveFailed { host: host.to_owned() }).with_source(error))?;
    let (permitted, forbidden): (Vec<_>, Vec<_>) = found.partition(|address| networks.permit(address.ip()));
    let addresses = interleave(permitted.into_iter());
    if addresses.is_empty() && !forbidden.is_empty() {
        let addresses: Vec<String> = forbidden.iter().take(8).map(|address| address.ip().to_string()).collect();
        let addresses = addresses.join(", ");
        return Err(fail(ErrorKind::AddressForbidden { host: host.to_owned(), addresses }));
    }
    if addresses.is_empty() {
        return Err(fail(ErrorKind::ResolveFailed { host: host.to_owned() }));
    }
    Ok(addresses)
}

/// Connects to the first address that answers. Further addresses are tried when one fails, or does not answer soon.
///
/// # Errors
/// [`Error`] of stage `connect`.
pub async fn dial(endpoint: &Endpoint, addresses: &[SocketAddr], deadline: Instant) -> Result<Socket, Error> {
    let mut waiting = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    let race = async {
        loop {
            if let Some(address) = waiting.next() {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
            }
            tokio::select! {
                finished = attempts.join_next() => match finished {
                    Some(Ok((peer, Ok(stream)))) => return Some(Socket { stream, peer }),
                    Some(Ok((_, Err(error)))) => failures.push(error),
                    Some(Err(_)) => {}
                    None => return None,
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => {}
            }
        }
    };
    match timeout_at(deadline, race).await {
        Ok(Some(socket)) => {
            // Requests are written at once and are waited for: there is nothing to gather.
            if let Err(error) = socket.stream.set_nodelay(true) {
                tracing::debug!(%error, "Failed to set TCP_NODELAY");
            }
            // A host that was switched off says nothing. Asked now and then, a dead idle connection is known before a command
            // is sent over it.
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(3);
            if let Err(error) = SockRef::from(&socket.stream).set_tcp_keepalive(&keepalive) {
                tracing::debug!(%error, "Failed to set TCP keep-alive");
            }
            Ok(socket)
        }
        Ok(None) => Err(connect_error(endpoint, failures)),
        Err(_) => Err(Error::new(Stage::Connect, ErrorKind::ConnectTimeout { peer: endpoint.authority() }).unsent()),
    }
}

/// How long a connection is silent before the host is asked whether it is still there, and how often it is asked then.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A TCP connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Socket {
    /// The address that answered.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Begins TLS, or nothing when the target's scheme is http.
    ///
    /// # Errors
    /// [`Error`] of stage `tls`.
    pub async fn secure(self, target: &Target, deadline: Instant) -> Result<Transport, Error> {
        let Self { stream, peer } = self;
        let stream = match target.endpoint.scheme() {
            Scheme::Http => Stream::Plain(stream),
            Scheme::Https => {
                let (stream, info) = tls::handshake(stream, target.endpoint.host(), &target.tls, deadline).await?;
                Stream::Tls(Box::new(stream), info)
            }
        };
        Ok(Transport { stream, peer })
    }
}

/// A connection that is as secure as the target asks for.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    peer: SocketAddr,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>, TlsInfo),
}

impl Transport {
    /// What is known about the TLS session.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(_, info) => Some(info),
        }
    }

    /// Begins to speak HTTP. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be put into HTTP.
    pub async fn start(self, target: &Target) -> Result<Candidate, Error> {
        let Self { stream, peer } = self;
        match stream {
            Stream::Plain(stream) => {
                let link = Link::start(stream, &target.endpoint).await?;
                Ok(Candidate { link, tls: None, channel_bindings: None, peer })
            }
            Stream::Tls(stream, info) => {
                let certificate = stream.ssl().peer_certificate().filter(|_| target.send_channel_bindings);
                let channel_bindings = certificate.as_deref().and_then(binding::tls_server_end_point);
                let link = Link::start(*stream, &target.endpoint).await?;
                Ok(Candidate { link, tls: Some(info), channel_bindings, peer })
            }
        }
    }
}

/// Alternates the address families, beginning with the one the system prefers, and keeps a bounded number.
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut first, mut second): (Vec<SocketAddr>, Vec<SocketAddr>) = (Vec::new(), Vec::new());
    for address in addresses {
        let same_family = first.first().is_none_or(|known| known.is_ipv4() == address.is_ipv4());
        let family = if same_family { &mut first } else { &mut second };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let mut second = second.into_iter();
    let mut mixed: Vec<SocketAddr> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    mixed.extend(second);
    mixed.truncate(MAX_ADDRESSES);
    mixed
}

/// A refusal says most: the host is there.
fn connect_error(endpoint: &Endpoint, mut failures: Vec<io::Error>) -> Error {
    use io::ErrorKind as Io;
    let peer = endpoint.authority();
    failures.sort_by_key(|error| match error.kind() {
        Io::ConnectionRefused => 0,
        Io::HostUnreachable | Io::NetworkUnreachable => 2,
        Io::TimedOut => 3,
        _ => 1,
    });
    let first = failures.into_iter().next();
    let kind = match first.as_ref().map(io::Error::kind) {
        Some(Io::ConnectionRefused) => ErrorKind::ConnectRefused { peer },
        Some(Io::HostUnreachable | Io::NetworkUnreachable) => ErrorKind::ConnectUnreachable { peer },
        Some(Io::TimedOut) => ErrorKind::ConnectTimeout { peer },
        _ => ErrorKind::ConnectFailed { peer },
    };
    let error = Error::new(Stage::Connect, kind).unsent();
    match first {
        Some(source) => error.with_source(source),
        None => error,
    }
}

/// How long one address may be silent before the next is tried too (RFC 8305 recommends 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_duplicates_go() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = ["[::1]:1", "[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address);
        let mixed = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address);
        assert_eq!(interleave(all.into_iter()), mixed);
        assert_eq!(interleave(all.into_iter().rev()).first(), Some(&address("2.2.2.2:1")));
        let many = (1..100).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(interleave(many).len(), MAX_ADDRESSES);
    }
}
