//! What is tried, how often, and what is kept.

use std::sync::Arc;

use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, ErrorKind, Identity, Request};
use lictor_tests::{Kdc, KdcOptions};
use tokio::task::JoinSet;

use super::{add_host, eventually, identity, keytab_file, manager, password, request, service};

#[tokio::test]
async fn a_refused_password_is_tried_once() {
    let kdc = Arc::new(Kdc::start("CORP.EXAMPLE").unwrap());
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let kerberos = manager(&kdc);
    for fresh in [false, true] {
        let alice = Identity { fresh, ..password("alice", "Secret-2") };
        let before = kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]);
        let mut users = JoinSet::new();
        for _ in 0..40 {
            let (kerberos, alice, service) = (kerberos.clone(), alice.clone(), service(&kdc, "web1"));
            users.spawn(async move { kerberos.service_ticket(&alice, &service, request()).await.unwrap_err() });
        }
        while let Some(error) = users.join_next().await {
            let error = error.unwrap();
            assert_eq!((error.code(), error.kind()), ("kerberos.password_rejected", ErrorKind::Rejected));
        }
        kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap_err();
        assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), before + 1, "fresh: {fresh}");
        // What somebody forgets is tried again; the right password is another identity and was never in doubt.
        kerberos.forget(&alice);
        kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap_err();
        assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), before + 2, "fresh: {fresh}");
        // It is as wrong for who keeps tickets as for who does not.
        let other = Identity { fresh: !fresh, ..alice };
        let error = kerberos.check(&other, request()).await.unwrap_err();
        assert_eq!(error.code(), "kerberos.password_rejected");
        assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), before + 2, "fresh: {fresh}");
        kerberos.forget(&other);
        let right = Identity { fresh, ..password("alice", "Secret-1") };
        kerberos.service_ticket(&right, &service(&kdc, "web1"), request()).await.unwrap();
    }
}

#[tokio::test]
async fn fresh_identities_log_in_every_time() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let kerberos = manager(&kdc);
    let alice = Identity { fresh: true, ..password("alice", "Secret-1") };
    let mut users = JoinSet::new();
    for _ in 0..5 {
        let (kerberos, alice, service) = (kerberos.clone(), alice.clone(), service(&kdc, "web1"));
        users.spawn(async move { kerberos.service_ticket(&alice, &service, request()).await.unwrap() });
    }
    assert_eq!(users.join_all().await.len(), 5);
    assert_eq!((kdc.as_exchanges(), kdc.tgs_exchanges()), (5, 5));
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_by_those_who_keep_tickets_and_those_who_do_not() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let kerberos = manager(&kdc);
    let checks = [false, true].map(|fresh| {
        let (kerberos, alice) = (kerberos.clone(), Identity { fresh, ..password("alice", "Secret-2") });
        async move { kerberos.check(&alice, request()).await.unwrap_err() }
    });
    let [first, second] = checks;
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.code(), second.code()), ("kerberos.password_rejected", "kerberos.password_rejected"));
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1, "{}", kdc.log());
}

#[tokio::test]
async fn forgetting_who_keeps_nothing_forgets_what_was_kept_beside_it() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, kept) = (manager(&kdc), password("alice", "Secret-1"));
    let fresh = Identity { fresh: true, ..kept.clone() };
    kerberos.check(&kept, request()).await.unwrap();
    kerberos.forget_digest(fresh.login_digest());
    kerberos.check(&kept, request()).await.unwrap();
    assert_eq!(kdc.as_exchanges(), 2, "{}", kdc.log());
}

#[tokio::test]
async fn whoever_stops_waiting_ends_nothing_for_others() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    kdc.pause().unwrap();
    let first = tokio::spawn({
        let (kerberos, alice, service) = (kerberos.clone(), alice.clone(), service(&kdc, "web1"));
        async move { kerberos.service_ticket(&alice, &service, request()).await }
    });
    let trace = Trace::collect();
    let second = tokio::spawn({
        let (kerberos, alice, service, trace) = (kerberos.clone(), alice.clone(), service(&kdc, "web1"), trace.clone());
        async move { kerberos.service_ticket(&alice, &service, Request { trace, ..request() }).await }
    });
    // Both wait for one flight; the one who began it goes away.
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    kdc.resume().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!((kdc.as_exchanges(), kdc.tgs_exchanges()), (1, 1));
}

#[tokio::test]
async fn a_waiter_gives_up_at_its_own_deadline() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    kdc.pause().unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(200);
    let error =
        kerberos.service_ticket(&alice, &service(&kdc, "web1"), Request { deadline, ..request() }).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.deadline", ErrorKind::Unavailable));
    kdc.resume().unwrap();
    kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap();
}

#[tokio::test]
async fn another_version_of_a_keytab_is_tried_when_the_newest_is_not_the_right_one() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_random("svc", &[]).unwrap();
    // The right key has version 2, and a wrong one says that it is version 9: as ktutil writes it when it is told so.
    kdc.change_keys("svc", false).unwrap();
    let right = kdc.path("right.keytab");
    kdc.keytab(&["svc"], &right).unwrap();
    let keys = lictor_kerberos::keytab::Keytab::read(&right).unwrap();
    let principal = keys.entries()[0].name();
    let wrong = lictor_kerberos::keytab::Keytab::from_password(
        &principal,
        "wrong",
        9,
        0,
        &[lictor_kerberos::keytab::Recipe { enctype: 18, salt: b"x".to_vec(), parameters: None }],
    )
    .unwrap();
    let mut mixed = keys.clone();
    mixed.add(wrong.entries()[0].clone());
    let mixed = CredentialSource::Keytab(mixed.to_bytes().unwrap());
    let (kerberos, svc) = (manager(&kdc), identity("svc", mixed));
    kerberos.service_ticket(&svc, &service(&kdc, "web1"), request()).await.unwrap();
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1);
    // Which one was right is remembered, whatever else is forgotten.
    kerberos.forget(&svc);
    kerberos.service_ticket(&svc, &service(&kdc, "web1"), request()).await.unwrap();
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1);

    // With nothing but wrong keys it ends after three versions, and is not tried again.
    let mut bad = lictor_kerberos::keytab::Keytab::default();
    for kvno in 1..=5 {
        let recipe = lictor_kerberos::keytab::Recipe { enctype: 18, salt: vec![kvno], parameters: None };
        let made =
            lictor_kerberos::keytab::Keytab::from_password(&principal, "wrong", u32::from(kvno), 0, &[recipe]).unwrap();
        bad.add(made.entries()[0].clone());
    }
    let svc = identity("svc", CredentialSource::Keytab(bad.to_bytes().unwrap()));
    for _ in 0..2 {
        let error = kerberos.service_ticket(&svc, &service(&kdc, "web1"), request()).await.unwrap_err();
        assert_eq!(error.code(), "kerberos.keytab_rejected");
        assert!(error.cause().contains(&format!("{}svc", kdc.realm())), "the salt: {}", error.cause());
    }
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 4);
}

#[tokio::test]
async fn a_refused_keytab_file_is_tried_again_when_it_is_another() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_random("svc", &[]).unwrap();
    let path = kdc.path("svc.keytab");
    kdc.keytab(&["svc"], &path).unwrap();
    kdc.change_keys("svc", false).unwrap();
    let (kerberos, svc) = (manager(&kdc), keytab_file("svc", path.clone()));
    for _ in 0..2 {
        let error = kerberos.service_ticket(&svc, &service(&kdc, "web1"), request()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("kerberos.keytab_rejected", ErrorKind::Rejected));
    }
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1);
    // ktadd appends: now both versions are in there.
    kdc.keytab(&["svc"], &path).unwrap();
    kerberos.service_ticket(&svc, &service(&kdc, "web1"), request()).await.unwrap();
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1);
}

#[tokio::test]
async fn names_in_keytabs_are_found_whatever_their_case() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    for name in ["Svc", "host/node1"] {
        kdc.add_random(name, &[]).unwrap();
    }
    let path = kdc.path("svc.keytab");
    kdc.keytab(&["Svc"], &path).unwrap();
    let kerberos = manager(&kdc);
    let lower = kdc.principal("svc").to_lowercase();
    for name in ["", "Svc", "SVC", &kdc.principal("Svc"), &lower] {
        let svc = keytab_file(name, path.clone());
        let ticket = kerberos.service_ticket(&svc, &service(&kdc, "web1"), request()).await.unwrap().ticket;
        assert_eq!(ticket.client.to_string(), kdc.principal("Svc"), "{name:?}");
    }
    kdc.keytab(&["host/node1"], &path).unwrap();
    for name in ["", "svc2"] {
        let error =
            kerberos.check(&Identity { fresh: true, ..keytab_file(name, path.clone()) }, request()).await.unwrap_err();
        assert_eq!(error.code(), "kerberos.keytab_principal");
        assert!(error.cause().contains("host/node1"), "{}", error.cause());
    }
    // With two in there the one that is meant is found by its name.
    let node = keytab_file("host/node1", path);
    let ticket = kerberos.check(&node, request()).await.unwrap();
    assert_eq!(ticket.client.to_string(), kdc.principal("host/node1"));
}

#[tokio::test]
async fn a_lower_case_realm_and_a_given_realm_are_understood() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let kerberos = manager(&kdc);
    let lower = kdc.realm().to_lowercase();
    for (principal, realm) in [
        ("alice", None),
        ("alice", Some(lower.as_str())),
        (kdc.principal("alice").as_str(), None),
        (format!("alice@{lower}").as_str(), None),
        (kdc.principal("alice").as_str(), Some(lower.as_str())),
    ] {
        let alice = Identity { realm: realm.map(str::to_owned), ..password(principal, "Secret-1") };
        let ticket = kerberos.check(&alice, request()).await.unwrap();
        assert_eq!(ticket.client.to_string(), kdc.principal("alice"), "{principal} {realm:?}");
    }
}

#[tokio::test]
async fn forgetting_a_service_forgets_that_ticket_only() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for host in ["web1", "web2"] {
        add_host(&kdc, host);
    }
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    let get = async |host: &str| kerberos.service_ticket(&alice, &service(&kdc, host), request()).await.unwrap().ticket;
    let (web1, web2) = (get("web1").await, get("web2").await);
    kerberos.forget_service(&alice, &service(&kdc, "WEB1"));
    assert_ne!(get("web1").await.ticket, web1.ticket);
    assert_eq!(get("web2").await.ticket, web2.ticket);
    assert_eq!((kdc.as_exchanges(), kdc.tgs_exchanges()), (1, 3));
    kerberos.forget(&alice);
    assert_ne!(get("web2").await.ticket, web2.ticket);
    assert_eq!((kdc.as_exchanges(), kdc.tgs_exchanges()), (2, 4));
}

#[tokio::test]
async fn a_renewable_ticket_is_renewed_and_needs_no_password_for_it() {
    let options = KdcOptions {
        max_life: "10s".to_owned(),
        libdefaults: vec!["renew_lifetime = 1h".to_owned()],
        ..KdcOptions::default()
    };
    let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    let first = kerberos.check(&alice, request()).await.unwrap();
    assert!(first.renew_till.is_some());
    // The password is changed; what was got with it can still be renewed.
    kdc.change_password("alice", "Secret-2").unwrap();
    eventually("a renewed ticket", async || {
        let now = kerberos.check(&alice, request()).await.unwrap();
        now.endtime > first.endtime && now.authtime == first.authtime
    })
    .await;
    assert_eq!(kdc.as_exchanges(), 1);
}

#[tokio::test]
async fn delegation_forwards_a_ticket_when_it_is_asked_for() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    kdc.add_password("secret", "Secret-1", &["-allow_forwardable"]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    // krb5.conf asks for no forwardable tickets: the first one is not.
    let plain = kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap();
    assert!(plain.forwarded.is_none());
    let delegate = || Request { delegate: true, ..request() };
    let ticket = kerberos.service_ticket(&alice, &service(&kdc, "web1"), delegate()).await.unwrap();
    let forwarded = ticket.forwarded.unwrap();
    // TicketFlags: forwarded.
    assert_ne!(forwarded.flags & (1 << 29), 0);
    assert_eq!(forwarded.client.to_string(), kdc.principal("alice"));
    let again = kerberos.service_ticket(&alice, &service(&kdc, "web1"), delegate()).await.unwrap();
    assert_eq!(again.forwarded.unwrap().ticket, forwarded.ticket);
    assert_eq!(kdc.as_exchanges(), 2);

    let secret = password("secret", "Secret-1");
    let error = kerberos.service_ticket(&secret, &service(&kdc, "web1"), delegate()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.not_forwardable", "{error:?}");
    // For those who do not delegate it the account is as good as before.
    kerberos.service_ticket(&secret, &service(&kdc, "web1"), request()).await.unwrap();
}

#[tokio::test]
async fn a_domain_can_insist_on_trusted_hosts_for_delegation() {
    let options = KdcOptions { libdefaults: vec!["enforce_ok_as_delegate = true".to_owned()], ..KdcOptions::default() };
    let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    for host in ["web1", "web2"] {
        add_host(&kdc, host);
    }
    kdc.modify(&format!("HTTP/{}", super::host_name(&kdc, "web2")), &["+ok_as_delegate"]).unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    let delegate = || Request { delegate: true, ..request() };
    let error = kerberos.service_ticket(&alice, &service(&kdc, "web1"), delegate()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.delegation_not_trusted");
    assert!(kerberos.service_ticket(&alice, &service(&kdc, "web2"), delegate()).await.unwrap().forwarded.is_some());
}

#[tokio::test]
async fn tickets_lead_to_trusted_realms() {
    let (kdc, other) = (Kdc::start("CORP.EXAMPLE").unwrap(), Kdc::start("OTHER.EXAMPLE").unwrap());
    kdc.trust(&other).unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    add_host(&other, "far");
    kdc.map_host(&super::host_name(&other, "far"), other.realm()).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    let ticket = kerberos.service_ticket(&alice, &service(&other, "far"), request()).await.unwrap().ticket;
    assert_eq!(ticket.ticket_server().unwrap().realm, other.realm());
}
