//! Users, tokens and the audit log from the command line; agents' identities while work goes on.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Output, Stack, eventually};
use serde_json::Value;

use crate::{FINAL, PATIENCE, ntlm_host};

/// Makes a user; the file with the user's token.
fn user(stack: &Stack, name: &str, role: &str, scope: &str) -> Result<PathBuf> {
    let output = stack.lictor(&["user", "create", name, "--role", role, "--scope", scope])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let output = stack.lictor(&["user", "token", "issue", name, "--lifetime", "1h"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let file = stack.directory().join(format!("{name}.user-token"));
    std::fs::write(&file, output.text())?;
    Ok(file)
}

fn as_user(stack: &Stack, token: &std::path::Path, arguments: &[&str]) -> Result<Output> {
    let token = token.display().to_string();
    stack.lictor(&[arguments, &["--token-file", &token]].concat())
}

#[test]
fn users_are_managed_from_the_command_line() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let _windows = ntlm_host(&stack)?;
    let viewer = user(&stack, "vera", "viewer", "")?;
    let operator = user(&stack, "otto", "operator", "team/a")?;

    let me = as_user(&stack, &operator, &["whoami"])?;
    assert!(me.text().starts_with("otto: operator of team/a\n"), "{}", me.text());
    let token = operator.display().to_string();
    let run_as = |token: &str| {
        let flags = ["--token-file", token, "--watch", "--", "sim.exe", "exit", "7"];
        stack.lictor(&[&["task", "submit", "--host", "127.0.0.1", "--credential", "ntlm"][..], &flags].concat())
    };
    let output = run_as(&token)?;
    assert_eq!(output.code, 7, "{}", output.stderr);
    let output = run_as(&viewer.display().to_string())?;
    assert_eq!(output.code, 132, "{}", output.stderr);
    assert!(output.stderr.contains("operator"), "{}", output.stderr);
    let tasks: Value = as_user(&stack, &viewer, &["--output", "json", "task", "list"])?.json()?;
    assert_eq!(tasks["tasks"][0]["submitted_by"], "otto");
    assert_eq!(tasks["tasks"][0]["scope"], "team/a");

    let users = stack.lictor_json(&["user", "list"])?;
    let names: Vec<&str> =
        users["users"].as_array().context("users")?.iter().filter_map(|u| u["name"].as_str()).collect();
    assert_eq!(names, ["admin", "otto", "vera"]);
    let tokens = stack.lictor_json(&["user", "token", "list", "otto"])?;
    let id = tokens["user_tokens"][0]["token_id"].as_str().context("token_id")?;
    // The id can be told from the token by anybody.
    let sum = Command::new("sh").arg("-c").arg(format!("printf %s \"$(cat {token})\" | sha256sum")).output()?;
    assert!(String::from_utf8(sum.stdout)?.starts_with(id), "{id}");
    assert_eq!(stack.lictor(&["user", "token", "revoke", id])?.code, 0);
    let output = as_user(&stack, &operator, &["whoami"])?;
    assert_eq!(output.code, 132);
    assert!(output.stderr.contains("revoked"), "{}", output.stderr);
    assert_eq!(stack.lictor(&["user", "disable", "vera"])?.code, 0);
    assert_eq!(as_user(&stack, &viewer, &["task", "list"])?.code, 132);
    assert_eq!(stack.lictor(&["user", "enable", "vera"])?.code, 0);
    assert_eq!(as_user(&stack, &viewer, &["task", "list"])?.code, 0);

    let export = stack.lictor(&["audit", "export"])?;
    assert_eq!(export.code, 0, "{}", export.stderr);
    let file = stack.directory().join("audit.jsonl");
    std::fs::write(&file, export.text())?;
    let verified = stack.lictor(&["audit", "verify", &file.display().to_string()])?;
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    // The chain by somebody else's hand.
    let lines: Vec<String> = export.text().lines().map(str::to_owned).collect();
    std::fs::write(stack.directory().join("line"), &lines[0])?;
    let sum = Command::new("sha256sum").arg(stack.directory().join("line")).output()?;
    let second: Value = serde_json::from_str(&lines[1])?;
    assert!(String::from_utf8(sum.stdout)?.starts_with(second["previous"].as_str().context("previous")?));
    std::fs::write(&file, export.text().replacen("otto", "vera", 1))?;
    let verified = stack.lictor(&["audit", "verify", &file.display().to_string()])?;
    assert_eq!(verified.code, 135, "{}", verified.text());
    Ok(())
}

#[test]
fn certificates_are_renewed_while_tasks_run() -> Result<()> {
    let stack = Stack::start(&[("LICTOR_CONTROL_PLANE_AGENT_CERTIFICATE_LIFETIME", "5s")])?;
    let agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let renewals = || -> Result<usize> {
        let log = stack.lictor(&["audit", "export"])?.text();
        Ok(log.lines().filter(|line| line.contains("\"agent.renewed\"")).count())
    };
    let end = || -> Result<u64> {
        let (_, metrics) = agent.get("/metrics")?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("agent_certificate_expiry_timestamp_seconds "));
        Ok(line.context("no end of the certificate")?.parse()?)
    };
    let first_end = end()?;
    let mut tasks = Vec::new();
    let sleep = ["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "sleep", "8000"];
    for _ in 0..2 {
        tasks.push(stack.submit(&sleep)?);
    }
    // Work goes on all the while: short tasks across each renewal, and long ones across several.
    eventually("three renewals", PATIENCE, || {
        tasks.push(stack.submit(&[
            "--host",
            "127.0.0.1",
            "--credential",
            "ntlm",
            "--",
            "sim.exe",
            "lines",
            "3",
            "100",
        ])?);
        std::thread::sleep(Duration::from_millis(200));
        ensure!(renewals()? >= 3);
        Ok(())
    })?;
    for task_id in &tasks {
        let task = stack.task_in(task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        assert_eq!(task["epoch"], 1, "{task:#}");
    }
    assert_eq!(windows.count("/operations/Command")?, tasks.len() as u64, "{:#}", windows.statistics()?);
    assert!(!agent.process.log().contains("The certificate was not renewed"), "{}", agent.process.log());
    let last_end = end()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // Two lifetimes back, for a machine that is late with everything.
    assert!(last_end > first_end && (now - 10..=now + 5).contains(&last_end), "{first_end} {last_end} {now}");
    Ok(())
}
