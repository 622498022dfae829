//! What can go wrong, at which stage, under which stable code, and what to do about it.
//!
//! Every failure of this crate is an [`Error`]: a [`Stage`], an [`ErrorKind`] that says what happened, and whatever lay
//! underneath. What it means and what to do about it stands in one table, in `advice`. Classification is by type and
//! code, never by searching message text. It must never hold a secret.

mod advice;
mod catalogue;
pub(crate) mod ticket;

use std::error::Error as StdError;
use std::fmt;

use crate::fault::{Class, Fault};
pub use catalogue::catalogue;
pub use ticket::{Refusal, TicketError, TicketErrorKind};

/// Where in the life of a session something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Name resolution.
    Resolve,
    /// TCP connection.
    Connect,
    /// TLS handshake and certificate check.
    Tls,
    /// WS-Management Identify.
    Identify,
    /// Authentication.
    Authenticate,
    /// Creating the remote shell.
    OpenShell,
    /// Sending the command and its input.
    Run,
    /// Receiving output and the exit code.
    Receive,
    /// Signalling the command or deleting the shell.
    Close,
}

impl Stage {
    /// The stable name: `resolve`, `connect`, `tls`, `identify`, `authenticate`, `open_shell`, `run`, `receive`, `close`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Identify => "identify",
            Self::Authenticate => "authenticate",
            Self::OpenShell => "open_shell",
            Self::Run => "run",
            Self::Receive => "receive",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure of this crate.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    stage: Stage,
    kind: ErrorKind,
    may_have_started: bool,
    unsent: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind` at `stage`.
    #[must_use]
    pub fn new(stage: Stage, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { stage, kind, may_have_started: false, unsent: false, source: None }))
    }
    /// Adds what lay underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }
    /// Moves the failure to another stage: the same exchange serves several. What a host says about the authentication
    /// stays where it is, whatever it was asked.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        if !self.is_about_authentication() {
            self.0.stage = stage;
        }
        self
    }
    fn is_about_authentication(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::AuthRejected { .. }
                | ErrorKind::AuthRejectedBefore { .. }
                | ErrorKind::AuthUnavailable { .. }
                | ErrorKind::AuthHandshake { .. }
                | ErrorKind::Ticket(_)
                | ErrorKind::TicketRefused { .. }
                | ErrorKind::TicketTooLarge { .. }
        )
    }
    /// Marks that the command may have started on the host.
    #[must_use]
    pub fn after_start(mut self) -> Self {
        self.0.may_have_started = true;
        self
    }
    /// Marks that not one byte of the request was written: it may be sent again on another connection.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.0.unsent = true;
        self
    }
    /// True when surely not one byte of the request was written.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.0.unsent
    }
    /// Where it happened.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }
    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }
    /// Stable code such as `auth.rejected`, `connect.refused`, `tls.untrusted`, `fault.2150858793`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        advice::code(&self.0.kind)
    }
    /// The likely cause in one sentence.
    #[must_use]
    pub fn cause(&self) -> String {
        advice::advice(&self.0.kind).cause.into_owned()
    }
    /// What to do, in one or two sentences.
    #[must_use]
    pub fn remedy(&self) -> String {
        advice::advice(&self.0.kind).remedy.into_owned()
    }
    /// The text that users of older tools know, or nothing.
    #[must_use]
    pub fn legacy_text(&self) -> Option<&str> {
        match &self.0.kind {
            ErrorKind::Ticket(error) => error.legacy_text.as_deref(),
            kind => advice::advice(kind).legacy,
        }
    }
    /// True when the command may have started on the host: it must not be started again by itself.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        self.0.may_have_started
    }
    /// True when the host, the domain or its KDC rejected the credential: do not try it again.
    #[must_use]
    pub fn credential_rejected(&self) -> bool {
        match &self.0.kind {
            ErrorKind::AuthRejected { .. } | ErrorKind::AuthRejectedBefore { .. } => true,
            ErrorKind::Ticket(error) => error.kind == TicketErrorKind::Rejected,
            ErrorKind::Fault(fault) => matches!(fault.class(), Class::LogonRejected | Class::FailedAuthentication),
            _ => false,
        }
    }
    /// True when the host may take a newer ticket. Its key has changed, or it says nothing that speaks against it. Nothing was
    /// asked of it yet, and no password is at stake.
    #[must_use]
    pub(crate) fn wants_newer_ticket(&self) -> bool {
        matches!(
            &self.0.kind,
            ErrorKind::TicketRefused {
                kept: true,
                refusal: Refusal::Unsaid | Refusal::WrongKey | Refusal::Expired,
                ..
            }
        )
    }
    /// The fault, when the host answered with one.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match &self.0.kind {
            ErrorKind::Fault(fault) => Some(fault),
            _ => None,
        }
    }
    /// The whole chain of causes on one line.
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Shows an error and everything under it on one line, joined by `: `. Line breaks in foreign texts become spaces, and a
/// cause whose text the line before already ends with is left out.
#[derive(Debug)]
pub struct Report<'a>(&'a (dyn StdError + 'static));

impl<'a> Report<'a> {
    /// A report of any error.
    #[must_use]
    pub fn of(error: &'a (dyn StdError + 'static)) -> Self {
        Self(error)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = String::new();
        let mut next = Some(self.0);
        while let Some(error) = next {
            let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            if !text.is_empty() && !previous.ends_with(&text) {
                if !previous.is_empty() {
                    f.write_str(": ")?;
                }
                f.write_str(&text)?;
                previous = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

/// What happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name has no address, or could not be looked up.
    #[error("failed to resolve {host}")]
    ResolveFailed {
        /// The name.
        host: String,
    },
    /// The looking up took too long.
    #[error("resolving {host} took too long")]
    ResolveTimeout {
        /// The name.
        host: String,
    },
    /// None of the host's addresses is one that the caller permits.
    #[error("{host} is at {addresses}, where it may not be connected to")]
    AddressForbidden {
        /// The name or address.
        host: String,
        /// Its addresses, the first few.
        addresses: String,
    },
    /// Nothing listens there.
    #[error("{peer} refused the connection")]
    ConnectRefused {
        /// Name or address, with the port.
        peer: String,
    },
    /// No answer.
    #[error("{peer} did not answer the connection attempt in time")]
    ConnectTimeout {
        /// Name or address, with the port.
        peer: String,
    },
    /// No route.
    #[error("{peer} cannot be reached")]
    ConnectUnreachable {
        /// Name or address, with the port.
        peer: String,
    },
    /// Another failure of the TCP connection.
    #[error("failed to connect to {peer}")]
    ConnectFailed {
        /// Name or address, with the port.
        peer: String,
    },
    /// No trusted authority issued the certificate.
    #[error("the certificate of {host} is not trusted: {detail}")]
    TlsUntrusted {
        /// The host.
        host: String,
        /// What the check found.
        detail: String,
    },
    /// The certificate is another host's.
    #[error("the certificate does not name {host}: {detail}")]
    TlsHostname {
        /// The host.
        host: String,
        /// What the certificate names.
        detail: String,
    },
    /// The certificate ended, or has not begun.
    #[error("the certificate of {host} is not valid now: {detail}")]
    TlsExpired {
        /// The host.
        host: String,
        /// What the check found.
        detail: String,
    },
    /// No TLS, or no version or suite in common.
    #[error("failed to agree on TLS with {host}: {detail}")]
    TlsProtocol {
        /// The host.
        host: String,
        /// What the TLS library said.
        detail: String,
    },
    /// The TLS handshake took too long.
    #[error("the TLS handshake with {host} took too long")]
    TlsTimeout {
        /// The host.
        host: String,
    },
    /// The given authorities or settings cannot be used.
    #[error("cannot use the TLS settings: {detail}")]
    TlsSettings {
        /// What is wrong.
        detail: String,
    },
    /// Another failure of TLS.
    #[error("the TLS handshake with {host} failed: {detail}")]
    TlsOther {
        /// The host.
        host: String,
        /// What the TLS library said.
        detail: String,
    },
    /// An HTTP status that is no WinRM answer.
    #[error("the host answered with HTTP status {status}")]
    HttpStatus {
        /// The status.
        status: u16,
    },
    /// An HTTP answer that a WinRM service would not give.
    #[error("unexpected HTTP answer: {detail}")]
    HttpUnexpected {
        /// What was unexpected.
        detail: String,
    },
    /// The HTTP exchange broke.
    #[error("the HTTP exchange broke: {detail}")]
    HttpProtocol {
        /// What broke.
        detail: String,
    },
    /// The host closed the connection, or it was reset.
    #[error("the connection was closed by the host")]
    ConnectionClosed,
    /// The connection must not be used after an earlier failure.
    #[error("the connection is no longer usable after an earlier failure")]
    ConnectionUnusable,
    /// The host answered 401 to the credential.
    #[error("the host rejected the credential of {user} ({mechanism})")]
    AuthRejected {
        /// `basic`, `ntlm` or `negotiate`.
        mechanism: &'static str,
        /// As whom.
        user: String,
        /// The mechanism can be bound to the TLS session that it ran in, and that can be the reason.
        over_tls: bool,
    },
    /// The same credential was rejected by the same host before; nothing was sent.
    #[error("the credential of {user} was rejected by this host before and is not tried again")]
    AuthRejectedBefore {
        /// As whom.
        user: String,
    },
    /// The host does not offer the mechanism.
    #[error("the host does not offer {wanted} authentication; it offers {offered}")]
    AuthUnavailable {
        /// What was wanted.
        wanted: &'static str,
        /// What the host offers, joined by commas.
        offered: String,
    },
    /// Basic over plain HTTP was not allowed; nothing was sent.
    #[error("basic authentication over plain http is not allowed")]
    BasicOverHttp,
    /// Sealing was asked for, and this authentication cannot seal.
    #[error("messages cannot be sealed: {detail}")]
    EncryptionImpossible {
        /// Why not.
        detail: String,
    },
    /// The authentication exchange does not follow its protocol.
    #[error("the authentication exchange failed: {detail}")]
    AuthHandshake {
        /// What was wrong.
        detail: String,
    },
    /// The credential cannot be used as it is; nothing was sent.
    #[error("the credential cannot be used: {detail}")]
    CredentialUnusable {
        /// Why not.
        detail: String,
    },
    /// There is no ticket for the host; nothing was sent to it.
    #[error(transparent)]
    Ticket(Box<TicketError>),
    /// The KDC gave a ticket, and the host did not take it. No verdict on the password.
    #[error("the host did not take the ticket for {service}: {refusal}")]
    TicketRefused {
        /// For which service, such as `HTTP/host`.
        service: String,
        /// What it said.
        refusal: Refusal,
        /// The ticket was bound to the TLS session, and that can be the reason.
        over_tls: bool,
        /// The ticket was not got just now: if the host's key has changed since, a newer one will do.
        kept: bool,
    },
    /// The token with the ticket is longer than the host takes.
    #[error("the host refused the ticket for {service} with HTTP status {status}, and its token has {length} bytes")]
    TicketTooLarge {
        /// For which service, such as `HTTP/host`.
        service: String,
        /// The status.
        status: u16,
        /// The length of the header field.
        length: usize,
    },
    /// 401 on a connection that was authenticated.
    #[error("the host forgot the authentication of this connection")]
    AuthLost,
    /// A plain answer on a connection that must be sealed.
    #[error("plain answer (HTTP status {status}) on a sealed connection")]
    SealPlainAnswer {
        /// Its status.
        status: u16,
    },
    /// A sealed body that is no multipart/encrypted.
    #[error("malformed sealed body: {detail}")]
    SealMalformed {
        /// What was wrong.
        detail: String,
    },
    /// A sealed body ends early.
    #[error("the sealed body is truncated")]
    SealTruncated,
    /// A sealed body does not decrypt.
    #[error("failed to unseal the answer")]
    SealDecrypt,
    /// A message could not be sealed.
    #[error("failed to seal the request")]
    SealEncrypt,
    /// A sealed body has another length than it says.
    #[error("the sealed body holds {actual} bytes and promised {promised}")]
    SealLength {
        /// What its header said.
        promised: usize,
        /// What it held.
        actual: usize,
    },
    /// An answer that is no SOAP, or not the answer that was asked for.
    #[error("malformed SOAP answer: {detail}")]
    SoapMalformed {
        /// What was wrong.
        detail: String,
    },
    /// An answer beyond the bounds.
    #[error("the answer is larger than {limit} bytes")]
    AnswerTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The answer belongs to another request.
    #[error("the answer belongs to another request: it relates to {found}")]
    WrongRelatesTo {
        /// What it relates to.
        found: String,
    },
    /// A request cannot be put into SOAP.
    #[error("the request cannot be sent: {detail}")]
    RequestUnsendable {
        /// Why not.
        detail: String,
    },
    /// The host answered with a fault.
    #[error("the host answered with {0}")]
    Fault(Fault),
    /// No answer in time.
    #[error("no answer from the host within {}", Seconds(*.after))]
    ReadTimeout {
        /// How long was waited.
        after: std::time::Duration,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// No session became free in time.
    #[error("no session became free before the deadline: {detail}")]
    PoolTimeout {
        /// Which bound was reached.
        detail: String,
    },
    /// The pool is closed.
    #[error("the session pool is closed")]
    PoolClosed,
    /// The lease cannot start another command: an earlier one left it in doubt.
    #[error("the session is in doubt after an earlier failure")]
    SessionInDoubt,
    /// Whoever notes down what is started could not, so nothing was.
    #[error("the command was not started, because it could not be noted down first")]
    NotNoted,
}

/// A duration as people write it.
struct Seconds(std::time::Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_shows_the_chain_once_on_one_line() {
        let io = std::io::Error::other("first\nsecond");
        let error = Error::new(Stage::Connect, ErrorKind::ConnectFailed { peer: "h:5985".into() }).with_source(io);
        assert_eq!(error.report().to_string(), "failed to connect to h:5985: first second");
        assert_eq!(error.to_string(), "failed to connect to h:5985");
    }

    #[test]
    fn a_failure_of_authentication_stays_one() {
        let rejected = || ErrorKind::AuthRejectedBefore { user: "alice".into() };
        assert_eq!(Error::new(Stage::Authenticate, rejected()).at(Stage::Receive).stage(), Stage::Authenticate);
        let closed = Error::new(Stage::Authenticate, ErrorKind::ConnectionClosed);
        assert_eq!(closed.at(Stage::Receive).stage(), Stage::Receive);
    }

    #[test]
    fn rejections_are_told_apart_from_other_failures() {
        let rejected = |over_tls| {
            let kind = ErrorKind::AuthRejected { mechanism: "ntlm", user: "CORP\\alice".into(), over_tls };
            Error::new(Stage::Authenticate, kind)
        };
        assert!(rejected(false).credential_rejected());
        // Over TLS a right password can be rejected, too.
        assert!(rejected(true).remedy().contains("channel bindings") && rejected(true).cause().contains("proxy"));
        assert!(!rejected(false).remedy().contains("channel bindings"));
        assert_eq!(rejected(true).code(), rejected(false).code());
        assert!(!Error::new(Stage::Authenticate, ErrorKind::AuthLost).credential_rejected());
    }
}
