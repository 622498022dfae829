//! A backup that is taken while everything runs, and what it means to go back to it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lictor_tests::{Output, Stack, binary, eventually};

use crate::{FINAL, PATIENCE, ntlm_host};

const WAITS: &[(&str, &str)] = &[
    ("LICTOR_CONTROL_PLANE_LEASE", "3s"),
    ("LICTOR_CONTROL_PLANE_HEARTBEAT_INTERVAL", "1s"),
    ("LICTOR_CONTROL_PLANE_LOST_WAIT", "2s"),
    ("LICTOR_CONTROL_PLANE_RESTART_GRACE", "3s"),
];

/// What docs/operations.md tells operators to do; `sqlite3` on the command line does the same.
fn back_up(database: &Path, to: &Path) -> Result<()> {
    let program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', (sys.argv[2],))";
    let output = Output::of(Command::new("python3").args(["-c", program]).args([database, to]), PATIENCE)?;
    anyhow::ensure!(output.code == 0, "{}", output.stderr);
    Ok(())
}

fn restore(from: &Path, database: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm"] {
        let mut file = database.as_os_str().to_owned();
        file.push(suffix);
        // A control plane that was stopped in order leaves neither.
        let _ = std::fs::remove_file(file);
    }
    std::fs::copy(from, database)?;
    Ok(())
}

#[test]
fn a_restored_backup_goes_on_and_is_honest_about_what_it_missed() -> Result<()> {
    let mut stack = Stack::start(WAITS)?;
    let tags = |name: &'static str| [("LICTOR_AGENT_TAGS", name)];
    let _agent = stack.agent("agent-1", &tags("agent-1"))?;
    let mut late = stack.agent("agent-2", &tags("agent-2"))?;
    late.process.kill()?;
    let windows = ntlm_host(&stack)?;
    let submit = |stack: &Stack, agent: &str, line: &str| {
        stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--tag", agent, "--", line])
    };
    let started = |mark: &str| -> Result<u64> {
        Ok(windows.statistics()?["marks"].get(mark).and_then(serde_json::Value::as_u64).unwrap_or(0))
    };
    let before = submit(&stack, "agent-1", "sim.exe lines 3 0")?;
    stack.task_in(&before, &["succeeded"], PATIENCE)?;
    let running = submit(&stack, "agent-1", "sim.exe mark running&& sim.exe lines 20 200")?;
    let lasting = submit(&stack, "agent-1", "sim.exe mark lasting&& sim.exe sleep 3000000")?;
    let waiting = submit(&stack, "agent-2", "sim.exe mark waiting")?;
    let given_up = submit(&stack, "agent-2", "sim.exe mark given-up")?;
    stack.task_in(&running, &["running"], PATIENCE)?;
    stack.task_in(&lasting, &["running"], PATIENCE)?;
    eventually("the commands run", PATIENCE, || {
        anyhow::ensure!(started("running")? == 1 && started("lasting")? == 1);
        Ok(())
    })?;

    let database = stack.control_plane.state.join("control-plane.db");
    let backup = stack.directory().join("backup.db");
    back_up(&database, &backup)?;

    // The world goes on behind the backup's back.
    late.restart()?;
    let after = submit(&stack, "agent-1", "sim.exe mark after")?;
    for task in [&running, &waiting, &given_up, &after] {
        stack.task_in(task, &["succeeded"], PATIENCE)?;
    }
    late.process.kill()?;
    stack.control_plane.kill()?;
    restore(&backup, &database)?;

    let mut command = Command::new(binary("lictor-control-plane")?);
    command.arg("settle-restored").env("LICTOR_CONTROL_PLANE_STATE_DIR", &stack.control_plane.state);
    let settled = Output::of(&mut command, PATIENCE)?;
    assert_eq!((settled.code, settled.text().trim()), (0, "4 tasks were ended as unknown."), "{}", settled.stderr);
    stack.control_plane.restart()?;
    let in_use = Output::of(&mut command, PATIENCE)?;
    assert!(in_use.code == 1 && in_use.stderr.contains("in use"), "{}", in_use.stderr);
    late.restart()?;

    assert_eq!(stack.task_in(&before, FINAL, PATIENCE)?["state"], "succeeded");
    assert_eq!(stack.lictor(&["task", "watch", &before])?.text().lines().count(), 3);
    // What they did since the backup nobody knows any more: two of them were carried out behind its back.
    for task in [&running, &lasting, &waiting, &given_up] {
        let task = stack.task_in(task, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "unknown", "{task:#}");
        assert_eq!(task["result"]["error"]["code"], "control_plane.restored", "{task:#}");
    }
    let marks = [started("running")?, started("waiting")?, started("given-up")?, started("after")?];
    assert_eq!(marks, [1, 1, 1, 1]);
    // The one that still runs is ended on its host.
    eventually("no command runs", PATIENCE, || {
        anyhow::ensure!(windows.count("/commands/running")? == 0);
        Ok(())
    })?;
    assert_eq!(started("lasting")?, 1);
    let missing = stack.lictor(&["task", "show", &after])?;
    assert_eq!(missing.code, 133, "{}", missing.stderr);
    // Agents that were enrolled before the backup work on, with new tasks.
    let next = submit(&stack, "agent-1", "sim.exe mark next")?;
    assert_eq!(stack.task_in(&next, FINAL, PATIENCE + Duration::from_secs(30))?["state"], "succeeded");
    Ok(())
}
