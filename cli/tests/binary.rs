//! The program as it is started: exit codes, where things are printed, and that no secret is.

#![expect(clippy::unwrap_used, reason = "clippy sees the helpers of these tests as ordinary code")]

use std::process::{Command, Output};

fn lictor(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
    for name in ["LICTOR_PASSWORD", "LICTOR_SECRET", "LICTOR_SERVER", "LICTOR_TOKEN", "LICTOR_TOKEN_FILE", "LICTOR_CA"]
    {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(data: &[u8]) -> String {
    String::from_utf8(data.to_vec()).unwrap()
}

/// Where nothing listens: no other test uses this address. A port of 127.0.0.1 that is free now is another's a moment later.
const NOBODY: &str = "127.83.0.1";

#[test]
fn mistakes_have_their_own_exit_code() {
    for arguments in [
        &[][..],
        &["unheard-of"],
        &["winrm", "run", "--host", "h", "--user", "u"],
        &["winrm", "test", "--host", "h", "--user", "u", "--password", "x"],
        &["task", "submit", "--host", "h", "--credential", "c"],
        // No password, no server, no token, a file that is not there.
        &["winrm", "test", "--host", "h", "--user", "u"],
        &["task", "list"],
        &["task", "list", "--server", "https://127.0.0.1:1"],
        &["winrm", "test", "--host", "h", "--user", "u", "--password-file", "/nonexistent"],
        // No value, a value on the command line, no user of a key, a document that is not there.
        &["secret", "put", "a"],
        &["secret", "put", "a", "--value", "x"],
        &["secret", "put", "a", "--value-file", "/nonexistent"],
        &["secret-manager", "put", "m", "aws-kms", "--key", "k"],
        &["secret-manager", "put", "--from", "/nonexistent", "--dry-run"],
    ] {
        let output = lictor(arguments, &[]);
        assert_eq!(code(&output), 120, "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    for arguments in [&["--help"][..], &["--version"], &["winrm", "run", "--help"], &["help", "task", "watch"]] {
        let output = lictor(arguments, &[]);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["winrm", "run", "--help"], &["task", "submit", "--help"]] {
        let help = text(&lictor(arguments, &[]).stdout);
        assert!(help.contains("Exit codes:") && help.contains("LICTOR_PASSWORD"), "{arguments:?}");
    }
}

#[test]
fn completion_scripts_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = lictor(&["completion", shell], &[]);
        assert_eq!(code(&output), 0);
        assert!(text(&output.stdout).contains("winrm"), "{shell}");
    }
}

#[test]
fn connectors_are_shown_without_a_control_plane() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let connector = "connector:
  identifier: corp_kms
  type: AwsKms
  spec:
    kmsArn: arn:aws:kms:eu-central-1:111122223333:alias/lictor
    credential: {type: ManualConfig, spec: {accessKey: AKIAIOSFODNN7EXAMPLE, secretKey: account.aws_key}}
";
    std::fs::write(file.path(), connector).unwrap();
    let from = ["secret-manager", "put", "--dry-run", "--from", file.path().to_str().unwrap()];
    let output = lictor(&from, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("access key AKIAIOSFODNN7EXAMPLE"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("lictor secret put aws_key --value-file FILE"), "{}", text(&output.stderr));
    let output = lictor(&[&from[..], &["--output", "json"]].concat(), &[]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["secret_managers"][0]["credentials"]["secret_access_key"]["secret"], "aws_key");
}

#[test]
fn errors_are_json_when_asked_for() {
    let output = lictor(&["task", "list", "--output", "json"], &[]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "usage.invalid");
    assert!(error["error"]["remedy"].as_str().unwrap().contains("--server"));
}

#[test]
fn a_host_that_is_not_there_is_told_by_exit_code_and_remedy() {
    let arguments = ["winrm", "test", "--host", NOBODY, "--port", "5985", "--scheme", "http", "--user", "u"];
    let output = lictor(&arguments, &[("LICTOR_PASSWORD", "p")]);
    assert_eq!(code(&output), 122, "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("connect.refused") && stdout.contains("remedy:"), "{stdout}");

    let arguments = [
        "winrm", "run", "--host", NOBODY, "--port", "5985", "--scheme", "http", "--user", "u", "--output", "json",
        "--", "ver",
    ];
    let output = lictor(&arguments, &[("LICTOR_PASSWORD", "p")]);
    assert_eq!(code(&output), 122, "{}", text(&output.stderr));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["outcome"], "failed");
    assert_eq!(result["error"]["stage"], "connect");
    assert_eq!(result["exit_code"], serde_json::Value::Null);
}

#[test]
fn a_name_without_address_is_told_apart() {
    let arguments = ["winrm", "run", "--host", "no-such-host.invalid", "--user", "u", "--", "ver"];
    let output = lictor(&arguments, &[("LICTOR_PASSWORD", "p")]);
    assert_eq!(code(&output), 121, "{}", text(&output.stderr));
}

#[test]
fn secrets_are_not_printed_at_any_level() {
    const MARKER: &str = "Marker-7f3a91";
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, "").unwrap();
    let server = format!("https://{NOBODY}:7443");
    for arguments in [
        &["-vv", "winrm", "test", "--host", NOBODY, "--port", "5985", "--scheme", "http", "--user", "u"][..],
        &["-vv", "winrm", "run", "--host", NOBODY, "--port", "5985", "--scheme", "http", "--user", "u", "--", "ver"],
        &["-vv", "task", "list", "--server", &server, "--ca", ca.to_str().unwrap()],
        &["-vv", "secret", "put", "a", "--server", &server, "--ca", ca.to_str().unwrap()],
        &["task", "submit", "--help"],
        &["secret", "put", "--help"],
        // Where the name of a secret belongs.
        &["credential", "put", "c", "--user", "u", "--secret", "Marker-7f3a91!"],
        &["task", "submit", "--host", "h", "--credential", "c", "--secret-env", "A=Marker-7f3a91!", "--", "ver"],
    ] {
        let variables = [("LICTOR_PASSWORD", MARKER), ("LICTOR_TOKEN", MARKER), ("LICTOR_SECRET", MARKER)];
        let output = lictor(arguments, &variables);
        assert!(!text(&output.stdout).contains(MARKER), "{arguments:?}");
        assert!(!text(&output.stderr).contains(MARKER), "{arguments:?}");
    }
}
