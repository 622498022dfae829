//! Posture checks against the simulated host: what it tells over WS-Management, what its PowerShell answers, what it refuses.

#![expect(
    clippy::expect_used,
    reason = "a test; clippy knows the functions beside the test functions of such a file as ordinary code"
)]

#[path = "../../tests/winsim/tests/certificate/mod.rs"]
mod certificate;

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_doctor::posture::{Options, Posture, Verdict, inspect};
use lictor_winrm::pool::{Pool, PoolSettings};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};
use tokio::time::Instant;
use winsim::{CannedScript, Configuration, Handle, Listener, Mapping, Order, User, Winsim};

const USER: &str = "CORP\\alice";
const PASSWORD: &str = "pässword-of-this-test";
/// A line of the script, by which the simulated host knows it.
const MARK: &str = "Lictor posture script, version 1";

async fn host(options: winsim::Options) -> Handle {
    let users = vec![User::new(USER, PASSWORD)];
    Winsim::start(winsim::Options { users, ..options }).await.expect("the host starts")
}

fn target(host: &Handle, ca: Option<&[u8]>) -> Target {
    let scheme = if ca.is_some() { Scheme::Https } else { Scheme::Http };
    Target {
        endpoint: Endpoint::new(scheme, "127.0.0.1", Some(host.address().port()), None).expect("an endpoint"),
        auth: AuthKind::Negotiate,
        credential: Credential::password(USER, Secret::new(PASSWORD.to_owned())),
        tls: TlsPolicy { ca_pem: ca.map(|ca| String::from_utf8_lossy(ca).into_owned()), skip_certificate_check: false },
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: false,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}

async fn look(target: &Target, script: bool) -> Posture {
    let pool = Pool::new(PoolSettings::default());
    let posture = inspect(&pool, target, Options { script }, Instant::now() + Duration::from_secs(60)).await;
    assert_eq!(pool.close(Instant::now() + Duration::from_secs(30)).await, 0, "a shell is left");
    posture.expect("the host can be talked to")
}

fn verdicts(posture: &Posture) -> BTreeMap<&'static str, Verdict> {
    posture.rows.iter().map(|row| (row.check, row.verdict)).collect()
}

fn found<'a>(posture: &'a Posture, check: &str) -> &'a str {
    &posture.rows.iter().find(|row| row.check == check).expect("a row").found
}

async fn can(host: &Handle, stdout: String, exit_code: u32) {
    host.order(Order::Script(CannedScript { holds: MARK.to_owned(), stdout, exit_code })).await;
}

fn clean(host: &Handle) {
    let statistics = host.statistics();
    assert_eq!(statistics.violations, Vec::<String>::new());
    assert_eq!(statistics.shells.open, 0, "a shell was left behind");
}

const ANSWER: &str = concat!(
    r#"{"lictor_posture":1,"items":{"firewall":{"value":{"profiles":[{"name":"Domain","enabled":"True","inbound":"Block"}],"#,
    r#""rules":[{"name":"WinRM","profile":"Domain","port":"5986","remote":["192.0.2.10"]}]}},"script_block_logging":"#,
    r#"{"value":{"enabled":1}},"log:Security":{"value":{"enabled":true,"bytes":201326592}},"#,
    r#""log:Microsoft-Windows-WinRM/Operational":{"value":{"enabled":true,"bytes":33554432}},"#,
    r#""log:Microsoft-Windows-PowerShell/Operational":{"value":{"enabled":true,"bytes":33554432}},"#,
    r#""session_configurations":{"value":{"configurations":{"name":"microsoft.powershell","enabled":"True","#,
    r#""sddl":"O:NSG:BAD:P(A;;GA;;;BA)(A;;GA;;;RM)"}}}}}"#
);

/// A host that nobody has configured, over http and without the script.
#[tokio::test]
async fn an_untouched_host_fails_where_windows_is_open_by_itself() {
    let host = host(winsim::Options::default()).await;
    let posture = look(&target(&host, None), false).await;
    let verdicts = verdicts(&posture);
    for failed in ["https_only", "listening_addresses", "ipv4_filter", "ipv6_filter", "channel_bindings"] {
        assert_eq!(verdicts[failed], Verdict::Fail, "{failed}: {}", found(&posture, failed));
    }
    for passed in [
        "basic",
        "allow_unencrypted",
        "credssp",
        "authentication",
        "compatibility_listeners",
        "root_sddl",
        "certificate_mappings",
    ] {
        assert_eq!(verdicts[passed], Verdict::Pass, "{passed}: {}", found(&posture, passed));
    }
    for unknown in
        ["certificate_trusted", "certificate_bound", "firewall_scope", "log_security", "session_configurations"]
    {
        assert_eq!(verdicts[unknown], Verdict::Unknown, "{unknown}: {}", found(&posture, unknown));
    }
    assert_eq!(host.statistics().shells.opened, 0, "a shell was opened");
    clean(&host);
    host.stop().await;
}

/// A host that was hardened, over https, with the script.
#[tokio::test]
async fn a_hardened_host_passes_but_for_the_certificate_of_this_test() {
    let made = certificate::make().expect("certificates");
    let options = winsim::Options {
        tls: Some(made.tls),
        channel_bindings: winsim::ChannelBindings::Strict,
        ..winsim::Options::default()
    };
    let host = host(options).await;
    let target = target(&host, Some(&made.ca));
    // The thumbprint is the host's own.
    let before = look(&target, false).await;
    assert_eq!(verdicts(&before)["certificate_bound"], Verdict::Pass, "{}", found(&before, "certificate_bound"));
    let thumbprint = before.connection.tls.as_ref().expect("TLS").thumbprint.clone();
    host.order(Order::Configure(Configuration {
        settings: [
            ("Service/IPv4Filter", "192.0.2.1-192.0.2.20"),
            ("Service/IPv6Filter", ""),
            ("Service/RootSDDL", "O:NSG:BAD:P(A;;GA;;;BA)(A;;GA;;;RM)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        listeners: Some(vec![Listener {
            address: "IP:192.0.2.7".to_owned(),
            transport: "HTTPS".to_owned(),
            port: 5986,
            certificate_thumbprint: thumbprint,
            listening_on: vec!["192.0.2.7".to_owned()],
            ..Listener::default()
        }]),
        ..Configuration::default()
    }))
    .await;
    can(&host, format!("somebody's profile says hello\r\n{ANSWER}\r\n"), 0).await;
    let posture = look(&target, true).await;
    for row in &posture.rows {
        // It lives for two days.
        let expected = if row.check == "certificate_expiry" { Verdict::Fail } else { Verdict::Pass };
        assert_eq!(row.verdict, expected, "{row:?}");
    }
    assert_eq!((posture.count(Verdict::Fail), posture.count(Verdict::Unknown)), (1, 0));
    clean(&host);
    host.stop().await;
}

#[tokio::test]
async fn defects_that_the_host_tells_fail_and_policies_are_named() {
    let host = host(winsim::Options::default()).await;
    host.order(Order::Configure(Configuration {
        settings: [
            ("Service/Auth/Basic", "true"),
            ("Service/Auth/CredSSP", "true"),
            ("Service/Auth/Certificate", "true"),
            ("Service/AllowUnencrypted", "true"),
            ("Service/EnableCompatibilityHttpListener", "true"),
            ("Service/RootSDDL", "O:NSG:BAD:P(A;;GA;;;BA)(A;;GXGR;;;WD)"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        by_policy: ["Service/Auth/Basic".to_owned()].into(),
        mappings: vec![Mapping {
            uri: "*".to_owned(),
            subject: "*".to_owned(),
            issuer: "00".repeat(20),
            user_name: "runner".to_owned(),
            enabled: true,
        }],
        ..Configuration::default()
    }))
    .await;
    let posture = look(&target(&host, None), false).await;
    for failed in [
        "basic",
        "credssp",
        "authentication",
        "allow_unencrypted",
        "compatibility_listeners",
        "root_sddl",
        "certificate_mappings",
    ] {
        assert_eq!(verdicts(&posture)[failed], Verdict::Fail, "{failed}: {}", found(&posture, failed));
    }
    assert!(found(&posture, "root_sddl").contains("Everyone"));
    let basic = posture.rows.iter().find(|row| row.check == "basic").expect("a row");
    assert!(basic.fix.starts_with("A group policy sets it"), "{basic:?}");
    host.stop().await;
}

/// Who is no administrator sees nothing of the configuration, and the script still tells what it can.
#[tokio::test]
async fn without_rights_the_configuration_is_unknown_and_nothing_is_assumed() {
    let host = host(winsim::Options { standard_users: vec![USER.to_owned()], ..winsim::Options::default() }).await;
    can(&host, ANSWER.to_owned(), 0).await;
    let posture = look(&target(&host, None), true).await;
    for row in &posture.rows {
        let expected = match row.check {
            // The connection itself came over http.
            "https_only" => Verdict::Fail,
            "firewall_scope" | "script_block_logging" | "session_configurations" => Verdict::Pass,
            log if log.starts_with("log_") => Verdict::Pass,
            _ => Verdict::Unknown,
        };
        assert_eq!(row.verdict, expected, "{row:?}");
    }
    assert!(found(&posture, "basic").contains("access denied"), "{}", found(&posture, "basic"));
    clean(&host);
    host.stop().await;
}

#[tokio::test]
async fn a_script_without_a_good_answer_leaves_its_rows_unknown() {
    let host = host(winsim::Options::default()).await;
    let target = target(&host, None);
    let huge = "x".repeat(900 * 1024);
    for (stdout, exit_code, why) in [
        (String::new(), 1, "the script wrote no answer (exit code 1)"),
        ("garbage \u{1b}[2J\r\n".to_owned(), 0, "no answer"),
        ("{\"lictor_posture\":1,\"items\":".to_owned(), 0, "no JSON"),
        ("{\"lictor_posture\":1,\"items\":[]}".to_owned(), 0, "did not read it"),
        (huge, 0, "no answer"),
    ] {
        can(&host, stdout, exit_code).await;
        let posture = look(&target, true).await;
        for check in ["firewall_scope", "script_block_logging", "log_winrm", "session_configurations"] {
            assert_eq!(verdicts(&posture)[check], Verdict::Unknown);
            assert!(found(&posture, check).contains(why), "{check}: {}", found(&posture, check));
        }
        assert_eq!(verdicts(&posture)["basic"], Verdict::Pass);
    }
    // A host that gives no shell.
    let fault = winsim::OrderedFault { operation: "Create".to_owned(), code: 5, times: 1, done: false, style: None };
    host.order(Order::Fault(fault)).await;
    let posture = look(&target, true).await;
    assert!(found(&posture, "log_winrm").contains("could not be run"), "{}", found(&posture, "log_winrm"));
    clean(&host);
    host.stop().await;
}

#[tokio::test]
async fn a_script_that_does_not_end_in_time_leaves_the_other_rows() {
    let host = host(winsim::Options::default()).await;
    let delays = BTreeMap::from([("Command".to_owned(), winsim::Delay(Duration::from_secs(3600)))]);
    host.order(Order::Slow(winsim::Slow { delays, trickle: None })).await;
    let pool = Pool::new(PoolSettings::default());
    let deadline = Instant::now() + Duration::from_secs(10);
    // Whoever asks waits little longer than until then.
    let patient = deadline + Duration::from_secs(2);
    let target = target(&host, None);
    let looked = tokio::time::timeout_at(patient, inspect(&pool, &target, Options::default(), deadline));
    let posture = looked.await.expect("it ends in time").expect("what was told before stays");
    assert_eq!(verdicts(&posture)["basic"], Verdict::Pass);
    assert!(found(&posture, "log_winrm").contains("did not end in time"), "{}", found(&posture, "log_winrm"));
    // The shell is the pool's to delete.
    assert_eq!(pool.close(Instant::now() + Duration::from_secs(30)).await, 0);
    clean(&host);
    host.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_is_an_error() {
    let host = host(winsim::Options::default()).await;
    let credential = Credential::password(USER, Secret::new("wrong".to_owned()));
    let target = Target { credential, ..target(&host, None) };
    let error = inspect(
        &Pool::new(PoolSettings::default()),
        &target,
        Options::default(),
        Instant::now() + Duration::from_secs(30),
    )
    .await
    .expect_err("refused");
    assert!(error.credential_rejected(), "{}", error.report());
    assert_eq!(host.statistics().authentication.failed_logons.values().sum::<u64>(), 1);
    host.stop().await;
}

#[tokio::test]
async fn an_outage_is_an_error() {
    let host = host(winsim::Options::default()).await;
    host.order(Order::Unavailable(1000)).await;
    let outcome = inspect(
        &Pool::new(PoolSettings::default()),
        &target(&host, None),
        Options::default(),
        Instant::now() + Duration::from_secs(30),
    )
    .await;
    assert!(outcome.is_err());
    host.stop().await;
}

/// Listings come page by page, and half of one is never taken for the whole.
#[tokio::test]
async fn listeners_are_read_page_by_page_to_their_end() {
    let host = host(winsim::Options { max_batch_items: 1, ..winsim::Options::default() }).await;
    let listeners = |count: usize| {
        let last = Listener { listening_on: vec!["::1".to_owned()], ..Listener::default() };
        let other =
            Listener { transport: "HTTPS".to_owned(), listening_on: vec!["192.0.2.7".to_owned()], ..last.clone() };
        let mut all = vec![other; count - 1];
        all.push(last);
        Order::Configure(Configuration { listeners: Some(all), ..Configuration::default() })
    };
    host.order(listeners(3)).await;
    let posture = look(&target(&host, None), false).await;
    assert!(found(&posture, "listening_addresses").contains("::1"), "{}", found(&posture, "listening_addresses"));
    host.order(listeners(50)).await;
    let outcome = inspect(
        &Pool::new(PoolSettings::default()),
        &target(&host, None),
        Options { script: false },
        Instant::now() + Duration::from_secs(30),
    )
    .await;
    assert!(outcome.expect_err("no end").report().to_string().contains("without end"));
    host.stop().await;
}
