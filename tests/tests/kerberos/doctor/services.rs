//! Tickets for hosts: names that nobody has, keys of RC4, mappings to a wrong realm, delegation.

use lictor_doctor::{Check, Outcome};
use lictor_tests::{Kdc, KdcOptions};

use super::{file, found, host_name, look, outcome, password, step, subject, target, target_named};

#[tokio::test]
async fn names_that_the_kdc_does_not_know() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (web1, web2) = (host_name(&kdc, "web1"), host_name(&kdc, "web2"));
    kdc.add_random(&format!("WSMAN/{web2}"), &[]).unwrap();
    let alice = || Some(password("alice", "Secret-1"));
    let report = look(&subject(file(kdc.krb5_conf()), alice(), Some(target_named(web1.clone())))).await;
    found(&report, Check::Service, Outcome::Failed, "kerberos.service_unknown");
    let finding = step(&report, Check::Service).finding.as_ref().unwrap();
    assert_eq!(finding.legacy_text.as_deref(), Some("Server not found in Kerberos database"));
    for class in ["HTTP", "WSMAN", "HOST"] {
        assert!(step(&report, Check::Service).detail.contains(&format!("{class}/{web1}: not known")));
    }
    // One of the names is enough; a name that is asked for alone is not replaced by another.
    let report = look(&subject(file(kdc.krb5_conf()), alice(), Some(target_named(web2.clone())))).await;
    found(&report, Check::Service, Outcome::Passed, "");
    let mut only = target_named(web2);
    only.kerberos.spn_service = Some("HTTP".to_owned());
    let report = look(&subject(file(kdc.krb5_conf()), alice(), Some(only))).await;
    found(&report, Check::Service, Outcome::Failed, "kerberos.service_unknown");
    assert!(!step(&report, Check::Service).detail.contains("WSMAN"));

    // An address has no ticket, unless a name is given for it.
    let report = look(&subject(file(kdc.krb5_conf()), alice(), Some(target("127.0.0.1")))).await;
    found(&report, Check::HostName, Outcome::Failed, "kerberos.host_is_address");
    assert_eq!(outcome(&report, Check::Service), Outcome::Skipped);
    let report = look(&subject(file(kdc.krb5_conf()), alice(), Some(target("localhost")))).await;
    found(&report, Check::HostName, Outcome::Warning, "dns.short_name");
}

#[tokio::test]
async fn services_with_keys_of_rc4() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (old, mixed) = (host_name(&kdc, "old"), host_name(&kdc, "mixed"));
    for host in [&old, &mixed] {
        kdc.kadmin(&[&format!("addprinc -e rc4-hmac:normal -randkey HTTP/{host}")]).unwrap();
    }
    kdc.kadmin(&[&format!("setstr HTTP/{old} session_enctypes rc4-hmac")]).unwrap();
    kdc.kadmin(&[&format!("setstr HTTP/{mixed} session_enctypes aes256-cts")]).unwrap();
    for (host, result, code) in
        [(old, Outcome::Failed, "kerberos.service_enctype"), (mixed, Outcome::Warning, "kerberos.ticket_rc4")]
    {
        let alice = Some(password("alice", "Secret-1"));
        let report = look(&subject(file(kdc.krb5_conf()), alice, Some(target_named(host)))).await;
        found(&report, Check::Service, result, code);
    }
}

#[tokio::test]
async fn hosts_that_are_mapped_to_a_realm() {
    let (mut ours, mut other) = (Kdc::start("CORP.EXAMPLE").unwrap(), Kdc::start("OTHER.EXAMPLE").unwrap());
    ours.trust(&other).unwrap();
    ours.restart().unwrap();
    other.restart().unwrap();
    ours.add_password("alice", "Secret-1", &[]).unwrap();
    let (own, foreign) = (host_name(&ours, "own"), host_name(&other, "foreign"));
    ours.add_random(&format!("HTTP/{own}"), &[]).unwrap();
    other.add_random(&format!("HTTP/{foreign}"), &[]).unwrap();
    ours.map_host(&foreign, other.realm()).unwrap();
    let alice = || Some(password(&ours.principal("alice"), "Secret-1"));
    let report = look(&subject(file(ours.krb5_conf()), alice(), Some(target_named(foreign)))).await;
    found(&report, Check::Service, Outcome::Passed, "");
    assert!(step(&report, Check::Service).detail.contains(&format!("by referral to {}", other.realm())));

    ours.map_host(&own, other.realm()).unwrap();
    let report = look(&subject(file(ours.krb5_conf()), alice(), Some(target_named(own.clone())))).await;
    found(&report, Check::Service, Outcome::Failed, "kerberos.host_realm");
    // MIT's client goes the same wrong way.
    let cache = format!("FILE:{}", ours.path("alice.ccache").display());
    ours.kinit(&ours.principal("alice"), "Secret-1", &cache, &[]).unwrap();
    let kvno = ours.command("kvno").env("KRB5CCNAME", &cache).args(["-S", "HTTP", &own]).output().unwrap();
    assert!(!kvno.status.success(), "{kvno:?}");
}

#[tokio::test]
async fn delegation_that_the_account_does_not_allow() {
    let kdc = Kdc::start_with("CORP.EXAMPLE", KdcOptions::default()).unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    kdc.add_password("kept", "Secret-1", &["-allow_forwardable"]).unwrap();
    let web = host_name(&kdc, "web1");
    kdc.add_random(&format!("HTTP/{web}"), &[]).unwrap();
    for (user, result, code) in [("alice", Outcome::Passed, ""), ("kept", Outcome::Failed, "kerberos.not_forwardable")]
    {
        let mut target = target_named(web.clone());
        target.kerberos.delegate = true;
        let before = kdc.as_exchanges();
        let report = look(&subject(file(kdc.krb5_conf()), Some(password(user, "Secret-1")), Some(target))).await;
        let login = if result == Outcome::Passed { Outcome::Passed } else { Outcome::Warning };
        found(&report, Check::Login, login, code);
        found(&report, Check::Service, result, code);
        assert_eq!(kdc.as_exchanges(), before + 1, "one login, for a forwardable ticket at once: {}", kdc.log());
    }
}
