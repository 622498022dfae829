//! What the examination says of the domain's accounts and services.

use lictor_doctor::{Check, KerberosSubject, Outcome, Report, Subject};
use lictor_kerberos::Identity;
use lictor_kerberos::config::Source;

use super::Realm;
use crate::doctor::{found, look, outcome, step, target_named};

async fn examine(realm: &Realm, identity: &Identity, host: Option<&str>) -> Report {
    let kerberos = KerberosSubject {
        source: Source::File(realm.samba.krb5_conf()),
        manager: Some(realm.kerberos.clone()),
        identity: Some(identity.clone()),
    };
    let target = host.map(|host| target_named(realm.samba.host(host)));
    look(&Subject { target, kerberos: Some(kerberos), usual_ports: true }).await
}

pub(super) async fn examined_hosts(realm: &Realm) {
    let alice = realm.alice();
    let report = examine(realm, &alice, Some("win01")).await;
    for check in [Check::KdcUdp, Check::KdcTcp, Check::Clock, Check::Principal, Check::Login, Check::Service] {
        found(&report, check, Outcome::Passed, "");
    }
    let principal = &step(&report, Check::Principal).detail;
    assert!(principal.contains(&format!("with the salt {}alice", realm.samba.realm())), "{principal}");
    for (host, result, code) in [
        ("nosuch", Outcome::Failed, "kerberos.service_unknown"),
        ("rc4", Outcome::Failed, "kerberos.service_enctype"),
        ("unset", Outcome::Warning, "kerberos.ticket_rc4"),
        // HTTP is not known there, and WSMAN is.
        ("wsman", Outcome::Passed, ""),
    ] {
        found(&examine(realm, &alice, Some(host)).await, Check::Service, result, code);
    }
}

pub(super) async fn examined_accounts(realm: &Realm) {
    let samba = &realm.samba;
    // A user principal name that has nothing in common with the account's own.
    for (name, account) in [
        (format!("erika.mustermann@{}", samba.dns()), "upn.same"),
        ("max.mustermann@mail.example".to_owned(), "upn.other"),
    ] {
        let identity = realm.with_password(&name, samba.password(account).unwrap());
        let report = examine(realm, &identity, None).await;
        found(&report, Check::Principal, Outcome::Passed, "");
        found(&report, Check::Login, Outcome::Passed, "");
    }
    for (account, check, code) in [
        ("nobody", Check::Principal, "kerberos.principal_unknown"),
        ("rc4.user", Check::Principal, "kerberos.rc4_only"),
        // Samba says so only to whoever has proved the password.
        ("disabled", Check::Login, "kerberos.account_revoked"),
        ("expired", Check::Login, "kerberos.account_revoked"),
        ("mustchange", Check::Login, "kerberos.password_expired"),
    ] {
        let identity = realm.with_password(&samba.principal(account), samba.password(account).unwrap_or("Wrong-1"));
        let report = examine(realm, &identity, Some("win01")).await;
        found(&report, check, Outcome::Failed, code);
        assert_eq!(outcome(&report, Check::Service), Outcome::Skipped);
    }
}

/// Samba counts what was proved in vain, whoever asks.
pub(super) async fn an_examination_counts_one_attempt(realm: &Realm) {
    let identity = realm.with_password(&realm.samba.principal("wrong.doctor"), "Marker-Wrong");
    for _ in 0..3 {
        let report = examine(realm, &identity, Some("win01")).await;
        found(&report, Check::Login, Outcome::Failed, "kerberos.password_rejected");
        assert_eq!(outcome(&report, Check::Authenticate), Outcome::Skipped);
        assert!(!format!("{report:?}").contains("Marker-Wrong"));
        assert_eq!(realm.attribute("wrong.doctor", "badPwdCount").await.as_deref(), Some("1"));
    }
}

pub(super) async fn an_account_that_is_locked(realm: &Realm) {
    let name = realm.samba.principal("locked.doctor");
    for count in 1..=5 {
        realm.check(&realm.with_password(&name, &format!("Wrong-{count}"))).await.unwrap_err();
    }
    let identity = realm.with_password(&name, realm.samba.password("locked.doctor").unwrap());
    let report = examine(realm, &identity, None).await;
    let failed = report.failure().unwrap();
    assert!([Check::Principal, Check::Login].contains(&failed.check), "{failed:#?}");
    found(&report, failed.check, Outcome::Failed, "kerberos.account_revoked");
}
