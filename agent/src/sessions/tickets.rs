//! From the manager of tickets to what WinRM asks for one: whose tickets, traced for one task.
//!
//! Lent to the pool with the target. It must never show what proves the user. Made by `sessions`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use lictor_kerberos::trace::Trace;
use lictor_kerberos::{Error, ErrorKind, Identity, Kerberos, Request, Service};
use lictor_winrm::auth::kerberos::{Ticket, TicketError, TicketErrorKind, TicketRequest, TicketSource};
use tokio::sync::mpsc;

use crate::telemetry::Metrics;

/// Tickets of one user.
pub(crate) struct Tickets {
    pub(super) kerberos: Kerberos,
    pub(super) identity: Identity,
    pub(super) trace: Trace,
    pub(super) metrics: Arc<Metrics>,
}

impl TicketSource for Tickets {
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>> {
        Box::pin(async move {
            let service = service(request.service, request.host);
            let details = Request { delegate: request.delegate, deadline: request.deadline, trace: self.trace.clone() };
            let ticket = self.kerberos.service_ticket(&self.identity, &service, details).await;
            self.metrics.kerberos_ticket(ticket.as_ref().map(|_| ()).map_err(Error::kind));
            match ticket {
                Ok(ticket) => Ok(Ticket { ticket: ticket.ticket, forwarded: ticket.forwarded }),
                Err(error) => Err(told(&error)),
            }
        })
    }

    fn identity(&self) -> [u8; 32] {
        self.identity.digest()
    }

    fn refused(&self, name: &str, host: &str) {
        self.kerberos.forget_service(&self.identity, &service(name, host));
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("principal", &self.identity.principal).finish_non_exhaustive()
    }
}

fn service(name: &str, host: &str) -> Service {
    Service { service: name.to_owned(), host: host.to_owned(), realm: None }
}

fn told(error: &Error) -> TicketError {
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

/// The lines of one task's trace. Sessions outlive tasks; what they write after the task's end goes nowhere.
#[derive(Debug, Default)]
pub(crate) struct Lines(Option<mpsc::Receiver<String>>);

/// A trace and its lines; nothing is written when it is not `wanted`.
pub(crate) fn trace(wanted: bool) -> (Trace, Lines) {
    if !wanted {
        return (Trace::off(), Lines(None));
    }
    let (sender, receiver) = mpsc::channel(MAX_LINES);
    let trace = Trace::to(move |line| {
        // Full: far more than people read was written already.
        let _ = sender.try_send(line.to_owned());
    });
    (trace, Lines(Some(receiver)))
}

impl Lines {
    /// What has been written since the last time, each line with its end.
    pub(crate) fn take(&mut self) -> String {
        let mut text = String::new();
        while let Some(line) = self.0.as_mut().and_then(|lines| lines.try_recv().ok()) {
            text.push_str(&line);
            text.push_str("\r\n");
        }
        text
    }
}

/// A login and two services over several KDCs write about a hundred.
const MAX_LINES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_trace_are_taken_once() {
        let (trace, mut lines) = trace(true);
        trace.line("Getting initial credentials for alice@CORP.EXAMPLE");
        let text = lines.take();
        assert!(text.ends_with(": Getting initial credentials for alice@CORP.EXAMPLE\r\n"), "{text}");
        assert_eq!(lines.take(), "");
        drop(lines);
        trace.line("nobody reads this");
        let (trace, mut lines) = super::trace(false);
        trace.line("nor this");
        assert_eq!((trace.is_on(), lines.take()), (false, String::new()));
    }
}
