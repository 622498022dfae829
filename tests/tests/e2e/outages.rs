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
