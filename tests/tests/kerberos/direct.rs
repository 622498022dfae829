//! `lictor winrm` with Kerberos: a real KDC, the real program, a simulated host with a keytab of that KDC.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lictor_tests::{Kdc, Output, Process, binary};

const PASSWORD: &str = "Grünes Haus 7";

/// Flags and environment.
type Way<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// A realm with a user, a host of it that serves the user, and the user's keytab.
struct Domain {
    kdc: Kdc,
    _host: Process,
    port: String,
}

impl Domain {
    fn start() -> Self {
        let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
        kdc.add_password("alice", PASSWORD, &[]).unwrap();
        kdc.add_random("HTTP/localhost", &["+ok_as_delegate"]).unwrap();
        let host_keytab = kdc.path("host.keytab");
        kdc.keytab(&["HTTP/localhost"], &host_keytab).unwrap();
        kdc.keytab(&["alice"], &kdc.path("alice.keytab")).unwrap();
        std::fs::write(kdc.path("password"), PASSWORD).unwrap();
        let ready = kdc.path("host.ready");
        let mut command = Command::new(binary("winsim").unwrap());
        command
            .args(["--listen", "127.0.0.1:0", "--hostname", "win-a", "--auth", "negotiate,kerberos", "--keytab"])
            .arg(&host_keytab)
            .args(["--principal", &format!("{}=CORP\\alice", kdc.principal("alice")), "--ready-file"])
            .arg(&ready);
        let mut host = Process::start("win-a", &mut command, &kdc.path("host.log")).unwrap();
        let told = host.ready(&ready).unwrap();
        let port = told["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        Self { kdc, _host: host, port }
    }

    fn path(&self, name: &str) -> String {
        self.kdc.path(name).to_str().unwrap().to_owned()
    }

    fn lictor(&self, verb: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = self.kdc.command(binary("lictor").unwrap().to_str().unwrap());
        command
            .env_remove("LICTOR_PASSWORD")
            .env_remove("KRB5CCNAME")
            .envs(environment.iter().copied())
            .args(["winrm", verb, "--host", "localhost", "--scheme", "http", "--port", &self.port])
            .args(arguments);
        Output::of(&mut command, Duration::from_secs(60)).unwrap()
    }

    fn test(&self, arguments: &[&str], environment: &[(&str, &str)]) -> serde_json::Value {
        let output = self.lictor("test", &[&["--output", "json"], arguments].concat(), environment);
        assert!(!output.stdout.is_empty(), "{arguments:?} {}", output.stderr);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn rung<'a>(report: &'a serde_json::Value, stage: &str) -> &'a serde_json::Value {
    report["rungs"].as_array().unwrap().iter().find(|rung| rung["stage"] == stage).unwrap()
}

#[test]
fn the_ladder_is_climbed_with_whatever_proves_the_user() {
    let domain = Domain::start();
    let (alice, keytab, password) =
        (domain.kdc.principal("alice"), domain.path("alice.keytab"), domain.path("password"));
    let cache = format!("FILE:{}", domain.path("alice.ccache"));
    domain.kdc.kinit(&alice, PASSWORD, &cache, &[]).unwrap();
    let ways: [Way<'_>; 8] = [
        (&["--auth", "kerberos", "--keytab", &keytab], &[]),
        (&["--keytab", &keytab, "--user", "alice"], &[]),
        (&["--auth", "kerberos", "--user", &alice, "--password-file", &password], &[]),
        // A user name with a realm that krb5.conf serves chooses Kerberos by itself.
        (&["--user", &alice, "--password-file", &password], &[]),
        (&["--ccache", &cache], &[]),
        (&["--auth", "kerberos", "--kinit-mode", "manual"], &[("KRB5CCNAME", &cache)]),
        (&["--auth", "kerberos"], &[("KRB5_KTNAME", &keytab)]),
        (&["--auth", "kerberos"], &[("KRB5CCNAME", &cache)]),
    ];
    for (arguments, environment) in ways {
        let report = domain.test(arguments, environment);
        assert_eq!(report["outcome"], "succeeded", "{arguments:?} {report:#}");
        assert_eq!(report["connection"]["sealed"], true, "{arguments:?}");
        assert_eq!(report["connection"]["auth"], "negotiate-kerberos", "{arguments:?}");
        let ticket = &rung(&report, "authenticate")["kerberos"];
        assert_eq!(ticket["principal"], alice, "{arguments:?} {report:#}");
        assert_eq!(ticket["service"], domain.kdc.principal("HTTP/localhost"));
        assert_eq!(ticket["delegated"], false);
    }
    let text = domain.lictor("test", &["--keytab", &keytab, "--delegate"], &[]).text();
    assert!(text.contains("forwarded ticket"), "{text}");
    let run = domain.lictor("run", &["--keytab", &keytab, "--", "echo", "hi"], &[]);
    assert_eq!((run.code, run.text().trim_end()), (0, "hi"), "{}", run.stderr);
}

#[test]
fn failures_say_what_to_do_and_a_wrong_key_is_tried_once() {
    let domain = Domain::start();
    let (alice, keytab) = (domain.kdc.principal("alice"), domain.path("alice.keytab"));
    domain.kdc.change_password("alice", "another").unwrap();
    let before = domain.kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]);
    let output = domain.lictor("test", &["--keytab", &keytab, "--output", "json"], &[]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.code, 125, "{report:#}");
    assert_eq!(report["error"]["code"], "kerberos.keytab_rejected", "{report:#}");
    assert!(!report["error"]["remedy"].as_str().unwrap().is_empty());
    assert!(domain.kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]) <= before + 1, "{}", domain.kdc.log());

    let usage = |arguments: &[&str], words: &str| {
        let output = domain.lictor("test", arguments, &[]);
        assert!(output.code == 120 && output.stderr.contains(words), "{arguments:?} {} {}", output.code, output.stderr);
    };
    usage(&["--auth", "kerberos"], "nothing to log in with");
    usage(&["--auth", "kerberos", "--user", "CORP\\alice", "--keytab", &keytab], "user@REALM");
    usage(&["--auth", "kerberos", "--kinit-mode", "manual", "--keytab", &keytab], "--kinit-mode");
    usage(&["--auth", "ntlm", "--user", &alice, "--keytab", &keytab], "for Kerberos");
    usage(&["--auth", "kerberos", "--user", &alice, "--keytab", "/nonexistent/keytab"], "/nonexistent/keytab");
    let broken = domain.path("broken.conf");
    std::fs::write(&broken, "[libdefaults]\n  default_realm = X\n[realms\n").unwrap();
    usage(&["--auth", "kerberos", "--keytab", &keytab, "--krb5-conf", &broken], "broken.conf:3");
}

#[test]
fn a_trace_tells_the_dialogue_and_no_secret() {
    let domain = Domain::start();
    let (alice, password) = (domain.kdc.principal("alice"), domain.path("password"));
    let output = domain.lictor("test", &["--user", &alice, "--password-file", &password, "--trace"], &[]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let trace: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with('[')).collect();
    assert!(trace.iter().any(|line| line.contains(&alice)), "{}", output.stderr);
    assert!(trace.iter().any(|line| line.contains("HTTP/localhost")), "{}", output.stderr);
    assert!(!output.stderr.contains(PASSWORD), "{}", output.stderr);
    assert!(Path::new(&password).is_file());
}
