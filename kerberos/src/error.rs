//! Why there is no ticket, in words that help: what happened, a stable code, the cause, what to do about it, and the text that
//! users know from MIT's tools or from Ansible.
//!
//! The sentences stand in `catalogue`, one function for each thing that goes wrong. Nothing here ever holds a password, a key or a
//! ticket; texts that a KDC sent are bounded and stripped of control characters.

pub(crate) mod catalogue;

use std::fmt;
use std::sync::Arc;

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The KDC did not take the credential: it must not be tried again as it is (accounts lock out), and nothing weaker instead.
    Rejected,
    /// The KDC knows no such service: another name of the same host may be known.
    ServiceUnknown,
    /// Kerberos cannot be had at all: no KDC, no realm, an address instead of a name. Nothing was said about the credential.
    Unavailable,
    /// Something else; the text says what.
    Other,
}

/// A failure. Cheap to clone: one login serves many callers, and so does its failure.
#[derive(Clone)]
pub struct Error(Arc<Detail>);

#[derive(Clone)]
pub(crate) struct Detail {
    pub(crate) kind: ErrorKind,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) cause: String,
    pub(crate) remedy: String,
    pub(crate) legacy: Option<String>,
    /// The ticket-granting ticket is of no use; with another one it may work.
    pub(crate) ticket: bool,
}

impl Error {
    pub(crate) fn new(detail: Detail) -> Self {
        Self(Arc::new(detail))
    }

    /// The same, said to come from the ticket-granting ticket.
    pub(crate) fn of_ticket(&self) -> Self {
        Self::new(Detail { ticket: true, ..(*self.0).clone() })
    }

    pub(crate) fn is_of_ticket(&self) -> bool {
        self.0.ticket
    }

    /// What the failure means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// A stable name of what happened, `kerberos.…`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Why it happened, as far as that is known, or what it may come from.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }

    /// The text that MIT's tools, Ansible or pywinrm show for the same thing.
    #[must_use]
    pub fn legacy_text(&self) -> Option<&str> {
        self.0.legacy.as_deref()
    }
}

/// One failure of each kind that this crate tells, with example names; several where one code has several causes.
#[must_use]
pub fn catalogue() -> Vec<Error> {
    catalogue::examples::all()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}
