//! Restarts of either side lose nothing and run nothing twice.

use anyhow::Result;
use lictor_tests::{Stack, Windows, eventually};

use crate::{FINAL, PATIENCE, ntlm_host};

fn started(windows: &Windows) -> Result<()> {
    eventually("the command runs on its host", PATIENCE, || {
        anyhow::ensure!(windows.count("/commands/running")? >= 1);
        Ok(())
    })
}

#[test]
fn killing_the_control_plane_in_mid_command_loses_no_output_and_no_result() -> Result<()> {
    let mut stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let task_id =
        stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "lines", "60", "100"])?;
    let watch = stack.lictor_streaming(&["task", "watch", &task_id])?;
    let mut lines = vec![watch.line(PATIENCE)?];
    started(&windows)?;
    stack.control_plane.kill()?;
    // The command goes on meanwhile; its output must wait in the agent.
    let received = windows.count("/operations/Receive")?;
    eventually("the agent receives more output", PATIENCE, || {
        anyhow::ensure!(windows.count("/operations/Receive")? >= received + 10);
        Ok(())
    })?;
    stack.control_plane.restart()?;
    let (rest, code) = watch.finish(PATIENCE * 2)?;
    assert_eq!(code, 0);
    lines.extend(rest);
    let expected: Vec<String> = (1..=60).map(|n| format!("line {n}")).collect();
    assert_eq!(lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>(), expected);
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    assert_eq!(windows.count("/operations/Command")?, 1);
    Ok(())
}

#[test]
fn a_result_made_while_the_control_plane_is_down_survives_kill_9_of_the_agent() -> Result<()> {
    let mut stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let task_id =
        stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "lines", "20", "100"])?;
    started(&windows)?;
    stack.control_plane.kill()?;
    eventually("the command is over", PATIENCE, || {
        anyhow::ensure!(windows.count("/commands/running")? == 0);
        anyhow::ensure!(windows.count("/operations/Signal")? == 1);
        Ok(())
    })?;
    // The end is journalled before the host is told, so it is safe by now.
    agent.process.kill()?;
    stack.control_plane.restart()?;
    agent.restart()?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    let output = stack.lictor(&["task", "watch", &task_id])?;
    let lines: Vec<String> = output.text().lines().map(|line| line.trim_end().to_owned()).collect();
    assert_eq!(lines, (1..=20).map(|n| format!("line {n}")).collect::<Vec<_>>());
    assert_eq!(windows.count("/operations/Command")?, 1);
    Ok(())
}

/// Nothing of an earlier test, or of a killed agent, is left on the host.
fn nothing_left(windows: &Windows) -> Result<()> {
    eventually("command and shell of the killed agent are gone", PATIENCE, || {
        anyhow::ensure!(windows.count("/shells/open")? == 0, "{:#}", windows.statistics()?);
        anyhow::ensure!(windows.count("/commands/running")? == 0, "{:#}", windows.statistics()?);
        Ok(())
    })
}

#[test]
fn after_kill_9_of_the_agent_a_running_command_is_followed_to_its_real_end() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[("LICTOR_AGENT_POOL__SHELL_IDLE", "1s")])?;
    let windows = ntlm_host(&stack)?;
    let script = stack.directory().join("script.cmd").display().to_string();
    std::fs::write(&script, "@sim.exe lines 40 100\r\n@set RESULT=done\r\n@cmd /c exit 7\r\n")?;
    let as_script = ["--script", &script, "--language", "cmd", "--output-variable", "RESULT"];
    let ours: [&[&str]; 2] = [&["--", "sim.exe", "lines", "40", "100"], &as_script];
    for (what, (state, code)) in ours.into_iter().zip([("succeeded", 0), ("failed", 7)]) {
        windows.reset()?;
        let task_id = stack.submit(&[&["--host", "127.0.0.1", "--credential", "ntlm"], what].concat())?;
        started(&windows)?;
        eventually("output arrives", PATIENCE, || {
            anyhow::ensure!(stack.task(&task_id)?["output_bytes"].as_u64().unwrap_or_default() > 0);
            Ok(())
        })?;
        agent.process.kill()?;
        agent.restart()?;
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], state, "{task:#}");
        assert_eq!(task["result"]["exit_code"], code, "{task:#}");
        assert_eq!(task["result"]["output_gap"], true, "{task:#}");
        assert_eq!(windows.count("/operations/Command")?, 1, "{:#}", windows.statistics()?);
        let output = stack.lictor(&["task", "watch", &task_id])?;
        let lines: Vec<String> = output.text().lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines.last().map(String::as_str), Some("line 40"), "{lines:?}");
        let mut numbers = lines.iter().filter_map(|line| line.strip_prefix("line ")?.parse::<u32>().ok());
        let first = numbers.next();
        assert_eq!(first, Some(1));
        // Whatever died with the process is missing, nothing is there twice or in another order.
        assert!(numbers.is_sorted(), "{lines:?}");
        nothing_left(&windows)?;
    }
    Ok(())
}

#[test]
fn after_kill_9_of_the_agent_a_task_is_unknown_when_its_host_or_its_agent_does_not_come_back() -> Result<()> {
    let environment = [
        ("LICTOR_CONTROL_PLANE_LEASE", "3s"),
        ("LICTOR_CONTROL_PLANE_HEARTBEAT_INTERVAL", "1s"),
        ("LICTOR_CONTROL_PLANE_LOST_WAIT", "2s"),
    ];
    let stack = Stack::start(&environment)?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let submit = || {
        let task_id =
            stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "sleep", "600000"])?;
        stack.task_in(&task_id, &["running"], PATIENCE)?;
        started(&windows)?;
        anyhow::Ok(task_id)
    };

    // The machine restarted meanwhile: shell and command are gone.
    let task_id = submit()?;
    agent.process.kill()?;
    windows.order(&serde_json::json!({ "reboot": {} }))?;
    agent.restart()?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "unknown", "{task:#}");
    let message = task["result"]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("could not follow it again"), "{task:#}");
    agent.wait_connected()?;

    // The agent comes back after its lease and the wait: too late for the task, but not for the host.
    windows.reset()?;
    let task_id = submit()?;
    agent.process.kill()?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "unknown", "{task:#}");
    assert_eq!(windows.count("/commands/running")?, 1, "{:#}", windows.statistics()?);
    agent.restart()?;
    nothing_left(&windows)?;
    assert_eq!(windows.count("/operations/Command")?, 1, "{:#}", windows.statistics()?);
    assert_eq!(stack.task(&task_id)?["state"], "unknown");
    Ok(())
}

#[test]
fn after_kill_9_while_input_is_sent_the_command_is_ended_and_its_task_unknown() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let input = stack.directory().join("input").display().to_string();
    std::fs::write(&input, vec![b'x'; 4 * 1024 * 1024])?;
    // It reads nothing, so that the host does not take all of its input.
    let task_id = stack.submit(&[
        "--host",
        "127.0.0.1",
        "--credential",
        "ntlm",
        "--stdin",
        &input,
        "--",
        "sim.exe",
        "sleep",
        "600000",
    ])?;
    started(&windows)?;
    eventually("input is sent", PATIENCE, || {
        anyhow::ensure!(windows.count("/operations/Send")? >= 1);
        Ok(())
    })?;
    agent.process.kill()?;
    agent.restart()?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "unknown", "{task:#}");
    assert_eq!(task["result"]["error"]["code"], "agent.input_cut", "{task:#}");
    nothing_left(&windows)?;
    assert_eq!(windows.count("/operations/Command")?, 1, "{:#}", windows.statistics()?);
    Ok(())
}

#[test]
fn a_task_that_is_followed_again_can_be_cancelled_and_drained() -> Result<()> {
    let mut stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[("LICTOR_AGENT_DRAIN_GRACE", "1s")])?;
    let windows = ntlm_host(&stack)?;
    for drained in [false, true] {
        windows.reset()?;
        let task_id =
            stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "sleep", "600000"])?;
        started(&windows)?;
        agent.process.kill()?;
        if drained {
            agent.restart()?;
            agent.wait_connected()?;
            agent.process.terminate()?;
            assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0));
        } else {
            // Cancelled while nobody follows it, and while the control plane restarts as well.
            stack.lictor(&["task", "cancel", &task_id])?;
            stack.control_plane.kill()?;
            stack.control_plane.restart()?;
            agent.restart()?;
            agent.wait_connected()?;
        }
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "cancelled", "{task:#}");
        nothing_left(&windows)?;
        assert_eq!(windows.count("/operations/Command")?, 1, "{:#}", windows.statistics()?);
    }
    Ok(())
}

#[test]
fn shells_of_a_killed_agent_are_deleted_when_it_uses_the_host_again() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let run =
        |command: &[&str]| stack.submit(&[&["--host", "127.0.0.1", "--credential", "ntlm", "--"], command].concat());
    // Its shell is kept for the next command.
    assert_eq!(stack.task_in(&run(&["hostname"])?, FINAL, PATIENCE)?["state"], "succeeded");
    let idle = windows.count("/shells/open")?;
    assert_eq!(idle, 1, "{:#}", windows.statistics()?);
    agent.process.kill()?;
    agent.restart()?;
    agent.wait_connected()?;
    let next = run(&["hostname"])?;
    assert_eq!(stack.task_in(&next, FINAL, PATIENCE)?["state"], "succeeded");
    eventually("the shell of the killed agent is gone", PATIENCE, || {
        anyhow::ensure!(windows.count("/shells/open")? == 1, "{:#}", windows.statistics()?);
        Ok(())
    })?;
    let (_, metrics) = agent.get("/metrics")?;
    assert!(metrics.contains("agent_pool_orphans_deleted_total 1"), "{metrics}");
    Ok(())
}

#[test]
fn sigterm_in_mid_command_lets_it_finish_within_the_grace() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let task_id =
        stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "lines", "10", "200"])?;
    started(&windows)?;
    agent.process.terminate()?;
    let (status, _) = agent.get("/live")?;
    assert_eq!(status, 200);
    eventually("the agent is not ready", PATIENCE, || {
        anyhow::ensure!(agent.get("/ready")?.0 == 503);
        Ok(())
    })?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0));
    let task = stack.task(&task_id)?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    assert_eq!(windows.count("/shells/open")?, 0);
    Ok(())
}

#[test]
fn sigterm_with_a_short_grace_stops_the_command_on_its_host() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[("LICTOR_AGENT_DRAIN_GRACE", "1s")])?;
    let windows = ntlm_host(&stack)?;
    let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "sleep", "600000"])?;
    started(&windows)?;
    agent.process.terminate()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0));
    let task = stack.task(&task_id)?;
    assert_eq!(task["state"], "cancelled", "{task:#}");
    assert_eq!(task["result"]["error"]["code"], "agent.drained", "{task:#}");
    assert_eq!(windows.count("/commands/running")?, 0);
    assert_eq!(windows.count("/shells/open")?, 0);
    Ok(())
}
