//! Logins that work, and what is told of the tickets: the same as `klist` and `kvno` tell.

use lictor_doctor::{Check, Outcome};
use lictor_kerberos::CredentialSource;
use lictor_tests::{Kdc, KdcOptions};

use super::{file, found, host_name, identity, look, outcome, password, step, subject, target, target_named};

#[tokio::test]
async fn everything_is_in_order_and_one_login_is_made() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let web = host_name(&kdc, "web1");
    kdc.add_random(&format!("HTTP/{web}"), &[]).unwrap();
    kdc.add_random(&format!("HOST/{web}"), &[]).unwrap();
    let examined = subject(
        file(kdc.krb5_conf()),
        Some(password(&kdc.principal("alice"), "Secret-1")),
        Some(target_named(web.clone())),
    );
    let report = look(&examined).await;
    for check in super::ORDER {
        assert_eq!(outcome(&report, check), Outcome::Passed, "{:#?}", report.steps);
    }
    assert_eq!(kdc.as_exchanges(), 1, "{}", kdc.log());
    let detail = |check| step(&report, check).detail.as_str();
    assert!(detail(Check::Krb5Conf).starts_with(kdc.krb5_conf().to_str().unwrap()), "{}", detail(Check::Krb5Conf));
    assert_eq!(detail(Check::Realm), kdc.realm());
    let principal = detail(Check::Principal);
    let salt = format!("aes256-cts-hmac-sha1-96 with the salt {}alice", kdc.realm());
    assert!(principal.contains("encrypted timestamp") && principal.contains(&salt), "{principal}");
    let service = detail(Check::Service);
    assert!(service.contains(&format!("HTTP/{web}: a ticket until ")), "{service}");
    assert!(service.contains(&format!("WSMAN/{web}: not known; HOST/{web}: a ticket")), "{service}");
    assert!(!format!("{report:?}").contains("Secret-1"));

    // The same names by MIT's tools.
    let cache = format!("FILE:{}", kdc.path("alice.ccache").display());
    kdc.kinit(&kdc.principal("alice"), "Secret-1", &cache, &[]).unwrap();
    for (name, known) in [(format!("HTTP/{web}"), true), (format!("WSMAN/{web}"), false)] {
        let printed = kdc.command("kvno").env("KRB5CCNAME", &cache).arg(&name).output().unwrap();
        assert_eq!(printed.status.success(), known, "{printed:?}");
    }
    // Nobody to log in, and no host: what this machine needs is looked at alone.
    let report = look(&subject(file(kdc.krb5_conf()), None, None)).await;
    assert_eq!(outcome(&report, Check::Clock), Outcome::Passed);
    assert_eq!(outcome(&report, Check::Login), Outcome::Skipped);
    assert!(report.steps.iter().all(|step| step.check != Check::HostName && step.check != Check::Service));
}

#[tokio::test]
async fn tickets_are_told_of_as_by_klist() {
    let options = KdcOptions { libdefaults: vec!["ticket_lifetime = 8h".to_owned()], ..KdcOptions::default() };
    let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let cache = format!("FILE:{}", kdc.path("alice.ccache").display());
    let examined = subject(file(kdc.krb5_conf()), Some(identity("", CredentialSource::Cache(cache.clone()))), None);
    for arguments in [&["-f", "-p", "-r", "2d"][..], &["-F", "-P"][..]] {
        kdc.kinit(&kdc.principal("alice"), "Secret-1", &cache, arguments).unwrap();
        let before = kdc.as_exchanges();
        let report = look(&examined).await;
        found(&report, Check::Login, Outcome::Passed, "");
        assert_eq!(kdc.as_exchanges(), before, "tickets of a cache are used as they are");
        let detail = &step(&report, Check::Login).detail;
        let listed = kdc.command("klist").env("TZ", "UTC").args(["-f", "-e", &cache]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let flags = listed.split("Flags: ").nth(1).unwrap().split(['\n', ',']).next().unwrap();
        assert!(detail.contains(&format!("flags {flags} (")), "{detail}\n{listed}");
        let times: Vec<String> = klist_times(detail);
        assert_eq!(times.len(), if arguments.contains(&"-r") { 3 } else { 2 }, "{detail}");
        for time in times {
            assert!(listed.contains(&time), "{time}: {detail}\n{listed}");
        }
        assert!(listed.contains("aes256-cts-hmac-sha1-96") && detail.contains("session key aes256-cts-hmac-sha1-96"));
        assert!(detail.contains(&format!("from the credential cache {cache}; ")), "{detail}");
    }
}

#[tokio::test]
async fn a_ticket_that_was_held_is_no_login() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let examined = subject(file(kdc.krb5_conf()), Some(password("alice", "Secret-1")), None);
    let report = look(&examined).await;
    assert!(!step(&report, Check::Login).detail.contains("held"), "{:#?}", report.steps);
    // The same manager, as in an agent: the password that is asked with is not the account's any more.
    kdc.change_password("alice", "Secret-2").unwrap();
    let report = look(&examined).await;
    found(&report, Check::Login, Outcome::Passed, "");
    let detail = &step(&report, Check::Login).detail;
    assert!(detail.starts_with("held since the login at "), "{detail}");
    assert_eq!(kdc.as_exchanges(), 1, "{}", kdc.log());
}

/// The times in a text as klist writes them.
fn klist_times(text: &str) -> Vec<String> {
    let words = text.split([' ', ',']).filter(|word| word.len() == 20 && word.ends_with('Z'));
    words.map(|time| format!("{}/{}/{} {}", &time[5..7], &time[8..10], &time[2..4], &time[11..19])).collect()
}

#[tokio::test]
async fn caches_that_are_of_no_use() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for user in ["alice", "bob"] {
        kdc.add_password(user, "Secret-1", &[]).unwrap();
    }
    let name = |name: &str| format!("FILE:{}", kdc.path(name).display());
    let of = |principal: &str, cache: String| {
        subject(
            file(kdc.krb5_conf()),
            Some(identity(principal, CredentialSource::Cache(cache))),
            Some(target("localhost")),
        )
    };
    let report = look(&of("alice", name("missing"))).await;
    found(&report, Check::Login, Outcome::Failed, "kerberos.cache_unreadable");
    assert_eq!(outcome(&report, Check::Service), Outcome::Skipped);
    // Nothing was refused: the host is still looked at.
    assert!(report.steps.iter().any(|step| step.check == Check::Connect), "{:#?}", report.steps);

    kdc.kinit(&kdc.principal("alice"), "Secret-1", &name("short"), &["-l", "5m"]).unwrap();
    found(&look(&of("", name("short"))).await, Check::Login, Outcome::Warning, "kerberos.ticket_short");
    found(&look(&of("bob", name("short"))).await, Check::Login, Outcome::Failed, "kerberos.cache_principal");
    found(&look(&of("alice", "KEYRING:x".to_owned())).await, Check::Login, Outcome::Failed, "kerberos.cache_kind");

    kdc.kinit(&kdc.principal("alice"), "Secret-1", &name("old"), &["-l", "1s"]).unwrap();
    let expired = of("alice", name("old"));
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let report = look(&expired).await;
        if super::code(&report, Check::Login) == "kerberos.cache_expired" {
            found(&report, Check::Login, Outcome::Failed, "kerberos.cache_expired");
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{:#?}", report.steps);
    }
    // A cache needs no KDC for what is in it; that none answers is told all the same.
    let dead = super::with_kdcs(&kdc, "dead.conf", &["127.0.0.1:1".to_owned()]);
    let cached = Some(identity("alice", CredentialSource::Cache(name("short"))));
    let report = look(&subject(dead, cached, None)).await;
    found(&report, Check::KdcTcp, Outcome::Failed, "kerberos.kdc_unreachable");
    found(&report, Check::Login, Outcome::Warning, "kerberos.ticket_short");
}

#[tokio::test]
async fn keytabs_are_listed_without_their_keys() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_random("svc", &[]).unwrap();
    let path = kdc.path("svc.keytab");
    kdc.keytab(&["svc"], &path).unwrap();
    kdc.change_keys("svc", false).unwrap();
    let old = kdc.path("old.keytab");
    std::fs::copy(&path, &old).unwrap();
    kdc.keytab(&["svc"], &path).unwrap();
    let of = |principal: &str, path: &std::path::Path| {
        let source = CredentialSource::KeytabFile(path.to_owned());
        subject(file(kdc.krb5_conf()), Some(identity(principal, source)), None)
    };
    let report = look(&of("svc", &path)).await;
    found(&report, Check::Login, Outcome::Passed, "");
    let detail = &step(&report, Check::Login).detail;
    let listed = kdc.command("klist").args(["-k", "-e"]).arg(&path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let keys = listed.lines().filter(|line| line.contains(&kdc.principal("svc"))).count();
    assert_eq!(detail.matches(" version ").count(), keys, "{detail}\n{listed}");
    for version in [1, 2] {
        assert!(detail.contains(&format!("{} version {version} (aes256-", kdc.principal("svc"))), "{detail}");
    }
    found(&look(&of("svc", &old)).await, Check::Login, Outcome::Failed, "kerberos.keytab_rejected");
    found(&look(&of("other", &path)).await, Check::Login, Outcome::Failed, "kerberos.keytab_principal");
    let missing = look(&of("svc", &kdc.path("missing.keytab"))).await;
    found(&missing, Check::Login, Outcome::Failed, "kerberos.keytab_unreadable");
    assert_eq!(outcome(&missing, Check::Principal), Outcome::Skipped);
}
