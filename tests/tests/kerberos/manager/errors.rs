//! Each thing that goes wrong has a code and words of its own, and MIT's text is what MIT's tools print.

use lictor_kerberos::{ErrorKind, Identity, Service};
use lictor_tests::{Kdc, KdcOptions};

use super::{add_host, identity, keytab_file, manager, password, request, service};

/// What `kinit` says.
fn kinit(kdc: &Kdc, principal: &str, password: &str, arguments: &[&str]) -> String {
    let cache = format!("FILE:{}", kdc.path("errors.ccache").display());
    kdc.kinit(principal, password, &cache, arguments).unwrap_err().to_string()
}

#[tokio::test]
async fn logins_that_a_kdc_refuses() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    kdc.add_password("disabled", "Secret-1", &["-allow_tix"]).unwrap();
    kdc.add_password("expired", "Secret-1", &["-expire", "2001-01-01"]).unwrap();
    kdc.add_password("old", "Secret-1", &["-pwexpire", "2001-01-01"]).unwrap();
    kdc.add_password("change", "Secret-1", &["+needchange"]).unwrap();
    kdc.add_password("open", "Secret-1", &["-requires_preauth"]).unwrap();
    let kerberos = manager(&kdc);
    for (user, secret, code, kind) in [
        ("nobody", "Secret-1", "kerberos.principal_unknown", ErrorKind::Other),
        ("alice", "Secret-2", "kerberos.password_rejected", ErrorKind::Rejected),
        ("open", "Secret-2", "kerberos.password_rejected", ErrorKind::Rejected),
        ("disabled", "Secret-1", "kerberos.account_revoked", ErrorKind::Rejected),
        ("expired", "Secret-1", "kerberos.account_expired", ErrorKind::Rejected),
        ("old", "Secret-1", "kerberos.password_expired", ErrorKind::Rejected),
        ("change", "Secret-1", "kerberos.password_expired", ErrorKind::Rejected),
    ] {
        let error = kerberos.check(&password(user, secret), request()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, kind), "{user}: {error}");
        assert!(!error.cause().is_empty() && !error.remedy().is_empty());
        assert!(error.to_string().contains(user), "{error}");
        for text in [error.to_string(), format!("{error:?}"), error.cause().to_owned(), error.remedy().to_owned()] {
            assert!(!text.contains(secret), "{text}");
        }
        // An expired password makes kinit ask for a new one instead of ending.
        if !code.contains("password_expired") {
            let printed = kinit(&kdc, &kdc.principal(user), secret, &[]);
            assert!(printed.contains(error.legacy_text().unwrap()), "{printed}\n{error:?}");
        }
    }
}

#[tokio::test]
async fn keytabs_that_do_not_fit() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_random("svc", &[]).unwrap();
    let path = kdc.path("svc.keytab");
    kdc.keytab(&["svc"], &path).unwrap();
    kdc.change_keys("svc", false).unwrap();
    let kerberos = manager(&kdc);
    let (svc, text) = (keytab_file("svc", path.clone()), path.to_str().unwrap());
    let error = kerberos.check(&svc, request()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.keytab_rejected");
    let printed = kinit(&kdc, &kdc.principal("svc"), "", &["-k", "-t", text]);
    assert!(printed.contains(error.legacy_text().unwrap()), "{printed}");

    let other = kdc.principal("other");
    let error = kerberos.check(&keytab_file(&other, path.clone()), request()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.keytab_principal");
    let printed = kinit(&kdc, &other, "", &["-k", "-t", text]);
    assert!(printed.contains(error.legacy_text().unwrap()), "{printed}");

    let missing = kdc.path("missing.keytab");
    let error = kerberos.check(&keytab_file("svc", missing.clone()), request()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.keytab_unreadable");
    let printed = kinit(&kdc, &kdc.principal("svc"), "", &["-k", "-t", missing.to_str().unwrap()]);
    assert!(printed.contains("not found"), "{printed}");

    let garbage = lictor_kerberos::CredentialSource::Keytab(b"\x05\x02garbage".to_vec().into());
    let error = kerberos.check(&identity("svc", garbage), request()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.keytab_unreadable");
}

#[tokio::test]
async fn clocks_that_differ_are_measured() {
    // MIT's programs reckon with the KDC's clock unless they are told not to; the krb5 crate does not.
    let options = KdcOptions { libdefaults: vec!["kdc_timesync = 0".to_owned()], ..KdcOptions::default() };
    let mut kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    for (offset, words) in [(900, "15 min"), (-900, "15 min"), (86_400 * 3, "3 days")] {
        kdc.set_clock(offset).unwrap();
        let error = kerberos.check(&alice, request()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("kerberos.clock_skew", ErrorKind::Other), "{error}");
        let direction = if offset > 0 { "behind" } else { "ahead of" };
        assert!(error.cause().contains(direction), "{}", error.cause());
        // A second may pass between the two clocks.
        let near =
            error.cause().contains(words) || error.cause().contains("14 min 59") || error.cause().contains("2 days");
        assert!(near, "{}", error.cause());
        let printed = kinit(&kdc, &kdc.principal("alice"), "Secret-1", &[]);
        assert!(printed.contains(error.legacy_text().unwrap()), "{printed}");
    }
    kdc.set_clock(0).unwrap();
    kerberos.check(&alice, request()).await.unwrap();
}

#[tokio::test]
async fn realms_and_kdcs_that_are_not_there() {
    let mut kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let kerberos = manager(&kdc);
    let nowhere = password("alice@NOWHERE.EXAMPLE", "Secret-1");
    let error = kerberos
        .check(&Identity { realm: Some("NOWHERE.EXAMPLE".to_owned()), ..nowhere }, request())
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.no_kdc", ErrorKind::Unavailable), "{error}");
    let printed = kinit(&kdc, "alice@NOWHERE.EXAMPLE", "Secret-1", &[]);
    assert!(printed.contains(error.legacy_text().unwrap()), "{printed}");
    assert!(kerberos.serves(kdc.realm()) && !kerberos.serves("NOWHERE.EXAMPLE"));

    kdc.kill().unwrap();
    let error = kerberos.check(&password("alice", "Secret-1"), request()).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.kdc_unreachable", ErrorKind::Unavailable), "{error}");
    assert!(error.cause().contains(&format!("127.0.0.1:{}", kdc.port())), "{}", error.cause());
    let printed = kinit(&kdc, &kdc.principal("alice"), "Secret-1", &[]);
    assert!(printed.contains(error.legacy_text().unwrap()), "{printed}");
}

#[tokio::test]
async fn services_that_are_not_there() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    let unknown = service(&kdc, "web1");
    for _ in 0..3 {
        let error = kerberos.service_ticket(&alice, &unknown, request()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("kerberos.service_unknown", ErrorKind::ServiceUnknown), "{error}");
        assert!(error.to_string().contains(&unknown.host), "{error}");
        assert!(error.remedy().contains(&format!("setspn -S HTTP/{} web1", unknown.host)), "{}", error.remedy());
    }
    // With and without following referrals, and for a while not again.
    assert_eq!(kdc.logged(&["TGS_REQ", "LOOKING_UP_SERVER"]), 2);
    add_host(&kdc, "web1");
    kerberos.forget_service(&alice, &unknown);
    kerberos.service_ticket(&alice, &unknown, request()).await.unwrap();

    for address in ["192.0.2.1", "[2001:db8::1]"] {
        let error = kerberos.service_ticket(&alice, &Service::new("HTTP", address), request()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("kerberos.ip_address", ErrorKind::Unavailable));
        assert!(error.remedy().contains("FQDN"));
    }
}

#[tokio::test]
async fn accounts_without_aes_keys() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    kdc.kadmin(&["addprinc -e arcfour-hmac:normal -pw Secret-1 old"]).unwrap();
    kdc.kadmin(&[&format!("addprinc -e arcfour-hmac:normal -randkey HTTP/{}", super::host_name(&kdc, "old"))]).unwrap();
    let kerberos = manager(&kdc);
    let error = kerberos.check(&password("old", "Secret-1"), request()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.enctype", "{error:?}");
    assert!(error.remedy().contains("msDS-SupportedEncryptionTypes"));
    // A service whose only key is RC4: MIT's KDC makes such a ticket with an AES session key, which is of use.
    let old = kerberos.service_ticket(&password("alice", "Secret-1"), &service(&kdc, "old"), request()).await;
    match old {
        Ok(ticket) => assert_eq!(ticket.ticket.ticket_enctype, 23),
        Err(error) => assert_eq!(error.code(), "kerberos.service_enctype", "{error:?}"),
    }
}

#[tokio::test]
async fn names_that_are_none() {
    let kdc = Kdc::start_with("CORP.EXAMPLE", KdcOptions::default()).unwrap();
    let kerberos = manager(&kdc);
    for name in ["", "CORP\\alice", "@", "alice@", "@CORP.EXAMPLE", "a//b"] {
        let error = kerberos.check(&password(name, "Secret-1"), request()).await.unwrap_err();
        assert_eq!(error.code(), "kerberos.principal_invalid", "{name:?}: {error:?}");
    }
}
