//! `lictor winrm`: one host, without a control plane.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use lictor_tests::{PASSWORD, Stack, USER, WindowsOptions};

#[test]
fn test_run_and_script_work_over_each_kind_of_connection() -> Result<()> {
    let stack = Stack::start(&[])?;
    let http = stack.windows(
        "win-a",
        &WindowsOptions { tls: false, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() },
    )?;
    let all = ["--auth", "basic,ntlm,negotiate"];
    let https = stack.windows("win-b", &WindowsOptions { tls: true, arguments: &all, ..WindowsOptions::default() })?;
    let password = stack.directory().join("password-direct");
    std::fs::write(&password, PASSWORD)?;
    let password = password.to_str().context("UTF-8")?;
    let ca = stack.certificates.ca.to_str().context("UTF-8")?;
    let script = stack.directory().join("direct.ps1");
    std::fs::write(&script, "Write-Output 'from a script'\nexit 37")?;
    let script = script.to_str().context("UTF-8")?;
    let kinds: [(&lictor_tests::Windows, &[&str], bool); 6] = [
        (&http, &["--scheme", "http", "--auth", "ntlm"], true),
        (&http, &["--scheme", "http", "--auth", "negotiate"], true),
        (&https, &["--scheme", "https", "--auth", "basic", "--ca", ca], false),
        (&https, &["--scheme", "https", "--auth", "ntlm", "--ca", ca], false),
        (&https, &["--scheme", "https", "--auth", "negotiate", "--ca", ca, "--message-encryption", "always"], true),
        (&https, &["--scheme", "https", "--auth", "negotiate", "--skip-cert-check"], false),
    ];
    for (windows, options, sealed) in kinds {
        let common = ["--host", "127.0.0.1", "--port", &windows.port, "--user", USER, "--password-file", password];
        let with = |verb: &str, rest: &[&str]| -> Result<lictor_tests::Output> {
            stack.lictor(&[&["winrm", verb], &common[..], options, rest].concat())
        };
        let output = with("test", &[])?;
        assert_eq!(output.code, 0, "{options:?}\n{}\n{}", output.text(), output.stderr);
        let output = with("run", &["--output", "json", "--", "echo", "hi"])?;
        let json = output.json()?;
        assert_eq!(json["stdout"].as_str().map(str::trim_end), Some("hi"), "{json:#}");
        assert_eq!(json["connection"]["sealed"], sealed, "{options:?} {json:#}");
        assert_eq!(json["exit_code"], 0);
        let output = with("script", &["--file", script])?;
        assert_eq!(output.code, 37, "{options:?}\n{}", output.stderr);
        assert_eq!(output.text().trim_end(), "from a script");
        assert_eq!(windows.count("/shells/open")?, 0);
        assert_eq!(windows.count("/violation_count")?, 0, "{:#}", windows.statistics()?);
    }
    Ok(())
}

#[test]
fn our_standard_input_is_sent_as_it_comes() -> Result<()> {
    let stack = Stack::start(&[])?;
    let windows = stack.windows("win-a", &WindowsOptions::default())?;
    let password = stack.directory().join("password-direct");
    std::fs::write(&password, PASSWORD)?;
    let mut lictor = Command::new(lictor_tests::binary("lictor")?)
        .args(["winrm", "run", "--host", "127.0.0.1", "--scheme", "http", "--port", &windows.port, "--user", USER])
        .args(["--password-file", password.to_str().context("UTF-8")?, "--stdin", "-", "--", "sim.exe", "stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = lictor.stdin.take().context("stdin")?;
    let mut output = BufReader::new(lictor.stdout.take().context("stdout")?).lines();
    // Each line comes back before the next one is sent: while one is waited for, input goes another way.
    for line in ["first", "zweite Zeile: äöü", "last"] {
        writeln!(input, "{line}")?;
        assert_eq!(output.next().context("no answer")??, line);
    }
    drop(input);
    assert!(output.next().is_none());
    assert_eq!(lictor.wait()?.code(), Some(0));
    assert_eq!(windows.count("/shells/open")?, 0);
    assert_eq!(windows.count("/violation_count")?, 0, "{:#}", windows.statistics()?);
    assert!(windows.count("/connections/opened")? >= 2, "{:#}", windows.statistics()?);
    Ok(())
}

#[test]
fn basic_over_plain_http_is_refused_before_anything_is_sent() -> Result<()> {
    let stack = Stack::start(&[])?;
    let arguments = ["--auth", "basic", "--allow-unencrypted"];
    let windows =
        stack.windows("win-a", &WindowsOptions { tls: false, arguments: &arguments, ..WindowsOptions::default() })?;
    let password = stack.directory().join("password-direct");
    std::fs::write(&password, PASSWORD)?;
    let password = password.to_str().context("UTF-8")?;
    let base = ["winrm", "run", "--host", "127.0.0.1", "--scheme", "http", "--port", &windows.port, "--user", USER];
    let options = ["--password-file", password, "--auth", "basic"];
    let refused = stack.lictor(&[&base[..], &options, &["--", "hostname"]].concat())?;
    assert!(refused.code >= 120, "{}", refused.code);
    assert!(refused.stderr.to_lowercase().contains("basic"), "{}", refused.stderr);
    assert_eq!(windows.count("/connections/opened")?, 0, "{:#}", windows.statistics()?);
    let allowed = stack.lictor(&[&base[..], &options, &["--allow-basic-over-http", "--", "hostname"]].concat())?;
    assert_eq!(allowed.code, 0, "{}", allowed.stderr);
    Ok(())
}

#[test]
fn an_untrusted_certificate_and_a_wrong_password_name_their_stage() -> Result<()> {
    let stack = Stack::start(&[])?;
    let windows = stack.windows(
        "win-b",
        &WindowsOptions { tls: true, arguments: &["--auth", "basic,negotiate"], ..WindowsOptions::default() },
    )?;
    let password = stack.directory().join("password-direct");
    std::fs::write(&password, "wrong")?;
    let password = password.to_str().context("UTF-8")?;
    let base = ["winrm", "run", "--host", "127.0.0.1", "--port", &windows.port, "--user", USER, "--password-file"];
    let output = stack.lictor(&[&base[..], &[password, "--output", "json", "--", "hostname"]].concat())?;
    let json = output.json()?;
    assert_eq!(json["error"]["stage"], "tls", "{json:#}");
    let ca = stack.certificates.ca.to_str().context("UTF-8")?;
    let output = stack.lictor(&[&base[..], &[password, "--ca", ca, "--output", "json", "--", "hostname"]].concat())?;
    let json = output.json()?;
    assert_eq!(json["error"]["stage"], "authenticate", "{json:#}");
    assert_eq!(json["error"]["code"], "auth.rejected", "{json:#}");
    assert!(json["error"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{json:#}");
    assert_eq!(windows.failed_logons()?, 1);
    Ok(())
}

/// A host as Windows leaves it, and its rows: those that fail end the command with a code of their own.
#[test]
fn posture_fails_with_its_own_code_and_leaves_nothing_behind() -> Result<()> {
    let stack = Stack::start(&[])?;
    let windows = stack.windows("win-b", &WindowsOptions { tls: true, ..WindowsOptions::default() })?;
    let password = stack.directory().join("password-direct");
    std::fs::write(&password, PASSWORD)?;
    let (password, ca) = (password.to_str().context("UTF-8")?, stack.certificates.ca.to_str().context("UTF-8")?);
    let common = ["winrm", "posture", "--host", "127.0.0.1", "--port", &windows.port, "--user", USER, "--ca", ca];
    let look = |rest: &[&str]| stack.lictor(&[&common[..], &["--password-file", password], rest].concat());
    let output = look(&["--output", "json", "--no-script"])?;
    assert_eq!(output.code, 137, "{}", output.stderr);
    let json = output.json()?;
    let verdict = |json: &serde_json::Value, check: &str| {
        let rows = json["rows"].as_array().cloned().unwrap_or_default();
        rows.iter().find(|row| row["check"] == check).map(|row| row["verdict"].clone())
    };
    assert_eq!(verdict(&json, "ipv4_filter"), Some("fail".into()), "{json:#}");
    assert_eq!(verdict(&json, "certificate_bound"), Some("pass".into()), "{json:#}");
    assert_eq!(verdict(&json, "firewall_scope"), Some("unknown".into()), "{json:#}");
    assert_eq!(windows.count("/shells/opened")?, 0);

    // What fails by itself is put right, and the script has an answer, though not to everything.
    windows.order(&serde_json::json!({"configure": {
        "settings": {
            "Service/IPv4Filter": "192.0.2.1-192.0.2.9", "Service/IPv6Filter": "", "Service/Auth/CbtHardeningLevel": "Strict",
        },
        "listeners": [{
            "address": "IP:192.0.2.7", "transport": "HTTPS", "port": 5986, "listening_on": ["192.0.2.7"],
        }],
    }}))?;
    let answer = "{\"lictor_posture\":1,\"items\":{\"script_block_logging\":{\"value\":{\"enabled\":1}}}}\r\n";
    windows.order(&serde_json::json!({"script": {"holds": "Lictor posture script, version 1", "stdout": answer}}))?;
    let output = look(&[])?;
    let text = output.text();
    assert!(text.contains("  ok    script_block_logging"), "{text}\n{}", output.stderr);
    assert!(text.contains("  ?     firewall_scope"), "{text}");
    // What is left is the age of this test's certificate, if that.
    let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("  FAIL")).collect();
    assert!(failed.iter().all(|line| line.contains("certificate_expiry")), "{text}");
    assert_eq!(output.code, if failed.is_empty() { 0 } else { 137 }, "{text}");
    assert_eq!(windows.count("/shells/open")?, 0);
    assert_eq!(windows.count("/violation_count")?, 0, "{:#}", windows.statistics()?);
    Ok(())
}
