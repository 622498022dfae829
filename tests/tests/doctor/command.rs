//! `lictor winrm test --explain`: the real program, a simulated host, and with Kerberos a real KDC.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lictor_tests::{Kdc, Output, Process, binary};
use serde_json::Value;

const PASSWORD: &str = "Grünes Haus 7";

struct Windows {
    _process: Process,
    port: String,
}

fn windows(directory: &Path, name: &str, arguments: &[&str]) -> Windows {
    let ready = directory.join(format!("{name}.ready"));
    let mut command = Command::new(binary("winsim").unwrap());
    command.args(["--listen", "127.0.0.1:0", "--hostname", name, "--ready-file"]).arg(&ready).args(arguments);
    let mut process = Process::start(name, &mut command, &directory.join(format!("{name}.log"))).unwrap();
    let told = process.ready(&ready).unwrap();
    let port = told["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    Windows { _process: process, port }
}

fn lictor(mut command: Command, windows: &Windows, arguments: &[&str]) -> Output {
    command
        .env_remove("LICTOR_PASSWORD")
        .env_remove("KRB5CCNAME")
        .args(["winrm", "test", "--host", "localhost", "--scheme", "http", "--port", &windows.port])
        .args(arguments);
    Output::of(&mut command, Duration::from_secs(90)).unwrap()
}

fn plain() -> Command {
    Command::new(binary("lictor").unwrap())
}

fn step<'a>(report: &'a Value, check: &str) -> &'a Value {
    report["steps"].as_array().unwrap().iter().find(|step| step["check"] == check).unwrap()
}

#[test]
fn steps_findings_and_suspects_are_told_as_text_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let (right, wrong) = (directory.path().join("right"), directory.path().join("wrong"));
    std::fs::write(&right, PASSWORD).unwrap();
    std::fs::write(&wrong, "wrong").unwrap();
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let noisy = ["--powershell-profile", "Write-Output 'hello from the profile'"];
    let host = windows(directory.path(), "win-a", &[&["--user", "bob", "--password-file", right], &noisy[..]].concat());

    let output = lictor(plain(), &host, &["--explain", "--user", "bob", "--password-file", right]);
    let text = output.text();
    assert_eq!(output.code, 0, "{text}\n{}", output.stderr);
    assert!(text.contains("  ok    http ") && text.contains("404, Microsoft-HTTPAPI/2.0"), "{text}");
    assert!(text.contains("[profile.noise]: the profile says \"hello from the profile\""), "{text}");
    assert!(text.contains("--no-powershell-profile") && text.ends_with("The host can be used.\n"), "{text}");

    let output = lictor(plain(), &host, &["--explain", "--user", "bob", "--password-file", wrong]);
    let text = output.text();
    assert_eq!(output.code, 125, "{text}\n{}", output.stderr);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
    assert!(at("authenticate [auth.rejected]") < at("1. [auth.suspect_password]"));
    assert!(at("1. [auth.suspect_password]") < at("2. [auth.suspect_domain_missing]"));

    let arguments = ["--explain", "--output", "json", "--user", "bob", "--password-file", wrong];
    let output = lictor(plain(), &host, &arguments);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.code, &report["outcome"]), (125, &Value::from("failed")), "{report:#}");
    assert_eq!(report["error"]["code"], "auth.rejected", "{report:#}");
    let suspects = step(&report, "authenticate")["finding"]["suspects"].as_array().unwrap();
    assert_eq!(suspects[1]["code"], "auth.suspect_domain_missing", "{report:#}");
    assert_eq!(step(&report, "http")["outcome"], "passed");
    assert!(!output.text().contains(PASSWORD));

    // The plain test says where more is to be had.
    let output = lictor(plain(), &host, &["--user", "bob", "--password-file", wrong]);
    assert_eq!(output.code, 125);
    assert!(output.stderr.contains("--explain"), "{}", output.stderr);
}

#[test]
fn with_kerberos_the_ticket_clears_the_password_of_suspicion() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for user in ["alice", "mallory"] {
        kdc.add_password(user, PASSWORD, &[]).unwrap();
    }
    kdc.add_random("HTTP/localhost", &[]).unwrap();
    let keytab = kdc.path("host.keytab");
    kdc.keytab(&["HTTP/localhost"], &keytab).unwrap();
    let password = kdc.path("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let logon = format!("{}=CORP\\alice", kdc.principal("alice"));
    let options = ["--auth", "negotiate,kerberos", "--keytab", keytab.to_str().unwrap(), "--principal", &logon];
    let host = windows(password.parent().unwrap(), "win-a", &options);
    let explain = |user: &str| {
        let command = kdc.command(binary("lictor").unwrap().to_str().unwrap());
        let principal = kdc.principal(user);
        let arguments =
            ["--explain", "--output", "json", "--auth", "kerberos", "--user", &principal, "--password-file"];
        let output = lictor(command, &host, &[&arguments[..], &[password.to_str().unwrap()]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
        (output.code, report)
    };
    let (code, report) = explain("alice");
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(step(&report, "authenticate")["kerberos"]["service"], kdc.principal("HTTP/localhost"), "{report:#}");
    // Good ticket, and no right to use the host.
    let (code, report) = explain("mallory");
    assert_eq!(code, 125, "{report:#}");
    let finding = &step(&report, "authenticate")["finding"];
    assert_eq!(finding["code"], "auth.ticket_refused", "{report:#}");
    let suspects: Vec<&str> =
        finding["suspects"].as_array().unwrap().iter().filter_map(|suspect| suspect["code"].as_str()).collect();
    assert_eq!(suspects, ["auth.suspect_rights", "auth.suspect_spn_account"]);
}

#[test]
fn a_krb5_conf_that_cannot_be_used_is_a_finding_and_the_host_is_looked_at_even_so() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let password = password.to_str().unwrap();
    let host = windows(directory.path(), "win-a", &["--user", "bob", "--password-file", password]);
    let broken = directory.path().join("krb5.conf");
    std::fs::write(&broken, "[libdefaults\n  default_realm = CORP.EXAMPLE\n").unwrap();
    let arguments = ["--explain", "--output", "json", "--auth", "kerberos", "--user", "bob@CORP.EXAMPLE"];
    let files = ["--password-file", password, "--krb5-conf", broken.to_str().unwrap()];
    let output = lictor(plain(), &host, &[&arguments[..], &files].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    assert_eq!(output.code, 125, "{report:#}");
    assert_eq!(step(&report, "krb5_conf")["outcome"], "failed", "{report:#}");
    assert_eq!(step(&report, "http")["outcome"], "passed", "{report:#}");
    assert_eq!(step(&report, "offered")["outcome"], "passed", "{report:#}");
    assert_ne!(step(&report, "authenticate")["outcome"], "passed", "{report:#}");
}
