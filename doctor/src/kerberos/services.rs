//! The ticket for the host: under which names the domain knows it, from which realm, with keys of which type.

use std::net::IpAddr;
use std::sync::Arc;

use krb5::{Credentials, Principal};
use lictor_kerberos::config::Configuration;
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{Error, ErrorKind, Identity, Kerberos, Request, Service};
use lictor_winrm::Target;
use tokio::time::{Duration, Instant};

use super::login::{at, enctype};
use crate::catalogue;
use crate::check::Check;
use crate::step::Steps;

/// What a connection asks for, in this order, unless the target names one.
const CLASSES: [&str; 3] = ["HTTP", "WSMAN", "HOST"];
/// For one ticket. Through trusts it takes several exchanges.
const TICKET: Duration = Duration::from_secs(10);
/// RFC 4757.
const RC4: i32 = 23;

pub(super) async fn look(
    manager: &Kerberos,
    identity: &Identity,
    configuration: &Configuration,
    granting: &Credentials,
    target: &Target,
    deadline: Instant,
    steps: &mut Steps<'_>,
) {
    let user = &granting.client;
    let options = &target.kerberos;
    let host = options.spn_host.as_deref().unwrap_or(target.endpoint.host()).trim_end_matches('.');
    if host.parse::<IpAddr>().is_ok() {
        return steps.skipped(Check::Service, "there is no ticket for an address");
    }
    let classes = options.spn_service.as_deref().map_or_else(|| CLASSES.to_vec(), |class| vec![class]);
    let asking = Asking { manager, identity, deadline };
    let mut detail = Vec::new();
    let mut granted: Option<(String, Arc<Credentials>)> = None;
    let mut unknown: Option<Error> = None;
    let mut failed: Option<Error> = None;
    for class in classes {
        let service = Service::new(class, host);
        match asking.ticket(&service, false).await {
            Ok(ticket) => {
                detail.push(format!("{service}: {}", describe(&ticket, user)));
                // What comes after it only shows what else there is.
                granted.get_or_insert((class.to_owned(), ticket));
            }
            Err(error) if error.kind() == ErrorKind::ServiceUnknown => {
                detail.push(format!("{service}: not known"));
                unknown.get_or_insert(error);
            }
            Err(error) => {
                detail.push(format!("{service}: {error}"));
                if granted.is_none() {
                    // A connection would stop here as well.
                    failed = Some(error);
                    break;
                }
            }
        }
    }
    let mapped = configuration.host_realm(host);
    if let Some(realm) = &mapped {
        detail.push(format!("[domain_realm] maps the host to {realm}"));
    }
    let detail = detail.join("; ");
    match (granted, failed.or(unknown)) {
        (Some((class, ticket)), _) => {
            if options.delegate {
                // With a ticket that cannot be delegated the manager would log in once more, in case it came too early.
                let delegated = match Kerberos::may_delegate(identity, granting) {
                    Ok(()) => asking.ticket(&Service::new(class, host), true).await.map(drop),
                    refused => refused,
                };
                if let Err(error) = delegated {
                    return super::told(Check::Service, detail, &error, steps);
                }
            }
            if ticket.ticket_enctype == RC4 {
                let message = format!("the ticket for {} is encrypted with RC4", ticket.server);
                return steps.warn(Check::Service, detail, Some(catalogue::TICKET_RC4.found(message, "")));
            }
            steps.passed(Check::Service, detail);
        }
        (None, Some(error)) => {
            // The user's own realm may know the host, or whoever it trusts.
            let elsewhere = mapped.filter(|realm| *realm != user.realm);
            let reason = [ErrorKind::ServiceUnknown, ErrorKind::Unavailable].contains(&error.kind())
                || error.code() == "kerberos.cross_realm";
            if let Some(realm) = elsewhere.filter(|_| reason) {
                let class = options.spn_service.as_deref().unwrap_or("HTTP");
                let own = Service { realm: Some(user.realm.clone()), ..Service::new(class, host) };
                if asking.ticket(&own, false).await.is_ok() {
                    let message = format!("[domain_realm] maps {host} to {realm}, and {} knows it", user.realm);
                    let finding = catalogue::HOST_REALM.found(message, &format!("Asked for it in {realm}: {error}."));
                    return if error.kind() == ErrorKind::Unavailable {
                        steps.without_ticket(Check::Service, detail, finding);
                    } else {
                        steps.failed(Check::Service, detail, finding);
                    };
                }
            }
            super::told(Check::Service, detail, &error, steps);
        }
        (None, None) => steps.unknown(Check::Service, "nothing was asked for"),
    }
}

struct Asking<'a> {
    manager: &'a Kerberos,
    identity: &'a Identity,
    deadline: Instant,
}

impl Asking<'_> {
    async fn ticket(&self, service: &Service, delegate: bool) -> Result<Arc<Credentials>, Error> {
        let deadline = self.deadline.min(Instant::now() + TICKET);
        let request = Request { delegate, deadline, trace: Trace::off() };
        self.manager.service_ticket(self.identity, service, request).await.map(|granted| granted.ticket)
    }
}

fn describe(ticket: &Credentials, user: &Principal) -> String {
    let mut text = format!("a ticket until {}, encrypted with {}", at(ticket.endtime), enctype(ticket.ticket_enctype));
    if let Some(server) = ticket.ticket_server()
        && server.realm != user.realm
    {
        text.push_str(&format!(", by referral to {}", server.realm));
    }
    text
}
