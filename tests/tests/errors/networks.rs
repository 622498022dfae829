//! Firewalls that drop and firewalls that refuse, routes that lead nowhere and name servers that keep silent: in a network namespace
//! of the test's own, where it may set them up.
//!
//! The test starts itself again inside the namespace, so that what it sees is the client's own error.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_doctor::{Subject, examine};
use lictor_winrm::target::{Endpoint, Scheme, Target};
use tokio::time::Instant;
use winsim::{Options, User, Winsim};

use crate::faults::{PASSWORD, PATIENCE, USER, failure, outcome, target};

const INSIDE: &str = "LICTOR_TEST_INSIDE_NAMESPACE";

#[test]
fn what_stands_in_the_way_is_told_by_its_code() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(inside());
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(std::env::current_exe()?)
        .args(["--exact", "networks::what_stands_in_the_way_is_told_by_its_code", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .context("failed to run unshare")?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
    Ok(())
}

async fn inside() -> Result<()> {
    shell("ip link set lo up")?;
    let host = Winsim::start(Options {
        users: vec![User::new(USER, PASSWORD)],
        schemes: vec![winsim::Scheme::Basic],
        allow_unencrypted: true,
        ..Options::default()
    })
    .await?;
    let port = host.address().port();
    let there = quick(target(Scheme::Http, port)?);
    ensure!(outcome(&there, PATIENCE).await.is_none(), "the host cannot be reached before anything stands in the way");

    shell(
        "nft add table inet lictor\n\
         nft add chain inet lictor in '{ type filter hook input priority 0; }'",
    )?;
    for (verdict, code) in [
        ("drop", "connect.timeout"),
        ("reject with tcp reset", "connect.refused"),
        ("reject with icmpx type host-unreachable", "connect.unreachable"),
    ] {
        shell(&format!("nft add rule inet lictor in tcp dport {port} {verdict}"))?;
        let error = failure(&there).await?;
        assert_eq!((error.code(), error.is_unsent()), (code, true), "{verdict}: {}", error.report());
        shell("nft flush chain inet lictor in")?;
    }
    // The doctor looks whether the usual ports answer, before it suspects a firewall.
    shell(&format!("nft add rule inet lictor in tcp dport '{{ {port}, 5985, 5986 }}' drop"))?;
    let subject = Subject { target: Some(there.clone()), kerberos: None, usual_ports: true };
    let report = examine(&subject, Instant::now() + PATIENCE, |_| {}).await;
    let finding = report.failure().and_then(|step| step.finding.as_ref()).context("a finding")?;
    let suspects: Vec<&str> = finding.suspects.iter().map(|suspect| suspect.code).collect();
    assert!(finding.code == "connect.timeout" && suspects.contains(&"connect.suspect_firewall"), "{finding:?}");
    shell("nft flush chain inet lictor in")?;
    ensure!(outcome(&there, PATIENCE).await.is_none(), "the host cannot be reached after the firewall is gone");

    shell("ip route add unreachable 192.0.2.7\nip route add prohibit 192.0.2.8")?;
    for (address, code) in [
        ("192.0.2.7", "connect.unreachable"),
        ("192.0.2.8", "connect.failed"),
        // There is no route at all.
        ("192.0.2.9", "connect.unreachable"),
    ] {
        let error = failure(&at(&there, address, port)?).await?;
        assert_eq!(error.code(), code, "{address}: {}", error.report());
    }

    // The name server listed does not exist, then it keeps silent.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    shell(&format!("mount --bind {} \"$(readlink -f /etc/resolv.conf)\"", file.path().display()))?;
    let named = at(&there, "web1.corp.example", port)?;
    let error = failure(&named).await?;
    assert_eq!(error.code(), "resolve.failed", "{}", error.report());
    // Its resolver gives up after the test does, and not much later: the test's end waits for it.
    std::fs::write(file.path(), "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")?;
    shell("nft add rule inet lictor in udp dport 53 drop")?;
    let error = outcome(&named, Duration::from_secs(2)).await.context("the name has an address")?;
    assert_eq!(error.code(), "resolve.timeout", "{}", error.report());
    host.stop().await;
    Ok(())
}

/// With waits that a test can bear.
fn quick(mut target: Target) -> Target {
    target.timeouts.connect = Duration::from_secs(2);
    target
}

fn at(target: &Target, host: &str, port: u16) -> Result<Target> {
    Ok(Target { endpoint: Endpoint::new(Scheme::Http, host, Some(port), None)?, ..target.clone() })
}

fn shell(script: &str) -> Result<()> {
    let output = Command::new("sh").args(["-ec", script]).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
