//! The accepting side of Kerberos: the ticket in a token, whose it is, and the keys that seal the connection's messages.
//!
//! Sans I/O. The AP-REQ is judged by the acceptor of the `krb5` crate; what Windows does around it is here. Called by the
//! authentication of one connection.
//!
//! What is known of Windows and kept here: the shape of its wrap tokens ([`Sealing`]), KRB-ERROR tokens in answers to tickets that
//! are no good ([`error_token()`]), channel bindings that are only compared when the client sends some. What is not: Windows puts a
//! subkey of its own into its AP-REP, which the crate's acceptor does not; MIT's acceptor, which other tests run against, does.

use krb5::acceptor::AcceptOptions;
use krb5::initiator::{GSS_C_CHANNEL_BOUND_FLAG, GSS_C_CONF_FLAG};
use krb5::rcache::ReplayCache;
use krb5::{KerberosContext, KerberosError, Keytab};

mod error_token;
mod sealing;

pub(crate) use self::error_token::{ErrorCode, error_token};
pub(crate) use self::sealing::Sealing;
use super::bindings::Expected;
use crate::options::Numbering;

/// A ticket that was good.
pub(crate) struct Accepted {
    /// Whose it is, `name@REALM`.
    pub(crate) principal: String,
    /// The AP-REP, when the client wants to know who answers.
    pub(crate) reply: Option<Vec<u8>>,
    /// The keys of the connection, when the client asked for sealing.
    pub(crate) sealing: Option<Sealing>,
    /// Whether the client gave a ticket to act in its name.
    pub(crate) delegated: bool,
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The ticket or its authenticator is no good, which has a number.
    #[error("Kerberos ticket refused with {}: {reason}", code.name())]
    Ticket { code: ErrorCode, reason: String },
    #[error("wrong or no channel bindings")]
    Bindings,
    #[error("malformed Kerberos token: {0}")]
    Malformed(String),
}

/// Clocks that differ by less than this differ by nothing else: ten years.
const ANY_SKEW: i64 = 10 * 366 * 24 * 3600;

/// Judges the first token of a client.
pub(crate) fn accept(
    keytab: &Keytab,
    token: &[u8],
    expected: Option<&Expected>,
    numbering: Numbering,
) -> Result<Accepted, Refusal> {
    let mut options = AcceptOptions::default();
    // What the environment says of replays is for other programs.
    options.replay_cache = Some(ReplayCache::global());
    options.channel_bindings = expected.map(|expected| expected.kerberos.clone());
    let (context, reply) =
        KerberosContext::accept_token_with(keytab, token, &options).map_err(|error| refusal(keytab, token, error))?;
    // The crate lets a client that sends no bindings pass, as a host that does not insist on them does.
    if expected.is_some_and(|expected| expected.mandatory) && context.gss_flags & GSS_C_CHANNEL_BOUND_FLAG == 0 {
        return Err(Refusal::Bindings);
    }
    let sealing = if context.gss_flags & GSS_C_CONF_FLAG == 0 {
        None
    } else {
        Some(Sealing::new(&context, numbering).map_err(|error| Refusal::Malformed(error.to_string()))?)
    };
    Ok(Accepted {
        principal: context.client_principal,
        reply: (!reply.is_empty()).then_some(reply),
        sealing,
        delegated: context.delegated.is_some(),
    })
}

fn refusal(keytab: &Keytab, token: &[u8], error: KerberosError) -> Refusal {
    let code = match error {
        KerberosError::BadBindings(_) => return Refusal::Bindings,
        // Windows tries its keys one after the other; when none fits it does not tell which kind of misfit it was.
        KerberosError::PrincipalNotFound(_) | KerberosError::DecryptionFailed(_) => ErrorCode::Modified,
        KerberosError::TicketNotValid(_) => ErrorCode::TicketExpired,
        KerberosError::Replay(_) => ErrorCode::Repeat,
        KerberosError::InvalidAuthenticator(_) if good_but_for_the_time(keytab, token) => ErrorCode::Skew,
        other => return Refusal::Malformed(other.to_string()),
    };
    Refusal::Ticket { code, reason: error.to_string() }
}

/// The crate's error does not tell a wrong clock from a broken authenticator, except in words.
fn good_but_for_the_time(keytab: &Keytab, token: &[u8]) -> bool {
    let mut options = AcceptOptions::default();
    options.max_skew_secs = ANY_SKEW;
    options.replay_cache = None;
    KerberosContext::accept_token_with(keytab, token, &options).is_ok()
}
