//! Where tickets come from: what the owner of the credentials implements, and what it says when there is no ticket.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::TicketError;

/// Hands out tickets of one user.
pub trait TicketSource: fmt::Debug + Send + Sync {
    /// A ticket for a service of a host, by the deadline of the request. Tickets may be shared and handed out again.
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>>;

    /// What proves the user, as a digest: another password, keytab or user is another identity. Sessions are shared, and
    /// rejections are remembered, by it.
    fn identity(&self) -> [u8; 32];

    /// The host did not take the ticket for `service` on `host`: do not hand the cached one out again.
    fn refused(&self, service: &str, host: &str);
}

/// For which service a ticket is wanted.
#[derive(Debug, Clone, Copy)]
pub struct TicketRequest<'a> {
    /// Such as `HTTP`.
    pub service: &'a str,
    /// The host part of the SPN.
    pub host: &'a str,
    /// A forwarded ticket-granting ticket is wanted as well.
    pub delegate: bool,
    /// When it is of no use any more.
    pub deadline: Instant,
}

/// A service ticket with its session key.
#[derive(Clone)]
pub struct Ticket {
    /// For the service that was asked for.
    pub ticket: Arc<krb5::Credentials>,
    /// What the host gets when it is to act as the user. Nothing, though it was asked for: the domain does not permit it.
    pub forwarded: Option<Arc<krb5::Credentials>>,
}

/// Without the session key.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, server) = (&self.ticket.client, &self.ticket.server);
        f.debug_struct("Ticket")
            .field("client", &client.to_string())
            .field("server", &server.to_string())
            .field("forwarded", &self.forwarded.is_some())
            .finish_non_exhaustive()
    }
}
