//! Limits of the host: its configuration, quotas, and what it does to things that lie idle.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lictor_winrm::auth::ntlm::NtlmContext;
use lictor_winrm::auth::{Handshake, Step, basic};
use lictor_winrm::fault::{Class, Meaning, Operation};
use lictor_winrm::target::AuthKind;
use lictor_winrm::wsman::{Response, Signal};
use uuid::Uuid;

use super::{Check, Finding, check};
use crate::envelope::Custom;
use crate::lab::{Lab, properties};
use crate::wire::Wire;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "limits.configuration",
            "administrators may read the configuration, others get fault 5; quotas are those of a host that nobody has tuned",
            "notes 3 and 5, [MS-WSMV] 2.2.4.42",
            configuration
        ),
        check!(
            WithQuotas,
            "limits.operations",
            "commands of one shell use MaxConcurrentOperationsPerUser up, signalled or not; Delete gives it back",
            "notes 4 and 5, product note <118>; winrm/src/pool",
            operations
        ),
        check!(
            WithQuotas,
            "limits.shells",
            "one shell more than MaxShellsPerUser is refused with a fault about shells",
            "notes 5 and 6; winrm/src/fault.rs",
            shells
        ),
        check!(
            WithIdle,
            "limits.idle_connection",
            "an authenticated connection that lies idle is closed by the host after about 120 s, not before 90 s",
            "notes 1; the pool retires connections after 60 s",
            idle_connection
        ),
        check!(
            WithIdle,
            "limits.idle_shell",
            "a shell with an IdleTimeOut of one minute is gone after three, and is 'not there' then",
            "notes 4 and 5; winrm/src/fault.rs",
            idle_shell
        ),
    ]
}

async fn configuration(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    let reply = lab.ask(&mut line, &Custom::configuration()).await?;
    if let Some(fault) = reply.fault() {
        return Ok(Finding::judge(fault.class() == Class::AccessDenied, [reply.brief()]));
    }
    let mut evidence = Vec::new();
    let mut held = true;
    for (name, default) in [
        ("MaxEnvelopeSizekb", Some("500")),
        ("MaxTimeoutms", Some("60000")),
        ("MaxConcurrentOperationsPerUser", Some("1500")),
        ("MaxConnections", Some("300")),
        ("MaxPacketRetrievalTimeSeconds", Some("120")),
        ("EnumerationTimeoutms", Some("240000")),
        ("MaxShellsPerUser", Some("30")),
        ("MaxProcessesPerShell", Some("25")),
        ("MaxMemoryPerShellMB", None),
        ("MaxConcurrentUsers", None),
        ("IdleTimeout", Some("7200000")),
        ("MaxShellRunTime", None),
        ("AllowUnencrypted", None),
        ("CbtHardeningLevel", None),
    ] {
        match (reply.element(name), default) {
            (Some(value), Some(default)) if value != default => {
                held = false;
                evidence.push(format!("{name} = {value}, where {default} was expected"));
            }
            (Some(value), _) => evidence.push(format!("{name} = {value}")),
            (None, _) => evidence.push(format!("{name} is not told")),
        }
    }
    Ok(Finding::judge(held, evidence))
}

async fn operations(lab: &Lab) -> Result<Finding> {
    const MOST: usize = 1600;
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let mut ran = 0;
    let mut refused = None;
    while ran < MOST && refused.is_none() {
        let id = Uuid::new_v4();
        let reply = lab.command(&mut bench.line, &shell, id, "rem", false).await?;
        if reply.fault().is_some() {
            refused = Some(reply);
            continue;
        }
        lab.collect(&mut bench.line, &shell, id).await?;
        lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
        ran += 1;
    }
    let Some(refused) = refused else {
        return Ok(Finding::judge(false, [format!("{ran} commands in one shell, none was refused")]));
    };
    let understood = refused.fault().is_some_and(|fault| fault.class() == Class::QuotaOperations);
    lab.delete(&mut bench.line, &shell).await?;
    let mut bench = lab.bench().await?;
    let after = lab.run(&mut bench, "echo hi", None).await;
    Ok(Finding::judge(
        understood && after.is_ok(),
        [
            format!("refused after {ran} commands: {}", refused.brief()),
            match after {
                Ok(_) => "a new shell took a command once the first was deleted".to_owned(),
                Err(error) => format!("a new shell, after the first was deleted: {error:#}"),
            },
        ],
    ))
}

async fn shells(lab: &Lab) -> Result<Finding> {
    const MOST: usize = 40;
    let mut line = lab.connect().await?;
    for made in 0..MOST {
        let (shell, reply) = lab.create_with(&mut line, |name| Custom::create(name, Duration::from_secs(300))).await?;
        if shell.is_none() {
            let understood = reply.fault().is_some_and(|fault| fault.class() == Class::QuotaShells);
            let listing = lab.list(&mut line).await?;
            let told = match &listing.response {
                Response::Listed(listed) => {
                    format!("{} shells in the listing, more to come: {}", listed.shells.len(), listed.more.is_some())
                }
                _ => listing.brief(),
            };
            return Ok(Finding::judge(understood, [format!("refused after {made} shells: {}", reply.brief()), told]));
        }
    }
    Ok(Finding::judge(false, [format!("{MOST} shells were made, none was refused")]))
}

async fn idle_connection(lab: &Lab) -> Result<Finding> {
    let mut wire = Wire::open(&lab.target).await?;
    let path = lab.target.endpoint.path();
    let status = match lab.target.auth {
        AuthKind::Basic => {
            let value = basic::authorization(&lab.target.credential)?;
            wire.post(path, &[("Content-Type", SOAP), ("Authorization", &value)], true, b"").await?.status
        }
        AuthKind::Ntlm | AuthKind::Negotiate | AuthKind::Kerberos => {
            let mut context = NtlmContext::raw(&lab.target.credential, None)?;
            let (mut handshake, mut value) = Handshake::begin(&mut context)?;
            loop {
                let answer = wire.post(path, &[("Content-Type", SOAP), ("Authorization", &value)], true, b"").await?;
                let fields = answer.all("WWW-Authenticate");
                match handshake.answer(&mut context, answer.status, fields.iter().map(|field| field.as_bytes()))? {
                    Step::Send(next) => value = next,
                    Step::Done => break answer.status,
                }
            }
        }
    };
    let closed = wire.closed(Duration::from_secs(200)).await?;
    let held = closed.is_some_and(|after| (90..=180).contains(&after.as_secs()));
    let told =
        closed.map_or("still open after 200 s".to_owned(), |after| format!("closed after {} s", after.as_secs()));
    Ok(Finding::judge(held, [format!("HTTP {status}, then {told}")]))
}

async fn idle_shell(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    let idle_timeout = Duration::from_secs(60);
    let asked = lictor_winrm::target::ShellProperties { idle_timeout, ..properties() };
    let (shell, reply) = lab.create(&mut line, &asked).await?;
    let begin = Instant::now();
    let told = reply.element("IdleTimeOut").unwrap_or_default();
    loop {
        ensure!(begin.elapsed() < Duration::from_secs(240), "it is still listed after 240 s (IdleTimeOut {told})");
        tokio::time::sleep(Duration::from_secs(10)).await;
        // A listing does not touch the shell, as Get would.
        let mut line = lab.connect().await?;
        let listing = lab.list(&mut line).await?;
        let listed = listing.records("Shell");
        let there = listed.iter().any(|record| record.get("ShellId").is_some_and(|id| *id == shell.id));
        if !there {
            let after = begin.elapsed().as_secs();
            let reply = lab.command(&mut line, &shell.id, Uuid::new_v4(), "hostname", false).await?;
            let gone = reply.fault().map(|fault| fault.meaning(Operation::Command)) == Some(Meaning::NeedsNewShell);
            let evidence = [format!("IdleTimeOut {told}, gone after {after} s"), reply.brief()];
            return Ok(Finding::judge(gone && (50..=190).contains(&after), evidence));
        }
    }
}

const SOAP: &str = "application/soap+xml;charset=UTF-8";
