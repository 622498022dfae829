//! Who answers HTTP, and what the service offers.

use lictor_doctor::{Check, Outcome};
use lictor_winrm::target::{AuthKind, Endpoint, Scheme};
use winsim::{Options, Order};

use crate::certificates::Authority;
use crate::hosts::{Does, Peer, detail, found, hasty, host, look, message, options, target};

macro_rules! answer {
    ($status:literal, $($field:literal),*) => {
        Does::Answers(concat!("HTTP/1.1 ", $status, "\r\n", $($field, "\r\n",)* "Content-Length: 0\r\nConnection: close\r\n\r\n"))
    };
}

#[tokio::test]
async fn whoever_answers_is_told_for_what_it_is() {
    let cases = [
        (answer!("200 OK", "Server: nginx/1.22.1"), "http.other_server", "offered.unexpected"),
        (answer!("200 OK", "Server: Microsoft-IIS/10.0"), "http.other_server", "offered.unexpected"),
        (answer!("502 Bad Gateway", "Server: squid", "Via: 1.1 gate"), "http.proxy", "http.proxy"),
        (answer!("407 Proxy Authentication Required", "Proxy-Authenticate: Basic"), "http.proxy", "http.proxy"),
        (answer!("301 Moved", "Server: gate", "Location: https://h/"), "http.redirect", "offered.unexpected"),
        (answer!("503 Unavailable", "Server: Microsoft-HTTPAPI/2.0"), "http.sys_unavailable", "offered.unavailable"),
        (answer!("403 Forbidden", "Server: Microsoft-HTTPAPI/2.0"), "", "offered.forbidden"),
        (
            answer!("404 Not Found", "Server: Microsoft-HTTPAPI/2.0", "Date: Wed, 15 Mar 2023 16:47:03 GMT"),
            "http.clock_skew",
            "offered.wrong_path",
        ),
    ];
    for (does, http, offered) in cases {
        let peer = Peer::start(does).await;
        let mut target = target(Scheme::Http, peer.address);
        // Basic would send the password with the first request.
        target.auth = AuthKind::Basic;
        let report = look(&target).await;
        let outcome = if http.is_empty() { Outcome::Passed } else { Outcome::Warning };
        assert_eq!(found(&report, Check::Http), (outcome, http), "{offered}");
        assert_eq!(found(&report, Check::Identify).0, Outcome::Failed, "{http}");
        assert_eq!(found(&report, Check::Offered), (Outcome::Failed, offered), "{http}");
        assert_eq!(found(&report, Check::Authenticate).0, Outcome::Skipped, "{http}");
        peer.was_told_nothing();
    }
}

#[tokio::test]
async fn what_speaks_no_http_is_told_for_what_it_is() {
    for (does, code, says) in [
        (Does::Says("SSH-2.0-OpenSSH_9.2p1\r\n"), "http.other_protocol", "SSH-2.0-OpenSSH_9.2p1"),
        (Does::Closes, "http.closed", "without an answer"),
        (Does::Holds, "http.silent", "in time"),
    ] {
        let peer = Peer::start(does).await;
        let report = look(&hasty(target(Scheme::Http, peer.address))).await;
        assert_eq!(found(&report, Check::Http), (Outcome::Failed, code));
        assert!(message(&report, Check::Http).contains(says), "{}", message(&report, Check::Http));
        assert_eq!(found(&report, Check::Identify).0, Outcome::Skipped);
        peer.was_told_nothing();
    }
}

#[tokio::test]
async fn http_to_a_port_of_tls_is_told() {
    let windows = host(Options { tls: Some(Authority::new("A").host().tls()), ..options() }).await;
    let report = look(&target(Scheme::Http, windows.address())).await;
    assert_eq!(found(&report, Check::Http), (Outcome::Failed, "http.tls_expected"));
    let said = message(&report, Check::Http);
    assert!(said.ends_with("speaks TLS, and behind it HTTP: 404, Microsoft-HTTPAPI/2.0"), "{said}");
    windows.stop().await;
}

#[tokio::test]
async fn kinds_that_are_not_offered_are_never_tried() {
    let with = |schemes, auth| (Options { schemes, allow_unencrypted: true, ..options() }, auth);
    for ((options, auth), code, offers) in [
        (with(vec![winsim::Scheme::Negotiate], AuthKind::Basic), "offered.basic_missing", "Negotiate"),
        (with(vec![winsim::Scheme::Basic], AuthKind::Negotiate), "offered.negotiate_missing", "Basic"),
        (with(vec![winsim::Scheme::Basic], AuthKind::Ntlm), "offered.negotiate_missing", "Basic"),
        (with(vec![winsim::Scheme::Basic], AuthKind::Kerberos), "offered.kerberos_missing", "Basic"),
    ] {
        let windows = host(options).await;
        let mut target = target(Scheme::Http, windows.address());
        target.auth = auth;
        let report = look(&target).await;
        assert_eq!(found(&report, Check::Offered), (Outcome::Failed, code));
        assert_eq!(detail(&report, Check::Offered), offers);
        assert_eq!(found(&report, Check::Authenticate).0, Outcome::Skipped);
        assert!(windows.statistics().authentication.failed_logons.is_empty());
        windows.stop().await;
    }
}

#[tokio::test]
async fn basic_over_http_is_warned_about() {
    let schemes = vec![winsim::Scheme::Negotiate, winsim::Scheme::Basic];
    let windows = host(Options { schemes, allow_unencrypted: true, ..options() }).await;
    let report = look(&target(Scheme::Http, windows.address())).await;
    assert_eq!(found(&report, Check::Offered), (Outcome::Warning, "offered.basic_over_http"));
    assert_eq!(detail(&report, Check::Offered), "Negotiate, Basic");
    assert_eq!(found(&report, Check::Close), (Outcome::Passed, ""));
    windows.stop().await;
}

#[tokio::test]
async fn a_path_where_nothing_is_and_a_service_that_is_not_ready_are_told() {
    let windows = host(options()).await;
    let mut elsewhere = target(Scheme::Http, windows.address());
    elsewhere.endpoint =
        Endpoint::new(Scheme::Http, "127.0.0.1", Some(windows.address().port()), Some("/wsmen")).unwrap();
    let report = look(&elsewhere).await;
    assert_eq!(found(&report, Check::Http), (Outcome::Passed, ""));
    assert!(detail(&report, Check::Http).starts_with("GET / answers 404, Microsoft-HTTPAPI/2.0"));
    assert_eq!(found(&report, Check::Identify), (Outcome::Failed, "http.not_found"));
    assert_eq!(found(&report, Check::Offered), (Outcome::Failed, "offered.wrong_path"));
    // GET /, Identify, POST.
    windows.order(Order::Unavailable(3)).await;
    let report = look(&target(Scheme::Http, windows.address())).await;
    assert_eq!(found(&report, Check::Offered), (Outcome::Failed, "offered.unavailable"));
    assert_eq!(found(&report, Check::Authenticate).0, Outcome::Skipped);
    assert!(windows.statistics().authentication.failed_logons.is_empty());
    windows.stop().await;
}
