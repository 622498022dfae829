//! Why there is no ticket, in the words of whoever hands out tickets: it knows the KDC's reasons, this crate does not. And
//! why a host did not take one.

use std::fmt;

/// Why there is no ticket. Texts never hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TicketError {
    /// What follows from it.
    pub kind: TicketErrorKind,
    /// Stable code such as `kerberos.clock_skew`.
    pub code: &'static str,
    /// What happened: lower case, no full stop.
    pub message: String,
    /// The likely cause in one sentence.
    pub cause: String,
    /// What to do, in one or two sentences.
    pub remedy: String,
    /// The text that users of older tools know.
    pub legacy_text: Option<String>,
}

impl TicketError {
    /// The host is called by an address.
    pub(crate) fn host_is_address(host: &str) -> Self {
        Self {
            kind: TicketErrorKind::Unavailable,
            code: "kerberos.host_is_address",
            message: format!("Kerberos needs the name of the host, and {host} is an address"),
            cause: "Domains register services under host names; there is no ticket for an address.".to_owned(),
            remedy: "Address the host by its fully qualified domain name (FQDN), or give the name to ask for \
                     (--spn-host)."
                .to_owned(),
            legacy_text: Some(LEGACY_UNKNOWN.to_owned()),
        }
    }
}

/// What MIT's library says of a service that the KDC does not know.
pub(crate) const LEGACY_UNKNOWN: &str = "Server not found in Kerberos database";

/// What follows from the lack of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketErrorKind {
    /// The KDC does not know the service: another name of it may be asked for.
    ServiceUnknown,
    /// The KDC rejected the credential: it must not be tried again by itself, and no other mechanism may try it.
    Rejected,
    /// Nobody was asked, or nobody answered: no KDC, no realm. Another mechanism may be tried.
    Unavailable,
    /// Anything else.
    Other,
}

/// Why a host did not take a ticket, as far as it says: it need not say the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It does not say.
    Unsaid,
    /// Its clock differs from ours by more than it permits.
    ClockSkew {
        /// By how many seconds its clock is ahead of ours.
        ahead: Option<i64>,
    },
    /// Its key does not open the ticket.
    WrongKey,
    /// The ticket has run out.
    Expired,
    /// The ticket has not begun.
    NotYetValid,
    /// It saw the same authenticator before.
    Replayed,
    /// It chose another mechanism than Kerberos.
    OtherMechanism,
    /// Another error code of RFC 4120, 7.5.9.
    Other {
        /// The code.
        code: i32,
        /// What it says besides.
        text: Option<String>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => f.write_str("it does not say why"),
            Self::ClockSkew { ahead: None } => f.write_str("its clock differs too much from ours"),
            Self::ClockSkew { ahead: Some(ahead) } => {
                let way = if *ahead < 0 { "behind" } else { "ahead of" };
                write!(f, "its clock is {} s {way} ours", ahead.unsigned_abs())
            }
            Self::WrongKey => f.write_str("its key does not open the ticket"),
            Self::Expired => f.write_str("the ticket has expired"),
            Self::NotYetValid => f.write_str("the ticket is not valid yet"),
            Self::Replayed => f.write_str("it takes the request for a replay"),
            Self::OtherMechanism => f.write_str("it chose another mechanism"),
            Self::Other { code, text: None } => write!(f, "Kerberos error {code}"),
            Self::Other { code, text: Some(text) } => write!(f, "Kerberos error {code}: {text}"),
        }
    }
}
