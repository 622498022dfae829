//! Under which names a host is asked for, and what is said when none of them leads to a ticket.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout_at};

use super::{Ticket, TicketError, TicketErrorKind, TicketRequest, TicketSource};
use crate::error::ticket::LEGACY_UNKNOWN;
use crate::error::{Error, ErrorKind, Stage};
use crate::target::{AuthKind, KerberosOptions, Target};

/// A ticket, and the name that led to it.
pub(crate) struct Granted {
    pub(crate) ticket: Ticket,
    pub(crate) service: String,
    pub(crate) host: String,
}

impl Granted {
    /// The KDC did not give it out just now: others may have used it before. Where the KDC's clock goes otherwise than ours
    /// this errs, which costs an attempt more or less.
    pub(crate) fn is_kept(&self) -> bool {
        let ticket = &self.ticket.ticket;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let given = u64::try_from(ticket.starttime.unwrap_or(ticket.authtime)).unwrap_or(0);
        given.saturating_add(JUST_NOW.as_secs()) < now
    }
}

/// Whether the target can be reached by Kerberos at all: decided before anything is sent.
pub(crate) fn check(target: &Target) -> Result<(), Error> {
    if target.auth != AuthKind::Kerberos {
        return Ok(());
    }
    if target.credential.source().is_none() {
        let detail = NO_TICKETS.to_owned();
        return Err(Error::new(Stage::Authenticate, ErrorKind::CredentialUnusable { detail }).unsent());
    }
    host_of(target).map(drop).map_err(|error| lacking(*error))
}

/// A ticket for the target's host: for the service that the target names, or for the first of HTTP, WSMAN and HOST that the
/// KDC knows.
pub(crate) async fn obtain(source: &dyn TicketSource, target: &Target, deadline: Instant) -> Result<Granted, Error> {
    let host = host_of(target).map_err(|error| lacking(*error))?;
    let KerberosOptions { spn_service, delegate, .. } = &target.kerberos;
    let services = match spn_service {
        Some(service) => vec![service.as_str()],
        None => SERVICES.to_vec(),
    };
    let mut unknown: Option<TicketError> = None;
    for service in &services {
        let request = TicketRequest { service, host: &host, delegate: *delegate, deadline };
        let answer = timeout_at(deadline, source.ticket(request)).await;
        match answer.map_err(|_| Error::new(Stage::Authenticate, ErrorKind::DeadlinePassed).unsent())? {
            Ok(ticket) => return Ok(Granted { ticket, service: (*service).to_owned(), host }),
            Err(error) if error.kind == TicketErrorKind::ServiceUnknown => unknown = unknown.or(Some(error)),
            Err(error) => return Err(lacking(error)),
        }
    }
    Err(lacking(none_known(unknown, &services, &host)))
}

/// The host part of the SPN. An address has none.
fn host_of(target: &Target) -> Result<String, Box<TicketError>> {
    if let Some(host) = &target.kerberos.spn_host {
        return Ok(host.clone());
    }
    let host = target.endpoint.host();
    if host.parse::<IpAddr>().is_ok() {
        return Err(Box::new(TicketError::host_is_address(host)));
    }
    Ok(host.strip_suffix('.').unwrap_or(host).to_owned())
}

/// What was asked for, and what to register.
fn none_known(first: Option<TicketError>, services: &[&str], host: &str) -> TicketError {
    let asked: Vec<String> = services.iter().map(|service| format!("{service}/{host}")).collect();
    let name = asked.first().cloned().unwrap_or_default();
    let mut remedy = String::new();
    if !host.contains('.') {
        remedy.push_str("Address the host by its fully qualified domain name (FQDN). ");
    }
    remedy.push_str(&format!(
        "Check with `setspn -Q {name}` which account holds the name; register it with `setspn -S {name} COMPUTER`, or name \
         another service or host to ask for (--spn-service, --spn-host)."
    ));
    let (code, legacy_text) = match first {
        Some(error) => (error.code, error.legacy_text),
        None => ("kerberos.service_unknown", None),
    };
    TicketError {
        kind: TicketErrorKind::ServiceUnknown,
        code,
        message: format!("the KDC knows no service {}", asked.join(", ")),
        cause: "The host is not a member of the domain that was asked, is known there by another name, or the service \
                principal name (SPN) is not registered."
            .to_owned(),
        remedy,
        legacy_text: legacy_text.or_else(|| Some(LEGACY_UNKNOWN.to_owned())),
    }
}

/// Nothing was sent to the host that a second attempt would repeat.
fn lacking(error: TicketError) -> Error {
    Error::new(Stage::Authenticate, ErrorKind::Ticket(Box::new(error))).unsent()
}

/// How long a ticket counts as one that was got just now. KDCs tell times in whole seconds.
const JUST_NOW: Duration = Duration::from_secs(2);
/// Windows registers WSMAN for the service and HOST for the computer; HTTP is an alias of HOST on domain controllers that run
/// Windows, and what other clients ask for.
const SERVICES: [&str; 3] = ["HTTP", "WSMAN", "HOST"];
const NO_TICKETS: &str = "Kerberos needs tickets, and there is only a password";

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::minted::{Source, error, mint};
    use super::*;
    use crate::target::{Credential, Endpoint, Scheme, Secret};

    fn target(host: &str) -> Target {
        let mut target = crate::pool::tests::target(host, "alice", "x");
        target.auth = AuthKind::Kerberos;
        target
    }

    async fn ask(source: &Source, target: &Target) -> Result<Granted, Error> {
        obtain(source, target, Instant::now() + Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn services_are_asked_for_one_after_the_other() {
        for (service, asked) in [
            ("HTTP", vec!["HTTP/win01.corp.example"]),
            ("WSMAN", vec!["HTTP/win01.corp.example", "WSMAN/win01.corp.example"]),
            ("HOST", vec!["HTTP/win01.corp.example", "WSMAN/win01.corp.example", "HOST/win01.corp.example"]),
        ] {
            let source = Source::of([service, "win01.corp.example"]);
            // The dot at the end says that the name is whole; it is not part of it.
            let granted = ask(&source, &target("Win01.corp.example.")).await.unwrap();
            assert_eq!((granted.service.as_str(), granted.host.as_str()), (service, "win01.corp.example"));
            assert_eq!(*source.asked.lock().unwrap(), asked);
        }
    }

    #[tokio::test]
    async fn an_unknown_service_is_named_with_what_to_register() {
        let source = Source::default();
        let failed = ask(&source, &target("win01")).await.err().unwrap();
        assert_eq!(failed.to_string(), "the KDC knows no service HTTP/win01, WSMAN/win01, HOST/win01");
        assert!(failed.is_unsent() && !failed.credential_rejected());
        assert_eq!((failed.code(), failed.legacy_text()), ("kerberos.test", Some("What MIT says")));
        let remedy = failed.remedy();
        assert!(remedy.contains("setspn -S HTTP/win01") && remedy.contains("fully qualified"), "{remedy}");
        let failed = ask(&source, &target("win01.corp.example")).await.err().unwrap();
        assert!(!failed.remedy().contains("fully qualified"));
    }

    #[tokio::test]
    async fn names_may_be_given() {
        let mut source = Source::of(["WEB", "alias"]);
        source.known.push(("HTTP/alias".into(), mint(18, ["HTTP", "alias"]).0));
        let mut target = target("10.0.0.7");
        target.kerberos.spn_host = Some("alias".into());
        assert_eq!(ask(&source, &target).await.unwrap().service, "HTTP");
        target.kerberos.spn_service = Some("WEB".into());
        assert_eq!(ask(&source, &target).await.unwrap().service, "WEB");
        // No other name is tried in place of the one that was given.
        target.kerberos.spn_service = Some("GONE".into());
        let failed = ask(&source, &target).await.err().unwrap();
        assert_eq!(failed.to_string(), "the KDC knows no service GONE/alias");
    }

    #[tokio::test]
    async fn an_address_is_refused_before_anything_is_asked() {
        for host in ["10.0.0.7", "2001:db8::7"] {
            let source = Source::default();
            let mut target = target(host);
            let failed = ask(&source, &target).await.err().unwrap();
            assert_eq!(failed.code(), "kerberos.host_is_address");
            assert!(failed.remedy().contains("FQDN") && failed.is_unsent());
            assert!(source.asked.lock().unwrap().is_empty());
            target.credential = Credential::tickets("alice", Arc::new(source), None);
            assert_eq!(check(&target).unwrap_err().code(), "kerberos.host_is_address");
            // Others can do without a name.
            target.auth = AuthKind::Negotiate;
            assert!(check(&target).is_ok());
        }
        let mut target = target("win01");
        target.endpoint = Endpoint::new(Scheme::Http, "win01", None, None).unwrap();
        target.credential = Credential::password("alice", Secret::new("x".into()));
        assert_eq!(check(&target).unwrap_err().code(), "auth.credential_unusable");
    }

    #[tokio::test]
    async fn other_errors_end_it_and_keep_their_words() {
        for kind in [TicketErrorKind::Rejected, TicketErrorKind::Unavailable, TicketErrorKind::Other] {
            let source = Source::failing(kind);
            let failed = ask(&source, &target("win01")).await.err().unwrap();
            assert_eq!(source.asked.lock().unwrap().len(), 1);
            let expected = error(kind);
            assert_eq!(failed.credential_rejected(), kind == TicketErrorKind::Rejected);
            assert_eq!(
                (failed.to_string(), failed.code(), failed.cause(), failed.remedy(), failed.legacy_text()),
                (expected.message, expected.code, expected.cause, expected.remedy, expected.legacy_text.as_deref())
            );
            assert_eq!(
                (failed.stage(), failed.at(Stage::OpenShell).stage()),
                (Stage::Authenticate, Stage::Authenticate)
            );
        }
    }
}
