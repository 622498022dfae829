//! Kerberos ([RFC 4121], AES only), inside SPNEGO ([RFC 4178]) or as it is, by way of the `krb5` crate.
//!
//! A [`KerberosContext`] begins with a [`Ticket`] that a [`TicketSource`] handed out: this crate speaks to no KDC and reads
//! no file. Mutual authentication and confidentiality are asked for always: a host that does not prove that it could read
//! the ticket gets no message. What the host says is bounded and judged; whatever does not verify ends the context.
//!
//! The seam for CredSSP: a context knows nothing of HTTP. Whoever drives it carries the tokens of
//! [`SecurityContext::step`] in its own messages, and header and data of [`SecurityContext::wrap`], one after the other, are
//! one Wrap token of [RFC 4121], as [`SecurityContext::unwrap`] takes them. Once a token says why the host did not take the
//! ticket, that is [`ContextError::Refused`].
//!
//! Nothing here shows a ticket or a key. The crate does not zero its keys; at level `debug` it logs names, times and key
//! versions.
//!
//! [RFC 4121]: https://www.rfc-editor.org/rfc/rfc4121
//! [RFC 4178]: https://www.rfc-editor.org/rfc/rfc4178

#[cfg(test)]
pub(crate) mod minted;
mod names;
mod refusal;
mod source;

use std::fmt;
use std::ops::Range;

use krb5::initiator::{
    GSS_C_CHANNEL_BOUND_FLAG, GSS_C_CONF_FLAG, GSS_C_INTEG_FLAG, GSS_C_MUTUAL_FLAG, GSS_C_REPLAY_FLAG,
    GSS_C_SEQUENCE_FLAG, InitOptions,
};
use krb5::spnego::SpnegoInitiator;
use krb5::token::{ContextKey, HEADER_LEN, PerMessageTokens};
use krb5::{ChannelBindings, ClientError, InitiatorContext};
use zeroize::Zeroizing;

use super::{ContextError, SecurityContext};
pub use crate::error::{Refusal, TicketError, TicketErrorKind};
pub(crate) use names::{Granted, check, obtain};
pub use source::{Ticket, TicketRequest, TicketSource};

/// A Kerberos security context.
pub struct KerberosContext {
    state: State,
    /// Tokens travel inside SPNEGO.
    spnego: bool,
}

enum State {
    /// Nothing was said yet.
    Ready(Ticket, Option<ChannelBindings>),
    /// The host has the ticket, and has not proved that it can read it.
    Spnego(Box<SpnegoInitiator>),
    Raw(Box<InitiatorContext>),
    /// Messages are sealed.
    Established(Box<Messages>),
    /// Something failed.
    Dead,
}

impl KerberosContext {
    /// Kerberos inside SPNEGO, with no other mechanism offered: the HTTP scheme `Negotiate`. `channel_bindings` is the
    /// application data, such as `tls-server-end-point:` and a digest.
    #[must_use]
    pub fn spnego(ticket: Ticket, channel_bindings: Option<&[u8]>) -> Self {
        Self { state: State::Ready(ticket, channel_bindings.map(ChannelBindings::new)), spnego: true }
    }

    /// Kerberos as it is: the HTTP scheme `Kerberos`.
    #[must_use]
    pub fn raw(ticket: Ticket, channel_bindings: Option<&[u8]>) -> Self {
        Self { spnego: false, ..Self::spnego(ticket, channel_bindings) }
    }

    fn begin(&self, ticket: &Ticket, bindings: Option<&ChannelBindings>) -> Result<(State, Vec<u8>), ClientError> {
        let mut flags =
            GSS_C_MUTUAL_FLAG | GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG | GSS_C_CONF_FLAG | GSS_C_INTEG_FLAG;
        if bindings.is_some() {
            // The acceptor must not take their absence for an older client's.
            flags |= GSS_C_CHANNEL_BOUND_FLAG;
        }
        let mut options = InitOptions::default();
        options.delegate = ticket.forwarded.as_deref();
        options.channel_bindings = bindings;
        Ok(if self.spnego {
            let (context, token) = SpnegoInitiator::with_options(&ticket.ticket, flags, options)?;
            (State::Spnego(Box::new(context)), token)
        } else {
            let (context, token) = InitiatorContext::with_options(&ticket.ticket, flags, options)?;
            (State::Raw(Box::new(context)), token)
        })
    }
}

impl SecurityContext for KerberosContext {
    fn scheme(&self) -> &'static str {
        if self.spnego { "Negotiate" } else { "Kerberos" }
    }

    fn protocol(&self) -> &'static str {
        if self.spnego {
            "application/HTTP-SPNEGO-session-encrypted"
        } else {
            "application/HTTP-Kerberos-session-encrypted"
        }
    }

    fn step(&mut self, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, ContextError> {
        // A failure leaves the state dead: no token or message passes a context that has failed.
        let state = std::mem::replace(&mut self.state, State::Dead);
        if !matches!(state, State::Ready(..)) {
            // The crate would drop what the host says about it, its clock above all.
            refusal::check(token)?;
        }
        let (state, reply) = match state {
            State::Ready(ticket, bindings) if token.is_empty() => {
                self.begin(&ticket, bindings.as_ref()).map_err(token_error)?
            }
            State::Spnego(mut context) => {
                let reply = context.step(token).map_err(token_error)?.unwrap_or_default();
                let state = if context.is_established() {
                    Messages::begin(context.per_message_tokens(), context.send_seq())?
                } else {
                    State::Spnego(context)
                };
                (state, reply)
            }
            State::Raw(mut context) => {
                context.step(token).map_err(token_error)?;
                (Messages::begin(context.per_message_tokens(), context.send_seq())?, Vec::new())
            }
            State::Ready(..) | State::Established(_) | State::Dead => {
                return Err(ContextError::Token("no token was expected".into()));
            }
        };
        self.state = state;
        Ok(Zeroizing::new(reply))
    }

    fn is_complete(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    fn proof_sent(&self) -> bool {
        // The KDC has judged the credential; whatever a host says of a ticket is no verdict on a password.
        false
    }

    fn wrap(&mut self, data: &mut [u8]) -> Result<Vec<u8>, ContextError> {
        self.messages(|messages| messages.wrap(data))
    }

    fn unwrap(&mut self, sealed: &mut [u8], _header: usize) -> Result<Range<usize>, ContextError> {
        self.messages(|messages| messages.unwrap(sealed))
    }
}

impl KerberosContext {
    /// A failure leaves the context dead.
    fn messages<T>(&mut self, act: impl FnOnce(&mut Messages) -> Result<T, ContextError>) -> Result<T, ContextError> {
        let State::Established(messages) = &mut self.state else {
            return Err(ContextError::Message("it is not established".into()));
        };
        let result = act(messages);
        if result.is_err() {
            self.state = State::Dead;
        }
        result
    }
}

impl fmt::Debug for KerberosContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ready(..) => "ready",
            State::Spnego(_) => "negotiating inside SPNEGO",
            State::Raw(_) => "negotiating",
            State::Established(_) => "established",
            State::Dead => "dead",
        };
        f.debug_struct("KerberosContext").field("state", &state).finish_non_exhaustive()
    }
}

/// Wrap tokens of both directions ([RFC 4121], section 4.2).
struct Messages {
    tokens: PerMessageTokens<ContextKey>,
    /// The number of the next message that is sent.
    next: u64,
    /// The length of what goes before the sealed data.
    header: usize,
    /// The number of the last message that came.
    last: Option<u64>,
}

impl Messages {
    fn begin(tokens: Result<PerMessageTokens<ContextKey>, ClientError>, next: u64) -> Result<State, ContextError> {
        let tokens = tokens.map_err(token_error)?;
        // Of a message that holds nothing, all is header: 60 bytes for AES-SHA1, 64 or 72 for AES-SHA2.
        let header = tokens.emit_wrap(next, &[]).map_err(message_error)?.len();
        Ok(State::Established(Box::new(Self { tokens, next, header, last: None })))
    }

    /// In the layout of SSPI: what follows the data in the ciphertext, and the confounder before it, are rotated to the front,
    /// so that the sealed data is as long as the plain.
    fn wrap(&mut self, data: &mut [u8]) -> Result<Vec<u8>, ContextError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| ContextError::Message("too many messages".into()))?;
        let rotation = u16::try_from(self.header.saturating_sub(HEADER_LEN + CONFOUNDER)).map_err(message_error)?;
        let mut token = self.tokens.emit_wrap_full(number, data, 0, rotation, None).map_err(message_error)?;
        match token.get(self.header..) {
            Some(sealed) if sealed.len() == data.len() => data.copy_from_slice(sealed),
            _ => return Err(ContextError::Message("the sealed message has an unexpected length".into())),
        }
        token.truncate(self.header);
        Ok(token)
    }

    /// Takes any layout: with or without filler, rotated by any count, and cut into header and data anywhere.
    fn unwrap(&mut self, sealed: &mut [u8]) -> Result<Range<usize>, ContextError> {
        // The rotation is undone where the message is; the count is not part of what is signed.
        if let Some((header, body)) = sealed.split_first_chunk_mut::<HEADER_LEN>()
            && !body.is_empty()
        {
            let rotation = usize::from(u16::from_be_bytes([header[6], header[7]])) % body.len();
            body.rotate_left(rotation);
            header[6..8].fill(0);
        }
        let message = self.tokens.unwrap(sealed).map_err(message_error)?;
        self.follows(message.seq)?;
        let plain = Zeroizing::new(message.message);
        let place = HEADER_LEN..HEADER_LEN + plain.len();
        let Some(room) = sealed.get_mut(place.clone()) else {
            return Err(ContextError::Message("the message is longer than its token".into()));
        };
        room.copy_from_slice(&plain);
        Ok(place)
    }

    /// Windows is said to number all its messages 0: then the WS-Management message ids alone tell an answer from an older one.
    /// Whoever numbers its messages must not repeat one.
    fn follows(&mut self, number: u64) -> Result<(), ContextError> {
        let follows = match self.last {
            None => true,
            Some(0) => true,
            Some(last) => number > last,
        };
        self.last = Some(number);
        if follows { Ok(()) } else { Err(ContextError::Message("it was sent before".into())) }
    }
}

fn token_error(error: ClientError) -> ContextError {
    match error {
        ClientError::Kdc { code, text } => ContextError::Refused(refusal::of(code, None, text)),
        error => ContextError::Token(error.to_string()),
    }
}

fn message_error(error: impl fmt::Display) -> ContextError {
    ContextError::Message(error.to_string())
}

/// Of all AES encryption types.
const CONFOUNDER: usize = 16;

#[cfg(test)]
mod tests;
