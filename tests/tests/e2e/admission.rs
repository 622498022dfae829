//! An agent that is short of memory asks for no more work, and goes on with what it has.

use anyhow::{Result, ensure};
use lictor_tests::{Stack, eventually};

use crate::{PATIENCE, ntlm_host};

#[test]
fn an_agent_short_of_memory_finishes_what_it_has_and_takes_nothing_new() -> Result<()> {
    for transport in ["stream", "poll"] {
        let stack = Stack::start(&[])?;
        let group = stack.directory().join("cgroup");
        std::fs::create_dir(&group)?;
        let in_use = |bytes: &str| std::fs::write(group.join("memory.current"), bytes);
        std::fs::write(group.join("cgroup.controllers"), "memory\n")?;
        std::fs::write(group.join("memory.max"), "1000\n")?;
        in_use("100\n")?;
        let settings = [
            ("LICTOR_AGENT_TRANSPORT", transport),
            ("LICTOR_AGENT_ADMISSION__CGROUP_ROOT", &group.display().to_string()),
            ("LICTOR_AGENT_ADMISSION__MEMORY_PERCENT", "90"),
            ("LICTOR_AGENT_SLOTS", "1"),
        ];
        let agent = stack.agent("agent-1", &settings)?;
        let windows = ntlm_host(&stack)?;
        let metric = |line: &str| {
            eventually(line, PATIENCE, || {
                let text = agent.get("/metrics")?.1;
                ensure!(text.lines().any(|found| found == line), "{text}");
                Ok(())
            })
        };
        let submit = |command: &[&str]| {
            stack.submit(&[&["--host", "127.0.0.1", "--credential", "ntlm", "--"], command].concat())
        };
        metric("agent_slots_free 1")?;
        let long = submit(&["sim.exe", "sleep", "600000"])?;
        eventually("it runs", PATIENCE, || {
            ensure!(windows.count("/commands/running")? == 1);
            Ok(())
        })?;
        in_use("950\n")?;
        metric("agent_admission_closed{reason=\"memory\"} 1")?;
        metric("agent_slots_free 0")?;
        assert_eq!(agent.get("/ready")?.0, 200, "short of memory it is as ready as ever");
        // Its slot becomes free, and stays so.
        assert_eq!(stack.lictor(&["task", "cancel", &long])?.code, 0);
        stack.task_in(&long, &["cancelled"], PATIENCE)?;
        let waiting = submit(&["hostname"])?;
        metric("agent_slots_used_tasks 0")?;
        let task = stack.task(&waiting)?;
        assert_eq!(task["state"], "queued", "{task:#}");
        in_use("800\n")?;
        stack.task_in(&waiting, &["succeeded"], PATIENCE)?;
        metric("agent_admission_closed{reason=\"memory\"} 0")?;
        metric("agent_slots_free 1")?;
    }
    Ok(())
}
