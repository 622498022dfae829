//! The examination of the way to a ticket: each cause is provoked, and answers with its code.

#![expect(clippy::panic, reason = "what is exempt in tests should be so in the functions that they share")]

mod accounts;
mod kdcs;
mod names;
mod services;
mod settings;
mod tickets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_doctor::{Check, KerberosSubject, Outcome, Report, Step, Subject, examine};
use lictor_kerberos::config::{Source, Watch};
use lictor_kerberos::{CredentialSource, Identity, Kerberos};
use lictor_tests::Kdc;
use lictor_winrm::Target;
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Timeouts,
    TlsPolicy,
};
use tokio::time::Instant;

/// Checks of this half, in the order in which they come.
const ORDER: [Check; 12] = [
    Check::Krb5Conf,
    Check::Realm,
    Check::KdcNames,
    Check::KdcUdp,
    Check::KdcTcp,
    Check::Clock,
    Check::Principal,
    Check::Login,
    Check::HostName,
    Check::Resolve,
    Check::Reverse,
    Check::Service,
];

fn manager(source: &Source) -> Kerberos {
    Kerberos::new(Arc::new(Watch::start(source.clone(), None).unwrap()))
}

fn file(path: PathBuf) -> Source {
    Source::File(path)
}

/// With a manager of its own, as each invocation of a program has one.
fn subject(source: Source, identity: Option<Identity>, target: Option<Target>) -> Subject {
    let manager = Some(manager(&source));
    Subject { target, kerberos: Some(KerberosSubject { source, manager, identity }), usual_ports: true }
}

fn password(principal: &str, password: &str) -> Identity {
    identity(principal, CredentialSource::Password(password.to_owned().into()))
}

fn identity(principal: &str, source: CredentialSource) -> Identity {
    Identity { principal: principal.to_owned(), realm: None, source, fresh: false }
}

/// A host that is not there: what is examined here ends before it.
fn target(host: &str) -> Target {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Target {
        endpoint: Endpoint::new(Scheme::Http, host, Some(port), None).unwrap(),
        auth: AuthKind::Ntlm,
        credential: Credential::password("alice", Secret::new("Not-Sent-1".to_owned())),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: false,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}

/// Connects to this machine, and asks for tickets of another name.
pub(crate) fn target_named(spn_host: String) -> Target {
    let mut target = target("localhost");
    target.kerberos.spn_host = Some(spn_host);
    target
}

fn host_name(kdc: &Kdc, host: &str) -> String {
    format!("{host}.{}", kdc.realm().to_lowercase())
}

pub(crate) async fn look(subject: &Subject) -> Report {
    let mut told = 0;
    let report = examine(subject, Instant::now() + Duration::from_secs(90), |_| told += 1).await;
    assert_eq!(told, report.steps.len(), "each step is told of when it is taken");
    // In their order, each once, and what is doubtful has a finding.
    let places: Vec<usize> =
        report.steps.iter().filter_map(|step| ORDER.iter().position(|check| *check == step.check)).collect();
    assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]), "{:#?}", report.steps);
    for step in report.steps.iter().filter(|step| ORDER.contains(&step.check)) {
        let wanted = matches!(step.outcome, Outcome::Failed | Outcome::Warning);
        assert!(!wanted || step.finding.is_some(), "{step:#?}");
        assert!(step.outcome != Outcome::Skipped || !step.detail.is_empty(), "{step:#?}");
    }
    report
}

pub(crate) fn step(report: &Report, check: Check) -> &Step {
    report.steps.iter().find(|step| step.check == check).unwrap_or_else(|| panic!("no {check}: {:#?}", report.steps))
}

pub(crate) fn outcome(report: &Report, check: Check) -> Outcome {
    step(report, check).outcome
}

/// Code of the finding of a step; empty when it has none.
fn code(report: &Report, check: Check) -> &str {
    step(report, check).finding.as_ref().map_or("", |finding| &finding.code)
}

#[track_caller]
pub(crate) fn found(report: &Report, check: Check, outcome: Outcome, code: &str) {
    let step = step(report, check);
    let has = step.finding.as_ref().map_or("", |finding| &finding.code);
    assert_eq!((step.outcome, has), (outcome, code), "{:#?}", report.steps);
    if let Some(finding) = &step.finding {
        assert!(!finding.message.is_empty() && !finding.cause.is_empty() && !finding.remedy.is_empty(), "{finding:#?}");
    }
}

/// krb5.conf of a KDC's clients with other KDCs for its realm.
fn with_kdcs(kdc: &Kdc, name: &str, kdcs: &[String]) -> Source {
    let realm = kdc.realm();
    let listed: String = kdcs.iter().map(|kdc| format!("  kdc = {kdc}\n")).collect();
    let text = format!(
        "[libdefaults]\n default_realm = {realm}\n dns_lookup_kdc = false\n rdns = false\n[realms]\n {realm} = {{\n{listed} }}\n"
    );
    written(kdc, name, &text)
}

fn written(kdc: &Kdc, name: &str, text: &str) -> Source {
    let path = kdc.path(name);
    std::fs::write(&path, text).unwrap();
    file(path)
}
