use super::super::answer;
use super::super::answer::tests::{BAD, GOOD, PARTIAL};
use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 60 * 60;
const THUMBPRINT: &str = "0F1E2D3C4B5A69788796A5B4C3D2E1F001234567";
const SDDL: &str = "O:NSG:BAD:P(A;;GA;;;BA)(A;;GA;;;RM)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)";

fn told<T>(value: T) -> Option<Setting<T>> {
    Some(Setting { value, by_policy: false })
}

/// A host, as the tests change it.
struct Host {
    endpoint: Endpoint,
    tls: Option<TlsInfo>,
    config: Config,
    listeners: Vec<Listener>,
    mappings: Vec<CertificateMapping>,
    script: Script,
}

impl Host {
    /// Everything as it should be.
    fn good() -> Self {
        let mut config = Config::default();
        let service = &mut config.service;
        service.root_sddl = told(SDDL.to_owned());
        service.allow_unencrypted = told(false);
        service.auth.basic = told(false);
        service.auth.kerberos = told(true);
        service.auth.negotiate = told(true);
        service.auth.certificate = told(false);
        service.auth.credssp = told(false);
        service.auth.cbt_hardening_level = told(CbtHardeningLevel::Strict);
        service.ipv4_filter = told("192.0.2.1-192.0.2.20".to_owned());
        service.ipv6_filter = told(String::new());
        service.compatibility_http_listener = told(false);
        service.compatibility_https_listener = told(false);
        let listener = Listener {
            address: Some("IP:192.0.2.7".to_owned()),
            transport: Some("HTTPS".to_owned()),
            port: Some(5986),
            enabled: Some(true),
            certificate_thumbprint: Some(THUMBPRINT.to_ascii_lowercase()),
            listening_on: vec!["192.0.2.7".to_owned()],
            ..Listener::default()
        };
        Self {
            endpoint: Endpoint::new(Scheme::Https, "win01.corp.example", None, None).unwrap(),
            tls: Some(TlsInfo {
                version: "TLSv1.3".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                subject: "CN=win01.corp.example".to_owned(),
                issuer: "CN=Corp Issuing CA".to_owned(),
                not_after: "Jan  1 00:00:00 2028 GMT".to_owned(),
                not_after_unix: NOW + 90 * DAY,
                thumbprint: THUMBPRINT.to_owned(),
                self_issued: false,
                trusted: true,
                unchecked: None,
            }),
            config,
            listeners: vec![listener],
            mappings: Vec::new(),
            script: script(GOOD),
        }
    }

    fn rows(&self) -> Vec<Row> {
        judge(&Evidence {
            endpoint: &self.endpoint,
            tls: self.tls.as_ref(),
            config: Ok(&self.config),
            listeners: Ok(&self.listeners),
            mappings: Ok(&self.mappings),
            script: &self.script,
            now_unix: NOW,
        })
    }

    fn row(&self, check: &str) -> (Verdict, String) {
        let row = self.rows().into_iter().find(|row| row.check == check).unwrap();
        (row.verdict, row.found)
    }

    fn verdict(&self, check: &str) -> Verdict {
        self.row(check).0
    }
}

fn script(text: &str) -> Script {
    Script::Answered(Box::new(answer::parse(text.as_bytes()).unwrap()))
}

fn changed(change: impl FnOnce(&mut Host)) -> Host {
    let mut host = Host::good();
    change(&mut host);
    host
}

#[test]
fn a_host_where_everything_is_as_it_should_be_passes_everywhere() {
    for row in Host::good().rows() {
        assert_eq!(row.verdict, Verdict::Pass, "{row:?}");
        assert!(!row.found.is_empty() && !row.wanted.is_empty() && !row.fix.is_empty(), "{row:?}");
    }
}

/// Each defect fails its own row.
#[test]
fn each_defect_is_found() {
    type Change = fn(&mut Host);
    let defects: &[(&str, Change)] = &[
        ("https_only", |host| {
            let listener = Listener { transport: Some("http".to_owned()), ..host.listeners[0].clone() };
            host.listeners.push(listener);
        }),
        ("https_only", |host| host.listeners[0].enabled = Some(false)),
        ("https_only", |host| host.endpoint = Endpoint::new(Scheme::Http, "h", None, None).unwrap()),
        ("certificate_trusted", |host| host.tls.as_mut().unwrap().self_issued = true),
        ("certificate_trusted", |host| {
            let tls = host.tls.as_mut().unwrap();
            (tls.trusted, tls.unchecked) = (false, Some("unable to get local issuer certificate".to_owned()));
        }),
        ("certificate_expiry", |host| host.tls.as_mut().unwrap().not_after_unix = NOW + 13 * DAY),
        ("certificate_expiry", |host| host.tls.as_mut().unwrap().not_after_unix = NOW - 1),
        ("certificate_bound", |host| host.tls.as_mut().unwrap().thumbprint = "AA".repeat(20)),
        ("listening_addresses", |host| host.listeners[0].listening_on.push("::1".to_owned())),
        ("listening_addresses", |host| host.listeners[0].listening_on.push("127.8.0.1".to_owned())),
        ("listening_addresses", |host| {
            (host.listeners[0].address, host.listeners[0].listening_on) = (Some("IP:127.0.0.1".to_owned()), Vec::new());
        }),
        ("listening_addresses", |host| {
            (host.listeners[0].address, host.listeners[0].listening_on) = (Some("ip:::1".to_owned()), Vec::new());
        }),
        ("listening_addresses", |host| {
            host.listeners[0].address = Some("*".to_owned());
            host.config.service.ipv4_filter = told("*".to_owned());
        }),
        ("ipv4_filter", |host| host.config.service.ipv4_filter = told("*".to_owned())),
        ("ipv4_filter", |host| host.config.service.ipv4_filter = told("0.0.0.0-255.255.255.255".to_owned())),
        ("ipv6_filter", |host| host.config.service.ipv6_filter = told("*".to_owned())),
        ("compatibility_listeners", |host| host.config.service.compatibility_https_listener = told(true)),
        ("basic", |host| host.config.service.auth.basic = told(true)),
        ("allow_unencrypted", |host| host.config.service.allow_unencrypted = told(true)),
        ("credssp", |host| host.config.service.auth.credssp = told(true)),
        ("authentication", |host| host.config.service.auth.certificate = told(true)),
        ("authentication", |host| {
            let auth = &mut host.config.service.auth;
            (auth.kerberos, auth.negotiate) = (told(false), told(false));
        }),
        ("channel_bindings", |host| {
            host.config.service.auth.cbt_hardening_level = told(CbtHardeningLevel::Relaxed);
        }),
        ("channel_bindings", |host| host.config.service.auth.cbt_hardening_level = told(CbtHardeningLevel::None)),
        ("certificate_mappings", |host| {
            let subject = Some("*".to_owned());
            host.mappings.push(CertificateMapping { subject, enabled: Some(true), ..CertificateMapping::default() });
        }),
        ("root_sddl", |host| host.config.service.root_sddl = told(SDDL.replace(";;;RM", ";;;WD"))),
        ("firewall_scope", |host| host.script = script(BAD)),
        ("firewall_scope", |host| host.script = script(&GOOD.replacen("\"True\"", "\"False\"", 1))),
        ("firewall_scope", |host| host.script = script(&GOOD.replacen("\"Block\"", "\"Allow\"", 1))),
        ("script_block_logging", |host| host.script = script(BAD)),
        ("log_security", |host| host.script = script(BAD)),
        ("log_winrm", |host| host.script = script(BAD)),
        ("log_powershell", |host| host.script = script(BAD)),
        ("session_configurations", |host| host.script = script(BAD)),
    ];
    for (index, (check, change)) in defects.iter().enumerate() {
        let host = changed(*change);
        let (verdict, found) = host.row(check);
        assert_eq!(verdict, Verdict::Fail, "defect {index}, {check}: {found}");
        assert!(!found.is_empty());
    }
    // And every row has a defect here.
    for (check, _) in JUDGES {
        assert!(defects.iter().any(|(name, _)| *name == check.name), "{} has no defect", check.name);
    }
}

#[test]
fn what_is_not_told_is_unknown_everywhere() {
    let refused =
        || Err("the host does not tell it to this user (access denied): it takes an administrator".to_owned());
    let endpoint = Endpoint::new(Scheme::Https, "h", None, None).unwrap();
    let rows = judge(&Evidence {
        endpoint: &endpoint,
        tls: None,
        config: refused().map(|()| unreachable!()),
        listeners: refused().map(|()| unreachable!()),
        mappings: refused().map(|()| unreachable!()),
        script: &Script::LeftOut,
        now_unix: NOW,
    });
    assert!(rows.iter().all(|row| row.verdict == Verdict::Unknown && !row.found.is_empty()), "{rows:?}");
    let nothing = Host { config: Config::default(), listeners: vec![Listener::default()], ..Host::good() };
    for row in nothing.rows() {
        let of_config = !row.check.starts_with("certificate") || row.check == "certificate_bound";
        let of_script = JUDGES.iter().rev().take(6).any(|(check, _)| check.name == row.check);
        if of_config && !of_script {
            assert_eq!(row.verdict, Verdict::Unknown, "{row:?}");
        }
    }
}

/// Without rights the script tells some of it.
#[test]
fn each_item_of_the_script_stands_for_itself() {
    let host = changed(|host| host.script = script(PARTIAL));
    assert_eq!(host.verdict("firewall_scope"), Verdict::Unknown);
    assert_eq!(host.verdict("script_block_logging"), Verdict::Fail);
    let (verdict, found) = host.row("log_security");
    assert_eq!(verdict, Verdict::Unknown);
    assert!(found.contains("may not read it"), "{found}");
    assert_eq!(host.verdict("log_winrm"), Verdict::Unknown);
    let failed = changed(|host| host.script = Script::Failed("the script did not end in time".to_owned()));
    assert_eq!(failed.row("log_security"), (Verdict::Unknown, "the script did not end in time".to_owned()));
    assert_eq!(failed.verdict("basic"), Verdict::Pass);
}

/// A profile passes for what it says, and not for what it leaves out.
#[test]
fn a_profile_that_does_not_say_what_it_does_is_unknown() {
    for inbound in ["\"NotConfigured\"", "\"\"", "\"blocked\"", "null", "7", "{}"] {
        let host = changed(|host| host.script = script(&GOOD.replacen("\"Block\"", inbound, 1)));
        assert_eq!(host.verdict("firewall_scope"), Verdict::Unknown, "{inbound}");
    }
    let host = changed(|host| host.script = script(&GOOD.replacen(",\"inbound\":\"Block\"", "", 1)));
    assert_eq!(host.verdict("firewall_scope"), Verdict::Unknown);
}

#[test]
fn a_mapping_that_could_not_be_read_is_unknown() {
    let host = changed(|host| host.mappings.push(CertificateMapping::default()));
    assert_eq!(host.verdict("certificate_mappings"), Verdict::Unknown);
}

#[test]
fn http_that_was_used_is_http_that_is_served() {
    let host = changed(|host| {
        host.endpoint = Endpoint::new(Scheme::Http, "h", None, None).unwrap();
        host.tls = None;
    });
    let mut evidence = Evidence {
        endpoint: &host.endpoint,
        tls: None,
        config: Ok(&host.config),
        listeners: Err("no".to_owned()),
        mappings: Ok(&[]),
        script: &host.script,
        now_unix: NOW,
    };
    let first = |evidence: &Evidence<'_>| judge(evidence).remove(0);
    assert_eq!((first(&evidence).check, first(&evidence).verdict), ("https_only", Verdict::Fail));
    let https = Endpoint::new(Scheme::Https, "h", None, None).unwrap();
    evidence.endpoint = &https;
    assert_eq!(first(&evidence).verdict, Verdict::Unknown);
    assert_eq!(host.verdict("certificate_trusted"), Verdict::Unknown);
}

#[test]
fn a_check_that_was_skipped_proves_no_name() {
    let host = changed(|host| host.tls.as_mut().unwrap().unchecked = Some("its name was not compared".to_owned()));
    assert_eq!(host.verdict("certificate_trusted"), Verdict::Unknown);
}

#[test]
fn a_listener_for_every_address_is_judged_by_the_filters() {
    let host = changed(|host| host.listeners[0].address = Some("*".to_owned()));
    assert_eq!(host.verdict("listening_addresses"), Verdict::Pass);
    let odd = changed(|host| {
        host.listeners[0].address = Some("*".to_owned());
        host.config.service.ipv6_filter = told("whatever".to_owned());
    });
    assert_eq!(odd.verdict("listening_addresses"), Verdict::Unknown);
    assert_eq!(odd.verdict("ipv6_filter"), Verdict::Unknown);
    let off = changed(|host| {
        let listening_on = vec!["127.0.0.1".to_owned()];
        host.listeners.push(Listener { enabled: Some(false), listening_on, ..host.listeners[0].clone() });
    });
    assert_eq!(off.verdict("listening_addresses"), Verdict::Pass);
}

#[test]
fn a_policy_is_where_the_fix_is() {
    let host = changed(|host| {
        host.config.service.auth.basic = Some(Setting { value: true, by_policy: true });
        host.listeners[0].transport = Some("HTTP".to_owned());
        host.listeners[0].source = Some("GPO".to_owned());
    });
    for check in ["basic", "https_only"] {
        let row = host.rows().into_iter().find(|row| row.check == check).unwrap();
        assert!(row.fix.starts_with("A group policy sets it"), "{row:?}");
    }
    let local = Host::good().rows();
    assert!(local.iter().all(|row| !row.fix.starts_with("A group policy sets it")));
}

#[test]
fn a_port_that_no_rule_opens_is_not_taken_for_a_narrow_one() {
    let start = GOOD.find("\"rules\":[").unwrap();
    let end = GOOD[start..].find("]}]").unwrap() + start;
    let without = format!("{}\"rules\":[{}", &GOOD[..start], &GOOD[end + 2..]);
    assert_eq!(changed(|host| host.script = script(&without)).verdict("firewall_scope"), Verdict::Unknown);
    let silent = GOOD.replace("[\"192.0.2.10\",\"192.0.2.16/28\"]", "null");
    assert_eq!(changed(|host| host.script = script(&silent)).verdict("firewall_scope"), Verdict::Unknown);
}

#[test]
fn what_hosts_say_is_cut_and_cannot_steer_terminals() {
    let host = changed(|host| {
        host.config.service.ipv4_filter = told(format!("a\u{1b}[2J{}", "x".repeat(5000)));
        host.listeners[0].address = Some("y".repeat(5000));
    });
    for row in host.rows() {
        assert!(row.found.chars().count() <= 1003 && !row.found.contains(char::is_control), "{}", row.check);
    }
}

#[test]
fn names_are_told_once_each() {
    let mut names: Vec<_> = JUDGES.iter().map(|(check, _)| check.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), JUDGES.len());
}

/// The page explains every row, and no other.
#[test]
fn the_page_has_every_row() {
    let page = include_str!("../../../../docs/posture.md");
    let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let rows: Vec<&str> = JUDGES.iter().map(|(check, _)| check.name).collect();
    assert_eq!(told, rows, "docs/posture.md has other rows, or in another order");
    // Lines are wrapped there.
    let flat = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for (check, _) in JUDGES {
        let (wanted, fix) = (check.wanted, check.fix.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(flat.contains(&format!("Wanted: {wanted}.")), "docs/posture.md does not say what {} wants", check.name);
        assert!(flat.contains(&fix), "docs/posture.md does not have the fix of {}:\n{fix}", check.name);
    }
}
