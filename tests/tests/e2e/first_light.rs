//! The main job: tests, commands and scripts through control plane and agent on both kinds of host.

use anyhow::{Context as _, Result};
use lictor_tests::Stack;

use crate::{FINAL, PATIENCE, basic_host, ntlm_host};

#[test]
fn connection_tests_climb_every_rung_on_both_hosts() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let hosts = [(ntlm_host(&stack)?, "ntlm", true), (basic_host(&stack)?, "basic", false)];
    for (windows, credential, sealed) in &hosts {
        let task_id = stack.submit(&["--test", "--host", "127.0.0.1", "--credential", credential])?;
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        let rungs = task["result"]["rungs"].as_array().context("rungs")?;
        let names: Vec<_> = rungs.iter().filter_map(|rung| rung["stage"].as_str()).collect();
        assert_eq!(
            names,
            ["resolve", "connect", "tls", "identify", "authenticate", "open_shell", "run", "close"],
            "{task:#}"
        );
        for rung in rungs {
            let expected = if rung["stage"] == "tls" && *sealed { "skipped" } else { "passed" };
            assert_eq!(rung["outcome"], expected, "{rung:#}");
        }
        assert_eq!(task["result"]["connection"]["sealed"], *sealed);
        assert_eq!(windows.count("/shells/open")?, 0);
        assert_eq!(windows.count("/violation_count")?, 0, "{:#}", windows.statistics()?);
    }
    Ok(())
}

#[test]
fn output_streams_while_the_command_runs() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let watch = stack.lictor_streaming(&[
        "task",
        "submit",
        "--watch",
        "--host",
        "127.0.0.1",
        "--credential",
        "ntlm",
        "--",
        "sim.exe",
        "lines",
        "6",
        "500",
    ])?;
    assert_eq!(watch.line(PATIENCE)?.trim_end(), "line 1");
    // The command needs another 2.5 s: whatever has arrived by now has arrived while it runs.
    assert_eq!(windows.count("/commands/running")?, 1, "{:#}", windows.statistics()?);
    let (rest, code) = watch.finish(PATIENCE)?;
    assert_eq!(code, 0);
    assert_eq!(
        rest.iter().map(|line| line.trim_end()).collect::<Vec<_>>(),
        ["line 2", "line 3", "line 4", "line 5", "line 6"]
    );
    Ok(())
}

#[test]
fn exit_codes_and_both_streams_arrive() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let _ntlm = ntlm_host(&stack)?;
    let _basic = basic_host(&stack)?;
    let script = stack.directory().join("script.ps1");
    std::fs::write(&script, "Write-Output \"grüße $($args[0])\"\n[Console]::Error.WriteLine('oops')\nexit 37\n")?;
    let script = script.to_str().context("UTF-8")?;
    for credential in ["ntlm", "basic"] {
        let base = ["task", "submit", "--watch", "--host", "127.0.0.1", "--credential", credential];
        let output = stack.lictor(&[&base[..], &["--script", script, "--", "two words"]].concat())?;
        assert_eq!(output.code, 37, "{}", output.stderr);
        assert_eq!(output.text().trim_end(), "grüße two words");
        assert!(output.stderr.contains("oops"), "{}", output.stderr);
        let output = stack.lictor(&[&base[..], &["--", "exit", "/b", "5"]].concat())?;
        assert_eq!(output.code, 5, "{}", output.stderr);
    }
    let list = stack.lictor_json(&["task", "list"])?;
    let tasks = list["tasks"].as_array().context("tasks")?;
    assert_eq!(tasks.len(), 4);
    assert!(tasks.iter().all(|task| task["state"] == "failed" && task["result"]["error"].is_null()), "{list:#}");
    Ok(())
}

#[test]
fn a_wrong_password_is_tried_once_and_an_unreachable_host_is_named() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let wrong = ["--auth", "negotiate", "--scheme", "http", "--port", &windows.port];
    stack.credential("wrong", "not the password", &wrong)?;
    windows.reset()?;
    let tasks: Vec<String> = (0..10)
        .map(|_| stack.submit(&["--host", "127.0.0.1", "--credential", "wrong", "--", "hostname"]))
        .collect::<Result<_>>()?;
    for task_id in tasks {
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_ne!(task["state"], "succeeded", "{task:#}");
        let failure = &task["result"]["error"];
        assert!(failure["code"].as_str().is_some_and(|code| code.contains("rejected")), "{task:#}");
        assert!(failure["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{task:#}");
    }
    assert_eq!(windows.failed_logons()?, 1, "{:#}", windows.statistics()?);

    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let task_id = stack.submit(&["--host", "127.0.0.1", "--port", &port, "--credential", "ntlm", "--", "hostname"])?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "failed");
    assert_eq!(task["result"]["error"]["stage"], "connect", "{task:#}");
    Ok(())
}

#[test]
fn a_running_command_is_cancelled_on_its_host() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let task_id =
        stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "lines", "1000", "100"])?;
    stack.task_in(&task_id, &["running"], PATIENCE)?;
    lictor_tests::eventually("the command runs", PATIENCE, || {
        anyhow::ensure!(windows.count("/commands/running")? == 1);
        Ok(())
    })?;
    let cancel = stack.lictor(&["task", "cancel", &task_id])?;
    assert_eq!(cancel.code, 0, "{}", cancel.stderr);
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "cancelled", "{task:#}");
    assert_eq!(task["result"]["error"]["code"], "agent.cancelled", "{task:#}");
    assert_eq!(windows.count("/commands/running")?, 0);

    let slow = ["--host", "127.0.0.1", "--credential", "ntlm", "--timeout", "2s", "--", "sim.exe", "sleep", "60000"];
    let task_id = stack.submit(&slow)?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "timed_out", "{task:#}");
    assert_eq!(task["result"]["error"]["code"], "agent.timeout", "{task:#}");
    lictor_tests::eventually("no process and no shell of it is left", PATIENCE, || {
        anyhow::ensure!(windows.count("/commands/running")? == 0);
        anyhow::ensure!(windows.count("/shells/open")? == 0);
        Ok(())
    })
}
