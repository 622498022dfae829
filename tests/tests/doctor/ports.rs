//! The port, and the usual ones beside it. Each test has a loopback address of its own, where those ports are free.

use std::time::Duration;

use lictor_doctor::{Check, Outcome, Subject, examine};
use lictor_winrm::target::Scheme;
use tokio::time::Instant;
use winsim::Options;

use crate::hosts::{Does, Peer, detail, found, host, look, options, suspects, target};

#[tokio::test]
async fn a_refused_port_is_told_with_what_listens_beside_it() {
    let cases = [
        ("127.71.1.1", Scheme::Https, 5986, Some(5985), "connect.suspect_only_http", "5985 listens"),
        ("127.71.1.2", Scheme::Http, 5985, Some(5986), "connect.suspect_only_https", "5986 listens"),
        ("127.71.1.3", Scheme::Http, 5985, None, "connect.suspect_not_enabled", "5986 is refused as well"),
        (
            "127.71.1.4",
            Scheme::Http,
            15985,
            Some(5985),
            "connect.suspect_only_http",
            "5985 listens, 5986 is refused as well",
        ),
    ];
    for (ip, scheme, port, listens, suspect, hint) in cases {
        let _peer = match listens {
            Some(port) => Some(Peer::start_at(&format!("{ip}:{port}"), Does::Holds).await),
            None => None,
        };
        let report = look(&target(scheme, format!("{ip}:{port}").parse().unwrap())).await;
        assert_eq!(found(&report, Check::Connect), (Outcome::Failed, "connect.refused"), "{ip}");
        assert_eq!(suspects(&report, Check::Connect), [suspect], "{ip}");
        assert_eq!(detail(&report, Check::Connect), hint, "{ip}");
        assert!(
            report.steps.iter().filter(|step| step.check > Check::Connect).all(|step| step.outcome == Outcome::Skipped)
        );
    }
}

/// A policy may allow the target's port alone.
#[tokio::test]
async fn no_other_port_is_connected_to_where_that_is_not_allowed() {
    let other = tokio::net::TcpListener::bind("127.71.1.6:5985").await.unwrap();
    let target = target(Scheme::Https, "127.71.1.6:5986".parse().unwrap());
    let subject = Subject { target: Some(target), kerberos: None, usual_ports: false };
    let report = examine(&subject, Instant::now() + Duration::from_secs(90), |_| {}).await;
    assert_eq!(found(&report, Check::Connect), (Outcome::Failed, "connect.refused"));
    // What nobody looked at is not guessed at.
    assert_eq!((detail(&report, Check::Connect), suspects(&report, Check::Connect)), ("", Vec::new()));
    let connected = tokio::time::timeout(Duration::ZERO, other.accept()).await;
    assert!(connected.is_err(), "{connected:?}");
}

#[tokio::test]
async fn a_port_that_listens_is_told_with_the_usual_ones() {
    let listen = "127.71.1.5:5985".parse().unwrap();
    let windows = host(Options { listen, ..options() }).await;
    let report = look(&target(Scheme::Http, windows.address())).await;
    assert_eq!(found(&report, Check::Connect), (Outcome::Passed, ""));
    assert_eq!(detail(&report, Check::Connect), "127.71.1.5:5985; 5986 does not listen");
    assert_eq!(found(&report, Check::Close), (Outcome::Passed, ""));
    windows.stop().await;
}

#[tokio::test]
async fn a_name_without_an_address_is_told_once() {
    let mut target = target(Scheme::Http, "127.0.0.1:5985".parse().unwrap());
    target.endpoint = lictor_winrm::target::Endpoint::new(Scheme::Http, "no-such-host.invalid", None, None).unwrap();
    let report = look(&target).await;
    assert_eq!(found(&report, Check::Resolve), (Outcome::Failed, "resolve.failed"));
    assert_eq!(found(&report, Check::Connect), (Outcome::Skipped, ""));
}
