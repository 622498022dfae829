//! TLS and certificates.

use lictor_doctor::{Check, Outcome};
use lictor_winrm::Target;
use lictor_winrm::target::{Scheme, TlsPolicy};
use openssl::hash::MessageDigest;
use winsim::{Handle, Options, Tls, TlsVersion};

use crate::certificates::{Authority, Leaf, rsa};
use crate::hosts::{Does, Peer, detail, found, hasty, host, look, message, options, target};

async fn serves(tls: Tls) -> Handle {
    host(Options { tls: Some(tls), ..options() }).await
}

fn trusting(windows: &Handle, ca_pem: Option<String>) -> Target {
    let mut target = target(Scheme::Https, windows.address());
    target.tls = TlsPolicy { ca_pem, skip_certificate_check: false };
    target
}

#[tokio::test]
async fn a_host_with_a_good_certificate_passes_and_is_described() {
    let authority = Authority::new("Corp CA");
    let windows = serves(authority.host().tls()).await;
    let report = look(&trusting(&windows, Some(authority.pem()))).await;
    assert_eq!(report.failure().map(|step| step.check), None, "{:#?}", report.steps);
    assert_eq!(found(&report, Check::Tls), (Outcome::Passed, ""));
    assert!(detail(&report, Check::Tls).starts_with("TLS 1.2, 1.3 (TLS_AES_"), "{}", detail(&report, Check::Tls));
    let certificate = detail(&report, Check::Certificate);
    assert!(
        certificate.starts_with("CN=win01, issued by CN=Corp CA; for 127.0.0.1, win01.corp.example; "),
        "{certificate}"
    );
    assert!(certificate.ends_with("GMT; EC 256, ecdsa-with-SHA256"), "{certificate}");
    assert_eq!(found(&report, Check::Certificate), (Outcome::Passed, ""));
    windows.stop().await;
}

#[tokio::test]
async fn each_flaw_of_a_certificate_has_its_code_and_keeps_the_credential_back() {
    let authority = Authority::new("Corp CA");
    let other = Authority::new("Other CA");
    let (given, another) = (Some(authority.pem()), Some(other.pem()));
    let cases: Vec<(&str, Leaf<'_>, &Option<String>, &str)> = vec![
        ("certificate.expired", Leaf { from: -10, to: -1, ..authority.host() }, &given, "CN=win01 has ended"),
        ("certificate.not_yet_valid", Leaf { from: 2, ..authority.host() }, &given, "CN=win01 has not begun"),
        (
            "certificate.name",
            Leaf { names: &["10.0.0.7", "other.corp.example"], ..authority.host() },
            &given,
            "for 10.0.0.7, other.corp.example and not for 127.0.0.1",
        ),
        (
            "certificate.self_signed",
            Leaf { authority: None, ..authority.host() },
            &None,
            "CN=win01 issued its certificate",
        ),
        ("certificate.untrusted_issuer", authority.host(), &None, "CN=Corp CA is not trusted"),
        (
            "certificate.ca_mismatch",
            authority.host(),
            &another,
            "issued by CN=Corp CA, and the given authorities are CN=Other CA",
        ),
        ("certificate.purpose", Leaf { for_clients: true, ..authority.host() }, &given, "not for servers"),
        ("certificate.weak_key", Leaf { key: rsa(1024), ..authority.host() }, &given, "RSA 1024"),
        (
            "certificate.weak_signature",
            Leaf { digest: MessageDigest::sha1(), ..authority.host() },
            &given,
            "ecdsa-with-SHA1",
        ),
        // The first thing is told as the finding, the other beside it.
        ("certificate.expired", Leaf { from: -10, to: -1, names: &["other"], ..authority.host() }, &None, "also: "),
    ];
    for (code, leaf, ca, says) in cases {
        let windows = serves(leaf.tls()).await;
        let target = trusting(&windows, ca.clone());
        let report = look(&target).await;
        assert_eq!(found(&report, Check::Certificate), (Outcome::Failed, code), "{:#?}", report.steps);
        assert!(message(&report, Check::Certificate).contains(says), "{}", message(&report, Check::Certificate));
        // The rest is looked at without the credential.
        assert_eq!(found(&report, Check::Http), (Outcome::Passed, ""), "{code}");
        assert_eq!(found(&report, Check::Offered), (Outcome::Passed, ""), "{code}");
        assert_eq!(found(&report, Check::Authenticate).0, Outcome::Skipped, "{code}");
        assert_eq!(windows.statistics().authentication.handshakes, 0);
        // Who skips the check is warned, and gets in.
        let mut skipping = target;
        skipping.tls = TlsPolicy { ca_pem: None, skip_certificate_check: true };
        let report = look(&skipping).await;
        assert_eq!(found(&report, Check::Certificate).0, Outcome::Warning, "{code}");
        assert_eq!(found(&report, Check::Close), (Outcome::Passed, ""), "{code} {:#?}", report.steps);
        windows.stop().await;
    }
}

#[tokio::test]
async fn doubts_about_a_certificate_are_warnings() {
    let authority = Authority::new("Corp CA");
    let windows = serves(Leaf { to: 10, ..authority.host() }.tls()).await;
    let report = look(&trusting(&windows, Some(authority.pem()))).await;
    assert_eq!(found(&report, Check::Certificate), (Outcome::Warning, "certificate.expires_soon"));
    assert_eq!(message(&report, Check::Certificate), "the certificate ends in 9 days");
    assert_eq!(found(&report, Check::Close), (Outcome::Passed, ""));
    let report = look(&trusting(&windows, Some("no PEM".to_owned()))).await;
    assert_eq!(found(&report, Check::Certificate), (Outcome::Failed, "certificate.ca_unusable"));
    assert_eq!(found(&report, Check::Authenticate).0, Outcome::Skipped);
    windows.stop().await;
}

#[tokio::test]
async fn a_host_with_old_versions_only_is_told_how_to_switch_on_a_new_one() {
    let authority = Authority::new("Corp CA");
    let tls = Some(Leaf { key: rsa(2048), ..authority.host() }.tls());
    for (versions, told) in [
        ((TlsVersion::Tls1_0, TlsVersion::Tls1_0), "the host takes TLS 1.0 ("),
        ((TlsVersion::Tls1_0, TlsVersion::Tls1_1), "the host takes TLS 1.0, 1.1 ("),
    ] {
        let windows = host(Options { tls: tls.clone(), tls_versions: versions, ..options() }).await;
        let report = look(&trusting(&windows, Some(authority.pem()))).await;
        assert_eq!(found(&report, Check::Tls), (Outcome::Failed, "tls.too_old"), "{:#?}", report.steps);
        assert!(message(&report, Check::Tls).starts_with(told), "{}", message(&report, Check::Tls));
        let remedy = &report.failure().unwrap().finding.as_ref().unwrap().remedy;
        assert!(
            remedy.contains("SCHANNEL\\Protocols\\TLS 1.2\\Server") && remedy.contains("Server 2008 R2"),
            "{remedy}"
        );
        // The certificate and what is behind are looked at even so.
        assert_eq!(found(&report, Check::Certificate), (Outcome::Passed, ""), "{:#?}", report.steps);
        assert_eq!(found(&report, Check::Http), (Outcome::Passed, ""));
        assert_eq!(found(&report, Check::Authenticate).0, Outcome::Skipped);
        windows.stop().await;
    }
    for versions in [(TlsVersion::Tls1_0, TlsVersion::Tls1_3), (TlsVersion::Tls1_2, TlsVersion::Tls1_2)] {
        let windows = host(Options { tls: tls.clone(), tls_versions: versions, ..options() }).await;
        let report = look(&trusting(&windows, Some(authority.pem()))).await;
        assert_eq!(report.failure().map(|step| step.check), None, "{:#?}", report.steps);
        windows.stop().await;
    }
}

#[tokio::test]
async fn ports_without_tls_are_told_for_what_they_are() {
    let windows = host(options()).await;
    let report = look(&target(Scheme::Https, windows.address())).await;
    assert_eq!(found(&report, Check::Tls), (Outcome::Failed, "tls.plain_http"));
    assert!(message(&report, Check::Tls).contains("404, Microsoft-HTTPAPI/2.0"));
    windows.stop().await;
    for (does, code, says) in [
        (Does::Says("SSH-2.0-OpenSSH_9.2p1\r\n"), "tls.other_protocol", "SSH-2.0-OpenSSH_9.2p1"),
        (Does::Closes, "tls.refused", ""),
        (Does::Holds, "tls.silent", "does not answer"),
    ] {
        let peer = Peer::start(does).await;
        let report = look(&hasty(target(Scheme::Https, peer.address))).await;
        assert_eq!(found(&report, Check::Tls), (Outcome::Failed, code));
        assert!(message(&report, Check::Tls).contains(says), "{}", message(&report, Check::Tls));
        assert_eq!(found(&report, Check::Certificate).0, Outcome::Skipped);
        assert_eq!(found(&report, Check::Close).0, Outcome::Skipped);
        peer.was_told_nothing();
    }
}
