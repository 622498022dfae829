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

#[test]
fn after_kill_9_of_the_agent_a_started_task_is_unknown_with_and_without_its_return() -> Result<()> {
    let environment = [
        ("LICTOR_CONTROL_PLANE_LEASE", "3s"),
        ("LICTOR_CONTROL_PLANE_HEARTBEAT_INTERVAL", "1s"),
        ("LICTOR_CONTROL_PLANE_LOST_WAIT", "2s"),
    ];
    let stack = Stack::start(&environment)?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    for comes_back in [true, false] {
        windows.reset()?;
        let task_id =
            stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "sleep", "600000"])?;
        stack.task_in(&task_id, &["running"], PATIENCE)?;
        eventually("the command was started", PATIENCE, || {
            anyhow::ensure!(windows.count("/operations/Command")? == 1);
            Ok(())
        })?;
        agent.process.kill()?;
        if comes_back {
            agent.restart()?;
            agent.wait_connected()?;
        }
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "unknown", "{task:#}");
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
    let left_behind = run(&["sim.exe", "sleep", "600000"])?;
    started(&windows)?;
    agent.process.kill()?;
    agent.restart()?;
    agent.wait_connected()?;
    let next = run(&["hostname"])?;
    assert_eq!(stack.task_in(&next, FINAL, PATIENCE)?["state"], "succeeded");
    eventually("the shell of the killed agent is gone, and its command with it", PATIENCE, || {
        anyhow::ensure!(windows.count("/shells/open")? == 1, "{:#}", windows.statistics()?);
        anyhow::ensure!(windows.count("/commands/running")? == 0, "{:#}", windows.statistics()?);
        Ok(())
    })?;
    let (_, metrics) = agent.get("/metrics")?;
    assert!(metrics.contains("agent_pool_orphans_deleted_total 1"), "{metrics}");
    assert_eq!(stack.task_in(&left_behind, FINAL, PATIENCE)?["state"], "unknown");
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
    assert_eq!(windows.count("/commands/running")?, 0);
    assert_eq!(windows.count("/shells/open")?, 0);
    Ok(())
}
