//! HTTP authentication bound to a connection, without I/O.
//!
//! [`Handshake`] turns the `WWW-Authenticate` fields of an answer into the next `Authorization` value ([RFC 4559]) by way of a
//! [`SecurityContext`]; afterwards the same context seals messages ([`seal`]). Bytes in, header values out: nothing here reads
//! a socket or a clock, and header fields and tokens are bounded, since the peer is not authenticated yet. No secret
//! reaches an error or a log line: values that carry one are [`Zeroizing`].
//!
//! Called by `connection`, which owns the socket that a context is bound to.
//!
//! [RFC 4559]: https://www.rfc-editor.org/rfc/rfc4559

pub mod basic;
mod challenge;
#[cfg(feature = "client")]
pub mod kerberos;
#[cfg(feature = "client")]
pub mod ntlm;
pub mod seal;

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub use challenge::{Challenge, challenges};

use crate::error::Refusal;

/// One authentication mechanism on one connection: first it produces and takes tokens, then it seals messages.
///
/// INVARIANT: messages are numbered, so a context serves one connection and one request at a time, and is of no use after
/// any error.
pub trait SecurityContext: fmt::Debug + Send + Sync {
    /// HTTP authentication scheme, such as `Negotiate`.
    fn scheme(&self) -> &'static str;

    /// Media type of its sealed messages, such as `application/HTTP-SPNEGO-session-encrypted`.
    fn protocol(&self) -> &'static str;

    /// Takes the peer's token (empty at first) and returns the next one; empty when there is nothing more to say.
    ///
    /// # Errors
    /// [`ContextError`] when the token is malformed or does not verify; the context is of no use afterwards.
    fn step(&mut self, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, ContextError>;

    /// The peer has proved all that the mechanism lets it prove, and messages can be sealed.
    fn is_complete(&self) -> bool;

    /// The proof of the credential has been sent: a 401 from here on is a rejection. Never with Kerberos, where the KDC judges
    /// the credential: a 401 is about the ticket.
    fn proof_sent(&self) -> bool;

    /// Seals `data` in place and returns the header that goes before it.
    ///
    /// # Errors
    /// [`ContextError`]; the context is of no use afterwards.
    fn wrap(&mut self, data: &mut [u8]) -> Result<Vec<u8>, ContextError>;

    /// Unseals and verifies in place what begins with `header` bytes of header and goes on with the sealed data: where the
    /// message is.
    ///
    /// # Errors
    /// [`ContextError`]; the context is of no use afterwards, and nothing of `sealed` must be believed.
    fn unwrap(&mut self, sealed: &mut [u8], header: usize) -> Result<Range<usize>, ContextError>;
}

/// Why a security context failed. Texts never hold tokens, keys or passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The peer's token is malformed or does not verify.
    #[error("the peer's authentication token is not acceptable: {0}")]
    Token(String),
    /// A message could not be sealed, or does not verify.
    #[error("the message does not pass the security context: {0}")]
    Message(String),
    /// The credential cannot be used with this mechanism.
    #[error("the credential cannot be used: {0}")]
    Credential(String),
    /// The peer does not take the ticket, and says why.
    #[error("the peer does not take the ticket: {0}")]
    Refused(Refusal),
}

/// The HTTP exchanges that authenticate a connection.
#[derive(Debug)]
pub struct Handshake {
    legs: u8,
}

/// What a handshake wants next.
#[derive(Debug)]
pub enum Step {
    /// Send a request with this `Authorization` value.
    Send(Zeroizing<String>),
    /// The connection is authenticated. Never send an `Authorization` field on it again.
    Done,
}

impl Handshake {
    /// Begins: the `Authorization` value of the first request.
    ///
    /// # Errors
    /// [`AuthError`] when the context cannot make its first token.
    pub fn begin(context: &mut dyn SecurityContext) -> Result<(Self, Zeroizing<String>), AuthError> {
        let token = context.step(&[])?;
        Ok((Self { legs: 1 }, authorization(context.scheme(), &token)))
    }

    /// Takes an answer: its status and the values of all its `WWW-Authenticate` fields.
    ///
    /// # Errors
    /// [`AuthError`]; the connection must be closed.
    pub fn answer<'a>(
        &mut self,
        context: &mut dyn SecurityContext,
        status: u16,
        fields: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Step, AuthError> {
        let challenges = challenges(fields);
        let scheme = context.scheme();
        let mut ours = challenges.iter().filter(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme)).peekable();
        let offered = ours.peek().is_some();
        let token = ours.find_map(|challenge| challenge.token);
        match (status, token) {
            (401, _) if context.proof_sent() => Err(AuthError::Rejected),
            (401, Some(token)) => {
                if self.legs >= MAX_LEGS {
                    return Err(AuthError::Endless);
                }
                let reply = context.step(&decode(token)?)?;
                if reply.is_empty() {
                    return Err(AuthError::Incomplete);
                }
                self.legs += 1;
                Ok(Step::Send(authorization(scheme, &reply)))
            }
            (401, None) if offered => Err(AuthError::Refused { scheme }),
            (401, None) => Err(AuthError::Unavailable { scheme, offered: offered_schemes(&challenges) }),
            (200..=299, token) => {
                // SPNEGO answers the last token with its mechListMIC (RFC 4178, section 5); it is fed before anything is sealed.
                // What it would have us answer cannot be sent any more, and need not be once it is complete.
                if let Some(token) = token.filter(|_| !context.is_complete())
                    && !context.step(&decode(token)?)?.is_empty()
                    && !context.is_complete()
                {
                    return Err(AuthError::Incomplete);
                }
                if context.is_complete() { Ok(Step::Done) } else { Err(AuthError::Incomplete) }
            }
            (status, _) => Err(AuthError::Status(status)),
        }
    }
}

/// Why a connection could not be authenticated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401 after the proof of the credential: never try it again by itself.
    #[error("the host rejected the credential")]
    Rejected,
    /// The host does not offer the scheme. No credential was used.
    #[error("the host does not offer {scheme}; it offers {offered}")]
    Unavailable {
        /// The scheme that was wanted.
        scheme: &'static str,
        /// What is offered, joined by commas; `nothing` when there is none.
        offered: String,
    },
    /// The host offers the scheme, and yet refused its first token. No credential was used.
    #[error("the host refused to begin {scheme}")]
    Refused {
        /// The scheme.
        scheme: &'static str,
    },
    /// The host says that all is done, or has nothing to add, when it is not done.
    #[error("the host ended the authentication before it was complete")]
    Incomplete,
    /// More legs than any mechanism needs.
    #[error("the authentication does not end")]
    Endless,
    /// A token that is not base64, or beyond the bounds.
    #[error("the host sent an unreadable authentication token")]
    Encoding,
    /// A status that is neither success nor 401.
    #[error("the host answered the authentication with HTTP status {0}")]
    Status(u16),
    /// The mechanism failed.
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// The schemes that are offered, for error texts: names only, bounded, `nothing` when there are none.
#[must_use]
pub fn offered_schemes(challenges: &[Challenge<'_>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for challenge in challenges {
        let known = names.iter().any(|name| name.eq_ignore_ascii_case(challenge.scheme));
        if !known && challenge.scheme.len() <= 32 && names.len() < 8 {
            names.push(challenge.scheme);
        }
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn authorization(scheme: &str, token: &[u8]) -> Zeroizing<String> {
    // Room for all of it at once: a String that grows leaves copies behind.
    let mut value = Zeroizing::new(String::with_capacity(scheme.len() + 1 + token.len().div_ceil(3) * 4));
    value.push_str(scheme);
    value.push(' ');
    STANDARD.encode_string(token, &mut value);
    value
}

fn decode(token: &str) -> Result<Vec<u8>, AuthError> {
    if token.len() > MAX_TOKEN {
        return Err(AuthError::Encoding);
    }
    STANDARD.decode(token).map_err(|_| AuthError::Encoding)
}

/// NTLM needs two, Kerberos one or two, CredSSP five.
const MAX_LEGS: u8 = 8;
/// Windows announces 48,000 bytes for Negotiate tokens; in base64 that is 64,000.
const MAX_TOKEN: usize = 64 * 1024;

#[cfg(test)]
mod tests;
