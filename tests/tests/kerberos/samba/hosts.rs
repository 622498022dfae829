//! Simulated hosts of the domain, which have the keys that it gave them, reached with its tickets.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lictor_kerberos::trace::Trace;
use lictor_kerberos::{ErrorKind, Identity, Kerberos, Request, Service};
use lictor_winrm::auth::kerberos::{Ticket, TicketError, TicketErrorKind, TicketRequest, TicketSource};
use lictor_winrm::probe::{Report, probe};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, ShellProperties, Target, Timeouts,
    TlsPolicy,
};
use tokio::time::Instant;
use winsim::{Handle, Numbering, Options, Winsim};

use super::Realm;

pub(super) async fn all_kinds_of_users(realm: &Realm) {
    let samba = &realm.samba;
    for scheme in [winsim::Scheme::Negotiate, winsim::Scheme::Kerberos] {
        let host = host(realm, &format!("HTTP/{}", samba.host("win01")), scheme).await;
        let identities = [
            realm.alice(),
            // Four hundred groups make a header of some seven thousand bytes.
            realm.with_password(&samba.principal("crowded"), samba.password("crowded").unwrap()),
            realm.with_password(&samba.principal("jürgen"), samba.password("jürgen").unwrap()),
            // A computer logs in with its keytab.
            realm.with_keytab(&samba.principal("WIN02$"), samba.keytab("WIN02$").unwrap()),
        ];
        let count = identities.len() as u64;
        for identity in identities {
            let user = identity.principal.clone();
            let report = reach(realm, &host, identity, "win01", false).await;
            assert!(report.failure().is_none(), "{user}, {scheme:?}: {:?}", report.rungs);
            assert!(report.connection.unwrap().sealed);
        }
        let found = host.statistics();
        assert_eq!((found.authentication.handshakes, found.authentication.kerberos), (count, count));
        assert_eq!(found.shells.open, 0);
        // Which schemes a host has is not known before it has been asked; that we begin with Negotiate is no offence.
        if scheme == winsim::Scheme::Negotiate {
            assert_eq!(found.violation_count, 0, "{:?}", found.violations);
        }
    }
}

/// HTTP is not known, WSMAN is.
pub(super) async fn a_host_of_another_service(realm: &Realm) {
    let host = host(realm, &format!("WSMAN/{}", realm.samba.host("wsman")), winsim::Scheme::Negotiate).await;
    let report = reach(realm, &host, realm.alice(), "wsman", false).await;
    assert!(report.failure().is_none(), "{:?}", report.rungs);
    assert_eq!(host.statistics().authentication.kerberos, 1);
}

/// A ticket that the domain gave for another computer.
pub(super) async fn a_host_with_other_keys(realm: &Realm) {
    let host = host(realm, &format!("HTTP/{}", realm.samba.host("win02")), winsim::Scheme::Negotiate).await;
    let report = reach(realm, &host, realm.alice(), "win01", false).await;
    let error = report.failure().unwrap();
    assert!(!error.credential_rejected(), "the password is right: {}", error.report());
    assert_eq!(host.statistics().authentication.kerberos, 0);
}

pub(super) async fn a_host_trusted_for_delegation(realm: &Realm) {
    let host = host(realm, &format!("HTTP/{}", realm.samba.host("win02")), winsim::Scheme::Negotiate).await;
    let report = reach(realm, &host, realm.alice(), "win02", true).await;
    assert!(report.failure().is_none(), "{:?}", report.rungs);
    assert_eq!(host.statistics().authentication.delegated, 1);
}

async fn host(realm: &Realm, keytab: &str, scheme: winsim::Scheme) -> Handle {
    let logons = vec![format!("*@{}=CORP\\*", realm.samba.realm()).parse().unwrap()];
    let keytab = realm.samba.keytab(keytab).unwrap().to_owned();
    let kerberos = winsim::Kerberos { keytab, logons, numbering: Numbering::default() };
    Winsim::start(Options { kerberos: Some(kerberos), schemes: vec![scheme], ..Options::default() }).await.unwrap()
}

/// Climbs the ladder of a connection test: as far as a command.
async fn reach(realm: &Realm, host: &Handle, identity: Identity, name: &str, delegate: bool) -> Report {
    let user = identity.principal.clone();
    let source = Arc::new(Source { kerberos: realm.kerberos.clone(), identity });
    let target = Target {
        endpoint: Endpoint::new(Scheme::Http, "127.0.0.1", Some(host.address().port()), None).unwrap(),
        auth: AuthKind::Kerberos,
        credential: Credential::tickets(user, source, None),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: false,
        kerberos: KerberosOptions { spn_service: None, spn_host: Some(realm.samba.host(name)), delegate },
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    };
    probe(&target, Instant::now() + Duration::from_secs(120), |_| ()).await
}

/// The manager's tickets, as the agent and the command line hand them over.
#[derive(Debug)]
struct Source {
    kerberos: Kerberos,
    identity: Identity,
}

impl TicketSource for Source {
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>> {
        Box::pin(async move {
            let service = Service::new(request.service, request.host);
            let wanted = Request { delegate: request.delegate, deadline: request.deadline, trace: Trace::off() };
            match self.kerberos.service_ticket(&self.identity, &service, wanted).await {
                Ok(granted) => Ok(Ticket { ticket: granted.ticket, forwarded: granted.forwarded }),
                Err(error) => Err(TicketError {
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
                }),
            }
        })
    }
    fn identity(&self) -> [u8; 32] {
        self.identity.digest()
    }
    fn refused(&self, service: &str, host: &str) {
        self.kerberos.forget_service(&self.identity, &Service::new(service, host));
    }
}
