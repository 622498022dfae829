//! Asking a KDC what it thinks of a principal, without proving anything.
//!
//! One AS-REQ without pre-authentication: it does not count as an attempt to log in. The `krb5` crate keeps of a KDC's refusal only its
//! number; here the rest is read as well: the KDC's clock (how far ours is off), the NTSTATUS of Active Directory (locked,
//! disabled, expired), and which keys the principal has with which salts.
//!
//! [`Reply::parse`] reads what comes from the network and is not authenticated: it is bounded, never panics, and nothing but
//! sentences for people and the salts of new keytabs are made of it.

pub(crate) mod der;
mod wire;

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use krb5::{AsyncKdcClient, ClientError, Principal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Duration, Instant, timeout, timeout_at};

pub use self::wire::{Malformed, Reply, Salted};

use self::wire::RESPONSE_TOO_BIG;
use crate::error::Error;
use crate::error::catalogue::{self, Asked, Login, With};
use crate::kdc::{Directory, Failure};
use crate::keytab::Recipe;
use crate::trace::Trace;

// RFC 4120 7.5.9.
const ENCTYPE: i32 = 14;
const PREAUTH_REQUIRED: i32 = 25;

/// Longest answer that is read. That of a KDC to such a question has some hundred bytes, a ticket with a large PAC some ten thousand.
const MAX_REPLY: usize = 128 * 1024;

/// How long a datagram is waited for before TCP is tried.
const DATAGRAM: Duration = Duration::from_secs(1);

/// How long one KDC of several may take in all.
const ANSWER: Duration = Duration::from_millis(2500);

/// The encryption types asked about: all that have keys we can make.
pub const ENCTYPES: [i32; 4] = [18, 17, 20, 19];

/// How a KDC is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram, and a second one when no answer came: datagrams get lost.
    Udp,
    /// A connection.
    Tcp,
}

/// Asks one KDC, `host:port`, what it says to a login of `principal` that proves nothing. UDP, then TCP.
///
/// # Errors
/// When the KDC does not answer before `deadline`, or with something that is no answer.
pub async fn ask(kdc: &str, principal: &Principal, deadline: Instant) -> io::Result<Reply> {
    let request = wire::as_req(principal, &ENCTYPES, nonce(), unix_now());
    let answer = match timeout_at(deadline, timeout(DATAGRAM, datagram(kdc, &request))).await {
        Ok(Ok(Ok(answer))) => Some(answer),
        Ok(_) => None,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let received = SystemTime::now();
    if let Some(reply) = answer.and_then(|answer| Reply::parse(&answer, unix(received)).ok())
        && reply.code != Some(RESPONSE_TOO_BIG)
    {
        return Ok(reply);
    }
    let answer = timeout_at(deadline, stream(kdc, &request)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Reply::parse(&answer, unix_now()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Asks one KDC, `host:port`, over one transport and no other. `enctypes` are the encryption types that the answer may name keys of.
/// That the answer would be too large for a datagram is an answer as well: its code is 52.
///
/// # Errors
/// When the KDC does not answer before `deadline`, or with something that is no answer.
pub async fn over(
    transport: Transport,
    kdc: &str,
    principal: &Principal,
    enctypes: &[i32],
    deadline: Instant,
) -> io::Result<Reply> {
    let request = wire::as_req(principal, enctypes, nonce(), unix_now());
    let answer = async {
        match transport {
            Transport::Tcp => stream(kdc, &request).await,
            Transport::Udp => match timeout(DATAGRAM, datagram(kdc, &request)).await {
                Ok(answer) => answer,
                Err(_) => datagram(kdc, &request).await,
            },
        }
    };
    let answer = timeout_at(deadline, answer).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Reply::parse(&answer, unix_now()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What an answer says against a login of `principal`, before anything was proved. Nothing when it wants pre-authentication, as it should.
#[must_use]
pub fn refusal(reply: &Reply, principal: &Principal) -> Option<Error> {
    let code = reply.code.filter(|code| ![PREAUTH_REQUIRED, RESPONSE_TOO_BIG].contains(code))?;
    Some(refused(&Failure::Kdc(ClientError::Kdc { code, text: reply.text.clone() }), principal, Some(reply)))
}

/// Why no KDC of the principal's realm could be asked, in words.
#[must_use]
pub fn unanswered(failure: &Failure, principal: &Principal) -> Error {
    refused(failure, principal, None)
}

/// Of a login that proves nothing; so the sentences about passwords and keys never come into it.
fn refused(failure: &Failure, principal: &Principal, reply: Option<&Reply>) -> Error {
    let shown = match principal.components.as_slice() {
        // A user principal name; people do not write the realm that it is asked of behind it.
        [name] if name.contains('@') => name.clone(),
        _ => principal.to_string(),
    };
    let login = Login { principal: shown, realm: principal.realm.clone(), with: With::Password };
    catalogue::of(failure, &login, Asked::Login, reply)
}

/// Asks a KDC of the principal's realm.
///
/// # Errors
/// When none answers before `deadline`.
pub async fn of_realm(
    directory: &Directory,
    principal: &Principal,
    trace: &Trace,
    deadline: Instant,
) -> Result<Reply, Failure> {
    trace.line(format_args!("Asking the KDC of {} about {principal} without logging in", principal.realm));
    let work = {
        let principal = principal.clone();
        move |client: AsyncKdcClient| {
            let principal = principal.clone();
            async move {
                let client = client.client();
                let unreachable = |last| ClientError::Unreachable { realm: client.realm().to_owned(), last };
                let Some(kdc) = client.kdcs().first() else {
                    return Err(unreachable(io::ErrorKind::NotFound.into()));
                };
                let kdc = if has_port(kdc) { kdc.clone() } else { format!("{kdc}:88") };
                ask(&kdc, &principal, deadline.min(Instant::now() + ANSWER)).await.map_err(unreachable)
            }
        }
    };
    directory.with_client(&principal.realm, trace, deadline, work).await
}

/// The encryption types and salts that the KDC names for a principal, for making keys of its password. Types that are not supported
/// here are left out.
///
/// # Errors
/// When no KDC answers, or it does not know the principal, or names no key that can be made.
pub async fn salt(
    directory: &Directory,
    principal: &Principal,
    trace: &Trace,
    deadline: Instant,
) -> Result<Vec<Recipe>, Error> {
    let reply =
        of_realm(directory, principal, trace, deadline).await.map_err(|failure| unanswered(&failure, principal))?;
    let recipes: Vec<Recipe> = reply.keys.iter().filter_map(|key| key.recipe(principal)).collect();
    if !recipes.is_empty() {
        return Ok(recipes);
    }
    // Wanting pre-authentication is no refusal, but without a key of ours it leads nowhere.
    let code = reply.code.filter(|code| *code != PREAUTH_REQUIRED).unwrap_or(ENCTYPE);
    Err(refused(&Failure::Kdc(ClientError::Kdc { code, text: reply.text.clone() }), principal, Some(&reply)))
}

/// `host:port`, `[address]:port`; an address of version 6 alone has colons but no port.
fn has_port(kdc: &str) -> bool {
    match kdc.rsplit_once(':') {
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    }
}

async fn datagram(kdc: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let address = tokio::net::lookup_host(kdc).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that nobody else's datagrams are taken.
    socket.connect(address).await?;
    socket.send(request).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn stream(kdc: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(kdc).await?;
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], request].concat()).await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_REPLY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an answer of {length} bytes")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn nonce() -> u32 {
    let mut bytes = [0; 4];
    // It protects nothing: the answer is not authenticated in any case.
    let _ = getrandom::fill(&mut bytes);
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}

fn unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn unix_now() -> i64 {
    unix(SystemTime::now())
}
