//! Hosts that are left alone for a while or restart, seen by the users of an agent.

use anyhow::Result;
use lictor_tests::{Stack, eventually};
use serde_json::json;

use crate::{FINAL, PATIENCE, basic_host, ntlm_host};

#[test]
fn between_tasks_nobody_notices_what_happens_to_a_host() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    for (windows, credential) in [(ntlm_host(&stack)?, "ntlm"), (basic_host(&stack)?, "basic")] {
        for order in [
            json!({"advance": "0s"}),
            json!({"advance": "60s"}),
            json!({"advance": "120s"}),
            json!({"advance": "300s"}),
            json!({"reboot": {}}),
            json!({"reboot": {"cut": "reset"}}),
            json!({"restart-service": {}}),
        ] {
            windows.order(&order)?;
            let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", credential, "--", "hostname"])?;
            let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
            assert_eq!(task["state"], "succeeded", "{credential} after {order}: {task:#}");
        }
        let statistics = windows.statistics()?;
        assert_eq!(statistics["commands"]["started"], 7, "{statistics:#}");
        assert_eq!(statistics["commands"]["most_requests_per_id"], 1, "{statistics:#}");
        assert_eq!(statistics["violation_count"], 0, "{statistics:#}");
        assert_eq!(windows.failed_logons()?, 0, "{statistics:#}");
    }
    Ok(())
}

#[test]
fn a_task_that_a_reboot_meets_is_unknown_and_never_run_again() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let submit =
        |command: &[&str]| stack.submit(&[&["--host", "127.0.0.1", "--credential", "ntlm", "--"], command].concat());
    for cut in ["close", "reset"] {
        windows.reset()?;
        let task_id = submit(&["sim.exe", "sleep", "600000"])?;
        eventually("the command runs", PATIENCE, || {
            anyhow::ensure!(windows.count("/commands/running")? == 1, "{:#}", windows.statistics()?);
            Ok(())
        })?;
        windows.order(&json!({"reboot": {"cut": cut, "unavailable": "until-ready"}}))?;
        windows.order(&json!("ready"))?;
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "unknown", "{task:#}");
        let next = submit(&["hostname"])?;
        assert_eq!(stack.task_in(&next, FINAL, PATIENCE)?["state"], "succeeded");
        let statistics = windows.statistics()?;
        assert_eq!(statistics["commands"]["started"], 2, "{statistics:#}");
        assert_eq!(statistics["commands"]["most_requests_per_id"], 1, "{statistics:#}");
    }
    Ok(())
}

#[test]
fn a_task_that_a_quota_puts_off_runs_later_or_is_cancelled_unstarted() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let submit = |timeout: &str| {
        stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--timeout", timeout, "--", "hostname"])
    };
    let refused = |count: u64| {
        eventually("the host refuses the command", PATIENCE, || {
            anyhow::ensure!(windows.count("/faults/2150859174")? >= count, "{:#}", windows.statistics()?);
            Ok(())
        })
    };
    windows.order(&json!({"quotas": {"max_operations_per_user": 0}}))?;
    let cancelled = submit("300s")?;
    refused(1)?;
    let cancel = stack.lictor(&["task", "cancel", &cancelled])?;
    assert_eq!(cancel.code, 0, "{}", cancel.stderr);
    let task = stack.task_in(&cancelled, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "cancelled", "{task:#}");
    let late = submit("1s")?;
    let task = stack.task_in(&late, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "timed_out", "{task:#}");
    let in_time = submit("300s")?;
    refused(windows.count("/faults/2150859174")? + 1)?;
    windows.order(&json!({"quotas": {"max_operations_per_user": 1500}}))?;
    let task = stack.task_in(&in_time, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    agent.process.terminate()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0));
    assert_eq!(windows.count("/commands/started")?, 1);
    assert_eq!(windows.count("/shells/open")?, 0);
    Ok(())
}
