//! The agent's own policy: what the control plane asks for, and the agent refuses.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Output, Stack, WindowsOptions, binary, eventually};
use serde_json::Value;

use crate::{FINAL, PATIENCE, ntlm_host};

/// Code and message of the refusal that ended the task.
fn refused(task: &Value) -> Result<(&str, &str)> {
    ensure!(task["state"] == "rejected", "{task:#}");
    let failure = &task["result"]["error"];
    ensure!(failure["stage"] == "policy", "{task:#}");
    Ok((failure["code"].as_str().context("code")?, failure["message"].as_str().context("message")?))
}

fn hang_up(agent: &Agent) -> Result<()> {
    let output = Output::of(Command::new("kill").args(["-HUP", &agent.process.pid().to_string()]), PATIENCE)?;
    ensure!(output.code == 0, "{}", output.stderr);
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(&new, file)?)
}

#[test]
fn what_the_policy_forbids_is_refused_with_its_rule_and_done_by_another_agent() -> Result<()> {
    let stack = Stack::start(&[])?;
    let file = stack.directory().join("policy.toml");
    write(&file, "[hosts]\nallow = [\".corp.example\"]\n")?;
    let path = file.display().to_string();
    let strict = stack.agent("strict", &[("LICTOR_AGENT_POLICY_FILE", &path)])?;
    let windows = ntlm_host(&stack)?;
    let submit = |host: &str, rest: &[&str]| {
        stack.submit(&[&["--host", host, "--credential", "ntlm"], rest, &["--", "hostname"]].concat())
    };

    // Nobody is left to ask, so the answer comes at once.
    for host in ["127.0.0.1", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"] {
        let task = stack.task_in(&submit(host, &[])?, FINAL, PATIENCE)?;
        let (code, message) = refused(&task)?;
        assert_eq!(code, "policy.host", "{host}");
        assert!(message.contains("hosts.allow") && message.contains(&path), "{message}");
        assert!(
            task["candidates"][0]["reason"].as_str().is_some_and(|reason| reason.contains("hosts.allow")),
            "{task:#}"
        );
    }
    assert_eq!(windows.count("/commands/started")?, 0);

    // A name whose addresses are known only when it is connected to.
    write(&file, "hosts: {allow: [10.0.0.0/8]}\n")
        .and_then(|()| write(&file, "[hosts]\nallow = [\"10.0.0.0/8\"]\n"))?;
    hang_up(&strict)?;
    eventually("the policy is read anew", PATIENCE, || {
        ensure!(strict.process.log().contains("The policy was read anew"));
        Ok(())
    })?;
    let task = stack.task_in(&submit("localhost", &[])?, FINAL, PATIENCE)?;
    assert_eq!(refused(&task)?.0, "policy.address", "{task:#}");
    assert_eq!(windows.count("/commands/started")?, 0);

    // Another agent may.
    let other = stack.agent("other", &[])?;
    let task = stack.task_in(&submit("localhost", &[])?, FINAL, PATIENCE)?;
    assert_eq!((&task["state"], &task["agent_name"]), (&"succeeded".into(), &"other".into()), "{task:#}");
    drop(other);
    Ok(())
}

#[test]
fn a_changed_policy_counts_and_a_broken_one_does_not() -> Result<()> {
    let stack = Stack::start(&[])?;
    let file = stack.directory().join("policy.yaml");
    write(&file, "identities: {allow: ['other\\*']}\n")?;
    let path = file.display().to_string();
    let mut agent = stack.agent("agent-1", &[("LICTOR_AGENT_POLICY_FILE", &path)])?;
    let _windows = ntlm_host(&stack)?;
    let run = || {
        let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
        stack.task_in(&task_id, FINAL, PATIENCE)
    };
    assert_eq!(refused(&run()?)?.0, "policy.identity");

    write(&file, "identities:\n  allow:\ncolour: red\n")?;
    hang_up(&agent)?;
    eventually("the agent complains", PATIENCE, || {
        let log = agent.process.log();
        ensure!(log.contains("the old one stays in force") && log.contains("colour: is not a setting"), "{log}");
        Ok(())
    })?;
    assert!(agent.get("/metrics")?.1.contains("agent_policy_outdated_state 1"));
    assert_eq!(refused(&run()?)?.0, "policy.identity", "a broken policy must widen nothing");
    let checked = Output::of(
        Command::new(binary("lictor-agent")?)
            .arg("check-config")
            .env("LICTOR_AGENT_CONTROL_PLANE", "https://127.0.0.1:1")
            .env("LICTOR_AGENT_POLICY_FILE", &path),
        PATIENCE,
    )?;
    assert_eq!(checked.code, 64);
    for mistake in ["identities.allow: has no value", "colour: is not a setting"] {
        assert!(checked.stderr.contains(mistake), "{}", checked.stderr);
    }

    // Without asking, by looking at the file.
    write(&file, "identities: {allow: ['CORP\\*']}\ntasks: {kinds: [command]}\n")?;
    eventually("the new policy counts", PATIENCE, || {
        ensure!(agent.get("/metrics")?.1.contains("agent_policy_outdated_state 0"));
        Ok(())
    })?;
    assert_eq!(run()?["state"], "succeeded");
    let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--test"])?;
    assert_eq!(refused(&stack.task_in(&task_id, FINAL, PATIENCE)?)?.0, "policy.task_kind");

    // At its start an agent with a broken policy does nothing at all.
    write(&file, "colour: red\n")?;
    agent.process.kill()?;
    agent.restart()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(64));
    Ok(())
}

#[test]
fn one_host_works_on_as_many_tasks_as_the_policy_says() -> Result<()> {
    let stack = Stack::start(&[])?;
    let file = stack.directory().join("policy.toml");
    write(&file, "[tasks]\nconcurrent_per_host = 1\n")?;
    let _agent = stack.agent("agent-1", &[("LICTOR_AGENT_POLICY_FILE", &file.display().to_string())])?;
    let windows = stack.windows(
        "win-a",
        &WindowsOptions { tls: false, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() },
    )?;
    stack.credential(
        "ntlm",
        lictor_tests::PASSWORD,
        &["--auth", "negotiate", "--scheme", "http", "--port", &windows.port],
    )?;
    let submit = |host: &str, command: &[&str]| {
        stack.submit(&[&["--host", host, "--credential", "ntlm", "--"], command].concat())
    };
    let long = submit("127.0.0.1", &["sim.exe", "sleep", "600000"])?;
    eventually("the first runs", PATIENCE, || {
        ensure!(windows.count("/commands/running")? == 1);
        Ok(())
    })?;
    let waiting = submit("::ffff:127.0.0.1", &["hostname"])?;
    stack.task_in(&waiting, &["assigned"], PATIENCE)?;
    let elsewhere = submit("localhost", &["hostname"])?;
    stack.task_in(&elsewhere, &["succeeded"], PATIENCE)?;
    assert_eq!(stack.task(&waiting)?["state"], "assigned");
    let cancelled = submit("127.0.0.1", &["hostname"])?;
    stack.task_in(&cancelled, &["assigned"], PATIENCE)?;
    for (task_id, state) in [(&cancelled, "cancelled"), (&long, "cancelled")] {
        assert_eq!(stack.lictor(&["task", "cancel", task_id])?.code, 0);
        stack.task_in(task_id, &[state], PATIENCE)?;
    }
    stack.task_in(&waiting, &["succeeded"], PATIENCE)?;
    Ok(())
}
