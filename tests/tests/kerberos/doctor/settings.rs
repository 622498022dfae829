//! krb5.conf and realms.

use lictor_doctor::{Check, Outcome};
use lictor_kerberos::Identity;
use lictor_tests::Kdc;

use super::{file, found, look, outcome, password, step, subject, written};

#[tokio::test]
async fn settings_that_cannot_be_used() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    let path = kdc.path("broken.conf");
    std::fs::write(&path, "[libdefaults]\n default_realm = CORP.EXAMPLE\n permitted_enctypes = rc4-hmac\n[realms\n")
        .unwrap();
    let broken = lictor_doctor::Subject {
        usual_ports: true,
        target: None,
        kerberos: Some(lictor_doctor::KerberosSubject {
            source: file(path.clone()),
            manager: None,
            identity: Some(password("alice", "Secret-1")),
        }),
    };
    let report = look(&broken).await;
    found(&report, Check::Krb5Conf, Outcome::Failed, "kerberos.configuration");
    let cause = &step(&report, Check::Krb5Conf).finding.as_ref().unwrap().cause;
    assert!(cause.contains(&format!("{}:4:", path.display())), "{cause}");
    for check in [Check::Realm, Check::KdcNames, Check::Clock, Check::Principal, Check::Login] {
        assert_eq!(outcome(&report, check), Outcome::Skipped);
    }
}

#[tokio::test]
async fn settings_that_are_doubtful() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let text = std::fs::read_to_string(kdc.krb5_conf()).unwrap();
    let folder = kdc.path("more");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("extra"), "[libdefaults]\n tikket_lifetime = 1d\n").unwrap();
    let source = written(&kdc, "doubtful.conf", &format!("includedir {}\n{text}", folder.display()));
    let report = look(&subject(source, Some(password("alice", "Secret-1")), None)).await;
    found(&report, Check::Krb5Conf, Outcome::Warning, "kerberos.krb5_conf_doubtful");
    let step = step(&report, Check::Krb5Conf);
    assert!(step.detail.contains("doubtful.conf") && step.detail.contains("more/extra"), "{}", step.detail);
    assert!(step.finding.as_ref().unwrap().cause.contains("did you mean ticket_lifetime"), "{step:#?}");
    found(&report, Check::Login, Outcome::Passed, "");

    let limited = text.replacen("[libdefaults]\n", "[libdefaults]\n permitted_enctypes = aes256-sha2\n", 1);
    let source = written(&kdc, "limited.conf", &limited);
    let report = look(&subject(source, Some(password("alice", "Secret-1")), None)).await;
    found(&report, Check::Krb5Conf, Outcome::Warning, "kerberos.krb5_conf_enctypes");
}

#[tokio::test]
async fn realms_that_are_not_there_or_lower_case() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let source = || file(kdc.krb5_conf());
    let at = |realm: &str| Some(Identity { realm: Some(realm.to_owned()), ..password("alice", "Secret-1") });

    let report = look(&subject(source(), at("NOWHERE.EXAMPLE"), None)).await;
    found(&report, Check::Realm, Outcome::Failed, "kerberos.realm_undefined");
    assert_eq!(outcome(&report, Check::Login), Outcome::Skipped);
    let report = look(&subject(source(), at("nowhere.example"), None)).await;
    found(&report, Check::Realm, Outcome::Failed, "kerberos.realm_case");
    // Known, but for its case: it works here, and not with MIT's tools.
    let lower = kdc.realm().to_lowercase();
    for identity in [at(&lower), Some(password(&format!("alice@{lower}"), "Secret-1"))] {
        let report = look(&subject(source(), identity, None)).await;
        found(&report, Check::Realm, Outcome::Warning, "kerberos.realm_case");
        found(&report, Check::Login, Outcome::Passed, "");
    }
    let cache = format!("FILE:{}", kdc.path("lower.ccache").display());
    let printed = kdc.kinit(&format!("alice@{lower}"), "Secret-1", &cache, &[]).unwrap_err().to_string();
    assert!(printed.contains("Cannot find KDC for realm"), "{printed}");
    // A name of another realm in upper case means a realm; in lower case it is a user principal name.
    let report = look(&subject(source(), Some(password("alice@NOWHERE.EXAMPLE", "Secret-1")), None)).await;
    found(&report, Check::Realm, Outcome::Warning, "kerberos.realm_undefined");
    let report = look(&subject(source(), Some(password("alice@mail.example", "Secret-1")), None)).await;
    found(&report, Check::Realm, Outcome::Passed, "");
    found(&report, Check::Principal, Outcome::Failed, "kerberos.principal_unknown");
    let report = look(&subject(source(), Some(password("CORP\\alice", "Secret-1")), None)).await;
    found(&report, Check::Realm, Outcome::Failed, "kerberos.principal_invalid");

    let text = std::fs::read_to_string(kdc.krb5_conf()).unwrap();
    let without = written(&kdc, "without.conf", &text.replace("default_realm", "#default_realm"));
    let report = look(&subject(without.clone(), Some(password("alice", "Secret-1")), None)).await;
    found(&report, Check::Realm, Outcome::Failed, "kerberos.realm_unknown");
    let report = look(&subject(without, None, None)).await;
    found(&report, Check::Realm, Outcome::Warning, "kerberos.default_realm_missing");
    assert_eq!(outcome(&report, Check::KdcTcp), Outcome::Passed);
    // Nothing lists the realm and nothing answers for it.
    let empty = written(&kdc, "empty.conf", "[libdefaults]\n default_realm = GONE.INVALID\n dns_lookup_kdc = true\n");
    let report = look(&subject(empty, Some(password("alice", "Secret-1")), None)).await;
    assert_eq!(outcome(&report, Check::KdcNames), Outcome::Failed);
    assert!(["kerberos.no_kdc", "kerberos.deadline"].contains(&super::code(&report, Check::KdcNames)));
}
