//! Why there is no ticket, in the words of whoever hands out tickets: it knows the KDC's reasons, this crate does not.

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
