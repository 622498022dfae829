//! The logon, the shell, and PowerShell's profile.

use std::net::SocketAddr;

use lictor_doctor::{Check, Outcome, Report};
use lictor_winrm::target::{AuthKind, Credential, Scheme, Secret, TlsPolicy};
use openssl::ssl::{Ssl, SslAcceptor, SslConnector, SslMethod, SslVerifyMode};
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;
use tokio_util::task::AbortOnDropHandle;
use winsim::{Options, PowerShell, Tls, User};

use crate::certificates::Authority;
use crate::hosts::{PASSWORD, USER, detail, found, host, look, message, options, suspects, target};

fn user(name: &str, password: &str) -> Credential {
    Credential::password(name, Secret::new(password.to_owned()))
}

#[tokio::test]
async fn a_good_host_passes_with_one_logon_and_no_shell_left() {
    let windows = host(options()).await;
    let report = look(&target(Scheme::Http, windows.address())).await;
    let skipped = [Check::Reverse, Check::Tls, Check::Certificate];
    for step in &report.steps {
        let expected = if skipped.contains(&step.check) { Outcome::Skipped } else { Outcome::Passed };
        assert_eq!(step.outcome, expected, "{step:#?}");
    }
    assert_eq!(detail(&report, Check::Profile), "PowerShell 5.1.14393.0, FullLanguage; the profile says nothing");
    assert_eq!(report.connection.as_ref().unwrap().auth, "negotiate");
    let statistics = windows.statistics();
    assert_eq!(statistics.authentication.handshakes, 1);
    assert_eq!((statistics.shells.open, statistics.violation_count), (0, 0), "{statistics:#?}");
    windows.stop().await;
}

async fn refused(scheme: Scheme, auth: AuthKind, name: &str) -> Report {
    let schemes = vec![winsim::Scheme::Negotiate, winsim::Scheme::Basic];
    let authority = Authority::new("Corp CA");
    let tls = (scheme == Scheme::Https).then(|| authority.host().tls());
    let windows = host(Options { schemes, tls, allow_unencrypted: true, ..options() }).await;
    let mut target = target(scheme, windows.address());
    target.auth = auth;
    target.credential = user(name, "wrong");
    target.tls.ca_pem = Some(authority.pem());
    let report = look(&target).await;
    assert_eq!(found(&report, Check::Authenticate), (Outcome::Failed, "auth.rejected"), "{:#?}", report.steps);
    for check in [Check::OpenShell, Check::Run, Check::Profile, Check::Close] {
        assert_eq!(found(&report, check), (Outcome::Skipped, ""));
    }
    assert_eq!(windows.statistics().authentication.failed_logons.values().sum::<u64>(), 1, "tried once");
    windows.stop().await;
    report
}

#[tokio::test]
async fn a_bare_401_is_explained_by_how_the_user_is_written_and_the_way_it_went() {
    let (password, locked, rights, ntlm) =
        ("auth.suspect_password", "auth.suspect_locked", "auth.suspect_rights", "auth.suspect_ntlm_blocked");
    let (local, missing, wrong) =
        ("auth.suspect_local_account_policy", "auth.suspect_domain_missing", "auth.suspect_domain_wrong");
    let binding = "auth.suspect_channel_binding";
    let cases: [(Scheme, AuthKind, &str, &[&str]); 6] = [
        (Scheme::Http, AuthKind::Negotiate, "CORP\\bob", &[password, rights, locked, wrong, ntlm]),
        (Scheme::Http, AuthKind::Ntlm, "bob", &[password, missing, local, rights, locked, ntlm]),
        (Scheme::Http, AuthKind::Negotiate, ".\\bob", &[password, local, rights, locked, ntlm]),
        (Scheme::Https, AuthKind::Negotiate, "CORP\\bob", &[password, rights, locked, wrong, ntlm, binding]),
        (Scheme::Https, AuthKind::Basic, "CORP\\bob", &["auth.suspect_basic_local_only", password, rights, locked]),
        (Scheme::Https, AuthKind::Basic, "bob", &[password, missing, local, rights, locked]),
    ];
    for (scheme, auth, name, expected) in cases {
        let report = refused(scheme, auth, name).await;
        assert_eq!(suspects(&report, Check::Authenticate), expected, "{scheme:?} {auth:?} {name}");
    }
}

#[tokio::test]
async fn bindings_to_a_session_of_somebody_else_are_suspected_first() {
    let windows = host(Options { tls: Some(Authority::new("Corp CA").host().tls()), ..options() }).await;
    let (relay, _running) = inspecting(windows.address(), &Authority::new("Inspection CA").host().tls()).await;
    let mut target = target(Scheme::Https, relay);
    target.tls = TlsPolicy { ca_pem: None, skip_certificate_check: true };
    let report = look(&target).await;
    assert_eq!(found(&report, Check::Certificate), (Outcome::Warning, "certificate.untrusted_issuer"));
    assert_eq!(found(&report, Check::Authenticate), (Outcome::Failed, "auth.rejected"), "{:#?}", report.steps);
    assert_eq!(suspects(&report, Check::Authenticate)[0], "auth.suspect_channel_binding");
    // The suspicion is right.
    target.send_channel_bindings = false;
    let report = look(&target).await;
    assert_eq!(found(&report, Check::Close), (Outcome::Passed, ""), "{:#?}", report.steps);
    windows.stop().await;
}

#[tokio::test]
async fn bindings_that_are_demanded_are_suspected_when_none_were_sent() {
    let authority = Authority::new("Corp CA");
    let channel_bindings = winsim::ChannelBindings::Strict;
    let windows = host(Options { tls: Some(authority.host().tls()), channel_bindings, ..options() }).await;
    let mut target = target(Scheme::Https, windows.address());
    target.tls.ca_pem = Some(authority.pem());
    target.send_channel_bindings = false;
    let report = look(&target).await;
    assert_eq!(suspects(&report, Check::Authenticate)[..2], ["auth.suspect_password", "auth.suspect_channel_binding"]);
    windows.stop().await;
}

/// Ends TLS and opens another session, as devices do that inspect it.
async fn inspecting(host: SocketAddr, tls: &Tls) -> (SocketAddr, AbortOnDropHandle<()>) {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&openssl::x509::X509::from_pem(&tls.certificate).unwrap()).unwrap();
    acceptor.set_private_key(&openssl::pkey::PKey::private_key_from_pem(&tls.key).unwrap()).unwrap();
    let acceptor = acceptor.build();
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let connector = connector.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = tokio::spawn(async move {
        let mut relays = tokio::task::JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            let near = Ssl::new(acceptor.context()).and_then(|ssl| SslStream::new(ssl, near)).unwrap();
            let far = TcpStream::connect(host).await.unwrap();
            let ssl = connector.configure().unwrap().verify_hostname(false).into_ssl("host").unwrap();
            let far = SslStream::new(ssl, far).unwrap();
            relays.spawn(async move {
                let (mut near, mut far) = (near, far);
                if std::pin::Pin::new(&mut near).accept().await.is_ok()
                    && std::pin::Pin::new(&mut far).connect().await.is_ok()
                {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    (address, AbortOnDropHandle::new(running))
}

#[tokio::test]
async fn a_shell_that_is_denied_is_explained_by_the_account() {
    let (filter, member, execute) =
        ("access.suspect_token_filter", "access.suspect_not_member", "access.suspect_execute_right");
    let cases: [(&str, &[&str]); 2] = [(USER, &[member, execute]), ("bob", &[filter, member, execute])];
    for (name, expected) in cases {
        let users = vec![User::new(name, PASSWORD)];
        let windows = host(Options { users, denied_users: vec![name.to_owned()], ..Options::default() }).await;
        let mut target = target(Scheme::Http, windows.address());
        target.credential = user(name, PASSWORD);
        let report = look(&target).await;
        assert_eq!(found(&report, Check::Authenticate), (Outcome::Passed, ""), "{:#?}", report.steps);
        assert_eq!(found(&report, Check::OpenShell), (Outcome::Failed, "fault.5"), "{:#?}", report.steps);
        assert_eq!(suspects(&report, Check::OpenShell), expected);
        windows.stop().await;
    }
}

#[tokio::test]
async fn a_quota_of_shells_is_told() {
    let windows = host(Options { max_shells_per_user: 0, ..options() }).await;
    let report = look(&target(Scheme::Http, windows.address())).await;
    assert_eq!(found(&report, Check::OpenShell), (Outcome::Failed, "fault.2150859173"));
    assert!(suspects(&report, Check::OpenShell).is_empty());
    windows.stop().await;
}

#[tokio::test]
async fn what_powershell_does_to_scripts_is_told() {
    let full = || "FullLanguage".to_owned();
    let cases = [
        ("Write-Output 'Welcome to WIN01'", full(), "profile.noise", "the profile says \"Welcome to WIN01\""),
        ("Write-Warning 'old module'", full(), "profile.noise", "old module"),
        ("exit 3", full(), "profile.breaks", "exit code 3"),
        ("", "ConstrainedLanguage".to_owned(), "profile.language_mode", "the language mode is ConstrainedLanguage"),
    ];
    for (profile, language_mode, code, says) in cases {
        let powershell = PowerShell { profile: profile.to_owned(), language_mode };
        let windows = host(Options { powershell, ..options() }).await;
        let report = look(&target(Scheme::Http, windows.address())).await;
        assert_eq!(found(&report, Check::Profile), (Outcome::Warning, code), "{:#?}", report.steps);
        assert!(message(&report, Check::Profile).contains(says), "{}", message(&report, Check::Profile));
        assert_eq!(found(&report, Check::Close), (Outcome::Passed, ""));
        assert_eq!(report.failure().map(|step| step.check), None);
        windows.stop().await;
    }
}
