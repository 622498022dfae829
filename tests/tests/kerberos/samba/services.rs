//! Tickets for services: by which names a directory knows them, what is in the tickets, and of which type their keys
//! are.

use std::time::Duration;

use krb5::Credentials;
use krb5::acceptor::{KerberosContext, Keytab};
use krb5::initiator::{InitOptions, InitiatorContext};
use lictor_kerberos::{ErrorKind, Service};

use super::Realm;

// RFC 3961 8.
const AES256: i32 = 18;
const RC4: i32 = 23;

pub(super) async fn names_of_services(realm: &Realm) {
    let samba = &realm.samba;
    let alice = realm.alice();
    for (service, host, answered_by) in [
        ("HTTP", samba.host("aes"), Some("HTTP/aes")),
        ("HTTP", "aes".to_owned(), None),
        ("WSMAN", samba.host("aes"), None),
        ("WSMAN", "aes".to_owned(), None),
        // A computer's HOST stands for HTTP, in any case of letters, and by its short name; it does so for WSMAN only
        // when registered.
        ("HTTP", samba.host("win01"), Some("HTTP/win01")),
        ("HTTP", samba.host("WIN01").to_uppercase(), None),
        ("http", "win01".to_owned(), None),
        ("WSMAN", samba.host("win01"), None),
        ("HOST", samba.host("win01"), None),
        ("HTTP", samba.host("win02"), None),
        ("WSMAN", samba.host("wsman"), None),
        ("HOST", samba.host("server.sub"), None),
    ] {
        let name = format!("{service}/{host}");
        let ticket = realm.ticket(&alice, service, &host).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(ticket.ticket_enctype, AES256, "{name}");
        if let Some(keytab) = answered_by {
            let keytab = samba.keytab(&format!("{keytab}.{}", samba.dns())).unwrap();
            assert_eq!(accept(&ticket, keytab).client_principal, samba.principal("alice"));
        }
    }
}

pub(super) async fn names_that_nobody_has(realm: &Realm) {
    let samba = &realm.samba;
    for (service, host) in
        [("HTTP", samba.host("nosuch")), ("HTTP", samba.host("wsman")), ("WSMAN", samba.host("win02"))]
    {
        let error = realm.ticket(&realm.alice(), service, &host).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("kerberos.service_unknown", ErrorKind::ServiceUnknown), "{error:?}");
        assert!(error.to_string().contains(&format!("{service}/{host}")), "{error}");
        assert!(error.remedy().contains(&format!("setspn -S {service}/{host}")), "{}", error.remedy());
        assert_eq!(error.legacy_text(), Some("Server not found in Kerberos database"));
    }
}

pub(super) async fn services_without_aes(realm: &Realm) {
    let samba = &realm.samba;
    let host = samba.host("rc4");
    let error = realm.ticket(&realm.alice(), "HTTP", &host).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.service_enctype", ErrorKind::Other), "{error:?}");
    assert!(error.to_string().contains(&format!("HTTP/{host}")), "{error}");
    assert!(error.cause().contains("RC4"), "{}", error.cause());
    assert!(error.remedy().contains("msDS-SupportedEncryptionTypes of the account to 24"), "{}", error.remedy());
    assert_eq!(error.legacy_text(), Some("KDC has no support for encryption type"));

    // Where nobody has set anything, the ticket is encrypted with RC4, which is the service's business, but what we
    // share with it is an AES key: such a ticket is as good as any.
    let ticket = realm.ticket(&realm.alice(), "HTTP", &samba.host("unset")).await.unwrap();
    assert_eq!((ticket.ticket_enctype, ticket.session_key.enctype()), (RC4, AES256));
}

pub(super) async fn four_hundred_groups(realm: &Realm) {
    let samba = &realm.samba;
    let identity = realm.with_password(&samba.principal("crowded"), samba.password("crowded").unwrap());
    let host = samba.host("aes");
    let ticket = realm.ticket(&identity, "HTTP", &host).await.unwrap();
    let small = realm.ticket(&realm.alice(), "HTTP", &host).await.unwrap();
    assert!(ticket.ticket.len() > 3_000 && ticket.ticket.len() > small.ticket.len() + 2_000, "{}", ticket.ticket.len());

    let keytab = samba.keytab(&format!("HTTP/aes.{}", samba.dns())).unwrap();
    let logon = accept(&ticket, keytab).pac.unwrap().logon_info().unwrap().unwrap();
    assert_eq!((logon.effective_name.as_str(), logon.logon_domain_name.as_str()), ("crowded", samba.domain()));
    assert!(logon.group_sids().len() >= 400, "{}", logon.group_sids().len());
    let logon = accept(&small, keytab).pac.unwrap().logon_info().unwrap().unwrap();
    assert_eq!(logon.effective_name, "alice");
    assert!(logon.group_sids().len() < 10);
}

pub(super) async fn a_large_ticket_needs_tcp(realm: &Realm) {
    let samba = &realm.samba;
    let mut identity = realm.with_password(&samba.principal("crowded"), samba.password("crowded").unwrap());
    // A login of its own, whatever others have left behind.
    identity.fresh = true;
    let before = realm.carried().await;
    realm.ticket(&identity, "HTTP", &samba.host("win01")).await.unwrap();
    let after = realm.carried().await;
    // The first question is small enough for a datagram. The ticket-granting ticket is not, and so neither is what
    // holds it.
    assert!(after.udp > before.udp, "{before:?} {after:?}");
    assert!(after.tcp >= before.tcp + 2, "{before:?} {after:?}");
}

pub(super) async fn delegation(realm: &Realm) {
    let samba = &realm.samba;
    const OK_AS_DELEGATE: u32 = 1 << (31 - 13);
    for (host, trusted) in [("win02", true), ("win01", false)] {
        let ticket = realm.ticket(&realm.alice(), "HTTP", &samba.host(host)).await.unwrap();
        assert_eq!(ticket.flags & OK_AS_DELEGATE != 0, trusted, "{host}");
    }
    let request = |host: &str| Service::new("HTTP", samba.host(host));
    let granted = realm.delegated(&realm.alice(), &request("win02")).await.unwrap();
    let forwarded = granted.forwarded.unwrap();
    assert_eq!(forwarded.client.to_string(), samba.principal("alice"));
    // An account that is sensitive and cannot be delegated.
    let kept = realm.with_password(&samba.principal("undelegated"), samba.password("undelegated").unwrap());
    let error = realm.delegated(&kept, &request("win02")).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.not_forwardable", ErrorKind::Other), "{error:?}");
    realm.ticket(&kept, "HTTP", &samba.host("win02")).await.unwrap();
}

/// The login under way is not for a forwardable ticket, and of no use to whoever asks for delegation meanwhile.
pub(super) async fn delegation_asked_for_during_a_login(realm: &Realm) {
    let samba = &realm.samba;
    let identity = realm.with_password(&samba.principal("delegator"), samba.password("delegator").unwrap());
    let service = Service::new("HTTP", samba.host("win02"));
    let before = realm.carried().await;
    let meanwhile = async {
        // Its first question has come to the KDC: it says that the ticket is to be no forwardable one.
        let asked = async { while realm.carried().await == before {} };
        tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
        realm.delegated(&identity, &service).await
    };
    let (plain, delegated) = tokio::join!(realm.check(&identity), meanwhile);
    plain.unwrap();
    assert!(delegated.unwrap().forwarded.is_some());
}

/// What the service finds in the ticket: its key opens it, and the PAC is signed with it.
fn accept(ticket: &Credentials, keytab: &std::path::Path) -> KerberosContext {
    let (_, token) = InitiatorContext::with_options(ticket, 0, InitOptions::default()).unwrap();
    KerberosContext::accept_token(&Keytab::load(keytab).unwrap(), &token).unwrap().0
}
