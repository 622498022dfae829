//! KDCs that are not as they should be: dead, behind half a firewall, without a name, no KDC at all, or with another clock.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};

use lictor_doctor::{Check, Outcome};
use lictor_tests::{Kdc, KdcOptions};
use lictor_winrm::target::AuthKind;

use super::{file, found, look, outcome, password, step, subject, target, with_kdcs, written};

fn dead_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn address(kdc: &Kdc) -> String {
    format!("127.0.0.1:{}", kdc.port())
}

#[tokio::test]
async fn some_of_the_kdcs_do_not_answer() {
    let mut kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    // As behind a firewall: everything is taken and nothing answered.
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _hole_tcp = TcpListener::bind(hole.local_addr().unwrap()).unwrap();
    let silent = hole.local_addr().unwrap().to_string();
    let alice = || Some(password("alice", "Secret-1"));

    let some = with_kdcs(&kdc, "some.conf", &[dead_port(), silent.clone(), "kdc.invalid".to_owned(), address(&kdc)]);
    let report = look(&subject(some, alice(), None)).await;
    found(&report, Check::KdcNames, Outcome::Warning, "dns.kdc_unresolved");
    for check in [Check::KdcUdp, Check::KdcTcp] {
        found(&report, check, Outcome::Warning, "kerberos.kdc_dead");
        let detail = &step(&report, check).detail;
        assert!(detail.contains(&format!("{silent}: no answer")) && detail.contains(": refused"), "{detail}");
        assert!(detail.contains(&format!("{} answers", address(&kdc))), "{detail}");
    }
    found(&report, Check::Login, Outcome::Passed, "");

    let nameless = with_kdcs(&kdc, "nameless.conf", &["kdc.invalid".to_owned()]);
    let report = look(&subject(nameless, alice(), None)).await;
    found(&report, Check::KdcNames, Outcome::Failed, "dns.kdc_unresolved");
    assert_eq!(outcome(&report, Check::KdcTcp), Outcome::Skipped);
    assert_eq!(outcome(&report, Check::Login), Outcome::Skipped);

    kdc.kill().unwrap();
    let all = with_kdcs(&kdc, "all.conf", &[silent, address(&kdc)]);
    let report = look(&subject(all, alice(), Some(target("localhost")))).await;
    for check in [Check::KdcUdp, Check::KdcTcp] {
        found(&report, check, Outcome::Failed, "kerberos.kdc_unreachable");
    }
    assert_eq!(outcome(&report, Check::Login), Outcome::Skipped);
    // Nothing was said of the credential.
    assert!(report.steps.iter().any(|step| step.check == Check::Connect), "{:#?}", report.steps);

    let none = with_kdcs(&kdc, "none.conf", &["https://proxy.corp.example/KdcProxy".to_owned()]);
    let report = look(&subject(none, alice(), None)).await;
    found(&report, Check::Krb5Conf, Outcome::Warning, "kerberos.krb5_conf_doubtful");
}

#[tokio::test]
async fn only_one_transport_gets_through() {
    for (setting, check, code) in [
        ("kdc_tcp_listen = \"\"", Check::KdcTcp, "kerberos.tcp_blocked"),
        ("kdc_listen = \"\"", Check::KdcUdp, "kerberos.udp_blocked"),
    ] {
        let options = KdcOptions { realm_settings: vec![setting.to_owned()], ..KdcOptions::default() };
        let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
        kdc.add_password("alice", "Secret-1", &[]).unwrap();
        let report = look(&subject(file(kdc.krb5_conf()), Some(password("alice", "Secret-1")), None)).await;
        found(&report, check, Outcome::Warning, code);
        let other = if check == Check::KdcTcp { Check::KdcUdp } else { Check::KdcTcp };
        found(&report, other, Outcome::Passed, "");
        found(&report, Check::Login, Outcome::Passed, "");
    }
}

#[tokio::test]
async fn what_listens_is_no_kdc() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        // One question is asked over TCP.
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        stream.write_all(b"\0\0\0\x10HTTP/1.1 400 Bad").unwrap();
    });
    let source = with_kdcs(&kdc, "http.conf", &[format!("tcp/{place}")]);
    let report = look(&subject(source, Some(password("alice", "Secret-1")), None)).await;
    server.join().unwrap();
    assert_eq!(outcome(&report, Check::KdcUdp), Outcome::Skipped);
    found(&report, Check::KdcTcp, Outcome::Failed, "kerberos.not_a_kdc");
}

#[tokio::test]
async fn clocks_are_compared_with_the_kdcs_own() {
    let mut kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    for (offset, outcome, code, words) in [
        (150, Outcome::Warning, "kerberos.clock_drift", "s behind"),
        (-150, Outcome::Warning, "kerberos.clock_drift", "s ahead of"),
        (3600, Outcome::Failed, "kerberos.clock_skew", "s behind"),
        (-3600, Outcome::Failed, "kerberos.clock_skew", "s ahead of"),
    ] {
        kdc.set_clock(offset).unwrap();
        let identity = password("alice", "Secret-1");
        let report = look(&subject(file(kdc.krb5_conf()), Some(identity), Some(target("localhost")))).await;
        found(&report, Check::Clock, outcome, code);
        let detail = &step(&report, Check::Clock).detail;
        let measured: i64 = detail.split(' ').find_map(|word| word.parse().ok()).unwrap();
        // A second may pass between the two clocks, and a few until an answer is read on a busy machine.
        assert!((measured - offset.abs()).abs() <= 10 && detail.contains(words), "{detail}");
        if offset.abs() > 300 {
            found(&report, Check::Login, Outcome::Failed, "kerberos.clock_skew");
            assert_eq!(super::outcome(&report, Check::Authenticate), Outcome::Skipped);
        }
    }
}

#[tokio::test]
async fn kdcs_whose_clocks_differ() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    let late = Kdc::start_with("CORP.EXAMPLE", KdcOptions { clock_offset: -200, ..KdcOptions::default() }).unwrap();
    // It serves another realm, and says what time it is when it says so.
    let source = with_kdcs(&kdc, "clocks.conf", &[address(&kdc), address(&late)]);
    let report = look(&subject(source, Some(password("alice", "Secret-1")), None)).await;
    found(&report, Check::Clock, Outcome::Warning, "kerberos.clocks_disagree");
}

#[tokio::test]
async fn what_there_is_no_time_for_is_not_begun() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let examined = subject(file(kdc.krb5_conf()), Some(password("alice", "Secret-1")), Some(target("localhost")));
    let report = lictor_doctor::examine(&examined, tokio::time::Instant::now(), |_| {}).await;
    for check in [Check::KdcTcp, Check::Login, Check::Service] {
        assert!([Outcome::Skipped, Outcome::Unknown].contains(&outcome(&report, check)), "{:#?}", report.steps);
    }
    assert_eq!(kdc.logged(&["AS_REQ"]), 0, "{}", kdc.log());
    // Nobody blames the name server, and nobody takes the host for one that can be used.
    for check in [Check::Resolve, Check::Reverse] {
        assert_eq!(
            (outcome(&report, check), step(&report, check).detail.as_str()),
            (Outcome::Unknown, "no time was left")
        );
    }
    found(&report, Check::Connect, Outcome::Failed, "timeout.deadline");
}

#[tokio::test]
async fn ntlm_goes_on_where_there_is_no_ticket() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let dead = with_kdcs(&kdc, "dead.conf", &["127.0.0.1:1".to_owned()]);
    let unresolved = with_kdcs(&kdc, "unresolved.conf", &["dc1.invalid".to_owned()]);
    let other =
        written(&kdc, "other-realm.conf", "[libdefaults]\n dns_lookup_kdc = false\n default_realm = OTHER.EXAMPLE\n");
    for auth in [AuthKind::Negotiate, AuthKind::Kerberos] {
        let wanted = if auth == AuthKind::Negotiate { Outcome::Warning } else { Outcome::Failed };
        for (source, host, check, code) in [
            (file(kdc.krb5_conf()), "127.0.0.1", Check::HostName, "kerberos.host_is_address"),
            (dead.clone(), "localhost", Check::KdcTcp, "kerberos.kdc_unreachable"),
            (unresolved.clone(), "localhost", Check::KdcNames, "dns.kdc_unresolved"),
            (other.clone(), "localhost", Check::Realm, "kerberos.realm_undefined"),
        ] {
            let mut target = target(host);
            target.auth = auth;
            let report = look(&subject(source, Some(password("alice", "Secret-1")), Some(target))).await;
            found(&report, check, wanted, code);
            let cause = &step(&report, check).finding.as_ref().unwrap().cause;
            assert_eq!(cause.contains("logs on by NTLM"), auth == AuthKind::Negotiate, "{cause}");
            // The first thing that fails is then the host, which is not there.
            let first = report.failure().unwrap().check;
            assert_eq!(first == Check::Connect, auth == AuthKind::Negotiate, "{:#?}", report.steps);
        }
        // A refusal is one for NTLM as well.
        let mut target = target("localhost");
        target.auth = auth;
        let report = look(&subject(file(kdc.krb5_conf()), Some(password("alice", "Wrong-1")), Some(target))).await;
        found(&report, Check::Login, Outcome::Failed, "kerberos.password_rejected");
    }
}
