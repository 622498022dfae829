//! Foreign judges: pywinrm and pypsrp's WinRS, written by others against real hosts, run against winsim.
//!
//! They need an interpreter with `tests/peers/winrm-clients/requirements.txt` installed, named by `LICTOR_PEERS_PYTHON`. Without
//! it the tests say that they did not run; with `LICTOR_PEERS=required` they fail.

#![expect(clippy::print_stdout, reason = "what the scripts say, and that they did not run, is the output of this test")]

mod certificate;

use std::path::{Path, PathBuf};

use anyhow::Result;
use winsim::{ChannelBindings, Handle, Options, Scheme, Statistics, User, Winsim};

const USER: &str = "CORP\\alice";
const PASSWORD: &str = "Pässwörd-1";

/// The interpreter, or `None` when the test may be left out.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("LICTOR_PEERS_PYTHON").map(PathBuf::from);
    if python.is_none() {
        let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
        assert!(!required, "LICTOR_PEERS is required, but LICTOR_PEERS_PYTHON names no interpreter with the clients");
        println!("did not run: LICTOR_PEERS_PYTHON is not set");
    }
    python
}

/// Runs one script and asserts that all its checks succeed, that no command was started twice and that it had its password once
/// wrong on purpose.
async fn judge(script: &str, auth: &str, https: bool, options: Options) -> Result<Option<Statistics>> {
    let Some(statistics) = run(script, auth, https, options).await? else { return Ok(None) };
    assert_eq!(statistics.violations, Vec::<String>::new(), "what these clients send is accepted by Windows");
    assert_eq!(
        statistics.authentication.failed_logons.values().sum::<u64>(),
        1,
        "one wrong password: {:?}",
        statistics.authentication
    );
    Ok(Some(statistics))
}

/// Runs one script and asserts that all its checks succeed and that it leaves nothing behind.
async fn run(script: &str, auth: &str, https: bool, options: Options) -> Result<Option<Statistics>> {
    let Some(python) = python() else { return Ok(None) };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/winrm-clients");
    let certificates = tempfile::tempdir()?;
    let ca = certificates.path().join("ca.pem");
    let mut options = Options { users: vec![User::new(USER, PASSWORD)], ..options };
    if https {
        let made = certificate::make()?;
        std::fs::write(&ca, &made.ca)?;
        options.tls = Some(made.tls);
    }
    let host: Handle = Winsim::start(options).await?;
    let mut command = tokio::process::Command::new(python);
    command
        .current_dir(&folder)
        .arg(script)
        .args(["--host", "127.0.0.1", "--port", &host.address().port().to_string(), "--user", USER, "--auth", auth])
        .args(["--scheme", if https { "https" } else { "http" }])
        .env("LICTOR_PEER_PASSWORD", PASSWORD)
        .env("WINSIM_CONTROL", format!("http://{}/control", host.admin_address()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .kill_on_drop(true);
    if https {
        command.arg("--ca").arg(&ca);
    }
    let output = tokio::time::timeout(std::time::Duration::from_secs(240), command.output()).await??;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    let statistics = host.statistics();
    host.stop().await;
    assert!(output.status.success(), "{script} {auth}: {stdout}\n{stderr}\nviolations: {:?}", statistics.violations);
    assert_eq!(statistics.shells.open, 0);
    assert_eq!(statistics.commands.most_requests_per_id, 1);
    Ok(Some(statistics))
}

fn sealed_everywhere(statistics: &Statistics, expected: bool) {
    let operations = statistics.exchanges.iter().filter(|exchange| exchange.operation != "Authenticate");
    assert!(operations.clone().count() > 0);
    for exchange in operations {
        assert_eq!(exchange.sealed, expected, "{exchange:?}");
    }
}

#[tokio::test]
async fn pywinrm_sealed_ntlm_over_http() -> Result<()> {
    let Some(statistics) = judge("pywinrm_check.py", "ntlm", false, Options::default()).await? else { return Ok(()) };
    sealed_everywhere(&statistics, true);
    Ok(())
}

#[tokio::test]
async fn pypsrp_sealed_ntlm_over_http() -> Result<()> {
    let Some(statistics) = judge("pypsrp_check.py", "ntlm", false, Options::default()).await? else { return Ok(()) };
    sealed_everywhere(&statistics, true);
    Ok(())
}

#[tokio::test]
async fn pypsrp_sealed_spnego_over_http() -> Result<()> {
    let Some(statistics) = judge("pypsrp_check.py", "negotiate", false, Options::default()).await? else {
        return Ok(());
    };
    sealed_everywhere(&statistics, true);
    Ok(())
}

#[tokio::test]
async fn pywinrm_basic_over_https() -> Result<()> {
    let options = Options { schemes: vec![Scheme::Basic], ..Options::default() };
    let Some(statistics) = judge("pywinrm_check.py", "basic", true, options).await? else { return Ok(()) };
    sealed_everywhere(&statistics, false);
    assert_eq!(statistics.authentication.handshakes, 0);
    Ok(())
}

#[tokio::test]
async fn pypsrp_basic_over_https() -> Result<()> {
    let options = Options { schemes: vec![Scheme::Basic, Scheme::Negotiate], ..Options::default() };
    judge("pypsrp_check.py", "basic", true, options).await?;
    Ok(())
}

/// Both send channel bindings, so a host that insists on them is served.
#[tokio::test]
async fn pywinrm_ntlm_over_https() -> Result<()> {
    let options = Options { channel_bindings: ChannelBindings::Strict, ..Options::default() };
    judge("pywinrm_check.py", "ntlm", true, options).await?;
    Ok(())
}

#[tokio::test]
async fn pypsrp_negotiate_over_https() -> Result<()> {
    let options = Options { channel_bindings: ChannelBindings::Strict, ..Options::default() };
    judge("pypsrp_check.py", "negotiate", true, options).await?;
    Ok(())
}

/// Hosts in trouble, as both clients understand them: quotas, both forms of faults, 503, restarts.
#[tokio::test]
async fn pywinrm_meets_trouble() -> Result<()> {
    run("pywinrm_trouble.py", "ntlm", false, Options::default()).await?;
    Ok(())
}

#[tokio::test]
async fn pypsrp_meets_trouble() -> Result<()> {
    run("pypsrp_trouble.py", "negotiate", false, Options::default()).await?;
    Ok(())
}
