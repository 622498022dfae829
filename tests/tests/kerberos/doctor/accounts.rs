//! Users that the KDC does not take: told before anything is proved where that can be, and otherwise after one attempt.

use lictor_doctor::{Check, Outcome};
use lictor_tests::{Kdc, KdcOptions};

use super::{file, found, look, outcome, password, step, subject, target};

#[tokio::test]
async fn what_a_kdc_says_before_anything_is_proved() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("disabled", "Secret-1", &["-allow_tix"]).unwrap();
    kdc.add_password("expired", "Secret-1", &["-expire", "2001-01-01"]).unwrap();
    kdc.add_password("old", "Secret-1", &["-pwexpire", "2001-01-01"]).unwrap();
    kdc.add_password("change", "Secret-1", &["+needchange"]).unwrap();
    for (user, code) in [
        ("nobody", "kerberos.principal_unknown"),
        ("disabled", "kerberos.account_revoked"),
        ("expired", "kerberos.account_expired"),
        ("old", "kerberos.password_expired"),
        ("change", "kerberos.password_expired"),
    ] {
        let identity = password(&kdc.principal(user), "Secret-1");
        let report = look(&subject(file(kdc.krb5_conf()), Some(identity), Some(target("localhost")))).await;
        found(&report, Check::Principal, Outcome::Failed, code);
        assert_eq!(outcome(&report, Check::Login), Outcome::Skipped);
        assert_eq!(outcome(&report, Check::Service), Outcome::Skipped);
        assert_eq!(outcome(&report, Check::Authenticate), Outcome::Skipped);
        assert!(!format!("{report:?}").contains("Secret-1"));
    }
    // No proof was sent for any of them: MIT's KDC names each attempt that proved something wrong, and each ticket.
    assert_eq!((kdc.as_exchanges(), kdc.logged(&["PREAUTH_FAILED"])), (0, 0), "{}", kdc.log());
}

#[tokio::test]
async fn a_wrong_password_is_proved_once_and_never_again() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let identity = password(&kdc.principal("alice"), "Marker-Wrong");
    let examined = subject(file(kdc.krb5_conf()), Some(identity), Some(target("localhost")));
    for _ in 0..3 {
        let report = look(&examined).await;
        found(&report, Check::Principal, Outcome::Passed, "");
        found(&report, Check::Login, Outcome::Failed, "kerberos.password_rejected");
        let finding = step(&report, Check::Login).finding.as_ref().unwrap();
        assert_eq!(finding.legacy_text.as_deref(), Some("Password incorrect while getting initial credentials"));
        assert_eq!(outcome(&report, Check::Authenticate), Outcome::Skipped);
        assert!(!format!("{report:?}").contains("Marker-Wrong"));
        assert_eq!(kdc.logged(&["PREAUTH_FAILED"]), 1, "{}", kdc.log());
    }
}

#[tokio::test]
async fn accounts_that_need_no_pre_authentication() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("open", "Secret-1", &["-requires_preauth"]).unwrap();
    let report = look(&subject(file(kdc.krb5_conf()), Some(password("open", "Secret-1")), None)).await;
    found(&report, Check::Principal, Outcome::Warning, "kerberos.no_preauthentication");
    // A ticket does not tell the KDC's time; it was asked about somebody else.
    assert_eq!(outcome(&report, Check::Clock), Outcome::Passed);
    found(&report, Check::Login, Outcome::Passed, "");
}

#[tokio::test]
async fn accounts_without_aes_keys() {
    let options = KdcOptions { enctypes: "aes256-cts:normal rc4-hmac:normal".to_owned(), ..KdcOptions::default() };
    let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    kdc.kadmin(&["addprinc +requires_preauth -e rc4-hmac:normal -pw Secret-1 weak"]).unwrap();
    kdc.kadmin(&["addprinc +requires_preauth -e camellia256-cts-cmac:normal -pw Secret-1 other"]).unwrap();
    let report = look(&subject(file(kdc.krb5_conf()), Some(password("weak", "Secret-1")), None)).await;
    found(&report, Check::Principal, Outcome::Failed, "kerberos.rc4_only");
    assert_eq!(outcome(&report, Check::Login), Outcome::Skipped);
    let report = look(&subject(file(kdc.krb5_conf()), Some(password("other", "Secret-1")), None)).await;
    found(&report, Check::Principal, Outcome::Failed, "kerberos.enctype");
}

#[tokio::test]
async fn a_kdc_of_another_realm() {
    let (ours, other) = (Kdc::start("CORP.EXAMPLE").unwrap(), Kdc::start("OTHER.EXAMPLE").unwrap());
    let source = super::with_kdcs(&ours, "other.conf", &[format!("127.0.0.1:{}", other.port())]);
    let report = look(&subject(source, Some(password("alice", "Secret-1")), None)).await;
    found(&report, Check::KdcTcp, Outcome::Passed, "");
    // The KDC says only that it does not know the user.
    found(&report, Check::Principal, Outcome::Failed, "kerberos.principal_unknown");
    let finding = step(&report, Check::Principal).finding.as_ref().unwrap();
    assert_eq!(
        finding.suspects.iter().map(|suspect| suspect.code).collect::<Vec<_>>(),
        ["kerberos.kdc_of_other_realm"]
    );
}

#[tokio::test]
async fn without_a_proof_the_user_is_asked_about() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let examined = subject(file(kdc.krb5_conf()), Some(password("alice", "Marker-Wrong")), Some(target("localhost")));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let report = lictor_doctor::examine_unproved(&examined, deadline, |_| {}).await;
    found(&report, Check::Principal, Outcome::Passed, "");
    for check in [Check::Login, Check::Service] {
        assert_eq!(outcome(&report, check), Outcome::Skipped);
    }
    assert_eq!((kdc.as_exchanges(), kdc.logged(&["PREAUTH_FAILED"])), (0, 0), "{}", kdc.log());
}
