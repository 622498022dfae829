//! Tickets for `lictor-winrm`, from the Kerberos manager: the two do not know each other.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use lictor_kerberos::keytab::enctype_name;
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{ErrorKind, Identity, Kerberos, Request, Service};
use lictor_winrm::auth::kerberos::{Ticket, TicketError, TicketErrorKind, TicketRequest, TicketSource};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Hands out the tickets of one identity.
#[derive(Debug)]
pub(super) struct Tickets {
    kerberos: Kerberos,
    identity: Identity,
    trace: Trace,
    last: Mutex<Option<TicketView>>,
}

impl Tickets {
    pub(super) fn new(kerberos: Kerberos, identity: Identity, trace: Trace) -> Self {
        Self { kerberos, identity, trace, last: Mutex::new(None) }
    }

    /// The ticket that was handed out last.
    pub(super) fn last(&self) -> Option<TicketView> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TicketSource for Tickets {
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>> {
        Box::pin(async move {
            let service = Service::new(request.service, request.host);
            let wanted = Request { delegate: request.delegate, deadline: request.deadline, trace: self.trace.clone() };
            let got = self
                .kerberos
                .service_ticket(&self.identity, &service, wanted)
                .await
                .map_err(|error| error_of(&error))?;
            let view = TicketView {
                principal: got.ticket.client.to_string(),
                // What was asked for may have no realm; the ticket says in which one the host is.
                service: got.ticket.ticket_server().as_ref().unwrap_or(&got.ticket.server).to_string(),
                enctype: name(got.ticket.session_key.enctype()),
                ticket_enctype: name(got.ticket.ticket_enctype),
                ends_at: OffsetDateTime::from_unix_timestamp(got.ticket.endtime)
                    .ok()
                    .and_then(|time| time.format(&Rfc3339).ok()),
                delegated: got.forwarded.is_some(),
            };
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
            Ok(Ticket { ticket: got.ticket, forwarded: got.forwarded })
        })
    }

    fn identity(&self) -> [u8; 32] {
        self.identity.digest()
    }

    fn refused(&self, service: &str, host: &str) {
        self.kerberos.forget_service(&self.identity, &Service::new(service, host));
    }
}

fn error_of(error: &lictor_kerberos::Error) -> TicketError {
    TicketError {
        kind: match error.kind() {
            ErrorKind::Rejected => TicketErrorKind::Rejected,
            ErrorKind::ServiceUnknown => TicketErrorKind::ServiceUnknown,
            ErrorKind::Unavailable => TicketErrorKind::Unavailable,
            ErrorKind::Other => TicketErrorKind::Other,
        },
        code: error.code(),
        message: error.to_string(),
        cause: error.cause().to_owned(),
        remedy: error.remedy().to_owned(),
        legacy_text: error.legacy_text().map(str::to_owned),
    }
}

fn name(enctype: i32) -> String {
    enctype_name(enctype).map_or_else(|| format!("enctype {enctype}"), str::to_owned)
}

/// A ticket, without what makes it worth anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TicketView {
    principal: String,
    service: String,
    /// Of the session key, which seals messages.
    enctype: String,
    /// Of the service's key.
    ticket_enctype: String,
    ends_at: Option<String>,
    delegated: bool,
}

impl TicketView {
    /// For eyes; the rung itself says who and for which service.
    pub(super) fn line(&self) -> String {
        let until = self.ends_at.as_deref().map(|end| format!(", until {end}")).unwrap_or_default();
        let delegated = if self.delegated { ", with a forwarded ticket for the host to act as the user" } else { "" };
        format!("session key {}, ticket {}{until}{delegated}", self.enctype, self.ticket_enctype)
    }
}
