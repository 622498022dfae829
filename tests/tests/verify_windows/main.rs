//! `lictor-verify-windows` against simulated hosts: what they can answer is as expected, checks can fail, nothing stays.

mod relay;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lictor_tests::{Certificates, Output, Streaming, eventually};
use relay::{Falsification, Relay};
use serde_json::Value;
use tempfile::TempDir;
use winsim::{ChannelBindings, Handle, Options, Scheme, Tls, User, Winsim};

const PASSWORD: &str = "pässword-marker";
const USER: &str = "EXAMPLECORP\\alice-marker";
const HOSTNAME: &str = "HOST-MARKER";
/// A whole run takes about half a minute.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a simulated host cannot answer, or what an ordinary run leaves out.
const NOT_TOLD: &[(&str, &str)] = &[
    ("command.arguments", "could not tell"),
    ("signal.terminate_kills", "could not tell"),
    ("limits.operations", "skipped"),
    ("limits.shells", "skipped"),
    ("limits.idle_connection", "skipped"),
    ("limits.idle_shell", "skipped"),
];

fn options() -> Options {
    let users = vec![User::new(USER, PASSWORD)];
    Options { users, hostname: HOSTNAME.to_owned(), ..Options::default() }
}

/// A host that takes Basic over plain HTTP, so that a relay can read and change what it says.
fn open_options() -> Options {
    Options { schemes: vec![Scheme::Basic], allow_unencrypted: true, ..options() }
}

/// The program, about to examine what listens at `address`. Reports go to `directory`.
fn kit(directory: &Path, address: SocketAddr, arguments: &[&str]) -> Result<Command> {
    let password = directory.join("password");
    std::fs::write(&password, PASSWORD)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lictor-verify-windows"));
    command.args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--user", USER]);
    command.arg("--password-file").arg(password).arg("--report").arg(directory.join("report")).args(arguments);
    Ok(command)
}

/// Runs it to its end: what it printed, and its report.
async fn examine(address: SocketAddr, arguments: &[&str]) -> Result<(Output, Value, TempDir)> {
    let directory = TempDir::new()?;
    let mut command = kit(directory.path(), address, arguments)?;
    let output = tokio::task::spawn_blocking(move || Output::of(&mut command, PATIENCE)).await??;
    let file = directory.path().join("report.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}\n{}", output.text(), output.stderr))?;
    Ok((output, serde_json::from_str(&text)?, directory))
}

/// Results by the name of their check.
fn results(report: &Value) -> BTreeMap<&str, &str> {
    let rows = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &'_ Value| value.as_str().map(str::len);
    assert!(rows.iter().all(|row| text(&row["expected"]).is_some() && text(&row["source"]).is_some()), "{report:#}");
    rows.iter().map(|row| (row["name"].as_str().unwrap_or(""), row["result"].as_str().unwrap_or(""))).collect()
}

/// All checks are as expected but for those in `others`, and nothing stays on the host.
fn assert_as_expected(host: &Handle, output: &Output, report: &Value, others: &[&[(&str, &str)]]) {
    let others: BTreeMap<&str, &str> = others.iter().flat_map(|list| list.iter().copied()).collect();
    let found = results(report);
    assert!(found.len() >= 60, "{report:#}");
    for (name, result) in &found {
        let expected = others.get(name).copied().unwrap_or("as expected");
        assert_eq!(*result, expected, "{name}\n{}", output.text());
    }
    assert_eq!(output.code, 0, "{}\n{}", output.text(), output.stderr);
    assert_eq!(report["shells_left_behind"], 0);
    assert_eq!(host.statistics().shells.open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_sealed_ntlm_is_as_expected_and_the_report_names_nobody() -> Result<()> {
    let host = Winsim::start(options()).await?;
    let (output, report, directory) = examine(host.address(), &[]).await?;
    assert_as_expected(&host, &output, &report, &[NOT_TOLD, &[("tls.channel_bindings", "skipped")]]);
    for file in ["report.json", "report.md"] {
        let text = std::fs::read_to_string(directory.path().join(file))?.to_lowercase();
        for marker in ["pässword", "alice", "examplecorp", "marker", "127.0.0.1"] {
            assert!(!text.contains(marker), "{marker} in {file}:\n{text}");
        }
        assert!(text.len() < 200_000, "{} bytes", text.len());
    }
    assert_eq!(host.statistics().authentication.failed_logons, BTreeMap::new());
    host.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_basic_over_https_is_as_expected() -> Result<()> {
    let (host, certificates, _directory) = https_host(vec![Scheme::Basic], ChannelBindings::None).await?;
    let ca = certificates.ca.to_str().context("UTF-8")?;
    let arguments = ["--scheme", "https", "--auth", "basic", "--ca", ca];
    let (output, report, _) = examine(host.address(), &arguments).await?;
    let basic = ["auth.spnego", "auth.sealing", "tls.channel_bindings", "http.foreign_seal"];
    let basic: Vec<(&str, &str)> = basic.iter().map(|&name| (name, "skipped")).collect();
    assert_as_expected(&host, &output, &report, &[NOT_TOLD, &basic]);
    host.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_bindings_are_judged_over_https() -> Result<()> {
    let (host, certificates, _directory) = https_host(vec![Scheme::Negotiate], ChannelBindings::Strict).await?;
    let ca = certificates.ca.to_str().context("UTF-8")?;
    let arguments = ["--scheme", "https", "--ca", ca, "--only", "tls.", "--only", "auth."];
    let (output, report, _) = examine(host.address(), &arguments).await?;
    let found = results(&report);
    assert_eq!(found["tls.channel_bindings"], "as expected", "{}", output.text());
    assert_eq!(found["auth.legs"], "as expected", "{}", output.text());
    host.stop().await;
    Ok(())
}

async fn https_host(schemes: Vec<Scheme>, bindings: ChannelBindings) -> Result<(Handle, Certificates, TempDir)> {
    let directory = TempDir::new()?;
    let certificates = Certificates::create(directory.path())?;
    let (certificate, key) = (std::fs::read(&certificates.certificate)?, std::fs::read(&certificates.key)?);
    let tls = Some(Tls { certificate, key });
    let host = Winsim::start(Options { schemes, tls, channel_bindings: bindings, ..options() }).await?;
    Ok((host, certificates, directory))
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_used_up_on_request_and_given_back() -> Result<()> {
    let host = Winsim::start(Options { max_operations_per_user: 60, max_shells_per_user: 7, ..options() }).await?;
    let (output, report, _) = examine(host.address(), &["--with-quotas", "--only", "limits."]).await?;
    let found = results(&report);
    assert_eq!(found["limits.operations"], "as expected", "{}", output.text());
    assert_eq!(found["limits.shells"], "as expected", "{}", output.text());
    // This is not a host that nobody has tuned.
    assert_eq!(found["limits.configuration"], "differs", "{}", output.text());
    assert_eq!(output.code, 1);
    assert_eq!(host.statistics().shells.open, 0);
    host.stop().await;
    Ok(())
}

/// Each line: what is falsified in answers, and the check that notices it. Without it the check is as expected, which the
/// tests above have seen.
#[tokio::test(flavor = "multi_thread")]
async fn checks_fail_when_a_host_answers_otherwise() -> Result<()> {
    use Falsification::{OneAtATime, Replace};
    let host = Winsim::start(open_options()).await?;
    for (falsification, check) in [
        (Replace("OS: 0.0.0", "OS: 6.1.0"), "identify.anonymous"),
        (Replace("Basic realm", "Bosic realm"), "auth.offer"),
        (Replace("HTTP/1.1 411", "HTTP/1.1 400"), "http.no_length"),
        (Replace("HTTP/1.1 404", "HTTP/1.1 400"), "http.wrong_path"),
        (Replace("PT754.000S", "PT900.000S"), "shell.create"),
        (Replace("rsp:Name>", "rsp:Nome>"), "shell.enumerate"),
        (Replace("State>Connected", "State>Xonnected"), "shell.get"),
        (Replace("2150858843", "2150858844"), "shell.delete"),
        (Replace("2150858843", "2150858844"), "shell.unknown"),
        (Replace("2150858843", "2150858844"), "receive.unknown_command"),
        (Replace("2150858793", "2150858791"), "receive.silent_command"),
        (Replace("<rsp:ExitCode>37<", "<rsp:ExitCode>36<"), "receive.reattach"),
        (Replace("<rsp:ExitCode>259<", "<rsp:ExitCode>250<"), "command.exit_codes"),
        (Replace("Stream Name=\"stderr\"", "Stream Name=\"stdout\""), "output.streams"),
        (Replace("2150858805", "2150858806"), "output.envelope_too_small"),
        (Replace("<rsp:ExitCode>37<", "<rsp:ExitCode>00<"), "powershell.exit"),
        (Replace("<rsp:ExitCode>0<", "<rsp:ExitCode>1<"), "input.end"),
        (Replace("eHh4eHh4eHh4eHh4", "eHh4eHh4DQp4eHh4"), "powershell.width"),
        (OneAtATime, "connection.second"),
    ] {
        let relay = Relay::start(host.address(), falsification).await?;
        let arguments = ["--auth", "basic", "--allow-basic-over-http", "--only", check];
        let (output, report, _) = examine(relay.address, &arguments).await?;
        assert_eq!(results(&report)[check], "differs", "{falsification:?}\n{}", output.text());
        assert_eq!(output.code, 1, "{falsification:?}\n{}", output.text());
        assert_eq!(report["shells_left_behind"], 0, "{falsification:?}");
    }
    assert_eq!(host.statistics().shells.open, 0);
    host.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_small_envelopes_differs_where_input_is_large() -> Result<()> {
    let host = Winsim::start(Options { max_envelope_size: 64 * 1024, ..options() }).await?;
    let (output, report, _) = examine(host.address(), &["--only", "input.large"]).await?;
    assert_eq!(results(&report)["input.large"], "differs", "{}", output.text());
    host.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_leaves_no_shell() -> Result<()> {
    let host = Winsim::start(options()).await?;
    let directory = TempDir::new()?;
    // It waits for some seconds, with a shell.
    let mut command = kit(directory.path(), host.address(), &["--only", "receive.silent_command"])?;
    let (running, host) = tokio::task::spawn_blocking(move || -> Result<_> {
        let running = Streaming::start(&mut command)?;
        eventually("a command runs", PATIENCE, || {
            (host.statistics().commands.running > 0).then_some(()).context("none")
        })?;
        Command::new("kill").args(["-INT", &running.pid().to_string()]).status()?;
        Ok((running.finish(PATIENCE)?, host))
    })
    .await??;
    let (lines, code) = running;
    assert_eq!(code, 130, "{lines:?}");
    let statistics = host.statistics();
    assert_eq!((statistics.shells.open, statistics.commands.running), (0, 0), "{lines:?}");
    assert!(statistics.shells.opened > 0);
    host.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_whose_creation_was_never_confirmed_are_found_and_deleted() -> Result<()> {
    let host = Winsim::start(open_options()).await?;
    let relay = Relay::start(host.address(), Falsification::Lose("ResourceCreated")).await?;
    let directory = TempDir::new()?;
    let mut command = kit(directory.path(), relay.address, &["--auth", "basic", "--allow-basic-over-http"])?;
    let output = tokio::task::spawn_blocking(move || Output::of(&mut command, PATIENCE)).await??;
    assert_eq!(output.code, 3, "{}", output.text());
    let shells = host.statistics().shells;
    assert_eq!((shells.opened, shells.deleted, shells.open), (1, 1, 0), "{}", output.text());
    host.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once_and_an_account_without_rights_is_named() -> Result<()> {
    let directory = TempDir::new()?;
    let host = Winsim::start(Options { users: vec![User::new(USER, "another")], ..options() }).await?;
    let mut command = kit(directory.path(), host.address(), &[])?;
    let output = tokio::task::spawn_blocking(move || Output::of(&mut command, PATIENCE)).await??;
    assert_eq!(output.code, 3, "{}", output.text());
    assert_eq!(host.statistics().authentication.failed_logons.values().sum::<u64>(), 1);
    host.stop().await;

    let host = Winsim::start(Options { denied_users: vec![USER.to_owned()], ..options() }).await?;
    let mut command = kit(directory.path(), host.address(), &[])?;
    let output = tokio::task::spawn_blocking(move || Output::of(&mut command, PATIENCE)).await??;
    assert_eq!(output.code, 3, "{}", output.text());
    assert!(output.text().contains("may not make a remote shell"), "{}", output.text());
    host.stop().await;
    Ok(())
}

#[test]
fn every_flag_stands_in_the_documentation() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify-windows.md");
    let page = std::fs::read_to_string(page)?;
    let mut help = Command::new(env!("CARGO_BIN_EXE_lictor-verify-windows"));
    let help = Output::of(help.arg("--help"), PATIENCE)?.text();
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(|word| word.trim_matches(['.', ',', ']']))
        .collect();
    assert!(flags.len() > 10, "{help}");
    for flag in flags {
        assert!(page.contains(flag), "{flag} is missing");
    }
    Ok(())
}
