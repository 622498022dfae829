//! One connection to one host: a socket, its TLS session and its security context, which live and die together.
//!
//! INVARIANT: one request is in flight at a time, and any error, cancellation, 401 after authentication or failed unsealing
//! ends the connection: afterwards [`Connection::is_usable`] is false and the socket is closed. A sealed connection neither
//! sends nor believes a plain body. Redirects are never followed and nothing is ever sent twice; whether a failed request
//! may have reached the host is told by [`Error::is_unsent`].
//!
//! Opening is staged, so that the connection test can time each rung: [`resolve`], [`dial()`], [`Socket::secure`],
//! [`Transport::start`], [`Candidate::identify`], [`Candidate::authenticate`]. [`Connection::open`] does all but Identify.
//! Called by the pool and the probe; knows neither shells nor SOAP.

mod authentication;
mod binding;
mod dial;
mod link;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use tokio::time::Instant;
use tracing::Instrument as _;
use zeroize::Zeroizing;

pub use dial::{Socket, Transport, dial, resolve};
pub use tls::{FurtherError, TlsInfo, trust_further};

use crate::auth::seal::{self, SealError};
use crate::auth::{SecurityContext, challenges, kerberos, offered_schemes};
use crate::error::{Error, ErrorKind, Stage};
use crate::spans;
use crate::target::{AuthKind, MessageEncryption, Scheme, Target};
use link::{Link, Request, Response};

/// An authenticated connection.
#[derive(Debug)]
pub struct Connection {
    link: Link,
    credential: Authenticated,
    info: ConnectionDetails,
    user: String,
}

/// What authenticates requests from now on.
enum Authenticated {
    /// Each request carries it.
    Basic(Zeroizing<String>),
    /// The connection itself is authenticated; nothing is sent any more.
    Connection,
    /// The same, and messages are sealed.
    Sealed(Box<dyn SecurityContext>),
}

impl std::fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic([redacted])",
            Self::Connection => "Connection",
            Self::Sealed(_) => "Sealed",
        })
    }
}

/// What is known about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionDetails {
    /// `basic`; `ntlm`, or `negotiate` for NTLM inside SPNEGO; `kerberos`, or `negotiate-kerberos` for Kerberos inside SPNEGO.
    pub auth: &'static str,
    /// Whose ticket was taken, and for what. Nothing without Kerberos.
    pub kerberos: Option<KerberosDetails>,
    /// Messages are sealed.
    pub sealed: bool,
    /// The TLS session.
    pub tls: Option<TlsInfo>,
    /// The address that answered.
    pub peer: SocketAddr,
    /// What users should know, such as an unchecked certificate.
    pub warnings: Vec<String>,
}

/// The ticket that a host took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KerberosDetails {
    /// The user, as the KDC names it, such as `alice@CORP.EXAMPLE`.
    pub client: String,
    /// The service, such as `HTTP/win01.corp.example@CORP.EXAMPLE`.
    pub service: String,
    /// The host can act as the user elsewhere.
    pub delegated: bool,
}

/// An answer of the WinRM service: 200 with a response, or 500 with a fault. Unsealed, when it came sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 500.
    pub status: u16,
    /// The SOAP envelope.
    pub body: Bytes,
}

impl Connection {
    /// Resolves, connects, secures and authenticates. Name resolution, TCP and TLS together get the target's connect
    /// timeout, each authentication leg its read timeout, and all of it ends at `deadline`.
    ///
    /// # Errors
    /// [`Error`] of the stage that failed. Nothing was sent when the target's own settings contradict each other.
    pub async fn open(target: &Target, deadline: Instant) -> Result<Self, Error> {
        Candidate::reach(target, deadline).await?.authenticate(target, deadline).await
    }

    /// Sends one envelope and returns the answer to it. `read_timeout` bounds the whole exchange.
    ///
    /// # Errors
    /// [`Error`] of stage `run` (move it with [`Error::at`]), or of stage `authenticate` after a rejection. The connection
    /// is of no use afterwards. Unless [`Error::is_unsent`], the host may have acted on the request.
    pub async fn exchange(&mut self, envelope: Bytes, read_timeout: Duration) -> Result<Answer, Error> {
        if !self.link.is_usable() {
            return Err(unusable(Stage::Run, &self.link));
        }
        // Until a good answer was read, the connection is lost: also when this future is dropped between two awaits.
        let result = self.exchange_once(envelope, Instant::now() + read_timeout, read_timeout).await;
        if result.is_err() {
            self.link.close();
        }
        result
    }

    async fn exchange_once(
        &mut self,
        envelope: Bytes,
        deadline: Instant,
        read_timeout: Duration,
    ) -> Result<Answer, Error> {
        let plain_type = || SOAP_TYPE.to_owned();
        let request = match &mut self.credential {
            Authenticated::Basic(value) => {
                Request::soap(plain_type(), [envelope, Bytes::new(), Bytes::new()]).authorized(value)
            }
            Authenticated::Connection => Request::soap(plain_type(), [envelope, Bytes::new(), Bytes::new()]),
            Authenticated::Sealed(context) => {
                let body = seal::seal(context.as_mut(), envelope)
                    .map_err(|error| Error::new(Stage::Run, ErrorKind::SealEncrypt).unsent().with_source(error))?;
                Request::soap(seal::content_type(context.protocol()), body)
            }
        };
        let response = self
            .link
            .round(request, deadline, ErrorKind::ReadTimeout { after: read_timeout })
            .await
            .map_err(|error| error.at(Stage::Run))?;
        let answer = match &mut self.credential {
            Authenticated::Sealed(context) => unseal(context.as_mut(), response),
            Authenticated::Basic(_) if response.status == 401 => Err(basic_refusal(&response, &self.user)),
            Authenticated::Basic(_) | Authenticated::Connection => plain(response),
        }?;
        Ok(answer)
    }

    /// Whether another exchange may be tried: no failure so far, and the host has not closed the connection.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.link.is_usable()
    }

    /// Closes it: the host is not to be trusted with another request.
    pub(crate) fn close(&mut self) {
        self.link.close();
    }

    /// What is known about this connection.
    #[must_use]
    pub fn info(&self) -> &ConnectionDetails {
        &self.info
    }

    /// HTTP exchanges so far, authentication legs and Identify included.
    #[must_use]
    pub fn exchanges(&self) -> u32 {
        self.link.exchanges()
    }
}

/// A connection that speaks HTTP and is not authenticated yet.
#[derive(Debug)]
pub struct Candidate {
    link: Link,
    tls: Option<TlsInfo>,
    channel_bindings: Option<Vec<u8>>,
    peer: SocketAddr,
}

impl Candidate {
    /// Resolves, connects and secures: all of [`Connection::open`] that needs no credential.
    ///
    /// # Errors
    /// [`Error`] of the stage that failed. Nothing was sent when the target's own settings contradict each other.
    pub async fn reach(target: &Target, deadline: Instant) -> Result<Self, Error> {
        let span = spans::connect(&target.endpoint);
        let result = Self::reach_unseen(target, deadline).instrument(span.clone()).await;
        spans::note(&span, &result);
        result
    }

    async fn reach_unseen(target: &Target, deadline: Instant) -> Result<Self, Error> {
        Sealing::of(target)?;
        kerberos::check(target)?;
        #[cfg(test)]
        if let Some(stream) = crate::simulated::connect(&target.endpoint) {
            let link = Link::start(stream, &target.endpoint).await?;
            return Ok(Self { link, tls: None, channel_bindings: None, peer: ([127, 0, 0, 1], 0).into() });
        }
        let by = deadline.min(Instant::now() + target.timeouts.connect);
        let addresses = resolve(&target.endpoint, by).await?;
        let socket = dial(&target.endpoint, &addresses, by).await?;
        socket.secure(target, by).await?.start(target).await
    }

    /// Sends an Identify envelope without any credential.
    ///
    /// # Errors
    /// [`Error`] of stage `identify`; the connection is of no use afterwards. A host that asks for authentication even so is
    /// an error of kind [`ErrorKind::HttpStatus`].
    pub async fn identify(&mut self, envelope: Bytes, read_timeout: Duration) -> Result<Answer, Error> {
        let request = Request::soap(SOAP_TYPE.to_owned(), [envelope, Bytes::new(), Bytes::new()]).unauthenticated();
        let span = spans::exchange("Identify");
        let round =
            self.link.round(request, Instant::now() + read_timeout, ErrorKind::ReadTimeout { after: read_timeout });
        let result = match round.instrument(span.clone()).await {
            Ok(response) if response.status == 401 => {
                Err(Error::new(Stage::Identify, ErrorKind::HttpStatus { status: 401 }))
            }
            Ok(response) => plain(response),
            Err(error) => Err(error),
        };
        spans::note(&span, &result);
        result.map_err(|error| {
            self.link.close();
            error.at(Stage::Identify)
        })
    }

    /// What is known about the TLS session.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The address that answered.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the connection can still be used: a host may close it after Identify.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.link.is_usable()
    }

    /// HTTP exchanges so far.
    #[must_use]
    pub fn exchanges(&self) -> u32 {
        self.link.exchanges()
    }
}

/// Whether the target's settings ask for sealing, and what is doubtful about them.
struct Sealing {
    sealed: bool,
    warnings: Vec<String>,
}

impl Sealing {
    /// Decided before anything is sent.
    fn of(target: &Target) -> Result<Self, Error> {
        let refused = |kind| Err(Error::new(Stage::Authenticate, kind).unsent());
        let (plain_http, encryption) = (target.endpoint.scheme() == Scheme::Http, target.message_encryption);
        let mut warnings = Vec::new();
        let sealed = match (target.auth, encryption) {
            (AuthKind::Basic, MessageEncryption::Always) => {
                let detail = "basic authentication cannot seal messages".to_owned();
                return refused(ErrorKind::EncryptionImpossible { detail });
            }
            (AuthKind::Basic, _) if plain_http && !target.allow_basic_over_http => {
                return refused(ErrorKind::BasicOverHttp);
            }
            (AuthKind::Basic, _) => {
                if plain_http {
                    warnings
                        .push("the password and all messages travel unprotected (Basic over plain HTTP)".to_owned());
                }
                false
            }
            (_, MessageEncryption::Always) => true,
            (_, MessageEncryption::Auto) => plain_http,
            (_, MessageEncryption::Never) => {
                if plain_http {
                    warnings
                        .push("all messages travel unprotected (message encryption is off over plain HTTP)".to_owned());
                }
                false
            }
        };
        Ok(Self { sealed, warnings })
    }
}

/// Whatever is not sealed on a sealed connection may come from anybody, its status too.
fn unseal(context: &mut dyn SecurityContext, response: Response) -> Result<Answer, Error> {
    let Response { status, headers, body } = response;
    let fail = |kind| Error::new(Stage::Run, kind);
    let sealed = headers.get(CONTENT_TYPE).is_some_and(|field| seal::is_sealed(field.as_bytes(), context.protocol()));
    match status {
        401 => Err(fail(ErrorKind::AuthLost)),
        200 | 500 if sealed => match seal::open(context, body) {
            Ok(body) if body.len() > MAX_ENVELOPE => Err(fail(ErrorKind::AnswerTooLarge { limit: MAX_ENVELOPE })),
            Ok(body) => Ok(Answer { status, body }),
            Err(SealError::Malformed(detail)) => Err(fail(ErrorKind::SealMalformed { detail: detail.to_owned() })),
            Err(SealError::Truncated) => Err(fail(ErrorKind::SealTruncated)),
            Err(SealError::Length { promised, actual }) => Err(fail(ErrorKind::SealLength { promised, actual })),
            Err(error @ SealError::Context(_)) => Err(fail(ErrorKind::SealDecrypt).with_source(error)),
        },
        status => Err(fail(ErrorKind::SealPlainAnswer { status })),
    }
}

fn plain(response: Response) -> Result<Answer, Error> {
    let Response { status, headers, body } = response;
    let fail = |kind| Err(Error::new(Stage::Run, kind));
    let multipart = headers.get(CONTENT_TYPE).is_some_and(|field| field.as_bytes().starts_with(b"multipart/"));
    match status {
        200 | 500 if multipart => {
            fail(ErrorKind::HttpUnexpected { detail: "a sealed answer on a connection that is not sealed".to_owned() })
        }
        200 | 500 => Ok(Answer { status, body: body.freeze() }),
        401 => fail(ErrorKind::AuthLost),
        status => fail(ErrorKind::HttpStatus { status }),
    }
}

/// A host that does not offer Basic refuses the mechanism; one that does refuses the password.
fn basic_refusal(response: &Response, user: &str) -> Error {
    let challenges = challenges(response.headers.get_all(WWW_AUTHENTICATE).iter().map(|field| field.as_bytes()));
    let kind = if challenges.iter().any(|challenge| challenge.scheme.eq_ignore_ascii_case("Basic")) {
        ErrorKind::AuthRejected { mechanism: "basic", user: user.to_owned(), over_tls: false }
    } else {
        ErrorKind::AuthUnavailable { wanted: "Basic", offered: offered_schemes(&challenges) }
    };
    Error::new(Stage::Authenticate, kind)
}

fn unusable(stage: Stage, link: &Link) -> Error {
    let kind = if link.has_failed() { ErrorKind::ConnectionUnusable } else { ErrorKind::ConnectionClosed };
    Error::new(stage, kind).unsent()
}

const SOAP_TYPE: &str = "application/soap+xml;charset=UTF-8";
/// Hosts answer with at most the 150 to 500 KiB that the request asks for.
const MAX_ENVELOPE: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
